"""Checks of the outputs: the same image must give the same logits, and outputs must be logits."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from exitbench.checks.flag import Flag, exits_text
from exitbench.checks.subject import Subject
from exitbench.models.search_model import relative_difference
from exitbench.store.trust_result import Outputs

ROUNDING = 1e-4
"""Largest difference, relative to the spread of an exit's logits, that counts as rounding.

fp32 rounding accumulates to 1e-6 to 1e-5 over a deep network, and differs between batch sizes. A difference ten times as large
still changes no decision that an attack could use, and a defence by noise must differ by far more to have an effect.
"""

NEAR = 0.01
"""Largest deviation from a distribution, relative to its sum, that still counts as one: it allows for noise on a softmax."""


@torch.no_grad()
def measure(subject: Subject) -> Outputs:
    """Measure differences between forward passes of the same images, and whether outputs look like a distribution."""
    logits = subject.model(subject.x)
    return Outputs(
        repeated=relative_difference(subject.model(subject.x), logits),
        batched=max(relative_difference(other, logits) for other in _in_other_batches(subject)),
        probabilities=tuple(k for k, exit_ in enumerate(logits) if _is_distribution(exit_)),
        log_probabilities=tuple(k for k, exit_ in enumerate(logits) if bool((exit_.logsumexp(-1).abs() < 1e-3).all())),
    )


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
    """Return the failures ``randomised outputs`` and ``probabilities``, and the warning ``log-probabilities``.

    Log-probabilities are only a warning, because softmax, losses, margins and entropies are the same as on logits; but an
    attack is rarely meant to go through a layer that normalises.
    """
    found = []
    worst = max(numbers.repeated, numbers.batched)
    if worst > ROUNDING:
        what = "twice the same batch" if numbers.repeated > ROUNDING else "the same images in other batches"
        message = (
            f"{what} gives logits that differ by {worst:.2g} of their spread (rounding stays below {ROUNDING:g}): the number "
            "is random; the forward must be a function of each image alone: no random numbers, evaluation mode, nothing of its "
            "batch"
        )
        found.append(Flag("randomised outputs", "failure", {"difference": worst}, message))
    if exits := numbers.probabilities:
        message = "the outputs are a probability distribution up to scale and noise, not logits; remove the model's softmax"
        found.append(Flag("probabilities", "failure", {"exits": len(exits)}, message, exits_text(exits)))
    if exits := numbers.log_probabilities:
        message = "the outputs are log-probabilities, not logits; return what the last layer computes"
        found.append(Flag("log-probabilities", "warning", {"exits": len(exits)}, message, exits_text(exits)))
    return found
