"""Exit rules of the user's own, given as ``path/to/file.py:make``.

Such a rule is code. It is executed only where a user names it, never because a stored record does. Its written form in records
is ``own:file.py:make@DIGEST``, with a digest of the code and its values. It is read back in a process that has loaded the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from exitbench.models.errors import InvalidValue
from exitbench.models.factory import find_factory
from exitbench.models.policies import Policy
from exitbench.models.safe_name import safe_name
from exitbench.models.value_identity import Describer

PREFIX = "own:"
_loaded: dict[str, Policy] = {}


class RuleNotLoaded(InvalidValue):
    """A rule of somebody's own that was not given in this process; nothing is wrong with what names it."""


@dataclass(frozen=True)
class OwnRule(Policy):
    """A rule of the user's own.

    Attributes:
        where: The reference without folders, such as ``rules.py:make``.
        code: Digest of its code and values.

    Raises:
        RuleNotLoaded: If no such rule has been loaded in this process.
    """

    where: str
    code: str

    def __post_init__(self) -> None:
        if self.text not in _loaded:
            raise RuleNotLoaded(
                f"the rule {self.where} is code of somebody's own, and is not executed because a record names it; name it "
                f"yourself, as --rule path/to/{self.where} (for a run --policy), or install it as a plugin (exitbench.policies)"
            )

    @property
    def text(self) -> str:
        """Its written form."""
        return f"{PREFIX}{self.where}@{self.code}"

    @property
    def rule(self) -> Policy:
        """The rule itself."""
        return _loaded[self.text]

    @property
    def saturates(self) -> bool:  # type: ignore[override]
        return self.rule.saturates

    @property
    def needs_scores(self) -> bool:
        return self.rule.needs_scores

    @property
    def has_gradient(self) -> bool:
        return self.rule.has_gradient

    def leaves(self, seen: Tensor) -> Tensor:
        return _called(self.rule.leaves, seen)

    def predicted(self, seen: Tensor) -> Tensor:
        return _called(self.rule.predicted, seen)

    def slack(self, seen: Tensor) -> Tensor:
        return _called(self.rule.slack, seen)

    def log_slack(self, seen: Tensor) -> Tensor:
        return _called(self.rule.log_slack, seen)

    def opening(self, seen: Tensor, label: Tensor) -> Tensor:
        return _called(self.rule.opening, seen, label)

    def check(self, n_exits: int) -> None:
        self.rule.check(n_exits)

    def condition(self, k: int) -> str:
        return self.rule.condition(k)


def _called(method: Callable[..., Tensor], seen: Tensor, *more: Tensor) -> Tensor:
    """Call a method of the user's with copies, so that nothing of ours can be written to."""
    return method(seen.clone(), *(each.clone() for each in more))


def is_policy_reference(text: str) -> bool:
    """Return whether a policy is given as ``path/to/file.py:make``."""
    place, colon, _ = text.rpartition(":")
    return bool(colon) and place.endswith(".py") and not text.startswith(PREFIX)


def load_policy(reference: str) -> OwnRule:
    """Execute the file, call the function without arguments, and return the rule that it returns.

    Raises:
        ForeignModelError: If the file, the function or what it returns is not as it must be.
        InvalidValue: If the function returns anything but a ``Policy``.
    """
    factory = find_factory(reference)
    rule = factory.call()
    if not isinstance(rule, Policy):
        raise InvalidValue(
            f"{factory.where} returned {type(rule).__name__}; it must return an exit rule, derived from "
            "exitbench.models.policies.Policy"
        )
    where, code = ":".join(map(safe_name, factory.where.split(":"))), Describer().text(rule)[:16]
    _loaded[f"{PREFIX}{where}@{code}"] = rule
    return OwnRule(where, code)


def of_text(text: str) -> OwnRule:
    """Return the rule with a written form, if this process has loaded it.

    Raises:
        RuleNotLoaded: If it has not.
        InvalidValue: If the text has another form.
    """
    where, at, code = text.removeprefix(PREFIX).rpartition("@")
    if not at:
        raise InvalidValue(f"a rule of somebody's own is written {PREFIX}file.py:function@digest")
    return OwnRule(where, code)
