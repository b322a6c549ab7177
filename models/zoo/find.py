"""The published network that a name means; what knows its package is imported only for it."""

from __future__ import annotations

from exitbench.models.foreign import ForeignModelError
from exitbench.models.zoo.published import Published


def find_published(reference: str) -> Published:
    """The network that ``reference`` names.

    Raises:
        ForeignModelError: the package is not installed, or the name is not of the form.
        UnknownName: no such network; says which there are.
    """
    source, _, name = reference.partition(":")
    if not name:
        raise ForeignModelError(f"{reference!r} names no network; the forms are robustbench:NAME and pyautoattack:resnet18")
    if source == "robustbench":
        from exitbench.models.zoo.robustbench_entry import find_entry

        return find_entry(name)
    from exitbench.models.zoo.pyautoattack_example import find_example

    return find_example(name)
