"""Carries the scores of a network's own gate heads in its logits.

A softmax does not change if a number is added to all logits of an exit: predictions, probabilities, entropies, margins and
cross-entropies are the same. A network with gate heads uses that freedom. It returns logits of mean zero plus the gate's score,
so that the mean of an exit's logits is its score, with a gradient. Attacks, stores and views of any kind carry it along.
"""

from __future__ import annotations

from torch import Tensor, nn


def with_score(logits: Tensor, score: Tensor) -> Tensor:
    """Return logits ``(..., classes)`` of the same softmax whose mean over the classes is ``score`` ``(...)``."""
    return logits - logits.mean(-1, keepdim=True) + score.unsqueeze(-1)


def score_of(logits: Tensor) -> Tensor:
    """Return the gate score ``(...)`` that logits ``(..., classes)`` carry."""
    return logits.mean(-1)


class ScoredHead(nn.Module):
    """A classifier head with a gate: it returns logits ``(B, classes)`` that carry the gate's score.

    Args:
        head: Maps the features of a stage to logits ``(B, classes)``.
        gate: Maps the same features to scores ``(B,)`` or ``(B, 1)``.
    """

    def __init__(self, head: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.head, self.gate = head, gate

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return with_score(logits, self.score(features, logits).reshape(len(logits)))

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score ``(B,)`` or ``(B, 1)`` of features and the logits ``(B, classes)`` of the head."""
        found: Tensor = self.gate(features)
        return found
