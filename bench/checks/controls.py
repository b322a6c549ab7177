"""Black-box controls: random points, and a random search on the deployed margin. Gradient attacks must beat both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from msgspec import structs
from torch import Tensor

from exitbench.attacks.objectives import Margin
from exitbench.attacks.regions import ThreatModel
from exitbench.checks.flag import Flag
from exitbench.checks.leads import LEVEL, Pairs
from exitbench.checks.subject import Subject
from exitbench.checks.trace import AT_ONCE
from exitbench.models.policies import deployed_logits
from exitbench.store.trust_result import Controls

POINTS = 20
"""Random points per sample: as many as the default number of steps of a gradient attack."""

QUERIES = 100
"""Queries of the random search, about a third of the cost of a gradient attack."""

POINTS_DIFFERENCE = 0.2
"""Points of accuracy by which a black-box attack may be ahead (as in AutoAttack's own check; Croce & Hein, ICML 2020)."""

LEAD = 1.5
"""Smallest ratio of the samples that gradients break to those that random points break, where these are three or more. A useful
gradient breaks several times as many (14 to 32 of 32 against 0 to 2 on the models measured)."""

LONGER = 3000
"""Restart of the samples' noise for a second search."""

_NOISE, _SEARCH = 1000, 2000  # restarts of the samples' noise that no attack uses


@torch.no_grad()
def measure(subject: Subject) -> Controls:
    """Run the controls on samples that are right when clean; the result holds the dataset indices of those that each breaks."""
    return Controls(noise=subject.names(random_points(subject)), search=subject.names(random_search(subject)))


def random_points(subject: Subject) -> Tensor:
    """Return whether one of ``POINTS`` random corners (Linf) or surface points (L2) of the ball breaks each sample, ``(B,)``."""
    threat_model, x = subject.settings.region, subject.x
    broken = torch.zeros_like(subject.y, dtype=torch.bool)
    together = 1 if x.device.type != "cuda" else max(1, AT_ONCE // max(1, len(x)))
    for first in range(0, POINTS, together):
        numbers = range(first, min(first + together, POINTS))
        directions = [threat_model.steepest(subject.noise.normal(x, _NOISE + point)) for point in numbers]
        points = [threat_model.project(x + threat_model.eps * direction, x) for direction in directions]
        predicted = deployed_logits(subject.model(torch.cat(points)), subject.policy)[0].argmax(-1)
        broken |= (predicted.view(len(points), -1) != subject.y).any(0)
    return broken


def random_search(subject: Subject, queries: int | None = None, restart: int = _SEARCH) -> Tensor:
    """Return whether a random search on the deployed margin breaks each sample, ``(B,)``.

    The search follows the Square Attack (Andriushchenko et al., ECCV 2020). It starts from vertical stripes. In each query a
    square of random place and sign is set to the edge of the ball and kept where the margin of the deployed prediction grows;
    squares shrink with time. In L2 the change is projected back into the ball, which simplifies the original.
    """
    threat_model, x = subject.settings.region, subject.x
    queries = QUERIES if queries is None else queries
    channels, height, width = x.shape[1:]
    draws = subject.noise.uniform(x.new_empty(len(x), queries, channels + 2), restart)
    stripes = subject.noise.uniform(x[:, :, :1, :], restart + 1).sub(0.5).sign().expand_as(x)
    best = threat_model.project(x + threat_model.eps * threat_model.steepest(stripes), x)
    margin = _deployed_margin(subject, best)
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    for query in range(queries):
        side = max(1, round((_share(query / queries) * height * width) ** 0.5))
        signs, top, left = draws[:, query, :channels].sub(0.5).sign(), draws[:, query, -2], draws[:, query, -1]
        first_row, first_column = (top * (height - side + 1)).long(), (left * (width - side + 1)).long()
        inside = _between(row, first_row, side)[:, None, :, None] & _between(column, first_column, side)[:, None, None, :]
        candidate = torch.where(inside, x + _size(threat_model, side, channels) * signs[:, :, None, None], best)
        candidate = threat_model.project(candidate, x)
        found = _deployed_margin(subject, candidate)
        better = found > margin
        best = torch.where(better[:, None, None, None], candidate, best)
        margin = torch.where(better, found, margin)
    return subject.fails(best)


def _deployed_margin(subject: Subject, x_adv: Tensor) -> Tensor:
    return Margin()(deployed_logits(subject.searched(x_adv), subject.policy)[0][None], subject.y)[0]


def _share(progress: float) -> float:
    """Return the share of pixels in a square: 0.8 at first, halved as in the Square Attack's schedule, over fewer queries."""
    return 0.8 * 0.5 ** sum(progress > after for after in (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8))


def _size(threat_model: ThreatModel, side: int, channels: int) -> float:
    """Return the change per pixel of a square: the radius in Linf; in L2, such that the square alone has the length ``eps``."""
    return threat_model.eps if threat_model.norm == "Linf" else threat_model.eps / (side * channels**0.5)


def _between(position: Tensor, first: Tensor, side: int) -> Tensor:
    return (position[None] >= first[:, None]) & (position[None] < first[:, None] + side)


def flags(
    numbers: Controls, white_box: Sequence[int] | None, samples: int, robust: set[int] | None, looked: int = 1
) -> list[Flag]:
    """Return the flags ``black-box beats white-box``, ``noise as good as gradients`` and ``missed by attacks``.

    The last is a warning. The first two are failures if an exact test at ``LEVEL`` says so, and warnings where the samples are
    too few for it.

    Args:
        numbers: Result of ``measure``, for all samples that were looked at.
        white_box: Dataset indices that gradient ascents break, on the evaluation's loss or on the soft deployed rule, which is
            what the random search sees; None if they could not be run.
        samples: Number of samples that are right when clean.
        robust: Dataset indices that the whole evaluation leaves robust; None if it has no attack.
        looked: Number of times that the tests may be made as the samples grow, which share the level.
    """
    noise, search = set(numbers.noise), set(numbers.search)
    counts = {"noise": len(noise), "search": len(search), "samples": samples}
    found: list[Flag] = []
    if white_box is not None:
        counts["gradients"] = len(set(white_box))
        found = leads(numbers, white_box, samples, looked)
    missed = {name: len(broken & robust) for name, broken in (("noise", noise), ("search", search))} if robust is not None else {}
    if any(missed.values()):
        message = (
            f"{len((noise | search) & (robust or set()))} of {samples} samples that every attack leaves robust are broken "
            f"without gradients (random points {missed['noise']}, random search {missed['search']}); the accuracy is too "
            "high: add stronger attacks (--attack adaptive,autoattack)"
        )
        shown = counts | {f"missed by {name}": count for name, count in missed.items()}
        found.append(Flag("missed by attacks", "warning", shown, message))
    if not any(flag.name != "missed by attacks" for flag in found):
        found.append(Flag("black-box controls", "info", counts, _controls_text(counts)))
    return found


def joined(one: Controls, other: Controls) -> Controls:
    """Return the numbers of both sets of samples."""
    return structs.replace(
        one,
        noise=one.noise + other.noise,
        search=one.search + other.search,
        right=(one.right or ()) + (other.right or ()),
        gradients=(one.gradients or ()) + (other.gradients or ()),
    )


def undecided(numbers: Controls) -> bool:
    """Return whether more samples are needed to tell whether gradients are as good as they should be."""
    found = leads(numbers, numbers.gradients or (), len(numbers.right or ()), numbers.looks)
    return any(flag.level == "warning" for flag in found) and not any(flag.level == "failure" for flag in found)


def leads(numbers: Controls, white_box: Iterable[int], samples: int, looked: int) -> list[Flag]:
    """Return a flag for each control that is too good beside gradients: a failure if it is decided, else a warning."""
    noise, search, white = set(numbers.noise), set(numbers.search), set(white_box)
    found: list[Flag] = []
    if 100 * (len(search) - len(white)) > POINTS_DIFFERENCE * samples:
        told = f"a random search of {QUERIES} queries breaks {len(search)} of {samples} samples, gradients {len(white)}"
        found.append(_lead("black-box beats white-box", told, Pairs.of(search, white).more(), looked))
    if len(noise) >= 3 and len(white) < LEAD * len(noise) and len(white) < 0.9 * samples:
        told = f"{POINTS} random points of the ball break {len(noise)} of {samples} samples, gradients {len(white)}"
        found.append(_lead("noise as good as gradients", told, Pairs.of(noise, white).more_than(LEAD), looked))
    counts = {"noise": len(noise), "search": len(search), "samples": samples, "gradients": len(white)}
    return [replace(flag, numbers={**counts, **flag.numbers}) for flag in found]


def _lead(name: str, told: str, p: float, looked: int) -> Flag:
    if p < LEVEL / looked:
        cure = (
            "give more --steps or another --loss, with --attack single; if that changes nothing, gradients are masked and the "
            "number is not valid"
        )
        return Flag(name, "failure", {"p": p}, f"{told}: {cure}")
    cure = "these are too few to tell; evaluate more samples (--n), or give more --steps with --attack single"
    return Flag(name, "warning", {"p": p}, f"{told} (p = {p:.2g}): {cure}")


def _controls_text(counts: Mapping[str, float]) -> str:
    gradients = f", gradients {counts['gradients']}" if "gradients" in counts else ""
    return (
        f"of {counts['samples']} samples, random points break {counts['noise']}, a random search of {QUERIES} queries "
        f"{counts['search']}{gradients}"
    )
