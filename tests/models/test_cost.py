"""Costs against the figures of the reference measurements."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.cost import measure_costs
from models.multi_exit import MultiExitNet
from models.registry import model_card

RESNET38_PAPER = [16.79, 30.29, 36.54, 50.04, 61.42, 74.92, 79.42]
RESNET38_MMACS = [17.61, 39.50, 53.79, 69.13, 82.23, 96.39, 101.11]


def costs_of(name):
    card = model_card(name)
    return measure_costs(card.build(), card.input_shape)


def test_rdi_resnet38_reproduces_both_rows():
    costs = costs_of("rdi_resnet38")
    assert costs.mflops_paper == pytest.approx(RESNET38_PAPER, abs=0.02)
    assert costs.mmacs == pytest.approx(RESNET38_MMACS, rel=1e-3)


def test_rdi_smallcnn_reproduces_the_papers_row():
    assert costs_of("rdi_smallcnn").mflops_paper == pytest.approx([0.818, 7.00, 9.25], abs=0.02)


def test_late_exits_of_the_rdi_net_cost_more_than_the_plain_net():
    plain = costs_of("resnet38").mmacs[0]
    assert plain == pytest.approx(83.28, rel=1e-3)
    assert costs_of("rdi_resnet38").mmacs[5] > plain


def test_three_quarters_of_the_width_cost_about_their_square():
    card = model_card("resnet38_075")
    kernels = [tuple(p.shape) for p in card.build().parameters() if p.ndim == 4]
    assert kernels[0] == (12, 3, 3, 3) and {shape[0] for shape in kernels} == {12, 24, 48}
    stem, classifier = 27 * 16 * 32**2, 64 * 10
    inner = costs_of("resnet38").mmacs[0] * 1e6 - stem - classifier
    assert costs_of("resnet38_075").mmacs[0] * 1e6 == pytest.approx((stem + classifier) * 3 / 4 + inner * 9 / 16)


class Functional(nn.Module):
    """Convolves and multiplies without a module that a hook could see."""

    def forward(self, x):
        features = F.conv2d(x, torch.ones(2, 1, 3, 3))  # 2 * 9 * 4 multiply-accumulates on 4x4
        return F.linear(features.flatten(1), torch.ones(5, 8))  # 40


def test_functional_calls_are_counted():
    net = MultiExitNet([nn.Conv2d(1, 1, 1, bias=False)], [Functional()])
    costs = measure_costs(net, (1, 4, 4))
    assert costs.mmacs[0] * 1e6 == pytest.approx(16 + 72 + 40)
    assert costs.mflops_paper[0] * 2**20 == pytest.approx(16 + 72)


def test_counting_leaves_the_training_mode_alone():
    net = model_card("rdi_smallcnn").build().train()
    measure_costs(net, (1, 28, 28))
    assert net.training
