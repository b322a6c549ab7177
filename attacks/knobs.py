"""What is said of a setting of the attacks once, in its definition: its default, its range, its help, and how it is read back."""

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
    """What is usual for a dataset (``exitbench.data.cards.DatasetCard``)."""

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
        default: value where none is given; None where ``usual`` says it.
        of: the methods, or names of attacks, that it applies to.
        help: for the command line.
        choices: allowed values, of a ``str``.
        named: makes what attacks are built with of a name, where that is another object.
        place: keys that lead to its value in an attack's description; None for its own name.
        read: reads its value from a description, where ``place`` cannot say how.
        usual: its value for a dataset, a method and a radius.
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
        """Return what attacks are built with for a given value."""
        return self.named(given) if self.named is not None and isinstance(given, str) else given

    def check(self, name: str, value: Any) -> None:
        """Refuse a value that is out of range.

        Raises:
            InvalidValue: not one of the choices, an integer below 1, or a number that is negative or not finite.
        """
        words = name.replace("_", " ")
        if self.choices and isinstance(value, str) and value not in self.choices:
            raise InvalidValue(f"{words} {value!r} is not one of {', '.join(self.choices)}")
        if self.kind is int and value < 1:
            raise InvalidValue(f"{words} must be at least 1, got {value}")
        if self.kind is float and not (math.isfinite(value) and value >= 0):
            raise InvalidValue(f"{words} must be a finite number >= 0, got {value}")

    def found(self, name: str, spec: Spec) -> Any:
        """Return its value in the description of an attack; None where the description does not have it."""
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
    """Yield the descriptions of the attacks that one is made of."""
    if "attacks" in spec:
        for child in spec["attacks"]:
            yield from simple(child)
    else:
        yield spec
