"""Calls what makes an attack of an installed package, and checks what it makes: its code is somebody's."""

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
    """Return the attack that ``make`` makes.

    Args:
        make: an ``exitbench.attacks.registry.AttackFactory``, or one of 0.1, which takes ``n_exits, settings, policy, costs``.
        who: names attack and package, for messages.
        deployment: of the network under attack.
        settings: of the evaluation.
        parameter: what stands behind the colon of the name, if anything may.

    Raises:
        InvalidValue: it raises, or returns something that is no attack with a canonical description.
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
    """Whether it takes the four arguments of 0.1: by the name of its first, or as it cannot be called with two."""
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
