"""Checks what a run record says against the specifications of its attacks, the network's costs, and the registry of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from exitbench.data.cards import find_dataset
from exitbench.models.cost import ExitCosts
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import canonical_json, describe
from exitbench.models.weights import WeightsCard, known_weights, shipped_weights
from exitbench.store.attack_spec import Spec, as_specified
from exitbench.store.run_record import RunRecord
from exitbench.verify.claims import ClaimSubject, Mismatch

COUNTED = 1e-6
"""Largest relative difference of a cost from the recorded one: both are whole numbers, over 10^6 or 2^20."""

_FILE = "file "  # how the source of weights begins that were given as a file and are called after it


def record_mismatches(record: RunRecord) -> Iterator[Mismatch]:
    """Yield what a record says of its attacks and its dataset that their specifications and the dataset's card do not."""
    for name, why in _attack_faults(record):
        yield Mismatch(name, why)
    dataset = find_dataset(record.dataset)
    usual = None if dataset.origin is None else dataset.card.eps[record.norm]
    if record.usual_eps != usual:
        yield Mismatch("usual eps", f"recorded {record.usual_eps}, {record.dataset}'s card makes it {usual}")


def cost_mismatches(record: RunRecord, costs: ExitCosts) -> Iterator[Mismatch]:
    """Yield the recorded costs that are not those of the network, ``costs``, as it is counted here."""
    dense = tuple(costs.mmacs_dense) if costs.sparsity else None
    sparsity = (costs.sparsity,) if costs.sparsity else None
    recorded = None if record.sparsity is None else (record.sparsity,)
    for name, said, found in (
        ("mmacs", record.mmacs, costs.mmacs),
        ("mflops_paper", record.mflops_paper, costs.mflops_paper),
        ("mmacs_dense", record.mmacs_dense, dense),
        ("sparsity", recorded, sparsity),
    ):
        if not _same(said, found):
            yield Mismatch(f"cost, {name}", f"recorded {_told(said)}, counted {_told(found)}")
    if set(record.uncounted) != set(costs.uncounted):
        yield Mismatch("cost", f"recorded without {_told(record.uncounted)}, counted without {_told(costs.uncounted)}")


def name_mismatch(subject: ClaimSubject) -> Mismatch | None:
    """Return how the name of the weights contradicts the registry: it is that of other weights, or not that of their digest."""
    cards = _cards(subject.model)
    own = {card.training for card in cards if card.sha256 == subject.weights}
    taken = {card.training: card.sha256 for card in cards if card.training not in own and card.dataset == subject.dataset}
    if subject.training in taken:
        what = (
            f"claimed to be {subject.training}, whose SHA-256 is {taken[subject.training][:12]}..., not {subject.weights[:12]}..."
        )
        return Mismatch("training", what)
    if own and subject.training not in own and not subject.source.startswith(_FILE):
        return Mismatch("training", f"claimed to be {subject.training}, weights of this SHA-256 are {' or '.join(sorted(own))}")
    return None


def is_registered(subject: ClaimSubject) -> bool:
    """Return whether the registry knows the weights by their digest, so that their name is not their author's word alone."""
    return any(card.sha256 == subject.weights for card in _cards(subject.model))


def _cards(model: str) -> list[WeightsCard]:
    """Return the cards of a model's weights, those of the user's folder and the shipped ones of the same name, too."""
    return [card for card, _ in (*known_weights(model), *shipped_weights()) if card.model == model]


def _attack_faults(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield the attacks whose name, goal, ball, rule or costs in a record are not those of their specification, and why."""
    rule = describe(parse_policy(record.policy, record.n_exits, record.calibration))
    for attack, specified in zip(record.attacks, as_specified(record).attacks, strict=True):
        if specified.name != attack.name:
            yield attack.name, f"its specification is that of {specified.name}"
        if specified.goal != attack.goal:
            yield attack.name, f"claimed to raise the {attack.goal}, its specification raises the {specified.goal}"
        for what, found in _wrong_parts(attack.spec, record, rule):
            yield attack.name, f"its specification attacks another {what} than the record is about: {found}"


def _wrong_parts(spec: Spec, record: RunRecord, rule: object) -> Iterator[tuple[str, str]]:
    region = spec.get("region")
    if (
        isinstance(region, Mapping)
        and region.get("type") == "Ball"
        and (region.get("norm"), region.get("eps")) != record.threat[:2]
    ):
        yield "ball", f"{region.get('norm')} {region.get('eps')}"
    if isinstance(region, Mapping) and region.get("grid") != record.grid:
        yield "grid", f"{region.get('grid') or 'none'}"
    for name in ("policy", "target"):
        if isinstance(aimed := spec.get(name), Mapping) and canonical_json(aimed) != canonical_json(rule):
            yield "exit rule", canonical_json(aimed)[:100]
    if "costs" in spec and tuple(spec["costs"]) != record.mmacs:
        yield "cost of exits", canonical_json(spec["costs"])[:100]
    for child in spec.get("attacks", ()):
        yield from _wrong_parts(child, record, rule)
    if isinstance(start := spec.get("start"), Mapping):
        yield from _wrong_parts(start, record, rule)


def _same(said: Sequence[float] | None, found: Sequence[float] | None) -> bool:
    if said is None or found is None:
        return said is found
    return len(said) == len(found) and all(abs(a - b) <= COUNTED * max(abs(b), COUNTED) for a, b in zip(said, found, strict=True))


def _told(values: Sequence[object] | None) -> str:
    return "nothing" if not values else ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)
