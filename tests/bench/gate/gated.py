"""A small net with weights good and worse, the commands of its gate, and the command line in this process."""

from __future__ import annotations

import copy
import sys

import pytest
import torch

from exitbench.cli.main import main
from exitbench.models import registry
from tests.bench.trained import SHAPE, trained

N = 64
UPDATE = ["check", "--model", "tiny_digits", "--dataset", "digits", "--update", "--attack", "average,single:3", "--n", N]
UPDATE += ["--eps", "0.15", "--precision", "fp32"]
CHECK = ["check", "--model", "tiny_digits", "--precision", "fp32"]
BASELINE = "baselines/tiny_digits-good-digits-Linf-0.15.json"
WORSE = ["--weights", "w/tiny_digits-digits-worse.safetensors"]


def damaged():
    """The trained net without the largest tenth of the weights of its last exit's layer."""
    net = copy.deepcopy(trained()[0])
    weight = net.heads[2][2].weight
    with torch.no_grad():
        weight.view(-1)[weight.abs().flatten().topk(weight.numel() // 10).indices] = 0
    return net


def model_card(name):
    return registry.ModelCard(name, "small", "digits", SHAPE, "-", "MIT", lambda: copy.deepcopy(trained()[0]))


def run(*arguments):
    """The command line's exit code, in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        main()
    return left.value.code


def prepare(patch, folder):
    """Work in ``folder``, where `tiny_digits` and `tiny_2` are models with weights."""
    for name in ("tiny_digits", "tiny_2"):
        patch.setitem(registry._cards, name, model_card(name))
    patch.setenv("EXITBENCH_WEIGHTS", str(folder / "w"))
    patch.setenv("COLUMNS", "100")
    patch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    patch.chdir(folder)
