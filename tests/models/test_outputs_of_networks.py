"""What networks return: every form of logits, gate scores beside them, iterators of exits, and exits that come and go."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exitbench.models.cost import measure_costs
from exitbench.models.errors import ChangedOutputs
from exitbench.models.foreign import ForeignModelError, ForeignNet
from exitbench.models.gate_scores import ScoredHead, score_of, with_score
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import ConfidencePolicy, deployed_logits
from exitbench.models.preceded import Preceded
from exitbench.models.search_model import SearchConfig, build_search_model
from tests.toys import small_convolutional

SHAPE = (1, 4, 4)


@dataclass
class Named:
    logits: Any
    gates: Any = None
    loss: Any = None


@dataclass
class TwoOrMore:
    first: Any
    second: Any
    third: Any = None
    fourth: Any = None


Tupled = namedtuple("Tupled", ["exits", "gate_scores"])

LOGITS = {
    "list": list,
    "tuple": tuple,
    "stacked": torch.stack,
    "named": lambda logits: {f"exit_{k}": one for k, one in enumerate(logits)},
    "numbered": lambda logits: dict(enumerate(logits)),
    "ordered": lambda logits: OrderedDict((f"classifier{9 - k}", one) for k, one in enumerate(logits)),
    "dataclass": lambda logits: TwoOrMore(*logits),
}
SCORES = {
    "list": list,
    "columns": lambda scores: [score[:, None] for score in scores],
    "tuple": tuple,
    "named": lambda scores: {f"gate_{k}": score for k, score in enumerate(scores)},
    "exits first": torch.stack,
    "images first": lambda scores: torch.stack(scores, 1),
    "images first, columns": lambda scores: torch.stack(scores, 1)[..., None],
}
BESIDE = {
    "logits and gates": lambda logits, scores: {"logits": logits, "gates": scores},
    "outputs, a loss and scores": lambda logits, scores: {"loss": None, "outputs": logits, "scores": scores},
    "gates first": lambda logits, scores: {"gates": scores, "exits": logits},
    "dataclass": Named,
    "named tuple": Tupled,
}


class Returning(nn.Module):
    """Affine exits with gates, put into whatever form is asked for."""

    def __init__(self, n_exits, form, n_gates=0):
        super().__init__()
        torch.manual_seed(3)
        self.heads = nn.ModuleList(nn.Linear(16, 5) for _ in range(n_exits))
        self.gates = nn.ModuleList(nn.Linear(16, 1) for _ in range(n_gates))
        self.form = form

    def logits(self, x):
        return [head(x.flatten(1)) for head in self.heads]

    def scores(self, x):
        return [gate(x.flatten(1))[:, 0] for gate in self.gates]

    def forward(self, x):
        return self.form(self.logits(x), self.scores(x))


@given(form=st.sampled_from(sorted(LOGITS)), n_exits=st.integers(2, 4), batch=st.integers(1, 5))
def test_logits_are_read_in_every_form_in_order(form, n_exits, batch):
    inner = Returning(n_exits, lambda logits, _: LOGITS[form](logits))
    net, x = ForeignNet(inner, SHAPE), torch.rand(batch, *SHAPE)
    assert net.n_exits == n_exits and not net.has_gate_scores and not net.stops
    torch.testing.assert_close(net(x), torch.stack(inner.logits(x)), rtol=0, atol=0)


@given(
    beside=st.sampled_from(sorted(BESIDE)),
    logits_in=st.sampled_from(["list", "stacked", "named"]),
    scores_in=st.sampled_from(sorted(SCORES)),
    n_exits=st.integers(2, 5),
    last_has_one=st.booleans(),
    batch=st.integers(1, 6),
)
def test_gate_scores_are_carried_in_every_form(beside, logits_in, scores_in, n_exits, last_has_one, batch):
    """Of all sizes, among them batches of as many images as there are exits, or gates."""

    def form(logits, scores):
        return BESIDE[beside](LOGITS[logits_in](logits), SCORES[scores_in](scores))

    inner = Returning(n_exits, form, n_exits if last_has_one else n_exits - 1)
    net, x = ForeignNet(inner, SHAPE), torch.rand(batch, *SHAPE)
    logits, scores = inner.logits(x), inner.scores(x)
    assert net.has_gate_scores and net.n_exits == n_exits
    found = net(x)
    for k in range(n_exits - 1):
        torch.testing.assert_close(found[k], with_score(logits[k], scores[k]))
        torch.testing.assert_close(score_of(found[k]), scores[k])
        torch.testing.assert_close(net(x, upto=k), found[: k + 1])
    torch.testing.assert_close(found[-1], logits[-1], rtol=0, atol=0)


def test_costs_of_exits_with_gates_are_told_apart():
    inner = Returning(3, lambda logits, scores: {"logits": logits, "gates": scores}, 2)
    assert measure_costs(ForeignNet(inner, SHAPE), SHAPE).mmacs == pytest.approx([96e-6, 192e-6, 272e-6])


def test_a_head_with_a_gate_makes_a_network_with_gate_scores():
    def head(gated):
        plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
        return ScoredHead(plain, nn.Sequential(nn.Flatten(), nn.Linear(16, 1))) if gated else plain

    stages = [nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)]
    net = MultiExitNet(stages, [head(True), head(True), head(False)]).eval()
    x = torch.rand(4, *SHAPE)
    features = stages[0](x)
    assert net.has_gate_scores
    torch.testing.assert_close(score_of(net(x)[0]), net.heads[0].gate(features)[:, 0])
    torch.testing.assert_close(torch.softmax(net(x)[0], -1), torch.softmax(net.heads[0].head(features), -1))
    assert net.search_model().has_gate_scores and net.preceded_by(nn.Identity()).has_gate_scores
    assert build_search_model(net, SearchConfig(precision="bf16")).has_gate_scores
    assert not MultiExitNet(stages, [head(True), head(False), head(False)]).has_gate_scores
    assert not MultiExitNet(stages[:1], [head(False)]).has_gate_scores


REFUSED = {
    "nothing named": (lambda logits, scores: {"gates": scores}, "and no logits"),
    "an empty dictionary": (lambda logits, scores: {}, "nothing, and no logits"),
    "two holders": (lambda logits, scores: {"logits": logits, "exits": logits}, "both 'logits' and 'exits'"),
    "two kinds of scores": (lambda logits, scores: {"logits": logits, "gates": scores, "scores": scores}, "both 'gates' and"),
    "logits beside exits": (lambda logits, scores: {"logits": logits[2], "aux": logits[1]}, "others like it \\('aux'\\)"),
    "logits beside a list of exits": (lambda logits, scores: {"logits": logits[2], "exit_logits": logits}, "\\('exit_logits'\\)"),
    "logits beside named exits": (
        lambda logits, scores: {"outputs": logits[2], "aux": LOGITS["named"](logits[:2])},
        "\\('aux'\\)",
    ),
    "logits beside stacked exits": (lambda logits, scores: Named(logits[2], loss=torch.stack(logits)), "\\('loss'\\)"),
    "features among the values": (lambda logits, scores: {"a": logits[0], "features": logits[0][:, :2]}, "no features"),
    "scores without a name": (lambda logits, scores: (logits, scores), "gate scores have names"),
    "too few scores": (lambda logits, scores: {"logits": logits, "gates": scores[:1]}, "1 gate scores for 3 exits"),
    "too many scores": (lambda logits, scores: {"logits": logits, "gates": [*scores, *scores]}, "4 gate scores for 3"),
    "scores of two numbers": (
        lambda logits, scores: {"logits": logits, "gates": [torch.stack([s, -s], 1) for s in scores]},
        "gate score 1 has the shape \\(3, 2\\)",
    ),
    "scores in one tensor of another size": (
        lambda logits, scores: {"logits": logits, "gates": torch.stack([*scores, *scores])},
        "gate scores have the shape \\(4, 3\\)",
    ),
    "decisions": (lambda logits, scores: {"logits": logits, "gates": [s > 0 for s in scores]}, "no direction"),
    "decisions in one tensor": (lambda logits, scores: {"logits": logits, "gates": torch.stack(scores) > 0}, "no direction"),
    "a score that is a number": (lambda logits, scores: {"logits": logits, "gates": [0.5, 0.5]}, "gate score 1 is float"),
    "scores that are a text": (lambda logits, scores: {"logits": logits, "gates": "high"}, "gate scores are str"),
    "scores for some batches": (
        lambda logits, scores: {"logits": logits, "gates": scores if len(scores[0]) > 1 else None},
        "gate scores for some batches",
    ),
    "an object": (lambda logits, scores: SimpleNamespace(logits=logits), "returns SimpleNamespace"),
    "probabilities beside gates": (
        lambda logits, scores: {"logits": [one.softmax(-1) for one in logits], "gates": scores},
        "probabilities at exit 1, 2, 3",
    ),
}


def test_what_cannot_be_logits_beside_one_exit_is_left_alone():
    beside = {
        "features": [torch.rand(3, 7)],
        "loss": torch.rand(()),
        "predicted": torch.zeros(3, 5, dtype=torch.int64),
        "name": "a",
    }
    inner = Returning(1, lambda logits, _: {"logits": logits[0], **beside})
    assert ForeignNet(inner, SHAPE).n_exits == 1


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_was_found(case):
    form, message = REFUSED[case]
    with pytest.raises(ForeignModelError, match=message):
        ForeignNet(Returning(3, form, 2), SHAPE)


class Yielding(nn.Module):
    """A network that yields its exits, counts the stages that it ran, and returns all of them at once as well."""

    def __init__(self, as_yielded=lambda one, _: one):
        super().__init__()
        self.net, self.as_yielded, self.ran = small_convolutional(3), as_yielded, 0

    def exits(self, x):
        for stage, head in zip(self.net.stages, self.net.heads, strict=True):
            self.ran += 1
            x = stage(x)
            yield self.as_yielded(head(x), x)

    def forward(self, x):
        return [self.as_yielded(one, None) for one in self.exits(x)]


class IterYielding(Yielding):
    """The same under the other name; ``exits`` is something else, as it often is."""

    def iter_exits(self, x):
        return iter(Yielding.exits(self, x))

    def exits(self):
        return 3

    def forward(self, x):
        return list(self.iter_exits(x))


class OnlyYielding(Yielding):
    forward = nn.Module.forward


@pytest.mark.parametrize("kind", [Yielding, IterYielding, OnlyYielding])
def test_where_exits_are_yielded_those_behind_the_one_asked_for_are_not_computed(kind):
    inner, ours = kind(), small_convolutional(3)
    net, x = ForeignNet(inner, SHAPE), torch.rand(6, *SHAPE)
    assert net.stops and net.n_exits == 3
    torch.testing.assert_close(net(x), ours(x), rtol=0, atol=0)
    for k in range(3):
        inner.ran = 0
        torch.testing.assert_close(net(x, upto=k), ours(x, upto=k), rtol=0, atol=0)
        assert inner.ran == k + 1
    assert measure_costs(net, SHAPE).mmacs == pytest.approx(measure_costs(ours, SHAPE).mmacs)
    assert measure_costs(net, SHAPE).note is None


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.3, 0.3), (1.0, 0.0), (1.0, 1.0)])
def test_deployed_exits_stop_where_the_last_image_has_left(thresholds):
    inner, x = Yielding(), torch.rand(8, *SHAPE)
    net, policy = ForeignNet(inner, SHAPE), ConfidencePolicy(thresholds)
    wanted, taken = deployed_logits(net(x), policy)
    inner.ran = 0
    torch.testing.assert_close(net.deployed(x, policy), wanted, rtol=0, atol=0)
    assert inner.ran == taken.max() + 1


def test_images_pass_what_is_put_before_a_network_that_yields_its_exits():
    inner, x = Yielding(), torch.rand(4, *SHAPE)
    net = ForeignNet(inner, SHAPE)
    before = net.preceded_by(nn.Threshold(0.5, 0.5))
    assert isinstance(before, Preceded) and before.stops
    torch.testing.assert_close(before(x), net(x.clamp(0.5)), rtol=0, atol=0)
    wanted, inner.ran = net(x.clamp(0.5)), 0
    torch.testing.assert_close(before(x, upto=0), wanted[:1], rtol=0, atol=0)
    assert inner.ran == 1
    assert measure_costs(before, SHAPE).mmacs == measure_costs(net, SHAPE).mmacs
    never = ConfidencePolicy((1.0, 1.0))
    torch.testing.assert_close(before.deployed(x, never), before(x)[-1], rtol=0, atol=0)


@pytest.mark.parametrize("pair", [lambda one, score: (one, score), lambda one, score: {"logits": one, "gate_scores": score}])
def test_a_score_may_be_yielded_beside_the_logits(pair):
    class Gated(Yielding):
        forward = nn.Module.forward

        def exits(self, x):
            for one in super().exits(x):
                yield pair(one, one[:, :1] * 2)

    x, ours = torch.rand(3, *SHAPE), small_convolutional(3)
    net = ForeignNet(Gated(), SHAPE)
    assert net.has_gate_scores and net.stops
    torch.testing.assert_close(score_of(net(x)[:2]), 2 * ours(x)[:2, :, 0])
    torch.testing.assert_close(net(x, upto=0), net(x)[:1])


class Shifted(Yielding):
    def forward(self, x):
        first, *rest = super().forward(x)
        return [first.flip(1), *rest]


class Fewer(Yielding):
    def forward(self, x):
        return super().forward(x)[:2]


class More(Yielding):
    def forward(self, x):
        found = super().forward(x)
        return [*found, found[-1]]


class ScoresInOne(Yielding):
    def forward(self, x):
        found = super().forward(x)
        return {"logits": found, "gates": [one[:, 0] for one in found]}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Shifted, "exit 1, computed one at a time, differs by .* of their spread"),
        (Fewer, "yields more than 2 exits"),
        (More, "yields 3 exits, at first it had 4"),
        (ScoresInOne, "exit 1, computed one at a time, differs"),
    ],
)
def test_exits_that_differ_from_those_returned_are_an_error(kind, message):
    with pytest.raises(ForeignModelError, match=message):
        ForeignNet(kind(), SHAPE)


def test_a_network_that_computes_all_before_its_first_exit_is_charged_all():
    class Eager(Yielding):
        def exits(self, x):
            yield from list(super().exits(x))

    costs = measure_costs(ForeignNet(Eager(), SHAPE), SHAPE)
    assert costs.mmacs == (measure_costs(small_convolutional(3), SHAPE).mmacs[-1],) * 3
    assert "before the first exit is there" in costs.note


def test_things_of_that_name_that_are_no_iterator_are_left_alone():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.exits = nn.ModuleList([nn.Linear(16, 5), nn.Linear(16, 5)])

        def iter_exits(self, x):
            raise RuntimeError("this is something else")

        def forward(self, x):
            return [head(x.flatten(1)) for head in self.exits]

    net = ForeignNet(Other(), SHAPE)
    assert not net.stops and net.n_exits == 2


CHANGING = {
    "fewer": lambda logits: logits[:2],
    "more": lambda logits: [*logits, logits[-1]],
    "one": lambda logits: logits[-1],
    "scores": lambda logits: {"logits": logits, "gates": [one[:, 0] for one in logits]},
}


@pytest.mark.parametrize("change", CHANGING)
@pytest.mark.parametrize("upto", [None, 0, 2])
def test_exits_that_come_and_go_are_noticed_whichever_is_asked_for(change, upto):
    shown = {"as": list}
    net = ForeignNet(Returning(3, lambda logits, _: shown["as"](logits)), SHAPE)
    shown["as"] = CHANGING[change]
    with pytest.raises(ChangedOutputs, match="at first it had 3"):
        net(torch.rand(2, *SHAPE), upto=upto)


def test_an_iterator_that_ends_early_is_noticed():
    class Confident(Yielding):
        many = True

        def exits(self, x):
            for k, one in enumerate(super().exits(x)):
                if k < 2 or self.many:
                    yield one

    inner = Confident()
    net = ForeignNet(inner, SHAPE)
    inner.many = False
    with pytest.raises(ChangedOutputs, match="returned 2 exits, at first it had 3"):
        net(torch.rand(2, *SHAPE))
    with pytest.raises(ChangedOutputs, match="yields 2 exits, at first it had 3"):
        list(net.exits(torch.rand(2, *SHAPE)))
