"""Which part of a user's dataset is its test split, and which its held-out training images."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exitbench.errors import UserError

ALIASES = {
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "train": "train",
    "training": "train",
}
"""Names of folders and shards, as in torchvision's ImageNet and on Hugging Face, and what they are called here."""

MOST_HELD_OUT, SHARE_HELD_OUT = 2_000, 5
"""Training images that are held out: so many, or one of five where there are few."""

WHOLE = ""
"""The part that is all there is, where nothing is called by one of the names."""


@dataclass(frozen=True)
class Parts:
    """The roles of the parts of a dataset.

    Attributes:
        test: Name of the part that networks are evaluated on.
        held_out: Name of the part that calibration images come from; None without one.
    """

    test: str
    held_out: str | None

    def name_of(self, split: str) -> str | None:
        """Return the part that ``train``, ``calibration`` or ``test`` is taken from; None where there is none."""
        if split == "test":
            return self.test
        return self.held_out if split == "calibration" or self.held_out == "train" else None

    def rows(self, split: str, n: int) -> slice:
        """Return the rows of a split among the ``n`` of its part, in their fixed order.

        Of training images the first are held out for ``calibration`` and the rest are ``train``; of validation images all are
        held out, up to ``MOST_HELD_OUT``.
        """
        if split == "test":
            return slice(0, n)
        share = max(n // SHARE_HELD_OUT, 1) if self.held_out == "train" else n
        held_out = min(share, MOST_HELD_OUT)
        return slice(0, held_out) if split == "calibration" else slice(held_out, n)


def part_named(text: str) -> str | None:
    """Return the part that a name of a folder or shard says, such as ``test-00000-of-00001``; None where it says none."""
    words = re.split(r"[^a-z]+", text.lower())
    return next((ALIASES[word] for word in words if word in ALIASES), None)


def chosen_parts(found: Collection[str], asked: str | None, what: str) -> Parts:
    """Return the roles of the parts that a dataset has.

    The test split is what was asked for, else ``test``, else ``validation``; calibration images come from ``train``, else from
    ``validation`` where that is not the test split.

    Args:
        found: Names of the parts; ``WHOLE`` for images that are in none.
        asked: Name of the test split as the user gave it; None where none was given.
        what: Names the dataset in messages.

    Raises:
        UserError: If there is no such part, or nothing but training images.
    """
    names = ", ".join(sorted(part for part in found if part)) or "none"
    if asked is not None:
        test = ALIASES.get(asked.lower())
        if test is None or test not in found:
            raise UserError(f"{what} has no part {asked!r} (it has: {names})")
    else:
        in_order = [part for part in ("test", "validation", WHOLE) if part in found]
        if not in_order:
            raise UserError(f"{what} has no test images (it has: {names}); say which part is meant, as in ,split=train")
        test = in_order[0]
    held_out = next((part for part in ("train", "validation") if part in found and part != test), None)
    return Parts(test, held_out)


def fixed_order(n: int) -> npt.NDArray[np.int64]:
    """Return a permutation of ``n`` that is the same everywhere: what is stored class by class is not evaluated so."""
    # RandomState's streams are frozen by numpy's compatibility policy; Generator's are not.
    return np.random.RandomState(0).permutation(n).astype(np.int64)
