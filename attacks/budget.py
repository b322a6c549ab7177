"""What attacks with a limit on their gradients have in common."""

from __future__ import annotations

from exitbench.attacks.base import Attack
from exitbench.models.errors import InvalidValue


class Budgeted(Attack):
    """An attack that spends at most ``budget`` gradients per sample, a field of its data class.

    Raises:
        InvalidValue: If the budget is below 1.
    """

    budget: int

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InvalidValue(f"the budget must be at least 1 gradient per image, got {self.budget}")

    @property
    def expected_gradients(self) -> float:
        return self.budget / 4  # most samples break early
