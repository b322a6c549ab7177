"""The packages that publish networks, by the prefix in ``--model robustbench:NAME``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from exitbench.models.zoo.published import Published
    from exitbench.models.zoo.timm_model import TimmModel


@dataclass(frozen=True)
class Source:
    """A package that publishes networks.

    Attributes:
        form: Form of the names of its networks, such as ``robustbench:NAME``.
        summary: Description of one line, for listings.
        dataset: Dataset that most of them are for.
        weights: Short description of the weights, for listings.
        find: Returns the network with a name; it raises ``UnknownName`` for another, ``ForeignModelError`` without the package.
        restorable: Whether the name in reports gives the network back.
    """

    form: str
    summary: str
    dataset: str
    weights: str
    find: Callable[[str], Published | TimmModel]
    restorable: bool = True


Find = TypeVar("Find", bound="Callable[[str], Published | TimmModel]")

SOURCES: dict[str, Source] = {}
"""Every source by its name, in the order of listings."""


def register_source(form: str, summary: str, *, dataset: str, weights: str, restorable: bool = True) -> Callable[[Find], Find]:
    """Register the decorated function, which finds the networks of a source; see ``Source`` for the arguments."""

    def decorate(find: Find) -> Find:
        SOURCES[form.partition(":")[0]] = Source(form, summary, dataset, weights, find, restorable)
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


@register_source(
    "timm:NAME",
    "a network of timm's, timm:NAME+exits with a head behind each feature stage; timm:NAME(num_classes=10)",
    dataset="any",
    weights="timm's cache, or a file",
    restorable=False,
)
def _timm(name: str) -> TimmModel:
    from exitbench.models.zoo.timm_model import find_timm

    return find_timm(name)
