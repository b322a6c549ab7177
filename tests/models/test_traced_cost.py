"""Traced costs of each exit, against networks whose costs are counted by hand or piece by piece."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exitbench.models.cost import measure_costs
from exitbench.models.registry import model_card
from exitbench.models.traced_cost import trace
from exitbench.models.zero_weights import ZeroWeights
from tests.toys import small_convolutional


@pytest.mark.parametrize("name", ["rdi_smallcnn", "rdi_resnet38", "rdi_mobilenetv2_075", "smallcnn"])
def test_a_net_that_can_be_cut_costs_the_same_uncut(name):
    card = model_card(name)
    net = card.build().eval()
    traced, counted = trace(net, torch.zeros(1, *card.input_shape)), measure_costs(net, card.input_shape)
    assert [macs / 1e6 for macs in traced.reached] == pytest.approx(counted.mmacs, rel=1e-12)
    assert [macs / 2**20 for macs in traced.convolutions] == pytest.approx(counted.mflops_paper, rel=1e-12)
    assert traced.total == traced.reached[-1]


def test_a_pruned_net_that_can_be_cut_costs_the_same_uncut():
    card = model_card("rdi_smallcnn")
    net = card.build().eval()
    with torch.no_grad():
        for i, weight in enumerate(weight for weight in net.parameters() if weight.ndim > 1):
            weight.view(-1)[:: i + 2] = 0
    counted = measure_costs(net, card.input_shape)
    traced = trace(net, torch.zeros(1, *card.input_shape), ZeroWeights(net))
    assert [macs / 1e6 for macs in traced.reached] == pytest.approx(counted.mmacs, rel=1e-12)
    assert [macs / 1e6 for macs in traced.dense] == pytest.approx(counted.mmacs_dense, rel=1e-12)
    assert all(kept < dense for kept, dense in zip(counted.mmacs, counted.mmacs_dense, strict=True))


class Heads(nn.Module):
    """A trunk of 4 x 4, an exit of 4 x 3 on the input and one on the trunk, put together by ``join``."""

    def __init__(self, join):
        super().__init__()
        self.trunk = nn.Linear(4, 4, bias=False)
        self.exit_1, self.exit_2 = nn.Linear(4, 3), nn.Linear(4, 3)
        self.join = join

    def forward(self, x):
        x = x.flatten(1)
        return self.join(self.exit_1(x), self.exit_2(self.trunk(x)))


def _overwritten(logits, by):
    logits[0].add_(by)
    return logits


def written_into(first, second):
    logits = torch.zeros(2, *first.shape)
    logits[0], logits[1] = first, second
    return logits


APART = {
    "stack": lambda a, b: torch.stack([a, b]),
    "cat": lambda a, b: torch.cat([a[None], b[None]]),
    "cat of stacks": lambda a, b: torch.cat([torch.stack([a]), torch.stack([b])]),
    "scaled": lambda a, b: (torch.stack([a, b]) / 2.0).double(),
    "scaled in place": lambda a, b: torch.stack([a, b]).mul_(torch.ones(2, 1, 1)),
    "taken apart and put together": lambda a, b: torch.stack([one[None].float()[0] for one in torch.stack([a, b])]),
    "picked": lambda a, b: torch.stack([(both := torch.stack([a, b]))[0], both[1]]),
    "log-softmax": lambda a, b: torch.stack([a, b]).log_softmax(-1),
}

TOGETHER = {
    "softmax over exits": lambda a, b: torch.stack([a, b]).softmax(0),
    "running sum": lambda a, b: torch.stack([a, b]).cumsum(0),
    "turned around": lambda a, b: torch.stack([a, b]).flip(0),
    "stacked last": lambda a, b: torch.stack([a, b], dim=-1).permute(2, 0, 1),
    "a row written over": lambda a, b: torch.stack([*_overwritten(torch.stack([a, b]), b)]),
    "written in part": written_into,
    "written over": lambda a, b: torch.stack([a, a]).index_copy_(0, torch.tensor([1]), b[None]),
}


@pytest.mark.parametrize("case", APART)
def test_exits_are_told_apart(case):
    traced = trace(Heads(APART[case]), torch.zeros(1, 1, 2, 2))
    assert traced.reached == (12, 12 + 16 + 12)


@pytest.mark.parametrize("case", TOGETHER)
def test_what_cannot_be_told_apart_is_charged_whole(case):
    traced = trace(Heads(TOGETHER[case]), torch.zeros(1, 1, 2, 2))
    assert traced.reached == (40, 40)


class Chain(nn.Module):
    """Linear layers in a row from 4 features, and heads of 3 classes behind some of them, in any order."""

    def __init__(self, widths, behind):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise([4, *widths])])
        self.heads = nn.ModuleList([nn.Linear(widths[at], 3) for at in behind])
        self.behind = behind

    def forward(self, x):
        features = [x.flatten(1)]
        for layer in self.layers:
            features.append(layer(features[-1]).relu_())
        return torch.stack([head(features[at + 1]) for at, head in zip(self.behind, self.heads, strict=True)])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_an_exit_costs_the_way_there_and_every_head_before_it(widths, data):
    behind = data.draw(st.lists(st.integers(0, len(widths) - 1), min_size=1, max_size=4))
    traced = trace(Chain(widths, behind), torch.zeros(1, 1, 2, 2))
    layers = [a * b for a, b in pairwise([4, *widths])]
    for k in range(len(behind)):
        heads = sum(3 * widths[at] for at in behind[: k + 1])
        assert traced.reached[k] == sum(layers[: max(behind[: k + 1]) + 1]) + heads


def test_an_exit_that_feeds_the_next_counts_once():
    class Cascaded(Heads):
        def forward(self, x):
            x = x.flatten(1)
            first = self.exit_1(x)
            return torch.stack([first, first + self.exit_2(self.trunk(x))])

    assert trace(Cascaded(None), torch.zeros(1, 1, 2, 2)).reached == (12, 40)


def test_changes_in_place_are_followed():
    class InPlace(Heads):
        def forward(self, x):
            x = x.flatten(1)
            first = self.exit_1(x)
            second = torch.zeros_like(first)
            second[:, :2] += self.exit_2(self.trunk(x))[:, :2]
            return torch.stack([first, second])

    assert trace(InPlace(None), torch.zeros(1, 1, 2, 2)).reached == (12, 40)


def test_what_no_exit_needs_is_in_the_total_alone():
    traced = trace(Heads(lambda a, b: torch.stack([a])), torch.zeros(1, 1, 2, 2))
    assert (traced.reached, traced.total) == ((12,), 40)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_fused_attention_is_counted_as_the_products_it_is(mode):
    """4 tokens of width 8: projections 4 x 8 x 24 and 4 x 8 x 8, products 2 x 4 x 4 x 8, and two layers of 4 x 8 x 16."""
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval().requires_grad_(False)
    net = nn.Sequential(nn.Flatten(2), layer, nn.Flatten(), nn.Unflatten(0, (1, 1)))
    with mode():
        assert trace(net, torch.zeros(1, 4, 2, 4)).total == 4 * 8 * 32 + 2 * 4 * 4 * 8 + 2 * 4 * 8 * 16
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_toy_is_not_changed_by_tracing():
    net = small_convolutional(3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    trace(net, torch.zeros(1, 1, 4, 4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
