"""Networks as people return them: compiled, lazy, half precise, exits in reverse order. What is done with them is said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import exitbench
from exitbench.errors import UserError
from exitbench.models.plain_net import UNCOMPILED
from exitbench.runner.prepare import Request, prepare
from exitbench.scoring.load import evaluations
from tests.bench.evaluated import evaluate
from tests.bench.test_own_model import TINY

MORE = """
class Reversed(Tiny):
    def forward(self, x):
        return super().forward(x)[::-1]

class Nested(Tiny):
    def forward(self, x):
        features = self.trunk(x)
        return [self.exit_2(features) + features.mean(), features.flatten(1)[:, :10]]

class HalfImages(Tiny):
    def forward(self, x):
        return super().forward(x.half())

class HalfInside(Tiny):
    def forward(self, x):
        self.half()
        return [logits.float() for logits in super().forward(x.half())]

def compiled():
    return torch.compile(Tiny(), backend="aot_eager")

def part_compiled():
    net = Tiny()
    net.trunk = torch.compile(net.trunk, backend="aot_eager")
    return net

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(10))

def not_lazy():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
"""


@pytest.fixture
def asked(tmp_path):
    """Return a function that makes the request for a factory of the file above."""
    (tmp_path / "tiny.py").write_text(TINY + MORE)

    def ask(factory, **more):
        return Request(f"{tmp_path}/tiny.py:{factory}", tmp_path, dataset="digits", n=4, **more)

    return ask


@pytest.mark.parametrize("factory", ["compiled", "part_compiled"])
def test_a_compiled_network_is_evaluated_uncompiled_with_its_trust_checks(factory, asked, tmp_path):
    verdicts = {}
    for each in ("make", factory):
        prepared = prepare(asked(each, policy="entropy:2.2"))
        assert (UNCOMPILED in prepared.note) == (each == factory)
        outcomes, store = evaluate(tmp_path / each, ["average", "policy"], prepared)
        assert [outcome.error for outcome in outcomes] == [None] * 3
        (found,) = evaluations(store)
        verdicts[each] = [attack.correct.tolist() for attack in (found.clean, *found.attacks)]
    assert verdicts["make"] == verdicts[factory]


def test_weights_saved_from_the_compiled_network_fit_the_plain_one_and_the_other_way_round(asked, tmp_path):
    from exitbench.models.factory import find_factory

    net = find_factory(asked("compiled").model).build()
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for factory in ("compiled", "make", "part_compiled"):
        model = prepare(asked(factory, policy="exit:2", weights=tmp_path / "w.pt")).target.model
        assert torch.equal(model.net.exit_1[2].weight, net.exit_1[2].weight)


def test_a_compiled_network_in_memory_stays_compiled_and_is_evaluated_uncompiled(tmp_path):
    net = torch.compile(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), backend="aot_eager")
    found = exitbench.evaluate(net, dataset="digits", n=4, attacks="single:1", steps=2, results=tmp_path)
    assert UNCOMPILED in str(found) and "Sequential" in str(found) and hasattr(net, "_orig_mod")


def test_lazy_layers_are_initialised_by_the_datasets_shape_the_same_every_time(asked, tmp_path):
    first, second = (prepare(asked("lazy")).target for _ in range(2))
    assert first.weights == second.weights
    torch.save(prepare(asked("not_lazy")).target.model.net.state_dict(), tmp_path / "w.pt")
    x = torch.rand(3, 1, 8, 8)
    lazy, plain = (prepare(asked(name, weights=tmp_path / "w.pt")).target.model for name in ("lazy", "not_lazy"))
    assert torch.equal(lazy(x), plain(x))
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(10)).eval()
    found = exitbench.evaluate(net, dataset="digits", n=4, attacks="single:1", steps=2, results=tmp_path)
    assert found and isinstance(net[1], nn.LazyLinear), "the caller's network is left as it is"


def test_half_precision_is_said(asked):
    with pytest.raises(UserError, match=r"tiny\.py:HalfImages: .*evaluated in fp32.*take \.half\(\).* out of forward"):
        prepare(asked("HalfImages", policy="exit:2"))
    assert "computes in float16 inside" in prepare(asked("HalfInside", policy="exit:2")).note
    assert "float16" not in prepare(asked("make", policy="exit:2")).note


@pytest.mark.parametrize("factory", ["Reversed", "Nested"])
def test_exits_in_reverse_order_are_said(factory, asked):
    note = prepare(asked(factory, policy="entropy:2.2")).note
    assert "alone, exit 2 would cost less than exit 1" in note and "reverse order?" in note
    assert "reverse order" not in prepare(asked("make", policy="entropy:2.2")).note
