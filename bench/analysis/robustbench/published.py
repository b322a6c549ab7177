"""Reads the accuracies that RobustBench publishes from a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exitbench.errors import UserError
from exitbench.models.errors import InvalidValue
from exitbench.models.number_text import real_number

REQUIRED = ("model_id", "clean_acc", "autoattack_acc")
OPTIONAL = (
    *("external", "reported", "architecture", "additional_data", "number_forward_passes"),
    *("venue", "eps", "unreliable", "link"),
)


@dataclass(frozen=True)
class PublishedEntry:
    """A row of a RobustBench leaderboard; accuracies are shares, or None if missing.

    Attributes:
        model_id: Name in the zoo.
        clean: Clean accuracy.
        autoattack: Accuracy under AutoAttack, as measured by RobustBench.
        external: Lowest accuracy found by others, if lower.
        reported: Accuracy reported by the authors.
        unreliable: Whether RobustBench marks the number as likely too high.
        texts: All other columns, as given.
    """

    model_id: str
    clean: float
    autoattack: float
    external: float | None
    reported: float | None
    unreliable: bool
    texts: Mapping[str, str]

    @property
    def robust(self) -> float:
        """The accuracy that RobustBench ranks by: the lowest known."""
        return self.autoattack if self.external is None else min(self.autoattack, self.external)


def read_published(path: Path) -> list[PublishedEntry]:
    """Read the rows of ``path``, in which accuracies are in per cent.

    Columns are RobustBench's own fields; those of ``REQUIRED`` must be there, those of ``OPTIONAL`` may be, others are ignored.

    Raises:
        UserError: If the file is unreadable, columns or accuracies are missing or not in 0..100, or a name occurs twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error})") from error
    if missing := [name for name in REQUIRED if name not in columns]:
        raise UserError(
            f"{path} lacks the columns {', '.join(missing)} (it has: {', '.join(columns) or 'none'}); it must have "
            f"{', '.join(REQUIRED)}, and may have {', '.join(OPTIONAL)}"
        )
    if not rows:
        raise UserError(f"{path} has no row; it must hold one for each published network")
    entries = [_entry(path, number, row) for number, row in enumerate(rows, start=2)]
    names = [entry.model_id for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path} names {', '.join(twice)} more than once")
    return entries


def _entry(path: Path, line: int, row: Mapping[str, str | None]) -> PublishedEntry:
    given = {name: (row.get(name) or "").strip() for name in (*REQUIRED, *OPTIONAL)}
    if not given["model_id"]:
        raise UserError(f"{path}, line {line}: model_id is empty")
    shares = {name: _share(path, line, name, given[name]) for name in ("clean_acc", "autoattack_acc", "external", "reported")}
    clean, autoattack = shares["clean_acc"], shares["autoattack_acc"]
    if clean is None or autoattack is None:
        raise UserError(f"{path}, line {line}: {given['model_id']} has no clean_acc or no autoattack_acc")
    return PublishedEntry(
        given["model_id"],
        clean,
        autoattack,
        shares["external"],
        shares["reported"],
        given["unreliable"].lower() == "true",
        {name: given[name] for name in OPTIONAL if name not in ("external", "reported", "unreliable")},
    )


def _share(path: Path, line: int, column: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = real_number(text)
    except InvalidValue:
        value = math.nan
    if not 0 <= value <= 100:
        raise UserError(f"{path}, line {line}: {column} is {text!r}; it must be an accuracy in per cent, 0 to 100")
    return value / 100
