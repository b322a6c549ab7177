"""Generates an attack's candidates for several slices at once; each child is computed once per slice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.noise import Noise
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.graphed import GraphedNet
from exitbench.models.own_code import is_own
from exitbench.models.user_code import contained
from exitbench.runner.oom import in_halves
from exitbench.runner.passes import Passes, counted
from exitbench.runner.plan import Slice


@dataclass(frozen=True, eq=False)
class Generated:
    """An attack's candidates for a slice, with the passes and seconds that the attack takes alone.

    Attributes:
        batches: Number of batches that the slice was split into for lack of memory.
    """

    x_adv: Tensor
    passes: Passes
    seconds: float
    batches: int = 1


@dataclass(eq=False)
class Work:
    """A slice that is being attacked, on the target's device.

    Attributes:
        slice: The slice.
        x, y: Its images and labels.
        generated: The candidates of each attack so far.
    """

    slice: Slice
    x: Tensor
    y: Tensor
    generated: dict[Attack, Generated] = field(default_factory=dict)

    @staticmethod
    def on(part: Slice, device: torch.device) -> Work:
        """Load the images of a slice onto ``device``."""
        batch = part.batch()
        return Work(part, batch.x.to(device), batch.y.to(device))


def network_for(attack: Attack, model: EarlyExitNet) -> EarlyExitNet:
    """Return the network that an attack gets: without recordings where it is not ours, as its code may do anything to it."""
    if not isinstance(model, GraphedNet):
        return model
    return model.current() if is_own(type(attack).__module__) else model.net


def noise_of(works: Sequence[Work], seed: int) -> Noise:
    """Return the noise of several slices run as one batch; for packages that draw per batch, each slice stays a batch."""
    samples = tuple(index for work in works for index in work.slice.indices)
    parts = tuple(work.slice.start for work in works for _ in work.slice.indices) if len(works) > 1 else ()
    return Noise(seed, samples, parts)


def generate(attack: Attack, model: EarlyExitNet, works: Sequence[Work], seed: int) -> None:
    """Generate the attack's candidates for those of ``works`` that lack them; candidates of its children are reused or added.

    Passes and seconds are those of the attack alone: a child computed earlier counts again, so that they do not depend on what
    was run before. Slices that run as one batch share them by their number of samples. A single slice that does not fit in
    memory is halved until it does.

    Raises:
        Exception: What the attack raises; an out-of-memory error only for several slices or for a single sample.
    """
    todo = [work for work in works if attack not in work.generated]
    if not todo:
        return
    for child in attack.children:
        generate(child, model, todo, seed)
    x, y = torch.cat([work.x for work in todo]), torch.cat([work.y for work in todo])
    candidates = [torch.cat([work.generated[child].x_adv for work in todo]) for child in attack.children]
    model = network_for(attack, model).eval()
    started = time.perf_counter()
    noise = noise_of(todo, seed)

    def attacked(rows: slice) -> tuple[Tensor, Passes]:
        # Copies: if an attack changes its inputs, neither re-scoring nor other attacks must be affected.
        some = [found[rows].clone() for found in candidates]
        own_noise = noise.of(torch.arange(rows.start, rows.stop))
        with counted(model) as own, contained():
            return attack.generate(model, x[rows].clone(), y[rows].clone(), noise=own_noise, candidates=some), own

    whole = slice(0, len(y))
    parts = in_halves(attacked, whole) if len(todo) == 1 else [attacked(whole)]
    x_adv = parts[0][0] if len(parts) == 1 else torch.cat([rows for rows, _ in parts])
    own = sum((passes for _, passes in parts), Passes())
    seconds = time.perf_counter() - started
    sizes = [len(work.y) for work in todo]
    shares = zip(divided(own.forwards, sizes), divided(own.backwards, sizes), strict=True)
    for work, rows, (forwards, backwards) in zip(todo, parted(x_adv, sizes), shares, strict=True):
        children = [work.generated[child] for child in attack.children]
        passes = sum((child.passes for child in children), Passes(forwards, backwards))
        spent = seconds * len(work.y) / len(y) + sum(child.seconds for child in children)
        batches = max(len(parts), *(child.batches for child in children), 1)
        work.generated[attack] = Generated(rows, passes, spent, batches)


def parted(x_adv: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Split candidates into slices; an invalid result goes to the first slice whole, so that certification rejects it."""
    if len(sizes) == 1:
        return [x_adv]
    return list(torch.split(x_adv, list(sizes)))


def divided(total: int, sizes: Sequence[int]) -> list[int]:
    """Split ``total`` into integers in proportion to ``sizes`` that add up to it."""
    ends = [round(total * end / sum(sizes)) for end in _cumulative(sizes)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _cumulative(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[: i + 1]) for i in range(len(sizes))]
