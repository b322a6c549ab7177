import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from exitbench.attacks.objectives import CE, DLR, Margin, Max, Mean, Objective, Only

LOSSES = [CE(), Margin(), DLR()]
REDUCTIONS = [Only(2), Mean(), Max()]


def random_logits(seed, n_exits=3, n=5, n_classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n_exits, n, n_classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(n_classes, (n,), generator=generator)


@given(st.integers(0, 10_000))
def test_ce_is_torchs_cross_entropy(seed):
    logits, y = random_logits(seed)
    for k, losses in enumerate(CE()(logits, y)):
        torch.testing.assert_close(losses, F.cross_entropy(logits[k], y, reduction="none"))


@given(st.integers(0, 10_000))
def test_the_margin_is_positive_exactly_where_the_exit_is_wrong(seed):
    logits, y = random_logits(seed)
    assert torch.equal(Margin()(logits, y) > 0, logits.argmax(-1) != y)


def test_the_dlr_is_the_packages_dlr():
    from pyautoattack.autopgd_base import APGDAttack

    package = APGDAttack(lambda x: x, eps=0.1, device="cpu")
    logits, y = random_logits(3)
    for k, losses in enumerate(DLR()(logits, y)):
        torch.testing.assert_close(losses, package.dlr_loss(logits[k], y))


def test_the_dlr_of_two_classes_is_refused():
    with pytest.raises(ValueError, match="at least 3 classes"):
        DLR()(torch.randn(1, 2, 2), torch.tensor([0, 1]))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("over", REDUCTIONS, ids=repr)
def test_gradients_are_right_and_samples_do_not_interact(loss, over):
    logits, y = random_logits(11)
    objective = Objective(loss, over)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, y), logits)
    (gradient,) = torch.autograd.grad(objective(logits, y)[0], logits)
    assert (gradient[:, 1:] == 0).all()


def test_reductions():
    losses = torch.tensor([[1.0, 5.0], [4.0, 2.0]])
    assert Only(1)(losses).tolist() == [1, 5]
    assert Mean()(losses).tolist() == [2.5, 3.5]
    assert Max()(losses).tolist() == [4, 5]


def test_an_objective_knows_the_last_exit_it_needs():
    assert Objective(CE(), Only(2)).upto == 1
    assert Objective(CE(), Mean()).upto is None
