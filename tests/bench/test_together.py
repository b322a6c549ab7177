"""Attacks on single exits as one batch find what each finds alone, and cost what each costs alone."""

import numpy as np
import pytest
import torch

from exitbench.attacks.apgd import APGD
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, DLR, Margin, Max, Mean, Objective, Only
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.attacks.together import alike, generate_together
from exitbench.runner import together
from exitbench.runner.runner import Runner
from exitbench.store.store import Store
from tests.bench.evaluated import plan_of, prepared
from tests.toys import batch, small_convolutional

NET = small_convolutional(3).double()
BALL = ThreatModel("Linf", 0.06)


def single(k, loss=None, ball=BALL, **more):
    return PGD(Objective(loss or CE(), Only(k)), ball, 6, 0.02, **more)


def test_only_what_differs_in_the_exit_alone_is_alike():
    others = [
        single(1),
        single(3),
        single(2, restarts=2),
        single(2, Margin()),
        single(2, keep="last"),
        APGD(Objective(CE(), Only(1)), BALL),
    ]
    others += [PGD(Objective(CE(), over), BALL, 6, 0.02) for over in (Mean(), Max())]
    others += [PGD(Objective(CE(), Only(2)), BALL, 6, 0.02, start=single(1)), single(2, ball=ThreatModel("L2", 0.06))]
    assert alike(single(2), others) == [single(1), single(3)]
    assert alike(others[-2], others) == [] and alike(PGD(Objective(CE(), Mean()), BALL, 6, 0.02), others) == []


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("loss", "restarts", "keep"), [(CE(), 1, "best"), (DLR(), 3, "last"), (Margin(), 2, "best"), (CE(), 1, "last")]
)
def test_each_finds_what_it_finds_alone(norm, loss, restarts, keep):
    x, y, _ = batch(7, (1, 4, 4), 5)
    x, noise = x.double(), Noise(3, (9, 2, 5, 7, 1, 4, 3))
    attacks = [single(k, loss, ThreatModel(norm, 0.06), restarts=restarts, keep=keep) for k in (3, 1, 2)]
    found = generate_together(attacks, NET, x, y, noise)
    for attack, images in zip(attacks, found, strict=True):
        torch.testing.assert_close(images, attack(NET, x, y, noise=noise), rtol=0, atol=1e-12)


def run(folder):
    ready, store = prepared(), Store(folder)
    plan = plan_of(ready, store, ["single", "max_average"])
    outcomes = []
    runner = Runner(ready.target, ready.settings.region, 0, ready.split.dataset, store, 2)
    runner.run(plan, lambda _cell: None, outcomes.append)
    assert not any(outcome.error for outcome in outcomes)
    return [store.read(cell.key) for cell in plan.cells]


def test_cells_are_those_of_attacks_one_by_one(tmp_path, monkeypatch):
    wanted = run(tmp_path / "alone")
    calls = []
    whole = together.generate_together
    monkeypatch.setattr(together, "generate_together", lambda attacks, *rest: calls.append(len(attacks)) or whole(attacks, *rest))
    monkeypatch.setattr(together, "DEVICES", ("cpu",))
    found = run(tmp_path / "together")
    assert calls and set(calls) == {3}, "once for each batch of slices"
    for one, other in zip(found, wanted, strict=True):
        assert one.key == other.key and np.array_equal(one.passes, other.passes)
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
    monkeypatch.setattr(together, "ROWS", 10)
    calls.clear()
    run(tmp_path / "large")
    assert not calls


def test_what_fails_together_is_run_alone(tmp_path, monkeypatch):
    def fails(*_arguments):
        raise RuntimeError("out of everything")

    monkeypatch.setattr(together, "DEVICES", ("cpu",))
    monkeypatch.setattr(together, "generate_together", fails)
    assert all(run(tmp_path))
