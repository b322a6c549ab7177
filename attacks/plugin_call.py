"""Builds attacks of installed packages, and checks what their factories return."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from exitbench.models.error_text import first_line
from exitbench.models.errors import InvalidValue

if TYPE_CHECKING:
    from exitbench.attacks.base import Attack
    from exitbench.attacks.deployment import Deployment
    from exitbench.attacks.settings import AttackSettings


def made_by_plugin(
    make: Callable[..., Any], who: str, deployment: Deployment, settings: AttackSettings, *parameter: Any
) -> Attack:
    """Build the attack of a factory.

    Args:
        make: An ``exitbench.attacks.registry.AttackFactory``, or one of version 0.1, which takes ``n_exits, settings, policy,
            costs``.
        who: Name of attack and package, for messages.
        deployment: Deployment of the network under attack.
        settings: Settings of the evaluation.
        parameter: The parameter after the colon of the name, if it takes one.

    Raises:
        InvalidValue: If the factory raises, or returns anything but an attack with a canonical description.
    """
    from exitbench.attacks.base import Attack
    from exitbench.models.spec import describe
    from exitbench.models.user_code import contained

    try:
        with contained():
            if _is_of_0_1(make):
                attack = make(deployment.n_exits, settings, deployment.policy, deployment.costs)
            else:
                attack = make(deployment, settings, *parameter)
        if not isinstance(attack, Attack):
            raise TypeError(f"its factory returned {type(attack).__name__}, not an exitbench.attacks.base.Attack")
        describe(attack)
        hash(attack)
    except Exception as error:
        raise InvalidValue(f"{who}: {first_line(error)}") from error
    return attack


def _is_of_0_1(make: Callable[..., Any]) -> bool:
    """Return whether a factory takes the four arguments of version 0.1: its first is so named, or two do not suffice."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of code that is not Python; the call will tell
        return False
    if next(iter(signature.parameters), None) == "n_exits":
        return True
    return not _takes(signature, 2) and not _takes(signature, 3) and _takes(signature, 4)


def _takes(signature: inspect.Signature, arguments: int) -> bool:
    try:
        signature.bind(*range(arguments))
    except TypeError:
        return False
    return True
