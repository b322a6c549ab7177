"""A store that believes nothing but what this process has computed, for judgements that must not rest on files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from exitbench.store.cell import Cell
from exitbench.store.store import Store
from exitbench.store.trust_result import TrustResult


class FreshStore(Store):
    """A store whose cells and trust results count as missing unless this process wrote them.

    What is computed is kept in the folder as in any store, and replaces what was there. Verdicts are read from memory; images,
    which selections take from other attacks' cells, from the file that was written, if it is still the same.

    Args:
        root: See ``Store``.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._cells: dict[str, Cell] = {}
        self._digests: dict[str, bytes] = {}
        self._probes: dict[str, TrustResult] = {}

    def read(self, key: str, *, images: bool = True) -> Cell | None:
        """Return the cell if this process wrote it, else None; None as well if its images are wanted and its file was changed."""
        if not images:
            return self._cells.get(key)
        raw = self.read_bytes(key) if key in self._cells else None
        if raw is None or hashlib.sha256(raw).digest() != self._digests[key]:
            return None
        return Cell.from_bytes(raw, key)

    def read_probe(self, key: str) -> TrustResult | None:
        """Return the trust result if this process wrote it, else None."""
        return self._probes.get(key)

    def write_probe(self, result: TrustResult) -> None:
        """Store the measurements of the trust checks and delete their error, if there was one."""
        super().write_probe(result)
        self._probes[result.key] = result

    def _keep(self, key: str, raw: bytes) -> None:
        super()._keep(key, raw)
        cell = Cell.from_bytes(raw, key)
        self._cells[key] = replace(cell, counterexamples=cell.counterexamples[:0].copy())
        self._digests[key] = hashlib.sha256(raw).digest()
