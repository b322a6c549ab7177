"""The display of flags: a sign and a word besides the colour, for readers who do not see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exitbench.checks.flag import Flag
from exitbench.scoring.evaluation import Evaluation

SIGNS = {"failure": "\u2715", "warning": "\u25b2", "not checked": "?", "info": "\u00b7", "ok": ""}
"""A sign for each level of flags, and for none."""


NOT_VERIFIED = "not verified here"
"""Of an evaluation whose counterexamples did not come with it."""

_HOW_TO_VERIFY = (
    "its figures came without the images that break it, so nothing here proves them; give `exitbench verify` the images "
    "(--images FILE, made by `exitbench export --counterexamples` on the machine that has them), or run it again"
)

_FIGURES_ALONE = (
    "of {} the figures came without images; the images of other attacks break every sample that they break, so the "
    "worst case stands on images"
)


@dataclass(frozen=True)
class Line:
    """One flag as shown.

    Attributes:
        kind: a key of ``SIGNS``.
        label: name and place.
        message: with the numbers.
    """

    kind: str
    label: str
    message: str

    @property
    def sign(self) -> str:
        """The sign that stands for its kind."""
        return SIGNS[self.kind]


def verdict(evaluation: Evaluation) -> str:
    """Return the most severe level among the flags, a key of ``SIGNS``."""
    if evaluation.failures:
        return "failure"
    if not evaluation.checked:
        return "not checked"
    return "warning" if any(flag.level == "warning" for flag in evaluation.flags) else "ok"


def lines(evaluation: Evaluation) -> Sequence[Line]:
    """Return a line for every flag, failures first, and one for each of what was not verified and not checked."""
    found = [_line(flag) for flag in evaluation.flags]
    if not evaluation.verified:
        found.insert(0, Line("not checked", NOT_VERIFIED, _HOW_TO_VERIFY))
    elif evaluation.figures_alone:
        found.append(Line("info", "figures alone", _FIGURES_ALONE.format(", ".join(evaluation.figures_alone))))
    if not evaluation.checked:
        why = evaluation.probe_error or "it was run by a release without trust checks, or they were interrupted"
        found.append(Line("not checked", "trust not checked", f"{why}; give the run command again"))
    return found


def _line(flag: Flag) -> Line:
    return Line(flag.level, flag.label, flag.message)
