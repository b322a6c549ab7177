"""The written form of exit rules: ``entropy:0.3,0.4``, ``patience:2``, ``confidence:0.9,0.8:temperature=1.5,1.2,1.1``."""

from __future__ import annotations

from exitbench.models.errors import InvalidValue, UnknownName
from exitbench.models.number_text import real_number
from exitbench.models.own_code import is_own
from exitbench.models.policies import FixedExit, Policy
from exitbench.models.rules.own import PREFIX, OwnRule, RuleNotLoaded, of_text
from exitbench.models.rules.registry import name_of, policy_card, policy_cards
from exitbench.models.rules.temperature import Tempered

LAST = "always-last"
"""The rule that never leaves early, whatever the number of exits."""


def parse_policy(text: str, n_exits: int, calibration: str | None = None) -> Policy:
    """Parse the policy that ``text`` describes and check it against the number of exits.

    Args:
        text: ``NAME:VALUE,VALUE,...``, then, for temperatures, ``:temperature=T1,...,TK``, one per exit.
        n_exits: Number of exits of the network.
        calibration: Digest of the data and procedure that gave the values; None if they were given by hand.

    Raises:
        InvalidValue: If ``text`` has another form, or the policy is for another number of exits.
        RuleNotLoaded: If it is a rule of somebody's own that was not given in this process.
    """
    try:
        policy = _parsed(text, n_exits, calibration)
        policy.check(n_exits)
    except RuleNotLoaded:
        raise
    except (ValueError, UnknownName) as error:
        if _is_ours(text) and not isinstance(error, (InvalidValue, UnknownName)):
            raise  # a bug, not bad input
        raise _not_understood(text, error) from error
    return policy


def check_rule_name(text: str) -> None:
    """Check what of a policy's text depends on no network, the name of its rule.

    Raises:
        InvalidValue: If there is no such rule, with the message of ``parse_policy``.
    """
    if text == LAST or text.startswith(PREFIX) or kind_of(text) == LAST or kind_of(text).endswith(".py"):
        return
    try:
        policy_card(kind_of(text))
    except UnknownName as error:
        raise _not_understood(text, error) from error


def _not_understood(text: str, error: Exception) -> InvalidValue:
    forms = " | ".join([*(card.form for card in policy_cards().values()), LAST, "path/to/file.py:function"])
    return InvalidValue(f"policy {text!r}: {error}; the forms are {forms}")


def _is_ours(text: str) -> bool:
    """Return whether a rule's name is one of ours, whose errors other than ``InvalidValue`` are bugs."""
    card = policy_cards().get(text.partition(":")[0])
    return card is None or is_own(card.kind.__module__)


def _parsed(text: str, n_exits: int, calibration: str | None) -> Policy:
    if text == LAST:
        return FixedExit(n_exits)
    if text.startswith(PREFIX):
        return of_text(text)
    name, *parts = text.split(":")
    if name == LAST:
        raise InvalidValue(f"{LAST} takes no values")
    if name.endswith(".py"):
        raise InvalidValue("a rule of your own is written path/to/file.py:function, with nothing behind it")
    values = parts[0].split(",") if parts and parts[0] and "=" not in parts[0] else []
    options = [part for part in parts if "=" in part]
    if len(parts) > len(options) + 1 or (parts and "=" not in parts[0] and not values and len(parts) > 1):
        raise InvalidValue("one list of values, then options of the form name=value, are separated by colons")
    policy = policy_card(name).kind.of_values(values, n_exits, calibration)
    for option in options:
        key, _, rest = option.partition("=")
        if key != "temperature" or isinstance(policy, Tempered):
            raise InvalidValue(f"the only option is temperature=T1,...,T{n_exits}, once, not {option!r}")
        policy = Tempered(policy, tuple(real_number(value) for value in rest.split(",")))
    return policy


def policy_text(policy: Policy) -> str:
    """Return the text of a policy, every digit kept: the inverse of ``parse_policy``.

    Raises:
        TypeError: If the policy is of a class that is not registered.
    """
    if isinstance(policy, OwnRule):
        return policy.text
    if isinstance(policy, Tempered):
        return f"{policy_text(policy.rule)}:temperature={','.join(repr(t) for t in policy.temperatures)}"
    name = name_of(policy)
    if name is None:
        raise TypeError(f"{type(policy).__name__} is not registered, so that it has no textual form")
    takes_values = ":" in policy_card(name).form
    return f"{name}:{','.join(policy.values)}" if takes_values else name


def kind_of(text: str) -> str:
    """Return the name of the rule that a policy's text begins with."""
    return text.partition(":")[0]
