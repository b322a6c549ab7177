"""Who a row is: the network's name for readers, its papers, its defence; from the cards that come with the package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from msgspec import structs

from exitbench.models.about_weights import AboutWeights, about_weights
from exitbench.models.authors_checkpoint import RELEASED_SHA256
from exitbench.models.errors import UnknownName
from exitbench.models.number_text import cost_text
from exitbench.models.papers import RDI, Paper
from exitbench.models.registry import ModelCard, model_card
from exitbench.models.weights import IMPORTED, WeightsCard, shipped_weights
from exitbench.scoring.evaluation import Evaluation
from exitbench.store.run_record import RunRecord

_OF_THE_AUTHORS = AboutWeights(
    title="authors' weights",
    defence="adversarial training against the max-average attack, by the authors of the paper",
    paper=str(RDI),
    link=RDI.link,
    extra_data="none",
)

_UNNAMED = ("factory", "memory")
"""What weights are called in records where they came with the network."""


@dataclass(frozen=True)
class Identity:
    """Who a row is; what is not known is empty.

    Attributes:
        name: Architecture and training, such as ``RDI-ResNet-38, max-average``.
        kind: How many exits, under which rule, sparse or not.
        paper: Of the architecture.
        family: Of architectures.
        about: What the card of the weights says.
    """

    name: str
    kind: str
    paper: Paper | None
    family: str
    about: AboutWeights


def identities(evaluations: Sequence[Evaluation]) -> list[Identity]:
    """Return who each row of a board is; rows that would read the same also give what they differ in."""
    found = [_identity(evaluation) for evaluation in evaluations]
    for part in (_training, _samples, _costs):
        seen = Counter((each.name, each.kind) for each in found)
        found = [
            replace(each, kind=f"{each.kind}, {part(evaluation)}") if seen[each.name, each.kind] > 1 else each
            for each, evaluation in zip(found, evaluations, strict=True)
        ]
    return found


def network_text(evaluation: Evaluation) -> str:
    """Return the kind of network, for the filter."""
    kind = "early exits" if evaluation.record.n_exits > 1 else "one exit"
    return f"{kind}, sparse" if evaluation.sparsity else kind


def _identity(evaluation: Evaluation) -> Identity:
    record = evaluation.record
    card, about = _card(record.model), _about(record)
    title = card.title if card and card.title else record.model
    training = about.title or ("" if record.training in _UNNAMED else record.training.replace("_", "-"))
    return Identity(
        name=", ".join(filter(None, (title, training))),
        kind=_kind(evaluation),
        paper=card.reference if card else None,
        family=card.family if card else "",
        about=about,
    )


def _kind(evaluation: Evaluation) -> str:
    record = evaluation.record
    rule, _, rest = record.policy.partition(":")
    used = f"always exit {rest}" if rule == "exit" else f"{rule} rule"
    kind = f"{record.n_exits} exits, {used}" if record.n_exits > 1 else "one exit"
    return f"{kind}, sparse" if evaluation.sparsity else kind


def _training(evaluation: Evaluation) -> str:
    return evaluation.record.training


def _samples(evaluation: Evaluation) -> str:
    return f"n = {evaluation.n}"


def _costs(evaluation: Evaluation) -> str:
    return f"{cost_text(evaluation.mean_cost(evaluation.clean), 1)} mmacs"


def _card(model: str) -> ModelCard | None:
    try:
        return model_card(model)
    except UnknownName:
        return None


def _about(record: RunRecord) -> AboutWeights:
    """Return what is known of the weights, by their digest: cards of the user's own would make pages differ by machine."""
    card = _shipped().get(record.weights)
    if card is not None and card.model == record.model:
        return about_weights(card)
    if record.source.startswith(IMPORTED) and RELEASED_SHA256 in record.source:
        same = (about_weights(card).parameters for card in _shipped().values() if card.model == record.model)
        return structs.replace(_OF_THE_AUTHORS, parameters=next(same, None))
    return AboutWeights()


@cache
def _shipped() -> Mapping[str, WeightsCard]:
    return {card.sha256: card for card, _ in shipped_weights()}
