"""Random mixtures of layers: each costs its closed form, or is named as one without a formula. None is left out in silence."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from exitbench.models.cost import count_mmacs, measure_costs
from exitbench.models.foreign import ForeignNet
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.operators import FORMULAS, FREE
from exitbench.models.traced_cost import trace
from exitbench.models.zero_weights import ZeroWeights


@torch.library.custom_op("exitbench_test::mix", mutates_args=())
def mix(x: torch.Tensor) -> torch.Tensor:
    """A product of matrices inside an operator that torch cannot look into."""
    return x @ x.mT


STEPS, WIDTH = st.integers(1, 30), st.integers(1, 6)


def _recurrent(kind):
    def make(draw, t, f):
        h, layers, two = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.booleans())
        gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
        net = kind(f, h, layers, bias=draw(st.booleans()), bidirectional=two, batch_first=True)
        ways = 1 + two
        inputs = [f, *[ways * h] * (layers - 1)]
        return (lambda x: net(x)[0]), t * sum(ways * gates * h * (n + h) for n in inputs)

    return make


def _cell(draw, t, f):
    h = draw(st.integers(1, 5))
    net = nn.LSTMCell(f, h)
    return (lambda x: net(x[0])[0]), t * 4 * h * (f + h)


def _projected(draw, t, f):
    net = nn.LSTM(f, 4, proj_size=2, batch_first=True)
    return (lambda x: net(x)[0]), t * (16 * (f + 2) + 8)


def _bilinear(draw, t, f):
    out = draw(st.integers(1, 5))
    net = nn.Bilinear(f, f, out)
    return (lambda x: net(x, x)), t * f * f * out


def _attention(draw, t, f):
    heads, causal = draw(st.integers(1, 3)), draw(st.booleans())

    def run(x):
        each = x.unsqueeze(1).expand(1, heads, t, f)
        return F.scaled_dot_product_attention(each, each, each, is_causal=causal)

    return run, 2 * heads * t * t * f


def _grouped_attention(draw, t, f):
    def run(x):
        return F.scaled_dot_product_attention(x[:, None].expand(1, 4, t, f), x[:, None], x[:, None], enable_gqa=True)

    return run, 2 * 4 * t * t * f


def _encoder(draw, t, f):
    net = nn.TransformerEncoderLayer(f, 1, dim_feedforward=7, batch_first=True).eval()
    return net, 4 * t * f * f + 2 * t * t * f + 2 * t * f * 7


def _transposed(draw, t, f):
    net = nn.ConvTranspose1d(f, 3, draw(st.integers(1, 4)), stride=draw(st.integers(1, 2)))
    return (lambda x: net(x.mT)), t * net.weight.numel()


def _distances(draw, t, f):
    p = draw(st.sampled_from([1.0, 2.0, 3.0]))
    return (lambda x: torch.cdist(x, x, p=p)), t * t * f


def _weight(draw, f):
    return nn.Parameter(torch.ones(draw(st.integers(1, 5)), f))


def _vector(draw, t, f):
    weight = _weight(draw, f)
    return (lambda x: weight @ x[0, 0]), weight.numel()


COUNTED = {
    "LSTM": _recurrent(nn.LSTM),
    "GRU": _recurrent(nn.GRU),
    "RNN": _recurrent(nn.RNN),
    "LSTMCell": _cell,
    "LSTM, projected": _projected,
    "Bilinear": _bilinear,
    "cdist": _distances,
    "pdist": lambda draw, t, f: ((lambda x: F.pdist(x[0])), t * (t - 1) // 2 * f),
    "mv": _vector,
    "addmv": lambda draw, t, f: ((lambda x: torch.addmv(x[0, :, 0], x[0], x[0, 0])), t * f),
    "addmv in place": lambda draw, t, f: ((lambda x: torch.zeros(t).addmv_(x[0], x[0, 0])), t * f),
    "dot": lambda draw, t, f: ((lambda x: torch.dot(x[0, 0], x[0, 0])), f),
    "vdot": lambda draw, t, f: ((lambda x: torch.vdot(x[0, 0], x[0, 0])), f),
    "addr": lambda draw, t, f: ((lambda x: torch.addr(torch.zeros(t, f), x[0, :, 0], x[0, 0])), t * f),
    "addmm in place": lambda draw, t, f: ((lambda x: torch.zeros(f, f).addmm_(x[0].T, x[0])), t * f * f),
    "addbmm": lambda draw, t, f: ((lambda x: torch.addbmm(torch.zeros(f, f), x.mT, x)), t * f * f),
    "baddbmm in place": lambda draw, t, f: ((lambda x: torch.zeros(1, f, f).baddbmm_(x.mT, x)), t * f * f),
    "einsum": lambda draw, t, f: ((lambda x: torch.einsum("bij,bkj->bik", x, x)), t * t * f if f > 1 else 0),  # else elementwise
    "inner": lambda draw, t, f: ((lambda x: torch.inner(x, x)), t * t * f),
    "attention": _attention,
    "grouped attention": _grouped_attention,
    "TransformerEncoderLayer": _encoder,
    "ConvTranspose1d": _transposed,
    "softmax": lambda draw, t, f: ((lambda x: x.softmax(-1)), 0),
    "norm, pooling, order": lambda draw, t, f: ((lambda x: F.max_pool1d(F.layer_norm(x, (f,)), 1).sort().values), 0),
}
"""Layers with their multiply-accumulates on ``(1, t, f)``."""

UNKNOWN = {
    "fft": (lambda x: torch.fft.fft(x).abs(), {"aten._fft_r2c"}),
    "fft and back": (lambda x: torch.fft.irfft(torch.fft.rfft(x), 4), {"aten._fft_r2c", "aten._fft_c2r"}),
    "fft of images": (lambda x: torch.fft.fft2(x).abs(), {"aten._fft_c2c"}),
    "inverse": (lambda x: torch.linalg.inv(torch.eye(3) + x.mean()), {"aten.linalg_inv_ex"}),
    "matrix exponential": (lambda x: torch.linalg.matrix_exp(torch.eye(3) * x.mean()), {"aten.linalg_matrix_exp"}),
    "svd": (torch.linalg.svdvals, {"aten._linalg_svd"}),
    "another library's": (mix, {"exitbench_test.mix"}),
}
"""Layers that cost something nobody has a formula for, and what they are called."""


class Mixed(nn.Module):
    """Runs every layer on the image, seen as ``(1, t, f)``, and classifies the sum; in inference mode if asked for."""

    def __init__(self, layers, inference):
        super().__init__()
        self.layers, self.inference = layers, inference
        self.head = nn.Linear(1, 3, bias=False)

    def forward(self, x):
        with torch.inference_mode(self.inference):
            rows = x.flatten(1, 2) + 1
            found = sum((layer(rows).sum() for layer in self.layers), torch.zeros(()))
        return self.head(found.clone().expand(len(x), 1))


@settings(deadline=None, max_examples=150)
@given(
    t=STEPS, f=WIDTH, kinds=st.lists(st.sampled_from([*COUNTED, *UNKNOWN]), max_size=4), inference=st.booleans(), data=st.data()
)
def test_a_mixture_of_layers_costs_their_sum_or_names_what_is_left_out(t, f, kinds, inference, data):
    layers, macs, names = [], 3, set()
    for kind in kinds:
        if kind in COUNTED:
            layer, own = COUNTED[kind](data.draw, t, f)
            macs += own
        else:
            layer, own = UNKNOWN[kind]
            names |= own
        layers.append(layer)
    net = Mixed(layers, inference).eval()
    cut = measure_costs(MultiExitNet([nn.Identity()], [net]), (1, t, f))
    traced = trace(lambda x: net(x)[None], torch.zeros(1, 1, t, f))
    assert round(cut.mmacs_dense[0] * 1e6) == traced.total == macs
    assert set(cut.uncounted) == set(traced.uncounted) == names
    assert ("lower bound" in (cut.notes or "")) == bool(names) and all(name in (cut.notes or "") for name in names)


def test_a_count_without_a_formula_is_refused_where_there_is_no_room_for_a_note():
    net = Mixed([UNKNOWN["fft"][0]], inference=False)
    with pytest.raises(ValueError, match=r"no formula .* aten\._fft_r2c"):
        count_mmacs(net, (1, 4, 4))


def test_a_network_of_which_nothing_is_counted_names_what_has_no_formula():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.by = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.by * torch.fft.fft(x.flatten(1)).real

    with pytest.raises(ValueError, match=r"aten\._fft_r2c.*give it exit_costs"):
        measure_costs(ForeignNet(Mixer(), (1, 4, 4)), (1, 4, 4))


def test_a_registered_formula_is_taken():
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    packet = torch.ops.exitbench_test.mix
    register_flop_formula(packet)(lambda shape, *_, out_shape=None, **__: 2 * math.prod(shape) * shape[-2])
    try:
        costs = measure_costs(MultiExitNet([nn.Identity()], [Mixed([packet], inference=False)]), (1, 4, 5))
    finally:
        del flop_registry[packet]
    assert costs.mmacs == ((4 * 4 * 5 + 3) / 1e6,) and not costs.uncounted


@pytest.mark.parametrize("kind", [nn.LSTM, nn.Bilinear])
def test_zero_weights_of_fused_layers_cost_nothing(kind):
    net = kind(4, 4, batch_first=True) if kind is nn.LSTM else kind(4, 4, 2)
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(1.0).view(-1)[::2] = 0
    traced = trace(
        lambda x: (net(x[:, 0])[0] if kind is nn.LSTM else net(x[:, 0], x[:, 0]))[None], torch.zeros(1, 1, 3, 4), ZeroWeights(net)
    )
    assert traced.reached[0] * 2 == traced.dense[0] > 0


def test_the_formulas_are_of_operators_that_are_not_called_free():
    from fnmatch import fnmatchcase

    patterns = " ".join(FREE.values()).split()
    costly = ["mm", "bmm", "addmm", "convolution", *(name.partition(".")[2] for name in FORMULAS if name.startswith("aten."))]
    assert not [(name, pattern) for name in costly for pattern in patterns if fnmatchcase(name, pattern)]


class Patches(nn.Module):
    """A vision transformer in small: a convolution cuts patches, products of matrices do the rest."""

    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(1, 8, 4, stride=4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.block(self.cut(x).flatten(2).mT).mean(1))


class Squeezed(nn.Module):
    """A convolution whose input went through a product of matrices."""

    def __init__(self):
        super().__init__()
        self.first, self.mix, self.second = nn.Conv2d(1, 8, 3), nn.Linear(14, 14), nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.second(self.mix(self.first(x))).mean((2, 3))


@pytest.mark.parametrize(
    "net", [Patches(), Squeezed(), nn.Sequential(nn.Flatten(), nn.Linear(256, 3))], ids=lambda n: type(n).__name__
)
def test_the_papers_figure_is_of_convolutional_backbones_alone(net):
    assert measure_costs(ForeignNet(net, (1, 16, 16)), (1, 16, 16)).mflops_paper is None
    assert measure_costs(MultiExitNet([net], [nn.Identity()]), (1, 16, 16)).mflops_paper is None


def test_the_papers_figure_of_a_convolutional_network_that_runs_whole_is_its_convolutions():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    assert measure_costs(ForeignNet(net, (1, 8, 8)), (1, 8, 8)).mflops_paper == (36 * 36 / 2**20,)
