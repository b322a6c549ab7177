"""The packages that publish networks with their weights, by what stands before the colon in ``--model robustbench:NAME``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exitbench.models.zoo.published import Published


@dataclass(frozen=True)
class Source:
    """A package that publishes networks.

    Attributes:
        form: how its networks are named, such as ``robustbench:NAME``.
        summary: one line for listings.
        dataset: that most of them are for.
        weights: what they are trained with, in a word, for listings.
        find: returns the network of a name; it raises ``UnknownName`` for another, ``ForeignModelError`` without the package.
    """

    form: str
    summary: str
    dataset: str
    weights: str
    find: Callable[[str], Published]


SOURCES: dict[str, Source] = {}
"""Every source by its name, in the order of listings."""


def register_source(
    form: str, summary: str, *, dataset: str, weights: str
) -> Callable[[Callable[[str], Published]], Callable[[str], Published]]:
    """Register the decorated function as what finds the networks of a source; see ``Source`` for the arguments."""

    def decorate(find: Callable[[str], Published]) -> Callable[[str], Published]:
        SOURCES[form.partition(":")[0]] = Source(form, summary, dataset, weights, find)
        return find

    return decorate


@register_source(
    "pyautoattack:resnet18",
    "ResNet-18 that ships with pyautoattack, trained without a defence",
    dataset="cifar10",
    weights="cifar10 (undefended)",
)
def _pyautoattack(name: str) -> Published:
    from exitbench.models.zoo.pyautoattack_example import find_example

    return find_example(name)


@register_source(
    "robustbench:NAME",
    "an entry of RobustBench's model zoo, such as robustbench:Wong2020Fast",
    dataset="cifar10",
    weights="downloaded",
)
def _robustbench(name: str) -> Published:
    from exitbench.models.zoo.robustbench_entry import find_entry

    return find_entry(name)
