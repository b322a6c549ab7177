"""Costs against the figures of the reference measurements."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from exitbench.models.cost import measure_costs
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.registry import model_card

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


def zeroed(layer, n):
    """The layer with the first ``n`` of its weights zero and no other."""
    with torch.no_grad():
        layer.weight.fill_(1.0).flatten()[:n] = 0
    return layer


def test_a_zero_weight_costs_nothing():
    """4 x 9 weights at 16 places each, then 64 x 10: 5 and 100 of them zero."""
    net = MultiExitNet([zeroed(nn.Conv2d(1, 4, 3, padding=1), 5)], [nn.Sequential(nn.Flatten(), zeroed(nn.Linear(64, 10), 100))])
    costs = measure_costs(net, (1, 4, 4))
    assert costs.mmacs_dense == ((36 * 16 + 640) / 1e6,)
    assert costs.mmacs == ((31 * 16 + 540) / 1e6,)
    assert costs.mflops_paper == (36 * 16 / 2**20,)
    assert costs.sparsity == 105 / 676


LAYERS = {
    "strided": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise, strided": nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4),
    "dilated": nn.Conv2d(4, 3, (3, 1), dilation=2),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
    "linear without bias": nn.Linear(8, 5, bias=False),
}


@given(layer=st.sampled_from(sorted(LAYERS)), share=st.floats(0.01, 1))
def test_a_layer_costs_the_share_of_its_weights_that_are_not_zero(layer, share):
    module = zeroed(LAYERS[layer], n := max(1, round(share * LAYERS[layer].weight.numel())))
    costs = measure_costs(MultiExitNet([module], [nn.Identity()]), (4, 8, 8))
    assert costs.sparsity == n / module.weight.numel()
    assert costs.mmacs[0] == pytest.approx(costs.mmacs_dense[0] * (1 - costs.sparsity), abs=1e-12)
    assert costs.mmacs_dense[0] > 0


def test_zeros_of_exits_passed_are_saved_too_and_of_those_not_reached_are_not():
    def one(n):
        return nn.Sequential(nn.Flatten(), zeroed(nn.Linear(16, 2), n))

    costs = measure_costs(MultiExitNet([nn.Identity(), nn.Identity(), nn.Identity()], [one(0), one(8), one(4)]), (1, 4, 4))
    assert [round(c * 1e6) for c in costs.mmacs] == [32, 56, 84]
    assert [round(c * 1e6) for c in costs.mmacs_dense] == [32, 64, 96]


def test_a_weight_used_twice_costs_twice_and_is_one_of_the_weights_once():
    shared = zeroed(nn.Linear(4, 4, bias=False), 4)
    costs = measure_costs(MultiExitNet([nn.Sequential(shared, shared)], [zeroed(nn.Linear(4, 4, bias=False), 0)]), (1, 1, 4))
    assert costs.mmacs == (40 / 1e6,) and costs.sparsity == 4 / 32


def test_a_stray_zero_makes_no_pruned_net():
    net = MultiExitNet([nn.Identity()], [nn.Sequential(nn.Flatten(), zeroed(nn.Linear(1024, 10), 10))])
    costs = measure_costs(net, (1, 32, 32))
    assert costs.mmacs == costs.mmacs_dense and costs.sparsity == 0


def test_zeros_in_activations_are_work_like_any_other():
    class Attention(nn.Module):
        def forward(self, x):
            rows = x.flatten(1)
            return rows @ rows.T @ rows

    costs = measure_costs(MultiExitNet([Attention()], [zeroed(nn.Linear(16, 3), 0)]), (1, 4, 4))
    assert costs.mmacs == costs.mmacs_dense == ((16 + 16 + 48) / 1e6,) and costs.sparsity == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_zeros_are_seen_in_any_mode(mode):
    net = MultiExitNet([zeroed(nn.Conv2d(1, 4, 3), 18)], [nn.Sequential(nn.Flatten(), zeroed(nn.Linear(16, 3), 24))])
    with mode():
        costs = measure_costs(net, (1, 4, 4))
    assert costs.sparsity == 0.5 and costs.mmacs[0] == costs.mmacs_dense[0] / 2
