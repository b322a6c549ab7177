"""Normalisation given beside a network: in front of it, in its identity, in records, pages, baselines; and what is refused."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

import exitbench
from exitbench.errors import UserError
from exitbench.models.errors import InvalidValue
from exitbench.models.foreign import ForeignNet
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.normalisation import Normalisation
from exitbench.report.page.command import commands
from exitbench.runner.prepare import Request, prepare
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from tests.bench.test_own_model import TINY

RUN = ["--dataset", "digits", "--n", "6", "--steps", "2", "--budget", "10", "--policy", "entropy:2.2", "--attack", "average"]

MORE = """
class Expecting(Tiny):
    def forward(self, x):
        return super().forward((x - 0.25) / 0.5)

def expecting():
    return Expecting()

def staged():
    from exitbench.models.multi_exit import MultiExitNet
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(256, 10)) for _ in range(2)]
    return MultiExitNet([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)], heads)
"""


@pytest.fixture
def bench(bench, tmp_path):
    (tmp_path / "tiny.py").write_text(TINY + MORE)
    return bench


def asked(tmp_path, factory, **more):
    return Request(f"{tmp_path}/tiny.py:{factory}", tmp_path, dataset="digits", n=4, policy="entropy:2.2", **more)


def test_the_network_gets_what_it_expects(bench, tmp_path):
    """As one that normalises itself does, with the same parameters."""
    x = torch.rand(3, 1, 8, 8)
    beside = prepare(asked(tmp_path, "make", mean=(0.25,), std=(0.5,))).target
    inside = prepare(asked(tmp_path, "expecting")).target
    torch.testing.assert_close(beside.model(x), inside.model(x))
    assert beside.costs.mmacs == inside.costs.mmacs
    assert "mean 0.25, standard deviation 0.5" in beside.source


def test_a_network_that_is_cut_into_stages_stays_so(bench, tmp_path):
    found = prepare(asked(tmp_path, "staged", mean=(0.25,), std=(0.5,)))
    plain = prepare(asked(tmp_path, "staged"))
    x = torch.rand(3, 1, 8, 8)
    assert type(found.target.model) is MultiExitNet and found.target.used_config.folded
    torch.testing.assert_close(found.target.model(x), plain.target.model((x - 0.25) / 0.5))
    assert found.target.costs.mmacs == plain.target.costs.mmacs


def test_another_normalisation_is_another_network(bench, tmp_path):
    digests = {
        prepare(asked(tmp_path, "make", **more)).target.weights
        for more in ({}, {"mean": (0.0,), "std": (1.0,)}, {"mean": (0.5,), "std": (1.0,)}, {"mean": (0.5,), "std": (0.5,)})
    }
    assert len(digests) == 4
    assert prepare(asked(tmp_path, "make", mean=(0.5,), std=(0.5,))).target.weights in digests


def test_records_the_page_and_verify_know_it(bench, tmp_path):
    normalised = ["--mean", "0.25", "--std", "128/255"]
    code, out, err = bench("run", "--model", "tiny.py:make", *normalised, *RUN)
    assert code == 0 and "images are normalised: mean 0.25" in out, err
    code, _, err = bench("run", "--model", "tiny.py:make", *normalised, *RUN)
    assert code == 0 and "nothing left to do" in err
    code, _, err = bench("run", "--model", "tiny.py:make", *RUN)
    assert code == 0 and "0 done before" in err
    stored = evaluations(Store(tmp_path / "results" / "store"))
    records = [evaluation.record for evaluation in stored]
    found = {record.requested.mean: record.requested.std for record in records}
    assert found == {None: None, (0.25,): (128 / 255,)}
    (path,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    assert sum("images are normalised" in row["note"] for row in csv.DictReader(path.open(newline=""))) == 3
    told = [command for evaluation in stored for command in commands(evaluation)]
    assert sorted(f"--mean 0.25 --std {128 / 255!r} " in command for command in told) == [False, True]

    code, out, err = bench("sweep", "--model", "tiny.py:make", "--points", 2)
    assert code == 0, err
    run = next(path.stem for path in (tmp_path / "results" / "store" / "runs").glob("*.json") if '"mean"' in path.read_text())
    code, out, err = bench("verify", run, "--model", "tiny.py:make", *normalised)
    assert code == 0 and "0 mismatches" in out, err
    code, out, err = bench("verify", run, "--model", "tiny.py:make")
    assert code == 1 and "MISMATCH weights" in err


def test_a_baseline_remembers_it(bench, tmp_path):
    gate = ["check", "--model", "tiny.py:make", "--n", "40", "--steps", "2", "--budget", "10"]
    made = ["--dataset", "digits", "--attack", "average", "--policy", "entropy:2.2", "--mean", "0.25", "--std", "0.5", "--update"]
    code, out, err = bench(*gate, *made)
    assert code == 0 and "commit it" in out, err
    code, out, err = bench("check", "--model", "tiny.py:make")
    assert code == 0 and "PASS" in out, f"{out} {err}"


def test_costs_and_latency_take_it(bench):
    normalised = ["--mean", "0.5", "--std", "0.5"]
    code, _, err = bench("cost", "tiny.py:make", "--dataset", "digits", "--policy", "entropy@equal", *normalised)
    assert code == 0, err
    timed = ["--dataset", "digits", "--policy", "entropy:2.2", "--n", "4", "--rounds", "3"]
    code, out, err = bench("latency", "--model", "tiny.py:make", *timed, *normalised)
    assert code == 0 and "runs whole for every exit" in out, err


def test_from_python_and_in_memory(bench, tmp_path):
    from exitbench.models.factory import find_factory

    net = find_factory("tiny.py:make").build().eval()
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    more = {"attacks": "single:1", "steps": 2, "progress": False, "name": "mine"}
    plain = exitbench.evaluate(net, dataset=(images, labels), **more)
    beside = exitbench.evaluate(net, dataset=(images, labels), mean=[0.25], std=[0.5], **more)
    logits = net((images - 0.25) / 0.5)[-1]
    assert beside.clean.value == pytest.approx((logits.argmax(-1) == labels).float().mean().item())
    assert beside.scored.record.weights != plain.scored.record.weights
    (command,) = commands(beside.scored)
    assert "mean=0.25" in command and "std=0.5" in command


REFUSED = {
    "two channels of one": (
        ["--mean", "0.5,0.5", "--std", "0.5,0.5"],
        "have 2 numbers, the images have 1 channels",
    ),
    "a mean alone": (["--mean", "0.5"], "--mean and --std are given together"),
    "a deviation alone": (["--std", "0.5"], "--mean and --std are given together"),
    "other lengths": (["--mean", "0.5", "--std", "0.5,0.5"], "1 means and 2 standard deviations"),
    "no deviation": (["--mean", "0.5", "--std", "0"], "a standard deviation is 0"),
    "below zero": (["--mean", "0.5", "--std=-0.5"], "is not a finite number >= 0"),
    "pixels of 0..255": (["--mean", "123.7", "--std", "58.4"], "a mean is 123.7: pixels are in [0, 1]"),
    "a deviation of 0..255": (["--mean", "0.5", "--std", "58.4"], "was 0.229 meant?"),
    "not a number": (["--mean", "nan", "--std", "0.5"], "is not a finite number"),
    "no number": (["--mean", "half", "--std", "0.5"], "'half' is not a number"),
    "nothing": (["--mean", "", "--std", "0.5"], "'' is not a number"),
    "a comma too many": (["--mean", "0.5,", "--std", "0.5"], "'' is not a number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_normalisation_is_refused(bench, case):
    arguments, message = REFUSED[case]
    code, _, err = bench("run", "--model", "tiny.py:make", *RUN, *arguments)
    assert code == 2 and message in err, err


def test_networks_that_hold_their_own_are_given_none(bench):
    normalised = ["--mean", "0.5", "--std", "0.5"]
    code, _, err = bench("run", "--model", "rdi_smallcnn", "--attack", "single:1", "--n", "2", "--dataset", "digits", *normalised)
    assert code == 2 and "rdi_smallcnn holds its own normalisation" in err, err
    code, _, err = bench("verify", "results", *normalised)
    assert code == 2 and "--mean and --std go with --model" in err
    with pytest.raises(UserError, match=r"pyautoattack\.resnet18 holds its own"):
        exitbench.evaluate("pyautoattack:resnet18", mean=[0.5] * 3, std=[0.5] * 3, progress=False)


@pytest.mark.parametrize("values", [(float("nan"),), (float("inf"),), (-0.1,), (1.5,)])
def test_from_python_the_same_is_refused(values):
    with pytest.raises(InvalidValue):
        Normalisation.given(values, (0.5,) * len(values))
    with pytest.raises(InvalidValue):
        Normalisation.given((0.5,) * len(values), values)


def test_a_subclass_that_runs_its_stages_in_its_own_way_keeps_it():
    class Doubled(MultiExitNet):
        def exits(self, x):
            return (2 * logits for logits in super().exits(x))

    heads = [nn.Sequential(nn.Flatten(), nn.Linear(16, 3)) for _ in range(2)]
    net = Doubled([nn.Identity(), nn.Identity()], heads).eval()
    x = torch.rand(2, 1, 4, 4)
    layer = Normalisation((0.5,), (0.5,)).layer(1)
    torch.testing.assert_close(net.preceded_by(layer)(x), net((x - 0.5) / 0.5))


def test_what_a_network_says_of_itself_is_kept():
    class Declared(nn.Module):
        exit_costs = (1.0, 3.0)

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 3)

        def forward(self, x):
            logits = self.layer(x.flatten(1))
            return {"logits": [logits, logits + 1], "gates": [logits[:, 0]]}

    net = ForeignNet(Declared(), (1, 4, 4)).preceded_by(Normalisation((0.5,), (0.5,)).layer(1))
    assert net.exit_costs == (1.0, 3.0) and net.has_gate_scores and not net.stops
