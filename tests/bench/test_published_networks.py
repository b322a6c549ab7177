"""Published networks on the command line: a tiny entry of RobustBench's through every command that names a model."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from exitbench.models.zoo import package as adapter
from tests.models.zoo.tiny_zoo import TINY, checkpoint_path, put_into_zoo, weights

REFERENCE = f"robustbench:{TINY}"
NAME = f"robustbench.{TINY}"
RUN = ["run", "--model", REFERENCE, "--dataset", "digits", "--n", "6", "--steps", "2"]


@pytest.fixture
def bench(bench, tmp_path, monkeypatch):
    """The command line, with a weights folder of its own."""
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path / "weights"))
    return bench


def rows(tmp_path):
    (path,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    return list(csv.DictReader(path.open(newline="")))


def test_it_is_run_verified_compared_swept_exported_and_gated(bench, tmp_path, monkeypatch):
    asked = put_into_zoo(monkeypatch)
    code, out, err = bench(*RUN, "--attack", "single")
    assert code == 0 and "Downloading" in err and "Downloading" not in out
    assert {(row["model"], row["training"], row["attack"]) for row in rows(tmp_path)} == {
        (NAME, "published", attack) for attack in ("none", "single:1", "worst")
    }
    code, _, err = bench(*RUN, "--attack", "single")
    assert code == 0 and "nothing left to do" in err and asked == ["tiny-id"]

    for model in ([], ["--model", REFERENCE]):
        code, out, err = bench("verify", "results", *model)
        assert code == 0 and "0 mismatches" in out, err
    code, _, err = bench("sweep", "--model", REFERENCE)
    assert code == 2 and f"{NAME}: one exit, no threshold to sweep" in err

    gate = ["check", "--model", REFERENCE, "--results", "gate"]
    update = ["--dataset", "digits", "--attack", "single", "--n", "6", "--steps", "2", "--update"]
    code, _, err = bench(*gate, *update)
    assert code == 0, err
    assert (tmp_path / "baselines" / f"{NAME}-published-digits-Linf-0.23.json").is_file()
    code, _, err = bench(*gate)
    assert code == 0, err

    torch.save({name.removeprefix("module."): 2 * tensor for name, tensor in weights().items()}, "other.pt")
    code, _, err = bench(*RUN, "--attack", "single", "--weights", "other.pt")
    assert code == 0, err
    assert {row["training"] for row in rows(tmp_path)} == {"published", "other"}
    code, out, err = bench("compare", f"{NAME}:published", f"{NAME}:other")
    assert code == 0, err
    code, _, err = bench("compare", REFERENCE, REFERENCE)
    assert "no evaluation of" not in err or NAME in err

    code, out, err = bench(
        "export", "--format", "robustbench", "--model", REFERENCE, "--training", "published", "--output", "e.json"
    )
    assert code == 0, err
    assert json.loads((tmp_path / "e.json").read_text())["exitbench"]["model"] == NAME
    code, _, err = bench("export", "--format", "robustbench", "--model", REFERENCE, "--output", "f.json")
    assert code == 2 and "these are 2" in err and "--training" in err


def test_its_cost_needs_neither_weights_nor_a_dataset(bench, monkeypatch):
    asked = put_into_zoo(monkeypatch)
    code, out, _ = bench("cost", REFERENCE)
    assert code == 0 and "all exits: 0.00048 mmacs counted" in out and not asked


def test_a_changed_checkpoint_and_other_bad_inputs(bench, tmp_path, monkeypatch):
    put_into_zoo(monkeypatch)
    assert bench(*RUN, "--attack", "single")[0] == 0
    path = checkpoint_path(tmp_path / "weights")
    path.write_bytes(path.read_bytes() + b" ")
    code, _, err = bench(*RUN, "--attack", "single")
    assert code == 2 and "is not the file that was loaded before" in err
    code, _, err = bench(*RUN, "--attack", "single", "--training", "average")
    assert code == 2 and "are called published" in err
    code, _, err = bench("run", "--model", "robustbench:Tiny2024Tst", "--attack", "single")
    assert code == 2 and f"did you mean {TINY!r}" in err
    code, _, err = bench("verify", "results", "--model", "robustbench:Tiny2024Tst")
    assert code == 2 and f"did you mean {TINY!r}" in err


def test_another_norm_than_it_was_trained_for_is_noted(bench, monkeypatch):
    put_into_zoo(monkeypatch)
    code, _, err = bench(*RUN, "--attack", "single", "--norm", "L2", "--dry-run")
    assert code == 0 and f"{NAME} was trained for Linf and is attacked in L2 (see --norm)" in err


def test_without_robustbench_the_rest_works(bench, monkeypatch):
    find_spec = adapter.importlib.util.find_spec
    monkeypatch.setattr(
        adapter.importlib.util, "find_spec", lambda name, *a: None if name == "robustbench" else find_spec(name, *a)
    )
    code, _, err = bench("run", "--model", "robustbench:Wong2020Fast", "--attack", "single")
    assert code == 2 and "pip install robustbench" in err
    code, out, _ = bench("list", "models")
    assert code == 0 and "pyautoattack:resnet18" in out
    code, out, _ = bench("cost", "pyautoattack:resnet18")
    assert code == 0 and "555.42 mmacs counted" in out
