"""A network whose number of exits changes between calls ends a run with one message; what is finished is kept."""

from __future__ import annotations

import pytest

from exitbench.store.store import Store

CHANGING = """
import os
from pathlib import Path
import torch
from torch import nn

class Changing(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(64, 10) for _ in range(3))
        self.after = after

    def forward(self, x):
        logits = [head(x.flatten(1)) for head in self.heads]
        return logits[:2] if self.leaves(x) else logits

class ByCount(Changing):
    calls = 0
    def leaves(self, x):
        self.calls += 1
        return self.calls > self.after

class Iterated(Changing):
    def leaves(self, x):
        return False
    def exits(self, x):
        for k, head in enumerate(self.heads):
            if k == 2 and os.path.exists("stop"):
                return
            yield head(x.flatten(1))

def at_once():
    return ByCount(3)

def on_the_dataset():
    return ByCount(12)

class ByTime(Changing):
    def leaves(self, x):
        return len(list(Path("results/store").rglob("*.npz"))) >= self.after

def later():
    return ByTime(3)

def iterated():
    return Iterated(0)
"""

RUN = ["--dataset", "digits", "--n", "8", "--steps", "3", "--budget", "10", "--policy", "entropy:2.2,2.2"]


@pytest.fixture
def bench(bench, tmp_path):
    (tmp_path / "net.py").write_text(CHANGING)
    return bench


@pytest.mark.parametrize("factory", ["at_once", "on_the_dataset"])
def test_it_is_noticed_before_any_work(bench, tmp_path, factory):
    code, _, err = bench("run", "--model", f"net.py:{factory}", "--attack", "average", *RUN)
    assert code == 2 and "returned 2 exits, at first it had 3" in err, err
    assert not list((tmp_path / "results" / "store").rglob("*.npz"))


def test_during_a_run_what_is_finished_is_kept(bench, tmp_path):
    attacks = "single:1,average,single:3,max,adaptive"
    code, _, err = bench("run", "--model", "net.py:later", "--attack", attacks, *RUN)
    assert code == 2 and "returned 2 exits, at first it had 3" in err, err
    store = Store(tmp_path / "results" / "store")
    (record,) = store.runs()
    kept = [attack.name for attack in record.attacks if all(store.read(key) for key in attack.keys)]
    assert len(kept) == 3 and "none" in kept
    assert not any(store.read_error(key) for attack in record.attacks for key in attack.keys), "none is to blame"


def test_an_iterator_that_ends_early_is_noticed_when_a_store_is_resumed(bench, tmp_path):
    run = ["run", "--model", "net.py:iterated", "--attack", "single:3", *RUN]
    code, _, err = bench(*run)
    assert code == 0, err
    (tmp_path / "stop").touch()
    code, _, err = bench(*run)
    assert code == 2 and "yields 2 exits, at first it had 3" in err, err
