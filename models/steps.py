"""Finds out whether a network of the user's own yields its exits one by one, and runs it so."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exitbench.models.error_text import first_line
from exitbench.models.user_code import forwarded

NAMES = ("exits", "iter_exits")
"""Names of a method that returns an iterator of a network's exits."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Steps:
    """A method of a network that yields its exits in order and computes no more than those asked for."""

    name: str

    def of(self, net: nn.Module, x: Tensor) -> Iterator[object]:
        """Yield the exits of a batch; torch's settings and random state are restored behind every step."""
        with forwarded():
            steps = getattr(net, self.name)(x)
        while True:
            with forwarded():
                found = next(steps, steps)
            if found is steps:
                return
            yield found

    def __str__(self) -> str:
        return f"{self.name}(x)"


@torch.no_grad()
def offered_steps(net: nn.Module, x: Tensor) -> Steps | None:
    """Return the method of ``net`` that yields its exits; None where it has none.

    Methods of these names that are for something else are left alone: those that take other arguments, fail, or return no
    iterator.

    Args:
        net: The network, in evaluation mode.
        x: Images to try it on ``(B, C, H, W)``.
    """
    for name in NAMES:
        method = getattr(net, name, None)
        if not inspect.isroutine(method) or not _takes_images(method):
            continue
        try:
            with forwarded():
                found = method(x)
        except Exception as error:  # noqa: BLE001 - it may be for something else, and raise anything
            _log.info("%s(x) is not taken for the network's exits: %s", name, first_line(error))
            continue
        if isinstance(found, Iterator):
            return Steps(name)
    return None


def has_forward(net: nn.Module) -> bool:
    """Return whether a network can be run whole."""
    return type(net).forward is not nn.Module.forward or "forward" in vars(net)


def _takes_images(method: object) -> bool:
    try:
        inspect.signature(method).bind(None)  # type: ignore[arg-type] # it is a routine
    except (TypeError, ValueError):
        return False
    return True
