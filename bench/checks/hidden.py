"""What ascents leave is broken without the network's gradients: by images of other networks, on the 8-bit grid, by random
searches, and behind gates that hardly ever open. Few samples of a faithful network are, and further ascents break these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from msgspec.structs import replace
from torch import Tensor

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.objectives import Margin, Max, Mean, Objective
from exitbench.checks import controls
from exitbench.checks.flag import Flag
from exitbench.checks.share import ShareTest, Verdict
from exitbench.checks.subject import Subject
from exitbench.checks.trace import AT_ONCE, Trace, ascend
from exitbench.checks.transfer import Source, transferred
from exitbench.models.policies import deployed_logits
from exitbench.models.within_reach import exits_within_reach
from exitbench.store.trust_result import Hidden

GRID = 255
"""Steps of 8-bit images between 0 and 1."""

QUERIES = 200
"""Queries of the second random search, on the samples that nothing else breaks."""

BUDGET = 300
"""Gradients of the adaptive attack on a sample that is broken without gradients: a faithful network's breaks by them as well."""

CHANGES, FEWEST, AS_MANY = 8_192, 256, 2_048
"""Tiny changes of all samples of a batch together, and the least and the most of one sample."""

SIZES = (1e-4, 1e-3, 4e-3)
"""Largest change of a pixel, in turn: well below a step of 8-bit images, and about one."""

MASKED = ShareTest(0.1, 0.05)
"""Of a faithful network one sample in twenty may be broken without gradients alone (two of 32 at most, of untrained ones whose
margins are tiny); one in ten is a fault."""

OPENED = ShareTest(0.25, 0.1)
"""Tiny changes of an image on which an exit is wrong may open a gate by chance, where it is nearly open: of faithful networks,
trained or not, on none of 0 to 27 samples."""


SETS = ("right", "left", "searched", "rounded", "transfer", "behind", "opened", "ascents")
"""The sets of samples in the numbers."""


def measure(right: Subject, left: Subject, ends: Sequence[Tensor], black: Tensor, sources: Sequence[Source]) -> Hidden:
    """Measure what breaks the samples that ascents leave, those on the exit that is nearest to being wrong included.

    Args:
        right: Samples that are right when clean.
        left: Those of them that the ascents leave.
        ends: Their images at the end of each ascent, ``(B, C, H, W)``.
        black: Whether random points or the random search break each of them, ``(B,)``.
        sources: Networks without a defence.
    """
    if len(left.y):
        weakest = _attacked_where_weakest(left)
        kept = ~weakest.broken
        left, ends, black = left.rows(kept), [end[kept] for end in (*ends, weakest.last)], black[kept]
    none = torch.zeros_like(left.y, dtype=torch.bool)
    rounded, transfer, behind, opened, ascents, times = none, none, none, none.clone(), none.clone(), 0
    searched = black.clone()
    if len(left.y):
        region = left.settings.region
        rounded = torch.stack([left.fails(region.rounded(end, left.x, region.grid or GRID)) for end in ends]).any(0)
        transfer = transferred(left, sources)
        rest = ~(searched | rounded | transfer)
        if rest.any():
            searched[rest] = controls.random_search(left.rows(rest), QUERIES, controls.LONGER)
        wrong = _some_exit_wrong(left, ends)
        behind = wrong.any(0)
        rest = behind & ~(searched | rounded | transfer)
        at = torch.stack(list(ends))[wrong.int().argmax(0), torch.arange(len(left.y), device=left.x.device)]
        opened[rest], times = tiny_changes(left.rows(rest), at[rest])
        found = searched | rounded | transfer | opened
        if found.any():
            ascents[found] = further_ascents(left.rows(found))
    return Hidden(
        right=right.noise.samples,
        left=left.noise.samples,
        searched=left.names(searched),
        rounded=left.names(rounded),
        transfer=left.names(transfer),
        behind=left.names(behind),
        opened=left.names(opened),
        ascents=left.names(ascents),
        sources=tuple(source.weights for source in sources),
        changes=times,
    )


def _attacked_where_weakest(left: Subject) -> Trace:
    settings, objective = left.settings, Objective(Margin(), Max())
    return ascend(left, settings.region, settings.steps, settings.step_size, objective=objective)


@torch.no_grad()
def _some_exit_wrong(subject: Subject, ends: Sequence[Tensor]) -> Tensor:
    """Return whether some exit that the rule can take is wrong on each image, taken there or not, ``(len(ends), B)``."""
    reachable = exits_within_reach(subject.policy, subject.model.n_exits)
    return torch.stack([(subject.model(end)[reachable].argmax(-1) != subject.y).any(0) for end in ends])


def further_ascents(subject: Subject) -> Tensor:
    """Return whether an ascent on the margin or the adaptive attack, which follow gradients, breaks each sample, ``(B,)``."""
    settings = subject.settings
    trace = ascend(subject, settings.region, settings.steps, settings.step_size, 1, Objective(Margin(), Mean()))
    broken = trace.broken.clone()
    left = subject.rows(~broken)
    if len(left.y) and subject.policy.has_gradient:
        attack = Adaptive(settings.region, subject.policy, BUDGET)
        broken[~broken] = left.fails(attack.generate(left.searched, left.x, left.y, noise=left.noise, candidates=()))
    return broken


@torch.no_grad()
def tiny_changes(subject: Subject, images: Tensor) -> tuple[Tensor, int]:
    """Return whether a tiny change of each image makes the deployed rule wrong, ``(B,)``, and the number of changes of each.

    The changes are uniform in every pixel, the same for all samples, and stay in the ball.
    """
    broken = torch.zeros_like(subject.y, dtype=torch.bool)
    if not len(broken):
        return broken, 0
    times = max(FEWEST, min(AS_MANY, CHANGES // len(broken)))
    generator = torch.Generator().manual_seed(0)
    for start in range(0, times, per_batch := max(1, AT_ONCE // len(broken))):
        size = min(per_batch, times - start)
        moves = 2 * torch.rand(size, *images.shape[1:], generator=generator) - 1
        sizes = torch.tensor([SIZES[(start + i) % len(SIZES)] for i in range(size)]).view(-1, *[1] * (images.ndim - 1))
        moves = (sizes * moves).to(images)
        rows = (~broken).nonzero().flatten()
        if not len(rows):
            break
        changed = [subject.settings.region.project(images[rows] + move, subject.x[rows]) for move in moves]
        predicted = deployed_logits(subject.model(torch.cat(changed)), subject.policy)[0].argmax(-1)
        broken[rows] = (predicted.view(size, -1) != subject.y[rows]).any(0)
    return broken, times


def joined(one: Hidden, other: Hidden) -> Hidden:
    """Return the numbers of both sets of samples."""
    both = {name: getattr(one, name) + getattr(other, name) for name in SETS}
    return replace(one, **both, changes=min(one.changes or other.changes, other.changes or one.changes))


def undecided(numbers: Hidden) -> bool:
    """Return whether more samples are needed to tell a few stubborn samples from masked gradients or hidden gates."""
    verdicts = [verdict for verdict, _ in _verdicts(numbers)]
    return "undecided" in verdicts and "yes" not in verdicts


def _verdicts(numbers: Hidden) -> tuple[tuple[Verdict, set[int]], tuple[Verdict, set[int]]]:
    """Return whether gradients are masked on a part of the samples, and whether gates hide wrong exits, with the samples."""
    ascents = set(numbers.ascents)
    only = (set(numbers.searched) | set(numbers.rounded) | set(numbers.transfer)) - ascents
    opened = set(numbers.opened)  # hundreds of iterates happen upon a gate as tiny changes do
    return (
        (MASKED.verdict(len(only), len(numbers.right), numbers.looks), only),
        (OPENED.verdict(len(opened), len(numbers.behind), numbers.looks), opened),
    )


def flags(numbers: Hidden, robust: set[int] | None) -> list[Flag]:
    """Return the flags ``masked on some samples``, ``hidden gates`` and ``missed without gradients``.

    The first two are failures where an exact test says so, and for the record where it cannot tell; the last is a warning.

    Args:
        numbers: Result of ``measure``, for all samples that were looked at.
        robust: Dataset indices that the whole evaluation leaves robust; None if it has no attack.
    """
    (masked, only), (hidden, opened) = _verdicts(numbers)
    counts = {"only without gradients": len(only), "samples": len(numbers.right), "transfer": len(numbers.transfer)}
    counts |= {"rounded": len(numbers.rounded), "searched": len(numbers.searched), "further ascents": len(numbers.ascents)}
    gates = {"opened": len(opened), "behind": len(numbers.behind), "changes": numbers.changes}
    found = []
    if masked == "yes":
        message = (
            f"{len(only)} of {len(numbers.right)} samples are broken without gradients (other networks, rounding to 8 bits, "
            f"random searches) and not by ascents nor by the adaptive attack with {BUDGET} gradients: these are masked there, "
            "and the number is not to be believed; remove the part of the network that masks them, and evaluate it again"
        )
        found.append(Flag("masked on some samples", "failure", counts, message))
    if hidden == "yes":
        message = (
            f"on {len(numbers.behind)} samples that ascents leave, an exit is wrong behind a shut gate, and tiny changes of "
            f"the image (at most {max(SIZES):g} a pixel, {numbers.changes} of each) open it on {len(opened)}: gradients do not "
            "show that these gates can open, and the number is not to be believed"
        )
        found.append(Flag("hidden gates", "failure", gates, message))
    missed = (only | opened | set(numbers.ascents)) & (robust or set())
    if missed:
        message = (
            f"{len(missed)} of {len(numbers.right)} samples that every attack leaves robust are broken by the trust checks, by "
            "other networks, rounding, searches, tiny changes or further ascents; the accuracy is too high, add stronger "
            "attacks (--attack adaptive,autoattack)"
        )
        found.append(Flag("missed by attacks", "warning", counts | gates | {"missed": len(missed)}, message))
    return found or [Flag("without gradients", "info", counts | gates, _text(counts, gates))]


def _text(counts: Mapping[str, int], gates: Mapping[str, int]) -> str:
    return (
        f"of {counts['samples']} samples, {counts['only without gradients']} are broken without gradients alone; tiny changes "
        f"open gates on {gates['opened']} of {gates['behind']} with a wrong exit behind them"
    )
