"""The packages that publish networks with weights, by the prefix in ``--model robustbench:NAME``."""

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
        form: Form of the names of its networks, such as ``robustbench:NAME``.
        summary: Description of one line, for listings.
        dataset: Dataset that most of them are for.
        weights: Short description of the weights, for listings.
        find: Returns the network with a name; it raises ``UnknownName`` for another, ``ForeignModelError`` without the package.
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
    """Register the decorated function, which finds the networks of a source; see ``Source`` for the arguments."""

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
