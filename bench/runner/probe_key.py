"""The samples and the store key of a probe; importing it needs no attack's code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exitbench.data.split import Batch
from exitbench.models.spec import describe, digest
from exitbench.store.cell import SLICE

if TYPE_CHECKING:
    from exitbench.runner.prepare import Prepared

VERSION = 5
"""Version of the measurements, part of every key; it is raised when one changes."""

READABLE = frozenset({1, 2, 3, 4, 5})
"""Versions of stored probes whose flags hold for what they measured.

In version 1 the black-box controls have the first slice's samples alone, and images are tried in reverse order and in halves.
In version 2 only the controls have more samples than the first slice; the other checks judge it by shares alone.
Until version 3, outputs are neither compared at random starts, nor near the 8-bit grid, nor with a copy of the network, and
random numbers are those of ``exitbench.checks.earlier_noise``. Until version 4, nothing was looked for where ascents do not
lead (``exitbench.checks.hidden``)."""

SAME_NOISE = 4
"""Version from which on random numbers are those of the attacks, the same on every device."""

HIDDEN = 5
"""Version from which on samples that ascents leave are attacked without gradients, too."""

GROWN = 3
"""Version from which on every comparison has as many samples as decide it, and flags follow the rules of today."""


def probed_batch(prepared: Prepared) -> Batch:
    """The samples that are probed: the evaluation's first slice."""
    return prepared.split.batch(0, min(SLICE, prepared.n))


def probe_key(prepared: Prepared, seed: int) -> str:
    """Return the content address of a probe: the SHA-256 over what determines its content.

    How many samples there are decides how far a comparison may grow. Keys of earlier releases have no such number, and one probe
    stood for evaluations of 40 and of 1,000 samples.
    """
    target = prepared.target
    more = {"n": prepared.n} if prepared.n > SLICE else {}
    what = {
        **more,
        "version": VERSION,
        "weights": target.weights,
        "inputs": probed_batch(prepared).input_hashes(),
        "settings": describe(prepared.settings),
        "policy": describe(target.policy),
        "seed": seed,
    }
    return digest(what)
