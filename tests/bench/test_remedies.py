"""Every flag names a remedy: applied as the message names it, it lifts the flag; or the message says what not to believe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from exitbench.attacks.objectives import Margin
from exitbench.attacks.regions import ThreatModel
from exitbench.checks.probe import ensure_probe
from exitbench.runner.prepare import Prepared
from exitbench.scoring.evaluation import Evaluation
from tests.bench import trained as toys
from tests.bench.evaluated import evaluate, only_evaluation
from tests.bench.trained import planted, ready

pytestmark = pytest.mark.long

DISBELIEVED = "is not valid"


class StraightThrough(nn.Module):
    """The forward of ``Quantised``, with the gradient of what it approximates."""

    def forward(self, x):
        return x + (toys.Quantised()(x) - x).detach()


class Rare(nn.Module):
    """No gradient on images with a bright pixel: two of the first 32."""

    def forward(self, x):
        dark = (x[:, :, 5, 1] < 0.83)[:, :, None, None]
        return x.detach() * ~dark + x * dark


class Band(nn.Module):
    """Turns an image into its negative while its first pixel is in a band that attacks pass through."""

    def forward(self, x):
        first = x[:, :, :1, :1]
        return torch.where((first > 0.06) & (first < 0.14), 1 - x, x)


def weaker(steps=1, step_size=1e-4, **others):
    """Settings of an attack that is too weak."""
    return replace(toys.SETTINGS, steps=steps, step_size=step_size, **others)


MARGIN = replace(toys.SETTINGS, loss=Margin())


def another_search_model(prepared: Prepared) -> Prepared:
    prepared.target.__dict__["search_model"] = planted(head=toys.Scaled(1.1), heads=[2])
    return prepared


def flat(n) -> Prepared:
    """An evaluation of a masked network at half the usual radius."""
    settings = replace(toys.SETTINGS, region=ThreatModel("Linf", 0.12), step_size=0.03)
    return ready(planted(stage=toys.Quantised()), settings, n=n)


@dataclass(frozen=True)
class Case:
    """A flag, what raises it, and its remedy.

    Attributes:
        flag: Its name.
        level: Its level.
        raises: Makes the evaluation that raises it.
        says: What the message must say.
        remedy: Makes the evaluation with the remedy; None for the same.
        attacks: Attacks of the evaluation that raises it.
        add: Attacks that the remedy names.
        merged: Whether the remedy is another run of the same evaluation, so that both count.
        believed: Whether the remedy lifts the flag; else the message says what is not valid.
    """

    flag: str
    level: str
    raises: Callable[[], Prepared]
    says: str
    remedy: Callable[[], Prepared] | None = None
    attacks: Sequence[str] = ("single", "average")
    add: Sequence[str] = ()
    merged: bool = False
    believed: bool = True


CASES = {
    "missing gradients": Case(
        "missing gradients", "failure", lambda: ready(planted(stage=toys.Detached())), "remove what cuts the graph", ready
    ),
    "a saturated loss": Case(
        "zero gradients",
        "failure",
        lambda: ready(planted(head=toys.Scaled(1000))),
        "--loss margin and --attack single",
        lambda: ready(planted(head=toys.Scaled(1000)), MARGIN),
        merged=True,
    ),
    "a masked gradient": Case(
        "zero gradients",
        "failure",
        lambda: ready(planted(stage=toys.Quantised())),
        "differentiable approximation",
        lambda: ready(planted(stage=StraightThrough())),
    ),
    "too few without a gradient": Case(
        "zero gradients", "warning", lambda: ready(planted(stage=Rare())), "--n", lambda: ready(planted(stage=Rare()), n=64)
    ),
    "random outputs": Case(
        "randomised outputs", "failure", lambda: ready(planted(stage=toys.Noisy())), "no random numbers", ready
    ),
    "probabilities": Case(
        "probabilities", "failure", lambda: ready(planted(head=toys.Probabilities())), "remove the model's softmax", ready
    ),
    "log-probabilities": Case(
        "log-probabilities", "warning", lambda: ready(planted(head=nn.LogSoftmax(-1))), "return what the last layer", ready
    ),
    "another search model": Case(
        "search-model mismatch",
        "failure",
        lambda: another_search_model(ready()),
        "--precision fp32",
        lambda: plain(another_search_model(ready())),
    ),
    "a gate that is always sure": Case(
        "saturated gates",
        "warning",
        lambda: ready(planted(head=toys.Scaled(20), heads=[0])),
        "the cost under slowdown is not valid",
        believed=False,
    ),
    "a success that is lost": Case(
        "silent success",
        "warning",
        lambda: ready(planted(stage=Band()), replace(toys.SETTINGS, keep="last")),
        "--attack adaptive",
        attacks=("average",),
        add=("adaptive",),
    ),
    "an unfinished ascent": Case(
        "unfinished optimisation",
        "warning",
        lambda: ready(settings=weaker(steps=5, step_size=0.004)),
        "give more --steps",
        lambda: ready(settings=weaker(steps=60, step_size=0.05)),
    ),
    "a random search ahead": Case(
        "black-box beats white-box",
        "failure",
        lambda: ready(settings=weaker()),
        "give more --steps or another --loss, with --attack single",
        ready,
        merged=True,
    ),
    "random points as good": Case(
        "noise as good as gradients",
        "failure",
        lambda: ready(planted(stage=toys.Quantised())),
        DISBELIEVED,
        lambda: ready(planted(stage=StraightThrough())),
    ),
    "masked, whatever the steps": Case(
        "black-box beats white-box", "failure", lambda: ready(planted(stage=toys.Misleading())), DISBELIEVED, believed=False
    ),
    "an unbounded attack that fails": Case(
        "unbounded attack fails", "failure", lambda: ready(planted(stage=toys.Misleading())), DISBELIEVED, believed=False
    ),
    "what attacks miss": Case(
        "missed by attacks",
        "warning",
        lambda: ready(settings=weaker()),
        "--attack adaptive,autoattack",
        ready,
        attacks=("single:3",),
        add=("adaptive", "autoattack"),
        merged=True,
    ),
    "a flat curve of a few samples": Case("accuracy does not fall with eps", "warning", lambda: flat(1), "--n", lambda: flat(32)),
}


def plain(prepared: Prepared) -> Prepared:
    """The evaluation with ``--precision fp32``."""
    from exitbench.runner.search_backend import with_search_model

    return with_search_model(replace(prepared, precision="fp32"), 1.0)[0]


def checked(folder: Path, prepared: Prepared, attacks: Sequence[str]) -> Evaluation:
    _, store = evaluate(folder, attacks, prepared)
    assert ensure_probe(prepared, 0, store) is None
    return only_evaluation(store)


def raised(evaluation: Evaluation, case: Case):
    return [flag for flag in evaluation.flags if flag.name == case.flag and flag.level in (case.level, "failure")]


@pytest.mark.parametrize("name", CASES)
def test_the_remedy_lifts_the_flag_or_says_what_not_to_believe(name, tmp_path):
    case = CASES[name]
    (flag,) = raised(checked(tmp_path, case.raises(), case.attacks), case)
    assert flag.level == case.level and case.says in flag.message, flag
    if not case.believed:
        assert DISBELIEVED in flag.message
        return
    folder = tmp_path if case.merged or case.add else tmp_path / "remedy"
    evaluation = checked(folder, (case.remedy or case.raises)(), (*case.attacks, *case.add))
    assert not raised(evaluation, case), raised(evaluation, case)
