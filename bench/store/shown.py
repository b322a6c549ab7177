"""Whether the images at hand break every sample that the worst case counts as broken, though some cells came without theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from exitbench.models.policies import Policy, deployed_logits
from exitbench.store.cell import Cell
from exitbench.store.run_record import CLEAN, RunRecord


class Part(NamedTuple):
    """Finished cells of one attack: its name, its resolved settings as JSON values, and the cells."""

    name: str
    spec: Mapping[str, Any]
    cells: Sequence[Cell]


def figures_alone(parts: Iterable[Part]) -> tuple[str, ...]:
    """Return the names of the attacks of which some cells came without their images, in order."""
    return tuple(dict.fromkeys(part.name for part in parts if any(cell.lacks_images for cell in part.cells)))


def is_shown(parts: Sequence[Part], record: RunRecord, policy: Policy) -> bool:
    """Return whether every sample that a cell breaks is broken by an image at hand.

    Clean images are the dataset's, and at hand. Where no attack has images, nothing is shown.
    """
    with_images = [part for part in parts if part.name != CLEAN and any(len(cell.counterexamples) for cell in part.cells)]
    if not with_images:
        return not figures_alone(parts)
    said, shown = np.zeros(record.n, dtype=np.bool_), np.zeros(record.n, dtype=np.bool_)
    for part in parts:
        for cell in part.cells:
            predicted = deployed_logits(torch.from_numpy(cell.logits), policy)[0].argmax(-1).numpy()
            broken = (predicted != cell.labels) & cell.within(record.norm, record.eps, part.spec)
            (said if cell.lacks_images else shown)[cell.indices[broken]] = True
    return not (said & ~shown).any()
