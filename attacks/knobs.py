"""Settings of attacks, each defined once: its default, its range, its help, and how it is read from a description."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from exitbench.models.errors import InvalidValue

Spec = Mapping[str, Any]
"""The description of an attack (``exitbench.models.spec.describe``)."""

ASCENTS = ("pgd", "fgsm", "apgd", "wrm")
"""The methods of the gradient attacks."""


class Usual(Protocol):
    """The usual settings for a dataset (``exitbench.data.cards.DatasetCard``)."""

    @property
    def steps(self) -> int:
        """Steps of PGD."""

    @property
    def step_ratio(self) -> float:
        """Step size of PGD as a fraction of the radius."""


@dataclass(frozen=True)
class Knob:
    """A setting that can be given on the command line, in a request, and in a baseline.

    Attributes:
        kind: ``int``, ``float`` or ``str``.
        default: Default value; None if it is given by ``usual``.
        of: The methods, or names of attacks, that it applies to.
        help: Help text of the command line.
        choices: Allowed values of a ``str``.
        named: Converts a name to the object that attacks are built with.
        place: Keys that lead to its value in an attack's description; None for its own name.
        read: Reads its value from a description if ``place`` does not suffice.
        usual: Returns the usual value for a dataset, a method and a radius.
    """

    kind: type[int | float | str]
    default: Any
    of: tuple[str, ...]
    help: str | None = None
    choices: tuple[str, ...] = ()
    named: Callable[[str], Any] | None = None
    place: tuple[str, ...] | None = None
    read: Callable[[Spec], Any] | None = None
    usual: Callable[[Usual, str, float], Any] | None = None

    def value(self, given: Any) -> Any:
        """Convert a given value to the object that attacks are built with."""
        return self.named(given) if self.named is not None and isinstance(given, str) else given

    def check(self, name: str, value: Any) -> None:
        """Check that a value is in range.

        Raises:
            InvalidValue: If it is not one of the choices, an integer below 1, or a number that is negative or not finite.
        """
        words = name.replace("_", " ")
        if self.choices and isinstance(value, str) and value not in self.choices:
            raise InvalidValue(f"{words} {value!r} is not one of {', '.join(self.choices)}")
        if self.kind is int and value < 1:
            raise InvalidValue(f"{words} must be at least 1, got {value}")
        if self.kind is float and not (math.isfinite(value) and value >= 0):
            raise InvalidValue(f"{words} must be a finite number >= 0, got {value}")

    def found(self, name: str, spec: Spec) -> Any:
        """Return its value in the description of an attack, or None if the description lacks it."""
        if self.read is not None:
            return self.read(spec)
        for key in self.place or (name,):
            if key not in spec:
                return None
            spec = spec[key]
        return spec


def knob(kind: type[int | float | str], default: Any, *, of: tuple[str, ...], **details: Any) -> Any:
    """Return the field of a data class that is a knob; see ``Knob`` for the arguments."""
    made = Knob(kind, default, of, **details)
    if default is None:
        return field(metadata={"knob": made})
    return field(default_factory=lambda: made.value(default), metadata={"knob": made})


def knobs_of(settings: type) -> dict[str, Knob]:
    """Return the knobs of a data class by name, in the order of its fields."""
    return {each.name: each.metadata["knob"] for each in fields(settings) if "knob" in each.metadata}


def simple(spec: Spec) -> Iterator[Spec]:
    """Yield the descriptions of the attacks that an attack consists of."""
    if "attacks" in spec:
        for child in spec["attacks"]:
            yield from simple(child)
    else:
        yield spec
