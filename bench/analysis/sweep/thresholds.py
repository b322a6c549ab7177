"""Sets the thresholds of a sweep from the logits on held-out training images, which are stored once computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models.calibration import target_cost
from exitbench.models.errors import InputError
from exitbench.models.fingerprint import is_of
from exitbench.models.policies import Policy
from exitbench.models.registry import model_card
from exitbench.store.calibration_logits import HeldOut, held_out_key
from exitbench.store.generations import Generations
from exitbench.store.run_record import RunRecord
from exitbench.store.store import Store
from exitbench.target.calibrate import all_logits, provenance
from exitbench.target.networks import Loaded, Network, RegisteredNetwork
from exitbench.target.normalised import normalised
from exitbench.target.registered_weights import registered_weights


def held_out(record: RunRecord, store: Store, data: Path, weights: Path | None, network: Network | None = None) -> HeldOut:
    """Return the calibration logits of the network of ``record``; they are computed only if the store has none.

    Args:
        record: A run record.
        store: The store of the logits.
        data: The data directory.
        weights: A safetensors file; None for the registered weights with the record's digest.
        network: The network of the record; None for the registered one of that name.

    Raises:
        UserError: If the store has none, and the network or the calibration images are not available.
    """
    key = held_out_key(record.model, record.weights, record.dataset)
    if (found := store.read_held_out(key)) is None:
        found = _compute(key, record, store, data, weights, network)
        store.write_held_out(found)
    if found.logits.shape[0] != record.n_exits:
        raise UserError(f"the calibration logits {key} in the store have {found.logits.shape[0]} exits; delete them")
    return found


def _compute(key: str, record: RunRecord, store: Store, data: Path, weights: Path | None, network: Network | None) -> HeldOut:
    try:
        network = network or RegisteredNetwork(model_card(record.model))
        if record.requested is not None:
            network = normalised(network, record.requested.mean, record.requested.std)
        if weights is None and network.card is not None:
            weights = registered_weights(network.name, record.weights)
        split = load_split(record.dataset, "calibration", network.input_shape(record.dataset), data)
        loaded = network.load(record.dataset, split.shape, None, weights)
        if _known_as(loaded, store) != record.weights:
            what = weights or network.name
            if loaded.fingerprint is not None and is_of(loaded.weights, record.weights):
                raise UserError(f"{what} computes something else than when the results in the store were made")
            raise UserError(f"{what} has SHA-256 {loaded.weights[:12]}..., the store is about {record.weights[:12]}...")
    except InputError as error:
        raise UserError(
            f"a sweep of {record.model} ({record.training}) sets thresholds on held-out training images of "
            f"{record.dataset}, never on test images; the store does not hold its logits on them, and: {error}"
        ) from error
    logits = all_logits(loaded.model, split)
    hashes = split.input_hashes()
    inputs = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(-1, 32)
    header = {"model": network.name, "weights": record.weights, "dataset": split.dataset, "source": split.source}
    return HeldOut(key, header, inputs, logits.numpy())


def _known_as(loaded: Loaded, store: Store) -> str | None:
    """Return the digest that results of a network have in the store; None where they are of another function."""
    if loaded.fingerprint is None:
        return loaded.weights
    known = Generations(store.root).read(loaded.weights)
    found = Generations(store.root).find(loaded.weights, loaded.fingerprint)
    return found.weights if found else None if known else loaded.weights


def targets(mmacs: tuple[float, ...], n: int) -> list[float]:
    """Return ``n`` mean costs evenly spaced between those of the first and the last exit, rounded to four digits."""
    first, last = mmacs[0], mmacs[-1]
    spaced = [first + (last - first) * i / (n + 1) for i in range(1, n + 1)]
    return [min(max(float(f"{target:.4g}"), first), last) for target in spaced]


def at_target(held: HeldOut, mmacs: tuple[float, ...], target: float, rule: str) -> Policy:
    """Return the policy that ``--policy RULE@mmacs=TARGET`` calibrates, from stored logits."""
    origin = provenance(held.input_hashes(), "calibration", rule, f"mmacs={target:g}")
    return target_cost(torch.from_numpy(held.logits), mmacs, target, rule, origin)
