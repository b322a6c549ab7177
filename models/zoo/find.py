"""Finds a published network by name; the module for its package is imported only when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exitbench.models.foreign import ForeignModelError
from exitbench.models.zoo.published import Published
from exitbench.models.zoo.sources import SOURCES

if TYPE_CHECKING:
    from exitbench.models.zoo.timm_model import TimmModel


def find_published(reference: str) -> Published | TimmModel:
    """Return the published network given as ``reference``, such as ``robustbench:Wong2020Fast``.

    Raises:
        ForeignModelError: If the package is not installed, the name has another form, or timm has no such network.
        UnknownName: If there is no such network; the message suggests names.
    """
    source, _, name = reference.partition(":")
    if not name or source not in SOURCES:
        forms = " and ".join(each.form for each in SOURCES.values())
        raise ForeignModelError(f"{reference!r} names no network; the forms are {forms}")
    return SOURCES[source].find(name)
