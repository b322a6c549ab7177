"""What a merge of stores did, and what it found in contradiction."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Conflict:
    """Two results under one key that are not the same.

    Attributes:
        what: ``cell``, ``trust checks`` or ``calibration logits``.
        key: content address.
        about: model and attack, or model.
        places: the stores that hold the versions, one for each version.
        samples: indices of the samples whose verdict differs; none where it is not about samples.
        taken: the store whose version is kept; None where none is.
    """

    what: str
    key: str
    about: str
    places: tuple[Path, ...]
    samples: tuple[int, ...]
    taken: Path | None


@dataclass
class Merged:
    """What a merge did.

    Attributes:
        copied: files taken over, by kind.
        same: how many were there already, with the same verdicts.
        conflicts: see ``Conflict``.
        damaged: files that are not whole, left where they are.
    """

    copied: dict[str, int] = field(default_factory=dict)
    same: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def took(self, kind: str) -> None:
        """Count a file taken over."""
        self.copied[kind] = self.copied.get(kind, 0) + 1
