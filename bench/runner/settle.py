"""Which stored results are of the network as it is now: its fingerprint is compared with the stored one."""

from __future__ import annotations

from dataclasses import replace

from exitbench.models.zoo.published import published_reference
from exitbench.runner.prepare import Prepared
from exitbench.store.generations import Generations
from exitbench.store.store import Store


def settled(prepared: Prepared, store: Store) -> Prepared:
    """Return ``prepared`` with the digest that results of its network have in the store, and a note where it is a new one.

    A network of the same code and tensors whose stored fingerprint is another function's gets a digest of its own, so that
    its results are computed again and never mixed with those. Registered networks are what their weights say.
    """
    target = prepared.target
    if target.fingerprint is None:
        return prepared
    # Of published networks, earlier versions stored results under the same digest and no fingerprint.
    unknown = published_reference(target.name) is None and _has_results(target.weights, store)
    found = Generations(store.root).settle(target.weights, target.fingerprint, unknown=unknown)
    note = "; ".join(filter(None, (prepared.note, found.note))) or None
    return replace(prepared, target=replace(target, weights=found.weights), note=note)


def _has_results(weights: str, store: Store) -> bool:
    """Return whether some run of a network of this digest is recorded whose fingerprint is not."""
    if Generations(store.root).path(weights).is_file():
        return False
    return any(run.weights == weights for run in store.runs())
