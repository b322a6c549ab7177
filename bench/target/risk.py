"""Sets an exit rule such that, with a stated probability, early exits lose at most a stated accuracy.

The bound: with half of the held-out images a family of rules is set, ordered from those that leave last to those that leave
first. On the other half each rule in turn is tested at level ``delta`` against "it loses more than r"; the rule taken is the
last one before the first that fails. Testing in a fixed order that does not depend on the second half keeps the level for the
rule that is taken (fixed sequence testing; Angelopoulos, Bates, Candes, Jordan & Lei, "Learn then Test", 2021, section 4.1).

The loss of a rule is ``a - b``: the share ``a`` of images that it gets wrong and the last exit gets right, minus the share
``b`` for which it is the other way round. Its upper bound is the exact upper limit for ``a`` minus the exact lower limit for
``b`` (Clopper & Pearson, 1934), each at level ``delta / 2``. Images are assumed to be drawn independently from what the rule is
deployed on, and not attacked.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from exitbench.models.calibration import candidates
from exitbench.models.errors import InvalidValue
from exitbench.models.policies import FixedExit, Policy, deployed_logits
from exitbench.stats.proportions import at_least


def risk_controlled(
    logits: Tensor, labels: Tensor, loss: float, delta: float, kind: str = "entropy", calibration: str | None = None
) -> Policy:
    """Return the rule with the largest saving whose accuracy loss is at most ``loss`` with probability ``1 - delta``.

    The saving grows along the family, as gates open earlier. If not even the first rule passes, the rule is the last exit.

    Args:
        logits: Logits ``(K, N, classes)`` of the calibration samples.
        labels: Labels ``(N,)``.
        loss: Largest loss of accuracy against the last exit, in [0, 1].
        delta: Largest probability that the loss is larger, in (0, 1).
        kind: Name of the rule.
        calibration: Digest to record in the policy.

    Raises:
        InvalidValue: If a number is out of range, or there are fewer than two samples.
    """
    if not 0 <= loss <= 1 or not 0 < delta < 1:
        raise InvalidValue(f"a risk is a loss in [0, 1] with a delta in (0, 1), got {loss:g} and {delta:g}")
    n = logits.shape[1]
    if n < 2:
        raise InvalidValue("a risk cannot be bounded on fewer than two calibration images")
    chosen: Policy = FixedExit(len(logits))
    shaped, tested = slice(0, n, 2), slice(1, n, 2)
    last_right = logits[-1, tested].argmax(-1) == labels[tested]
    for policy in candidates(logits[:, shaped], kind, calibration):
        predicted, _ = deployed_logits(logits[:, tested], policy)
        right = predicted.argmax(-1) == labels[tested]
        if largest_loss(right, last_right, delta) > loss:
            break
        chosen = policy
    return chosen


def largest_loss(right: Tensor, last_right: Tensor, delta: float) -> float:
    """Return a number that the loss of accuracy against the last exit exceeds with probability at most ``delta``.

    Args:
        right: Whether the rule is right on each sample, ``(N,)`` bool.
        last_right: Whether the last exit is, ``(N,)`` bool.
        delta: The level, in (0, 1).
    """
    n = len(right)
    lost, won = int((last_right & ~right).sum()), int((right & ~last_right).sum())
    return _upper(lost, n, delta / 2) - _lower(won, n, delta / 2)


def _upper(hits: int, n: int, level: float) -> float:
    """Return the exact upper limit of a share, at a one-sided level."""
    return 1.0 if hits == n else _root(lambda share: level - _at_most(hits, n, share))


def _lower(hits: int, n: int, level: float) -> float:
    """Return the exact lower limit of a share, at a one-sided level."""
    return 0.0 if hits == 0 else _root(lambda share: 1 - _at_most(hits - 1, n, share) - level)


def _at_most(hits: int, n: int, share: float) -> float:
    """Return the probability of at most ``hits`` in ``n`` draws; few terms are summed where ``hits`` are few."""
    return at_least(n - hits, n, 1 - share)


def _root(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
