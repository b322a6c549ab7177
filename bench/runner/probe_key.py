"""Which samples a probe takes, and the key that it is stored under; no attack's code is needed to read it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exitbench.data.split import Batch
from exitbench.models.spec import describe, digest
from exitbench.store.cell import SLICE

if TYPE_CHECKING:
    from exitbench.runner.prepare import Prepared

VERSION = 2
"""Bumped when a measurement changes; part of every key."""

READABLE = frozenset({1, 2})
"""Versions whose flags hold for what they measured. Version 1 tried the images in reverse order and in halves alone."""


def probed_batch(prepared: Prepared) -> Batch:
    """The samples that are probed: the evaluation's first slice."""
    return prepared.split.batch(0, min(SLICE, prepared.n))


def probe_key(prepared: Prepared, seed: int) -> str:
    """Content address of a probe: SHA-256 over what decides its content."""
    target = prepared.target
    what = {
        "version": VERSION,
        "weights": target.weights,
        "inputs": probed_batch(prepared).input_hashes(),
        "settings": describe(prepared.settings),
        "policy": describe(target.policy),
        "seed": seed,
    }
    return digest(what)
