"""Gathers claims from the cells of a store and the clean images of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import canonical_json, digest
from exitbench.store.cell import SCHEMA, Cell
from exitbench.store.run_record import CLEAN, RunRecord
from exitbench.verify.check import deployed
from exitbench.verify.claims import Claims, ClaimSubject, Mismatch, Source, subject_of
from exitbench.verify.results import read_cell


def gather(store: Path, records: Sequence[RunRecord], split: Split, reported: Mapping[str, int]) -> Claims | None:
    """Return the claims of the records of one evaluation, or None if its clean pass is not finished.

    The finished cells of unfinished attacks count, as in the worst case.

    Raises:
        UserError: If a cell cannot be read, or the dataset has fewer samples than were evaluated.
        ValueError: If the text of the policy is invalid.
    """
    subject = subject_of(records[0])
    n = subject.n
    if n > len(split):
        raise UserError(f"{split.dataset} ({split.source}) has {len(split)} test samples, the evaluation has {n}")
    flaws: list[Mismatch] = []
    cells = _cells(store, records)
    clean = [cell for source, cell in cells if source.attack == CLEAN]
    for source, cell in cells:
        flaws += _cell_flaws(source, cell, subject)
    if sum(len(cell.indices) for cell in clean) != n:
        return None
    table: dict[str, Any] = {
        name: np.concatenate([getattr(cell, name) for cell in clean]) for name in ("indices", "labels", "inputs")
    }
    if not np.array_equal(table["indices"], np.arange(n)):
        raise UserError(f"the clean cells of {subject.model} hold samples other than the first {n}; run the evaluation again")
    attacked = [(source, cell) for source, cell in cells if source.attack != CLEAN]
    for source, cell in attacked:
        flaws += _row_flaws(source, cell, table)
    return Claims(
        subject=subject,
        sources=tuple(source for source, _ in attacked),
        **table,
        clean_images=split.batch(0, n).x.numpy(),
        clean_logits=np.concatenate([cell.logits for cell in clean], axis=1),
        **_counterexamples([cell for _, cell in attacked], clean[0], records[0]),
        reported=dict(reported),
        flaws=tuple(flaws),
    )


def _cells(store: Path, records: Sequence[RunRecord]) -> list[tuple[Source, Cell]]:
    """Return every finished cell once, clean ones in the order of their samples."""
    found: dict[str, tuple[Source, Cell]] = {}
    for record in records:
        for attack in record.attacks:
            for key in attack.keys:
                if key not in found and (cell := read_cell(store, key)) is not None:
                    found[key] = (Source(attack.name, attack.spec, record.seed, key), cell)
    seen_clean: set[int] = set()
    cells = []
    for source, cell in found.values():
        if source.attack == CLEAN:
            # Runs with other seeds have separate clean cells for the same samples.
            first = int(cell.indices[0])
            if first in seen_clean:
                continue
            seen_clean.add(first)
        cells.append((source, cell))
    return sorted(cells, key=lambda each: int(each[1].indices[0]) if each[0].attack == CLEAN else -1)


def _counterexamples(cells: Sequence[Cell], clean: Cell, record: RunRecord) -> dict[str, Any]:
    if any(cell.lacks_images for cell in cells):
        raise UserError(
            f"results of {record.model} ({record.training}) came without their counterexamples, for their figures alone: "
            "verify them where they were made, or run the evaluation in an empty results folder"
        )
    n_exits, _, n_classes = clean.logits.shape
    policy = parse_policy(record.policy, n_exits, record.calibration)
    nothing = (np.empty((n_exits, 0, n_classes), np.float32), np.empty(0, np.int64))
    # Images of attacks without a ball (WRM) that lie outside it claim nothing about the threat model.
    counted = [cell.within(record.norm, record.eps)[cell.broken_rows] for cell in cells]
    rows = [cell.broken_rows[kept] for cell, kept in zip(cells, counted, strict=True)]
    logits = np.concatenate([nothing[0], *(cell.logits[:, at] for cell, at in zip(cells, rows, strict=True))], axis=1)
    row = np.concatenate([nothing[1], *(cell.indices[at] for cell, at in zip(cells, rows, strict=True))])
    labels = np.concatenate([nothing[1], *(cell.labels[at] for cell, at in zip(cells, rows, strict=True))])
    exits, predictions = deployed(logits, policy)
    images = [cell.counterexamples[kept] for cell, kept in zip(cells, counted, strict=True) if kept.any()]
    return {
        "source": np.repeat(np.arange(len(cells)), [len(at) for at in rows]),
        "row": row,
        "images": np.concatenate(images) if images else np.empty((0, *clean.counterexamples.shape[1:]), np.float32),
        "logits": logits,
        "exits": exits,
        "predictions": predictions,
        "broken": predictions != labels,
    }


def _cell_flaws(source: Source, cell: Cell, subject: ClaimSubject) -> list[Mismatch]:
    """Check a cell against its key, its run record, and the rule that every wrong row has its image."""
    where = f"{source.attack} (cell {cell.key[:12]})"
    flaws = []
    inputs = [row.tobytes().hex() for row in cell.inputs]
    what = {"schema": SCHEMA, "weights": subject.weights, "inputs": inputs, "attack": source.spec, "seed": source.seed}
    if digest(what) != cell.key:
        flaws.append(Mismatch(where, "its key is not the digest of its weights, inputs, attack and seed"))
    said = canonical_json([cell.header.get("weights"), cell.header.get("attack"), cell.header.get("seed")])
    if said != canonical_json([subject.weights, source.spec, source.seed]):
        flaws.append(Mismatch(where, "its header names other weights, another attack or seed than its run record"))
    if source.attack != CLEAN:
        wrong = np.flatnonzero((cell.logits.argmax(-1) != cell.labels).any(0))
        if not np.array_equal(wrong, cell.broken_rows):
            rows = sorted(set(wrong.tolist()) ^ set(cell.broken_rows.tolist()))
            samples = ", ".join(str(cell.indices[row]) for row in rows[:3])
            flaws.append(
                Mismatch(where, f"the logits and the images kept disagree on which samples have a wrong exit: {samples}")
            )
    return flaws


def _row_flaws(source: Source, cell: Cell, table: Mapping[str, Any]) -> list[Mismatch]:
    """Return the labels and inputs that differ from those of the clean cells for the same samples."""
    where = f"{source.attack} (cell {cell.key[:12]})"
    flaws = []
    for at, index in enumerate(cell.indices.tolist()):
        if not 0 <= index < len(table["labels"]) or cell.labels[at] != table["labels"][index]:
            expected = table["labels"][index] if 0 <= index < len(table["labels"]) else "none"
            flaws.append(Mismatch(f"{where}, sample {index}", f"claimed label {cell.labels[at]}, the clean cell's is {expected}"))
        elif not np.array_equal(cell.inputs[at], table["inputs"][index]):
            flaws.append(Mismatch(f"{where}, sample {index}", "its input hash is not the clean cell's"))
    return flaws
