"""Checks of the outputs: they must be logits, the same for the same image, and nearly the same for nearly the same image."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from exitbench.checks.flag import Flag, exits_text
from exitbench.checks.subject import Subject
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.search_model import relative_difference
from exitbench.store.trust_result import Outputs

ROUNDING = 1e-4
"""Largest difference, relative to the spread of an exit's logits, that counts as rounding.

fp32 rounding accumulates to 1e-6 to 1e-5 over a deep network, and differs between batch sizes. A difference ten times as large
still changes no decision that an attack could use, and a defence by noise must differ by far more to have an effect.
"""

MOVED = 1e-3
"""Largest change of a pixel that a continuous network must hardly notice: a quarter of a step of 8-bit images."""

JUMP = 0.1
"""Largest difference over such a change, relative to the spread of an exit's logits, that a continuous network may show.

Along a random direction, trained networks stay below 0.001. A network that answers otherwise on the 8-bit grid differs by a
quarter of the spread and more.
"""

NEAR = 0.01
"""Largest deviation from a distribution, relative to its sum, that still counts as one: it allows for noise on a softmax."""


@torch.no_grad()
def measure(subject: Subject, unused: EarlyExitNet | None = None) -> Outputs:
    """Measure differences between forward passes of the same or nearly the same images, and likeness to a distribution.

    Args:
        subject: The network and the samples.
        unused: A copy of the network from before its first image; it is copied again and itself left as it is.
    """
    model = subject.model
    logits = model(subject.x)
    start = subject.settings.region.start(subject.x, subject.noise, 0)
    at_start = model(start)
    return Outputs(
        repeated=relative_difference(model(subject.x), logits),
        batched=max(relative_difference(other, logits) for other in _in_other_batches(subject)),
        elsewhere=relative_difference(model(start), at_start),
        nearby=_jump(model, subject.x),
        afresh=None if unused is None else _since(unused, (subject.x, logits), (start, at_start)),
        probabilities=tuple(k for k, exit_ in enumerate(logits) if _is_distribution(exit_)),
        log_probabilities=tuple(k for k, exit_ in enumerate(logits) if bool((exit_.logsumexp(-1).abs() < 1e-3).all())),
    )


def _jump(model: EarlyExitNet, x: Tensor) -> float:
    """Return the largest difference between images rounded to the 8-bit grid and the same moved by at most ``MOVED``."""
    grid = (x * 255).round() / 255
    logits = model(grid)
    generator = torch.Generator().manual_seed(0)
    moves = (MOVED * (2 * torch.rand(x.shape, generator=generator) - 1).to(x) for _ in range(2))
    return max(relative_difference(model((grid + move).clamp(0, 1)), logits) for move in moves)


def _since(unused: EarlyExitNet, *seen: tuple[Tensor, Tensor]) -> float:
    """Return the largest difference between logits of the used network and those of a copy that is new for each batch."""
    found = []
    for x, logits in seen:
        fresh = copy.deepcopy(unused).placed(x.device)
        found.append(relative_difference(fresh(x), logits))
    return max(found)


def _in_other_batches(subject: Subject) -> Iterator[Tensor]:
    """Yield the logits ``(K, B, classes)`` of all images, computed in other batches each time."""
    model, x = subject.model, subject.x
    generator = torch.Generator().manual_seed(0)
    for order in (torch.arange(len(x)).flip(0), torch.randperm(len(x), generator=generator)):
        yield model(x[order.to(x.device)])[:, order.argsort().to(x.device)]
    for size in dict.fromkeys(((len(x) + 1) // 2, 3, 2, 1)):
        yield torch.cat([model(part) for part in torch.split(x, size)], dim=1)
    noise = torch.rand(x[:4].shape, generator=generator).to(x)
    for others in ((x[:4] > 0.5).to(x), x[:4].mean() + 0 * x[:4], noise, 1 - x[:4]):
        yield model(torch.cat([x, others]))[:, : len(x)]
        yield model(torch.cat([others, x]))[:, len(others) :]


def _is_distribution(logits: Tensor) -> bool:
    """Return whether all rows of ``(B, C)`` are non-negative and have the same sum, whatever it is, up to ``NEAR``.

    Logits do not: they are negative for classes that a network rules out.
    """
    sums = logits.sum(-1)
    mean = float(sums.mean())
    return mean > 0 and bool((logits > -NEAR * mean).all() and ((sums - mean).abs() < NEAR * mean).all())


def flags(numbers: Outputs) -> list[Flag]:
    """Return the failures ``randomised outputs``, ``discontinuous outputs``, ``outputs that depend on earlier images`` and
    ``probabilities``, and the warning ``log-probabilities``.

    Log-probabilities are only a warning, because softmax, losses, margins and entropies are the same as on logits; but an
    attack is rarely meant to go through a layer that normalises.
    """
    found = []
    elsewhere = numbers.elsewhere or 0.0
    worst = max(numbers.repeated, numbers.batched, elsewhere)
    if worst > ROUNDING:
        what = "twice the same batch" if max(numbers.repeated, elsewhere) > ROUNDING else "the same images in other batches"
        message = (
            f"{what} gives logits that differ by {worst:.2g} of their spread (rounding stays below {ROUNDING:g}): the number "
            "is random; the output must follow from each image alone: no random numbers, evaluation mode, nothing of its "
            "batch"
        )
        found.append(Flag("randomised outputs", "failure", {"difference": worst}, message))
    found += _of_memory(numbers)
    if exits := numbers.probabilities:
        message = "the outputs are a probability distribution up to scale and noise, not logits; remove the model's softmax"
        found.append(Flag("probabilities", "failure", {"exits": len(exits)}, message, exits_text(exits)))
    if exits := numbers.log_probabilities:
        message = "the outputs are log-probabilities, not logits; return what the last layer computes"
        found.append(Flag("log-probabilities", "warning", {"exits": len(exits)}, message, exits_text(exits)))
    return found


def _of_memory(numbers: Outputs) -> list[Flag]:
    found = []
    if numbers.nearby is not None and numbers.nearby > JUMP:
        message = (
            f"images on the 8-bit grid and the same moved by at most {MOVED:g} a pixel give logits that differ by "
            f"{numbers.nearby:.2g} of their spread: attacked images meet another network than clean ones do; "
            "remove what rounds or tests pixels from the network"
        )
        found.append(Flag("discontinuous outputs", "failure", {"difference": numbers.nearby}, message))
    if numbers.afresh is not None and numbers.afresh > ROUNDING:
        message = (
            f"the network and a copy from before its first image give logits that differ by {numbers.afresh:.2g} of their "
            "spread: it remembers images that it has seen; the output must follow from the images of the call alone"
        )
        found.append(Flag("outputs that depend on earlier images", "failure", {"difference": numbers.afresh}, message))
    return found
