"""Repositories in the shape of the field's, evaluated by one command each without a change."""

from __future__ import annotations

import argparse
import csv

import pytest
import torch

from exitbench.models.factory import find_factory
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store

MULTI_SCALE = '''
"""Blocks of two scales with a classifier behind each, made from the options that main.py parsed."""
import math

import torch
import torch.nn as nn

from models.layers import ConvBN


class Block(nn.Module):
    def __init__(self, args, fine, coarse):
        super().__init__()
        self.fine = ConvBN(fine, args.growthRate)
        self.down = ConvBN(fine, args.growthRate, stride=2)
        self.coarse = ConvBN(coarse, args.growthRate) if coarse else None

    def forward(self, x):
        fine = torch.cat([x[0], self.fine(x[0])], 1)
        coarse = [self.down(x[0])] + ([x[1], self.coarse(x[1])] if self.coarse is not None else [])
        return [fine, torch.cat(coarse, 1)]


class MultiScale(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.args = args
        if isinstance(args.grFactor, str):
            args.grFactor = list(map(int, args.grFactor.split("-")))
        args.nScales = len(args.grFactor)
        if args.data.startswith("digits"):
            self.classes = 10
        self.blocks, self.classifier = nn.ModuleList(), nn.ModuleList()
        fine, coarse = 1, 0
        for i in range(args.nBlocks):
            print(" ********************** Block {} ".format(i + 1))
            self.blocks.append(Block(args, fine, coarse))
            fine += args.growthRate
            coarse += args.growthRate if not coarse else 2 * args.growthRate
            self.classifier.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(coarse, self.classes)))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                m.weight.data.normal_(0, math.sqrt(2.0 / (m.kernel_size[0] * m.kernel_size[1] * m.out_channels)))

    def forward(self, x):
        res = []
        x = [x]
        for block, classifier in zip(self.blocks, self.classifier):
            x = block(x)
            res.append(classifier(x[-1]))
        return res
'''

LAYERS = """
import torch.nn as nn


class ConvBN(nn.Sequential):
    def __init__(self, n_in, n_out, stride=1):
        super().__init__(nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(True))
"""

MAIN = """
import argparse
import models

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
args = parser.parse_args()
"""

SHALLOW_DEEP = '''
"""A network that takes a dictionary of parameters, with internal classifiers and a method that leaves early."""
import torch
import torch.nn as nn

import aux_funcs as af


class FcBlock(nn.Module):
    def __init__(self, fc_params, flatten):
        super(FcBlock, self).__init__()
        self.layers = nn.Sequential(*([af.Flatten()] if flatten else []), nn.Linear(fc_params[0], fc_params[1]), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


class FC_SDN(nn.Module):
    def __init__(self, params):
        super(FC_SDN, self).__init__()
        self.num_classes = int(params["num_classes"])
        self.add_output = params["add_ic"]
        self.num_output = sum(self.add_output) + 1
        self.layers, self.ics = nn.ModuleList(), nn.ModuleList()
        width = params["input_size"] ** 2
        for i, units in enumerate(params["units"]):
            self.layers.append(FcBlock([width, units], i == 0))
            if self.add_output[i]:
                self.ics.append(nn.Linear(units, self.num_classes))
            width = units
        self.end_layers = nn.Linear(width, self.num_classes)
        self.confidence_threshold = 0.5

    def forward(self, x):
        outputs, ics = [], iter(self.ics)
        for layer, has_output in zip(self.layers, self.add_output):
            x = layer(x)
            if has_output:
                outputs.append(next(ics)(x))
        outputs.append(self.end_layers(x))
        return outputs

    def early_exit(self, x):
        raise NotImplementedError
'''

AUX = """
import torch.nn as nn


class Flatten(nn.Module):
    def forward(self, x):
        return x.view(x.size(0), -1)
"""

OPTIONS = "Namespace(data='digits', nBlocks=3, growthRate=4, grFactor='1-2')"
RUN = ["--dataset", "digits", "--n", "6", "--steps", "2", "--budget", "10", "--policy", "confidence@equal", "--attack", "average"]


@pytest.fixture
def repository(bench, tmp_path):
    """A repository with a package, a script, and architectures in folders without ``__init__.py``."""
    files = {
        "models/__init__.py": "from .multiscale import MultiScale\n",
        "models/multiscale.py": MULTI_SCALE,
        "models/layers.py": LAYERS,
        "main.py": MAIN,
        "architectures/SDNs/FC_SDN.py": SHALLOW_DEEP,
        "aux_funcs.py": AUX,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return bench


def checkpoint(reference, path, **more):
    """Save what such a main.py does, of a network that was trained in parallel."""
    torch.manual_seed(5)
    net = find_factory(reference).build()
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    kept = {"epoch": 3, "best_prec1": torch.tensor(51.2), "args": argparse.Namespace(lr=0.1), "optimizer": optimiser.state_dict()}
    torch.save({**kept, "state_dict": state, **more}, path)
    return net


def test_one_command_evaluates_a_net_that_takes_a_scripts_options(repository, tmp_path):
    model = f"models/multiscale.py:MultiScale({OPTIONS})"
    net = checkpoint(model, tmp_path / "checkpoint.pth.tar", arch="msdnet")
    code, out, err = repository("run", "--model", model, "--weights", "checkpoint.pth.tar", *RUN)
    assert code == 0 and "worst case" in out, err
    (evaluation,) = evaluations(Store(tmp_path / "results" / "store"))
    record = evaluation.record
    assert record.n_exits == 3 and record.training == "checkpoint.pth"
    assert record.model == "multiscale.MultiScale-Namespace-data-digits-nBlocks-3-growthRate-4-grFactor-1-2"
    assert record.source.startswith(f"multiscale.py:MultiScale({OPTIONS}), source SHA-256 ")
    assert record.requested.model == model
    macs = sum(layer.numel() for layer in net.classifier.parameters())
    assert record.mmacs[0] < record.mmacs[1] < record.mmacs[2] and record.mmacs[2] > macs / 1e6

    code, out, err = repository("verify", "results", "--model", model, "--weights", "checkpoint.pth.tar")
    assert code == 0 and "0 mismatches" in out, err
    code, out, err = repository("sweep", "--model", model, "--weights", "checkpoint.pth.tar", "--points", 2)
    assert code == 0, err
    other = model.replace("grFactor='1-2'", "grFactor=[1, 2]  ")
    code, _, err = repository("run", "--model", other, "--weights", "checkpoint.pth.tar", *RUN)
    assert code == 0 and "0 done before" in err, "arguments are part of what a network is, whether or not they change it"
    code, _, err = repository("run", "--model", model.replace(", ", ","), "--weights", "checkpoint.pth.tar", *RUN)
    assert code == 0 and "nothing left to do" in err, "their spelling is not"


def test_one_command_evaluates_a_net_that_takes_a_dictionary(repository, tmp_path):
    model = "architectures.SDNs.FC_SDN:FC_SDN({'num_classes': 10, 'input_size': 8, 'units': [32, 16], 'add_ic': [1, 0]})"
    checkpoint(model, tmp_path / "last.tar")
    code, out, err = repository("run", "--model", model, "--weights", "last.tar", *RUN)
    assert code == 0 and "worst case" in out, err
    (row, *_) = csv.DictReader(next((tmp_path / "results" / "leaderboards").glob("*.csv")).open(newline=""))
    assert row["model"].startswith("architectures.SDNs.FC_SDN.FC_SDN-num_classes-10-input_size-8")
    by_file = model.replace("architectures.SDNs.FC_SDN:", "architectures/SDNs/FC_SDN.py:")
    code, _, err = repository("run", "--model", by_file, "--weights", "last.tar", *RUN)
    assert code == 2 and "say architectures.SDNs.FC_SDN:FACTORY" in err


def test_the_page_gives_the_command_with_its_arguments(repository, tmp_path):
    from exitbench.report.page.command import commands

    model = f"models/multiscale.py:MultiScale({OPTIONS})"
    code, _, err = repository("run", "--model", model, *RUN, "--mean", "0.5", "--std", "0.25")
    assert code == 0, err
    (evaluation,) = evaluations(Store(tmp_path / "results" / "store"))
    (command,) = commands(evaluation)
    assert "--model 'models/multiscale.py:MultiScale(Namespace(data='\"'\"'digits'\"'\"'," in command
    assert "--mean 0.5 --std 0.25 " in command
