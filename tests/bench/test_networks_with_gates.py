"""Networks of somebody's own with gate heads, and those that yield their exits, from the command line."""

from __future__ import annotations

import json

import pytest

from exitbench.scoring.load import evaluations
from exitbench.store.store import Store

GATED = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Output:
    logits: list
    gates: torch.Tensor
    loss: object = None

class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)])
        self.heads = nn.ModuleList(nn.Linear(256, 10) for _ in range(2))
        self.gate = nn.Linear(256, 1)

    def features(self, x):
        for layer in self.trunk:
            x = layer(x).relu()
            yield x.flatten(1)

class AsDataclass(Gated):
    def forward(self, x):
        first, second = self.features(x)
        return Output([self.heads[0](first), self.heads[1](second)], self.gate(first).T)

class AsIterator(Gated):
    def exits(self, x):
        for k, (features, head) in enumerate(zip(self.features(x), self.heads)):
            yield (head(features), self.gate(features)) if k == 0 else head(features)

    def forward(self, x):
        (first, score), second = self.exits(x)
        return {"outputs": [first, second], "gate_scores": [score]}

def as_dataclass():
    return AsDataclass()

def as_iterator():
    return AsIterator()

def ungated():
    net = AsDataclass()
    net.forward = lambda x: AsDataclass.forward(net, x).logits
    return net
"""

RUN = ["--dataset", "digits", "--n", "6", "--steps", "3", "--budget", "20"]


@pytest.fixture
def bench(bench, tmp_path):
    (tmp_path / "gated.py").write_text(GATED)
    return bench


def test_both_forms_are_one_network_under_its_learnt_gate(bench, tmp_path):
    for factory in ("as_dataclass", "as_iterator"):
        run = ["run", "--model", f"gated.py:{factory}", "--policy", "gate@equal", "--attack", "average,adaptive,slowdown", *RUN]
        code, out, err = bench(*run)
        assert code == 0 and "worst case" in out, err
        code, out, err = bench("verify", "results", "--model", f"gated.py:{factory}")
        assert code == 0 and "0 mismatches" in out, err
    one, other = evaluations(Store(tmp_path / "results" / "store"))
    assert one.record.mmacs == other.record.mmacs and 0 < one.clean.exits.mean() < 1
    assert (one.clean.exits == other.clean.exits).all() and (one.clean.correct == other.clean.correct).all()


def test_a_gate_needs_scores(bench):
    code, _, err = bench("run", "--model", "gated.py:ungated", "--policy", "gate:0", "--attack", "single:1", *RUN)
    assert code == 2 and "the network has no gate heads" in err, err
    for policy in ("gate:0", "gate@equal"):
        code, _, err = bench("cost", "gated.py:ungated", "--dataset", "digits", "--policy", policy)
        assert code == 2 and "the network has no gate heads" in err, err


def test_latency_shows_an_exit_where_exits_are_yielded(bench, tmp_path):
    timed = ["--dataset", "digits", "--policy", "gate:0", "--n", "4", "--rounds", "3"]
    for factory, stops in (("as_dataclass", False), ("as_iterator", True)):
        code, out, err = bench("latency", "--model", f"gated.py:{factory}", *timed)
        assert code == 0 and ("runs whole for every exit" in out) != stops, err
    kept = [json.loads(path.read_text()) for path in (tmp_path / "results" / "store" / "latency").glob("*.json")]
    assert sorted(each["stops"] for each in kept) == [False, True]
