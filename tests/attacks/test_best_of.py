import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.attacks.best_of import BestOf
from exitbench.attacks.gradient import value
from exitbench.attacks.objectives import CE, Max, Mean, Objective, Only
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from tests.toys import batch, small_convolutional

NET = small_convolutional(3)
BALL = ThreatModel("Linf", 0.2)
SINGLES = tuple(PGD(Objective(CE(), Only(k)), BALL, 3, 0.05) for k in (1, 2, 3))


@given(st.integers(0, 1000), st.sampled_from([Mean(), Max(), Only(2)]))
def test_the_selection_is_at_least_every_child_by_its_objective(seed, over):
    x, y, noise = batch(5, (1, 4, 4), 5, seed)
    by = Objective(CE(), over)
    chosen = value(NET, by, BestOf(SINGLES, by)(NET, x, y, noise=noise), y)
    for child in SINGLES:
        assert (chosen >= value(NET, by, child(NET, x, y, noise=noise), y) - 1e-6).all()


@given(st.integers(0, 1000))
def test_choosing_by_stored_logits_is_choosing_by_images(seed):
    x, y, noise = batch(5, (1, 4, 4), 5, seed)
    selection = BestOf(SINGLES, Objective(CE(), Mean()))
    candidates = [child(NET, x, y, noise=noise) for child in SINGLES]
    choice = selection.choose([NET(candidate) for candidate in candidates], y)
    wanted = selection.generate(NET, x, y, noise=noise, candidates=candidates)
    assert torch.equal(torch.stack(candidates)[choice, torch.arange(5)], wanted)


def test_nothing_to_select_from_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        BestOf((), Objective(CE(), Mean()))
