"""The training loss in closed form."""

import math

import pytest
import torch
from torch.nn import functional as F

from exitbench.training.loss import disagreement, growing_weights, training_loss
from exitbench.training.recipe import Phase

LOGITS = torch.tensor([[[0.0, math.log(3)], [5.0, 5.0]], [[0.0, 0.0], [2.0, 2.0]]])
"""Two exits, two samples, two classes: (1/4, 3/4) and (1/2, 1/2), then evenly both times."""


def test_disagreement_is_the_divergence_from_the_last_exit():
    expected = math.log(2) - math.log(3) / 2  # 1/2 log(1/2 / 1/4) + 1/2 log(1/2 / 3/4)
    torch.testing.assert_close(disagreement(LOGITS), torch.tensor([expected, 0.0]))
    assert torch.equal(disagreement(LOGITS[-1:]), torch.zeros(2)), "a network with one exit agrees with itself"


def test_the_last_exit_is_not_pulled_to_the_others():
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(disagreement(logits).sum(), logits)
    assert gradient[0].abs().sum() > 0 and not gradient[1].any()


def test_what_a_phase_asks_for_is_added_with_its_weight():
    y = torch.tensor([1, 0])
    plain = sum(F.cross_entropy(exit_logits, y) for exit_logits in LOGITS)
    torch.testing.assert_close(training_loss(LOGITS, y, Phase(1), None), plain)
    asked = training_loss(LOGITS, y, Phase(1, agreement=3.0), None)
    torch.testing.assert_close(asked, plain + 3 * disagreement(LOGITS).mean())


def test_the_weights_of_shallow_deep_networks_grow_from_a_hundredth_to_the_share_of_the_cost():
    shares = torch.tensor([0.2, 0.6, 1.0])
    torch.testing.assert_close(growing_weights(shares, 0.0), torch.tensor([0.01, 0.01, 1.0]))
    torch.testing.assert_close(growing_weights(shares, 0.5), torch.tensor([0.105, 0.305, 1.0]))
    torch.testing.assert_close(growing_weights(shares, 1.0), shares)


def test_weights_of_the_exits_scale_their_cross_entropies():
    logits, y = torch.randn(3, 5, 4), torch.tensor([0, 1, 2, 3, 0])
    each = [float(torch.nn.functional.cross_entropy(logits[k], y)) for k in range(3)]
    found = float(training_loss(logits, y, Phase(1), None, torch.tensor([0.1, 0.5, 1.0])))
    assert found == pytest.approx(0.1 * each[0] + 0.5 * each[1] + each[2], rel=1e-5)
