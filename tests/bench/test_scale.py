"""Ten times the samples in the same memory; many slices as one batch, which falls apart again where it must."""

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from exitbench.attacks.base import Attack
from exitbench.attacks.noise import Noise
from exitbench.runner.batching import MOST, fitting, stack_size
from exitbench.runner.generate import divided
from exitbench.runner.plan import Slice
from exitbench.runner.record import write_record
from exitbench.runner.runner import Runner, stacks
from exitbench.store.cell import SLICE
from exitbench.store.store import Store
from tests.bench.evaluated import FORMS, NET, only_evaluation, plan_of, prepared, toy_split
from tests.bench.test_run import with_attack
from tests.toys import ROOT

MEMORY = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from torch import nn
from exitbench.data.split import Split
from exitbench.scoring.load import evaluations
from exitbench.target.target import Target
from exitbench.models.cost import measure_costs
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import EntropyPolicy
from tests.bench import evaluated
from tests.toys import Passed

torch.manual_seed(0)
heads = [nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(12, 5)) for _ in range(2)]
net = MultiExitNet([Passed(), Passed()], heads).eval().requires_grad_(False)
pixel = np.full((1, 1, 1, 1), 0.5, dtype=np.float32)
split = Split("digits", "test", np.broadcast_to(pixel, (10000, 3, 32, 32)), np.zeros(10000, dtype=np.int64), 5, "toy")
target = Target("toy", net, "none", "0" * 64, "a test", EntropyPolicy((1.5,)), measure_costs(net, (3, 32, 32)))
peaks = []
for n in (1000, 10000):
    ready = evaluated.Prepared(target, split, n, evaluated.SETTINGS, None)
    with tempfile.TemporaryDirectory() as folder:
        outcomes, store = evaluated.evaluate(Path(folder), ["single:1"], ready)
        (evaluation,) = evaluations(store)
        assert evaluation.n == n and not any(outcome.error for outcome in outcomes)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[1] - peaks[0])
"""


def test_ten_times_the_samples_fit_in_the_same_memory():
    """Images of 10,000 samples take 120 MB as floats; a run holds one slice of them."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(done.stdout) < 15


def test_a_plan_holds_no_images_and_makes_them_when_asked(tmp_path):
    plan = plan_of(prepared(), Store(tmp_path), ["average"])
    assert {type(value) for value in vars(plan.cells[0].slice).values()} == {type(toy_split()), int, tuple}
    part = plan.cells[-1].slice
    assert len(part) == 70 - 2 * SLICE and part.indices == tuple(range(2 * SLICE, 70))
    assert tuple(part.batch().input_hashes()) == part.inputs


def test_reports_read_no_counterexample(tmp_path, monkeypatch):
    run(tmp_path, 1)
    read = Store.read

    def stopping(self, key, *, images=True):
        assert not images
        return read(self, key, images=images)

    monkeypatch.setattr(Store, "read", stopping)
    evaluation = only_evaluation(Store(tmp_path))
    monkeypatch.undo()
    key = evaluation.record.attacks[1].keys[0]
    with_images, without = Store(tmp_path).read(key), Store(tmp_path).read(key, images=False)
    assert len(with_images.counterexamples) == len(with_images.broken_rows) > 0
    assert np.isnan(without.counterexamples).all() and not any(without.counterexamples.strides)
    assert (with_images.logits == without.logits).all() and (with_images.broken_rows == without.broken_rows).all()


def run(folder, stack, names=FORMS, ready=None):
    ready, store = ready or prepared(), Store(folder)
    plan = plan_of(ready, store, names)
    write_record(ready, plan, 0, store)
    outcomes = []
    runner = Runner(ready.target, ready.settings.region, 0, "digits", store, stack)
    runner.run(plan, lambda _: None, outcomes.append)
    return outcomes, store, runner


@pytest.mark.parametrize("stack", [2, 8])
def test_slices_that_run_as_one_batch_come_out_as_alone(tmp_path, stack):
    outcomes, together, _ = run(tmp_path / "together", stack)
    alone_outcomes, alone, _ = run(tmp_path / "alone", 1)
    assert {outcome.cell.key for outcome in outcomes} == {outcome.cell.key for outcome in alone_outcomes}
    passes = {"together": 0, "alone": 0}
    for outcome in outcomes:
        one, other = together.read(outcome.cell.key), alone.read(outcome.cell.key)
        torch.testing.assert_close(torch.from_numpy(one.logits), torch.from_numpy(other.logits), atol=1e-3, rtol=1e-3)
        assert (one.indices == other.indices).all() and (one.inputs == other.inputs).all()
        passes["together"] += one.passes.sum()
        passes["alone"] += other.passes.sum()
    assert passes["together"] == passes["alone"] > 0
    a, b = only_evaluation(together), only_evaluation(alone)
    assert (a.worst == b.worst).all()


def test_a_stack_that_was_broken_off_goes_on(tmp_path):
    run(tmp_path, 4)
    paths = sorted((tmp_path / "cells").rglob("*.npz"))
    for path in paths[::2]:
        path.unlink()
    outcomes, _, _ = run(tmp_path, 4)
    assert len(outcomes) == len(paths[::2]) and sorted((tmp_path / "cells").rglob("*.npz")) == paths


@dataclass(frozen=True)
class Hungry(Attack):
    """Needs more memory than there is for more than two slices."""

    most: int = 2 * SLICE

    def generate(self, model, x, y, *, noise, candidates):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x


def test_out_of_memory_halves_the_stack_and_tries_again(tmp_path, monkeypatch):
    with_attack(monkeypatch, Hungry())
    outcomes, _, runner = run(tmp_path, 8, ["planted"])
    assert all(outcome.error is None for outcome in outcomes) and len(outcomes) == 2 * 3
    assert runner.stack < 8


def test_a_slice_that_does_not_fit_is_halved_until_it_does(tmp_path, monkeypatch):
    with_attack(monkeypatch, Hungry(SLICE // 4))
    outcomes, store, _ = run(tmp_path / "cut", 8, ["planted", "average"])
    assert all(outcome.error is None for outcome in outcomes)
    batches = {
        o.cell.slice.start: store.read(o.cell.key).header["provenance"].get("batches")
        for o in outcomes
        if o.cell.name == "planted"
    }
    assert batches == {0: 4, SLICE: 4, 2 * SLICE: None}, "the last slice is short enough as it is"
    with_attack(monkeypatch, Hungry(0))
    outcomes, _, _ = run(tmp_path / "none", 8, ["planted", "average"])
    assert all(("OutOfMemoryError" in (outcome.error or "")) == (outcome.cell.name == "planted") for outcome in outcomes)


@dataclass(frozen=True)
class Spoils(Attack):
    """Writes into its inputs before it runs out of memory."""

    def generate(self, model, x, y, *, noise, candidates):
        found = x.clone()
        x.zero_()
        y.zero_()
        if len(x) > SLICE // 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found


def test_a_try_that_failed_leaves_nothing_for_the_next(tmp_path, monkeypatch):
    with_attack(monkeypatch, Spoils())
    outcomes, store, _ = run(tmp_path, 1, ["planted"])
    planted = [outcome for outcome in outcomes if outcome.cell.name == "planted"]
    assert planted and not any(outcome.error for outcome in planted)
    assert all((store.read(outcome.cell.key).distances == 0).all() for outcome in planted)


@pytest.mark.parametrize("most", [1, 12])
def test_a_batch_halved_for_want_of_memory_has_the_same_results(tmp_path, monkeypatch, most):
    ready = prepared()
    _, whole, _ = run(tmp_path / "whole", 1, ["average", "adaptive"], ready)

    def at_most(_module, inputs):
        if len(inputs[0]) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    handle = NET.entry.register_forward_pre_hook(at_most)
    try:
        outcomes, halved, _ = run(tmp_path / "halved", 1, ["average", "adaptive"], ready)
    finally:
        handle.remove()
    for outcome in outcomes:
        assert outcome.error is None
        one, other = whole.read(outcome.cell.key), halved.read(outcome.cell.key)
        torch.testing.assert_close(torch.from_numpy(one.logits), torch.from_numpy(other.logits), atol=1e-3, rtol=1e-3)
        assert (one.passes == other.passes).all()
    assert (only_evaluation(whole).worst == only_evaluation(halved).worst).all()


@dataclass(frozen=True)
class Counts(Attack):
    """Notes how many samples it is handed at once."""

    handed: ClassVar[list[int]] = []

    def generate(self, model, x, y, *, noise, candidates):
        self.handed.append(len(x))
        return x


@dataclass(frozen=True)
class Gathers(Counts):
    """Gains by several slices at once wherever it runs."""

    gathers: ClassVar[bool] = True
    handed: ClassVar[list[int]] = []


@pytest.mark.parametrize(("attack", "handed"), [(Counts(), [SLICE, SLICE, 6]), (Gathers(), [2 * SLICE, 6])])
def test_some_attacks_get_several_slices_where_others_get_one(tmp_path, monkeypatch, attack, handed):
    attack.handed.clear()
    with_attack(monkeypatch, attack)
    ready, store = prepared(), Store(tmp_path)
    outcomes = []
    runner = Runner(ready.target, ready.settings.region, 0, "digits", store, gathered=2)
    runner.run(plan_of(ready, store, ["planted"]), lambda _: None, outcomes.append)
    assert attack.handed == handed and not any(outcome.error for outcome in outcomes)


@dataclass(frozen=True)
class Picky(Attack):
    """Fails on one sample alone."""

    sample: int = 40

    def generate(self, model, x, y, *, noise, candidates):
        if self.sample in noise.samples:
            raise RuntimeError("not this one")
        return x


def test_a_failure_in_a_stack_is_one_slices(tmp_path, monkeypatch):
    with_attack(monkeypatch, Picky())
    outcomes, _, _ = run(tmp_path, 4, ["planted"])
    failed = [outcome.cell.slice.start for outcome in outcomes if outcome.error]
    assert failed == [SLICE]


@dataclass(frozen=True)
class Draws(Attack):
    """Like a package that is seeded for its batch."""

    eps: float = 0.1

    def generate(self, model, x, y, *, noise, candidates):
        out = x.clone()
        for rows in noise.batches():
            generator = torch.Generator().manual_seed(noise.of(rows).integer("draws"))
            out[rows] = (x[rows] + self.eps * torch.rand(x[rows].shape, generator=generator)).clamp(0, 1)
        return out


def test_who_draws_for_a_batch_draws_for_the_slice(tmp_path, monkeypatch):
    with_attack(monkeypatch, Draws())
    outcomes, together, _ = run(tmp_path / "together", 4, ["planted"])
    _, alone, _ = run(tmp_path / "alone", 1, ["planted"])
    for outcome in outcomes:
        one, other = together.read(outcome.cell.key), alone.read(outcome.cell.key)
        assert (one.counterexamples == other.counterexamples).all()


def test_noise_knows_its_batches():
    assert [rows.tolist() for rows in Noise(0, (5, 6, 7)).batches()] == [[0, 1, 2]]
    stacked = Noise(0, (5, 40, 6, 41), (0, 32, 0, 32))
    assert [rows.tolist() for rows in stacked.batches()] == [[0, 2], [1, 3]]
    assert [rows.tolist() for rows in stacked.of(torch.tensor([3, 0])).batches()] == [[0], [1]]


def test_stacks_cover_the_plan_in_order(tmp_path):
    plan = plan_of(prepared(), Store(tmp_path), FORMS)
    sizes = iter([2, 1, 1])
    groups = list(stacks(plan.cells, lambda: next(sizes)))
    assert [len({cell.slice for cell in group}) for group in groups] == [2, 1]
    assert [cell for group in groups for cell in group] == list(plan.cells)


def test_what_fits():
    assert (fitting(10, 100), fitting(1000, 100), fitting(10**12, 1), fitting(0, 0)) == (1, 5, MOST, 1)
    assert stack_size(NET, (1, 4, 4), torch.device("cpu")) == 1
    assert divided(10, [32, 32, 6]) == [5, 4, 1] and sum(divided(101, [7] * 9)) == 101
    assert [len(rows) for rows in Noise(0, ()).batches()] == [0] and Slice(toy_split(), 0, 1, ("",)).indices == (0,)
