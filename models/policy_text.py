"""Policies as people write them: ``entropy:0.3,0.4``, ``confidence:0.9,0.8``, ``exit:3``."""

from __future__ import annotations

from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, Policy

_GRAMMAR = "entropy:T1,T2,... | confidence:T1,T2,... | exit:k"


def parse_policy(text: str, n_exits: int, calibration: str | None = None) -> Policy:
    """The policy that ``text`` describes, checked against the number of exits.

    Raises:
        ValueError: not of the form, or for another number of exits.
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "exit":
            policy: Policy = FixedExit(int(rest))
        elif kind in ("entropy", "confidence"):
            thresholds = tuple(float(t) for t in rest.split(",")) if rest else ()
            policy = (EntropyPolicy if kind == "entropy" else ConfidencePolicy)(thresholds, calibration)
        else:
            raise ValueError(f"unknown kind {kind!r}")
        policy.check(n_exits)
    except ValueError as error:
        raise ValueError(f"policy {text!r}: {error}; the forms are {_GRAMMAR}") from error
    return policy


def policy_text(policy: Policy) -> str:
    """The inverse of ``parse_policy``, every digit kept."""
    if isinstance(policy, FixedExit):
        return f"exit:{policy.exit}"
    if isinstance(policy, (EntropyPolicy, ConfidencePolicy)):
        kind = "entropy" if isinstance(policy, EntropyPolicy) else "confidence"
        return f"{kind}:{','.join(repr(t) for t in policy.thresholds)}"
    raise TypeError(f"{type(policy).__name__} has no textual form")
