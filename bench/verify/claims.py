"""The claims of an evaluation: every counterexample with its claimed effect, and the figures derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.models.field_types import Text
from exitbench.models.policies import Policy
from exitbench.models.policy_text import parse_policy
from exitbench.store.identity import Identity
from exitbench.store.run_record import RunRecord

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class ClaimSubject(Identity, frozen=True, kw_only=True):
    """What claims are about: what identifies the evaluation, and where its weights come from (``source``)."""

    source: Text


def subject_of(record: RunRecord) -> ClaimSubject:
    """What the claims of a run are about."""
    return ClaimSubject(**{name: getattr(record, name) for name in ClaimSubject.__struct_fields__})


@dataclass(frozen=True)
class Mismatch:
    """A claim that does not hold: where it is made, what is claimed, and what was found."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Source:
    """The cell that counterexamples come from.

    Attributes:
        attack: Name of the attack in reports.
        spec: The resolved attack, as JSON values.
        seed: Seed of its noise.
        key: Key of the cell.
    """

    attack: str
    spec: Mapping[str, Any]
    seed: int
    key: str


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Claims:
    """All that is claimed of one model under one policy on the same n samples and threat model.

    Attributes:
        subject: what they are about.
        sources: the cells that the counterexamples come from.
        indices: ``(n,)`` sample indices in the test split.
        labels: ``(n,)``.
        inputs: ``(n, 32)`` bytes, SHA-256 of each sample's float32 pixels and label.
        clean_images: ``(n, C, H, W)``.
        clean_logits: ``(K, n, classes)`` claimed of all exits.
        source: ``(M,)`` of each counterexample, into ``sources``.
        row: ``(M,)`` of each counterexample, into the n samples.
        images: ``(M, C, H, W)`` the counterexamples: at least one exit is wrong on each.
        logits: ``(K, M, classes)`` claimed of all exits.
        exits: ``(M,)`` 0-based exit that the policy is said to take.
        predictions: ``(M,)`` class said to be predicted there.
        broken: ``(M,)`` whether the deployed rule is said to be wrong.
        reported: number of samples reported right, by ``none`` (clean) and ``worst``; what is not reported is not there.
        flaws: mismatches seen while the claims were put together.
        is_the_dataset: whether the inputs are those of the dataset named; None where it is not at hand.
        records: the run records that they come from; none in an exported file.
        store: the store that they come from; None of an exported file.
        figures_alone: names of attacks with cells that are left out, since their images are not at hand; what these break, the
            others break.
    """

    subject: ClaimSubject
    sources: tuple[Source, ...]
    indices: Ints
    labels: Ints
    inputs: Bytes
    clean_images: Floats
    clean_logits: Floats
    source: Ints
    row: Ints
    images: Floats
    logits: Floats
    exits: Ints
    predictions: Ints
    broken: Bools
    reported: Mapping[str, int] = field(default_factory=dict)
    flaws: tuple[Mismatch, ...] = ()
    is_the_dataset: bool | None = True
    records: tuple[RunRecord, ...] = ()
    store: Path | None = None
    figures_alone: tuple[str, ...] = ()

    @property
    def unproven(self) -> tuple[Source, ...]:
        """The cells without any counterexample: that their attacks fail there is the word of whoever ran them."""
        proven = set(self.source.tolist())
        return tuple(source for i, source in enumerate(self.sources) if i not in proven)

    @property
    def policy(self) -> Policy:
        """Return the deployed rule.

        Raises:
            ValueError: If its text is invalid, or for another number of exits.
        """
        return parse_policy(self.subject.policy, len(self.clean_logits), self.subject.calibration)

    @property
    def n_attacks(self) -> int:
        """Number of attacks; runs with different seeds count separately."""
        return len({(source.attack, repr(source.spec), source.seed) for source in self.sources})

    def where(self, m: int) -> str:
        """Describe counterexample ``m``."""
        source = self.sources[self.source[m]]
        return f"{source.attack} (cell {source.key[:12]}), sample {self.indices[self.row[m]]}"
