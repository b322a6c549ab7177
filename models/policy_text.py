"""The textual form of policies: ``entropy:0.3,0.4``, ``confidence:0.9,0.8``, ``exit:3``."""

from __future__ import annotations

from exitbench.models.errors import InvalidValue
from exitbench.models.number_text import real_number, whole_number
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, Policy

_GRAMMAR = "entropy:T1,T2,... | confidence:T1,T2,... | exit:k"


def parse_policy(text: str, n_exits: int, calibration: str | None = None) -> Policy:
    """Parse the policy that ``text`` describes and check it against the number of exits.

    Raises:
        InvalidValue: If ``text`` has another form, or the policy is for another number of exits.
    """
    kind, _, rest = text.partition(":")
    try:
        policy = _policy(kind, rest, calibration)
        policy.check(n_exits)
    except InvalidValue as error:
        raise InvalidValue(f"policy {text!r}: {error}; the forms are {_GRAMMAR}") from error
    return policy


def _policy(kind: str, rest: str, calibration: str | None) -> Policy:
    if kind == "exit":
        return FixedExit(whole_number(rest))
    if kind in ("entropy", "confidence"):
        thresholds = tuple(real_number(t) for t in rest.split(",")) if rest else ()
        return (EntropyPolicy if kind == "entropy" else ConfidencePolicy)(thresholds, calibration)
    raise InvalidValue(f"unknown kind {kind!r}")


def policy_text(policy: Policy) -> str:
    """Return the text of a policy, every digit kept: the inverse of ``parse_policy``.

    Raises:
        TypeError: If the policy has no textual form.
    """
    if isinstance(policy, FixedExit):
        return f"exit:{policy.exit}"
    if isinstance(policy, (EntropyPolicy, ConfidencePolicy)):
        kind = "entropy" if isinstance(policy, EntropyPolicy) else "confidence"
        return f"{kind}:{','.join(repr(t) for t in policy.thresholds)}"
    raise TypeError(f"{type(policy).__name__} has no textual form")
