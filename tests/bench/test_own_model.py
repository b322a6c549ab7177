"""Networks of the user's own from the command line: evaluated, verified, kept apart, and every bad input."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from exitbench.models.registry import model_card
from exitbench.models.weights import find_weights, load_weights
from exitbench.runner.prepare import Request, prepare
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from tests.bench.evaluated import evaluate

TINY = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.exit_1 = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, classes))
        self.trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.exit_2 = nn.Sequential(nn.Flatten(), nn.Linear(144, classes))

    def forward(self, x):
        return [self.exit_1(x), self.exit_2(self.trunk(x))]

def make():
    return Tiny()

def eleven():
    return Tiny(11)

def one_exit():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def dictionary():
    net = Tiny()
    net.forward = lambda x: {"features": x, "logits": x.mean()}
    return net

def probabilities():
    net = Tiny()
    net.forward = lambda x: [each.softmax(-1) for each in Tiny.forward(net, x)]
    return net

def colour():
    net = Tiny()
    net.input_shape = (3, 8)
    return net
"""

OURS = """
from torch import nn
from exitbench.models.registry import model_card

class Wrapped(nn.Module):
    input_shape = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.net = model_card("rdi_smallcnn").build()

    def forward(self, x):
        return list(self.net(x))

def wrapped():
    return Wrapped()

def plain():
    net = model_card("rdi_smallcnn").build()
    net.input_shape = (1, 28, 28)
    return net
"""

RUN = ["--dataset", "digits", "--n", "6", "--steps", "3", "--policy"]


@pytest.fixture
def bench(bench, tmp_path):
    """The command line in a folder with two files of somebody's own."""
    (tmp_path / "tiny.py").write_text(TINY)
    (tmp_path / "ours.py").write_text(OURS)
    return bench


def rows(folder):
    (path,) = (folder / "results" / "leaderboards").glob("*.csv")
    return list(csv.DictReader(path.open(newline="")))


def test_our_net_without_its_interface_gets_the_same_verdicts(tmp_path):
    """The registered net, cut into stages; a foreign one of the same weights; and ours, made by a factory."""
    (tmp_path / "ours.py").write_text(OURS)
    _, shipped = find_weights("rdi_smallcnn", "digits")
    net = model_card("rdi_smallcnn").build()
    load_weights(net, shipped)
    prefixed = tmp_path / "wrapped.safetensors"
    save_file({f"net.{name}": tensor for name, tensor in net.state_dict().items()}, prefixed)
    asked = {"data": tmp_path, "dataset": "digits", "n": 4, "steps": 2, "budget": 12, "policy": "entropy:0.5,0.7"}
    ours = f"{tmp_path}/ours.py"
    for model, weights in (("rdi_smallcnn", shipped), (f"{ours}:wrapped", prefixed), (f"{ours}:plain", shipped)):
        request = Request.of({"model": model, "weights": weights, **asked})
        outcomes, store = evaluate(tmp_path / "s", ["average", "adaptive"], prepare(request))
        assert [outcome.error for outcome in outcomes] == [None] * 3
    found = {evaluation.record.model: evaluation for evaluation in evaluations(store)}
    ours = found.pop("rdi_smallcnn")
    assert set(found) == {"ours.wrapped", "ours.plain"}
    for theirs in found.values():
        assert theirs.record.mmacs == pytest.approx(ours.record.mmacs, rel=1e-3)
        assert theirs.record.weights != ours.record.weights
        for one, other in zip((ours.clean, *ours.attacks), (theirs.clean, *theirs.attacks), strict=True):
            assert (one.name, one.backwards, one.forwards) == (other.name, other.backwards, other.forwards)
            assert np.array_equal(one.correct, other.correct) and np.array_equal(one.exits, other.exits)
    assert not ours.worst.all()


def test_a_run_is_verified_resumed_and_exported(bench, tmp_path):
    run = ["run", "--model", "tiny.py:make", "--attack", "average,slowdown:free", *RUN, "confidence@equal"]
    code, out, err = bench(*run)
    assert code == 0 and "tiny.make on digits test" in out, err
    code, _, err = bench(*run)
    assert code == 0 and "nothing left to do" in err
    assert {row["model"] for row in rows(tmp_path)} == {"tiny.make"}
    assert {row["training"] for row in rows(tmp_path)} == {"factory"}

    code, out, err = bench("verify", "results", "--model", "tiny.py:make")
    assert code == 0 and "0 mismatches" in out, err
    code, _, err = bench("verify", "results")
    assert code == 2 and "--model path/to/file.py:factory" in err
    code, _, err = bench("export", "--counterexamples", "--model", "tiny.py:make", "--output", "theirs.npz")
    assert code == 0, err
    code, out, err = bench("verify", "theirs.npz", "--model", "tiny.py:make")
    assert code == 0 and "0 mismatches" in out, err
    code, _, err = bench("verify", "theirs.npz", "--model", "tiny.py:one_exit")
    assert code == 2 and "holds nothing to verify of model 'tiny.one_exit'" in err

    code, _, err = bench("sweep")
    assert (code == 2 and "no weights" in err) or "unknown model" in err, err
    code, out, err = bench("sweep", "--model", "tiny.py:make", "--points", 2)
    assert code == 0 and "tiny.make" in out, err

    (tmp_path / "tiny.py").write_text(TINY.replace("nn.ReLU()", "nn.Tanh()"))
    code, _, err = bench("verify", "theirs.npz", "--model", "tiny.py:make")
    assert code == 1 and "MISMATCH weights: claimed SHA-256" in err
    code, _, err = bench(*run)
    assert code == 0 and "0 done before" in err, "other code with the same tensors must not find the old cells"


def test_weights_from_a_state_dict_are_recorded_by_digest(bench, tmp_path):
    from exitbench.models.factory import find_factory
    from exitbench.models.weights import file_sha256

    net = find_factory("tiny.py:one_exit").build()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "<blink>w 1.pt")
    code, _, err = bench(
        "run", "--model", "tiny.py:one_exit", "--weights", "<blink>w 1.pt", "--attack", "average", *RUN, "exit:1"
    )
    assert code == 0 and "skipped average: the same as single:1" in err
    (evaluation,) = evaluations(Store(tmp_path / "results" / "store"))
    assert evaluation.record.training == "blink-w-1"
    assert file_sha256(tmp_path / "<blink>w 1.pt") in evaluation.record.source
    assert evaluation.record.source.startswith("tiny.py:one_exit, source SHA-256 ")
    assert "<blink>w" not in (tmp_path / "results" / "index.html").read_text()


def test_hostile_names_reach_no_file_name_and_no_page(bench, tmp_path):
    (tmp_path / "<script>alert(1)</script>").mkdir(parents=True)
    path = tmp_path / "<script>alert(1)<" / "script> $x.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(TINY)
    code, _, err = bench("run", "--model", f"{path}:make", "--attack", "single:1", *RUN, "exit:1")
    assert code == 0, err
    assert {row["model"] for row in rows(tmp_path)} == {"script-x.make"}
    page = (tmp_path / "results" / "index.html").read_text()
    assert "script-x.make" in page and "script> $x" not in page


def test_costs_of_exits_and_of_a_policy(bench):
    code, out, err = bench("cost", "tiny.py:make", "--dataset", "digits", "--policy", "entropy@equal")
    assert code == 0, err
    # 16 x 10; then 9 x 4 x 36 of the convolution and 144 x 10.
    assert "1 0.00016 2 " in out and f"2 {(160 + 1296 + 1440) / 1e6:.3g}" in out
    assert "mmacs on 200 held-out training images of digits, leaving at each exit: 100 100" in out


def test_a_row_says_that_costs_could_not_be_told_apart(bench, tmp_path):
    source = TINY + "\ndef summed():\n    net = Tiny()\n    net.forward = lambda x: torch.stack(Tiny.forward(net, x)).cumsum(0)\n"
    (tmp_path / "tiny.py").write_text(source + "    return net\n")
    code, out, err = bench("run", "--model", "tiny.py:summed", "--attack", "slowdown:free", *RUN, "entropy:2.2")
    assert code == 0, err
    assert all("every exit is charged the whole network" in row["note"] for row in rows(tmp_path))
    assert "every exit is charged the whole network" in out


ATTACK = ["--attack", "average", "--n", "4"]
BAD = {
    "no dataset": (
        ["run", "--model", "tiny.py:make", *ATTACK],
        "name one with --dataset (cifar10, mnist, cifar100, svhn, fashion_mnist, digits, imagefolder:PATH, ",
    ),
    "no dataset to cost": (["cost", "tiny.py:make"], "hf:PATH, file.py:function)"),
    "a near miss": (["run", "--model", "tiny.py:mkae", "--dataset", "digits", *ATTACK], "did you mean 'make'"),
    "a file that is not there": (["cost", "tinny.py:make", "--dataset", "digits"], "did you mean 'tiny.py'"),
    "more classes": (
        ["run", "--model", "tiny.py:eleven", "--dataset", "digits", *ATTACK],
        "the model has 11 classes, digits has 10",
    ),
    "a dictionary": (["run", "--model", "tiny.py:dictionary", "--dataset", "digits", *ATTACK], "returns a tensor of shape ()"),
    "probabilities": (["run", "--model", "tiny.py:probabilities", "--dataset", "digits", *ATTACK], "it must return logits"),
    "images of another size": (
        ["cost", "tiny.py:make", "--dataset", "mnist"],
        "tiny.py:make: the network cannot run a batch of 3 images of 1x28x28",
    ),
    "no shape": (["cost", "tiny.py:colour", "--dataset", "digits"], "it must be (channels, height, width)"),
    "a training": (
        ["run", "--model", "tiny.py:make", "--training", "average", "--dataset", "digits", *ATTACK],
        "give a file with --weights",
    ),
    "weights of another network": (
        ["run", "--model", "tiny.py:make", "--weights", "one.pt", "--dataset", "digits", *ATTACK],
        "another architecture: missing exit_1",
    ),
    "no weights file": (
        ["run", "--model", "tiny.py:make", "--weights", "none.pt", "--dataset", "digits", *ATTACK],
        "none.pt is missing",
    ),
    "weights without a policy": (["cost", "tiny.py:make", "--weights", "one.pt", "--dataset", "digits"], "--weights go with"),
    "a policy of another net": (
        ["run", "--model", "tiny.py:make", "--dataset", "digits", "--policy", "entropy:0.1,0.2", *ATTACK],
        "needs 1 thresholds, got 2",
    ),
    "nothing of ours to verify": (["verify", "results", "--model", "tiny.py:nothing"], "has no 'nothing'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_and_exit_code_2(case, bench, tmp_path, monkeypatch):
    monkeypatch.setenv("EXITBENCH_DATA", str(tmp_path / "no-data"))
    torch.save({"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}, tmp_path / "one.pt")
    arguments, message = BAD[case]
    code, _, err = bench(*arguments)
    assert code == 2, err
    assert message in err


def test_a_stage_that_cannot_be_laid_out_is_said(bench, tmp_path):
    source = """
from torch import nn
from exitbench.models.multi_exit import MultiExitNet
class Flat(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1)
def make():
    return MultiExitNet([nn.Conv2d(1, 4, 3)], [nn.Sequential(Flat(), nn.Linear(144, 10))])
"""
    (tmp_path / "flat.py").write_text(source)
    code, _, err = bench("cost", "flat.py:make", "--dataset", "digits")
    assert code == 2 and "use flatten or reshape" in err
