"""Distillation between exits in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.models.errors import InvalidValue
from exitbench.training.distillation import Distillation, class_groups, compared, neighbours, orthogonal
from exitbench.training.draws import CounterDraws
from exitbench.training.recipe import Crafting, Phase

P = torch.tensor([[[0.7, 0.2, 0.1]], [[0.1, 0.6, 0.3]], [[0.2, 0.2, 0.6]], [[0.5, 0.25, 0.25]]], dtype=torch.float64)
Y = torch.tensor([0])


def draws(seed=0, n=1):
    return CounterDraws(seed, torch.arange(n))


def test_a_neighbour_mean_is_of_two_exits_at_the_ends_and_of_three_between():
    expected = torch.stack([P[:2].mean(0), P[:3].mean(0), P[1:].mean(0), P[2:].mean(0)])
    torch.testing.assert_close(neighbours(P), expected)


def test_an_orthogonal_teacher_keeps_the_label_and_its_own_classes():
    groups = torch.tensor([[-1, 0, 1]])
    found = orthogonal(P[:2], Y, groups)
    torch.testing.assert_close(found[0, 0], torch.tensor([7 / 9, 2 / 9, 0], dtype=torch.float64))
    torch.testing.assert_close(found[1, 0], torch.tensor([0.25, 0, 0.75], dtype=torch.float64))


@given(st.integers(0, 100), st.integers(1, 8), st.integers(2, 12))
def test_every_class_but_the_label_goes_to_one_exit_and_exits_share_evenly(seed, n_exits, n_classes):
    y = torch.arange(20) * 7 % n_classes
    groups = class_groups(y, n_exits, draws(seed, 20).classes(n_classes))
    assert (groups.gather(1, y[:, None]) == -1).all()
    counts = torch.stack([(groups == k).sum(1) for k in range(n_exits)])
    assert (counts.sum(0) == n_classes - 1).all()
    assert int(counts.max() - counts.min()) <= 1


def test_the_cross_entropy_against_a_teacher_is_the_formula():
    found = compared(P[:1].log(), P[1:2])
    expected = -(0.1 * math.log(0.7) + 0.6 * math.log(0.2) + 0.3 * math.log(0.1))
    assert float(found) == pytest.approx(expected)


def test_neo_kd_is_the_weighted_sum_over_the_exits():
    clean, attacked = P.log(), P.flip(0).log()
    groups = class_groups(Y, 4, draws().classes(3))
    near, own = compared(attacked, neighbours(P)), compared(attacked, orthogonal(P, Y, groups))
    expected = 3 * near.sum() + own.sum() + 0.5 * (3 * near[-1] + own[-1]).sum()
    found = Distillation("neo_kd", weight=3.0, orthogonal=1.0, last=1.5).loss(clean, attacked, Y, draws())
    torch.testing.assert_close(found, expected)
    expected = 3 * near.sum() + own.sum() + 0.5 * (3 * near[2:] + own[2:]).sum()
    found = Distillation("neo_kd", weight=3.0, orthogonal=1.0, later=1.5).loss(clean, attacked, Y, draws())
    torch.testing.assert_close(found, expected)


def test_self_distillation_teaches_from_the_last_exit_on_the_attacked_image_and_ard_from_the_clean_one():
    clean, attacked = P.log(), P.flip(0).log()
    skd = Distillation("skd").loss(clean, attacked, Y, draws())
    torch.testing.assert_close(skd, compared(attacked[:-1], P[:1]).sum())
    ard = Distillation("ard", weight=2.0).loss(clean, attacked, Y, draws())
    torch.testing.assert_close(ard, 2 * compared(attacked, P[-1:]).sum())


@pytest.mark.parametrize("kind", ["neo_kd", "skd", "ard"])
def test_a_teacher_gets_no_gradient(kind):
    clean, attacked = P.log().requires_grad_(), P.flip(0).log().requires_grad_()
    term = Distillation(kind, orthogonal=1.0 if kind == "neo_kd" else 0.0)
    of_clean, of_attacked = torch.autograd.grad(term.loss(clean, attacked, Y, draws()), (clean, attacked), allow_unused=True)
    assert of_clean is None
    assert bool(of_attacked.any())
    assert kind != "skd" or not of_attacked[-1].any()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Distillation("other"), "no such distillation"),
        (lambda: Distillation("skd", orthogonal=1.0), "only neo_kd"),
        (lambda: Distillation("ard", weight=-1.0), "at least 0"),
        (lambda: Phase(1, distillation=Distillation("ard")), "clean and attacked"),
        (lambda: Phase(1, Crafting("main"), 0.5, distillation=Distillation("ard")), "clean and attacked"),
    ],
)
def test_a_distillation_that_cannot_be_is_refused(make, why):
    with pytest.raises(InvalidValue, match=why):
        make()
