"""Gathers claims from the cells of a store and the clean images of the dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import canonical_json, digest
from exitbench.store.attack_spec import as_specified, is_bounded
from exitbench.store.cell import SCHEMA, Cell
from exitbench.store.run_record import CLEAN, RunRecord
from exitbench.store.shown import Part, figures_alone, is_shown
from exitbench.verify.ball import SLACK, distance
from exitbench.verify.check import deployed
from exitbench.verify.claims import Bools, Claims, ClaimSubject, Floats, Mismatch, Source, subject_of
from exitbench.verify.evidence import record_mismatches
from exitbench.verify.results import read_cell

Images = Mapping[str, Mapping[int, Floats]]
"""Counterexamples by the key of their cell and the index of their sample."""


def gather(
    store: Path,
    records: Sequence[RunRecord],
    split: Split,
    reported: Mapping[str, int],
    images: Images | None = None,
    *,
    part: bool = False,
) -> Claims | None:
    """Return the claims of the records of one evaluation, or None if its clean pass is not finished.

    The finished cells of unfinished attacks count, as in the worst case. Cells that came without their counterexamples take
    them from ``images``. With ``part``, those that find none there are left out where the images of other cells break every
    sample that they break.

    Raises:
        UserError: If a cell cannot be read, counterexamples are missing, or the dataset has fewer samples than were evaluated.
        ValueError: If the text of the policy is invalid.
    """
    subject = subject_of(records[0])
    n = subject.n
    if n > len(split):
        raise UserError(f"{split.dataset} ({split.source}) has {len(split)} test samples, the evaluation has {n}")
    flaws: list[Mismatch] = []
    cells = [(source, completed(cell, images or {})) for source, cell in _cells(store, records)]
    for source, cell in cells:
        _check_rows(source, cell, n)
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
    alone = _left_out(cells, records[0]) if part else ()
    attacked = [(source, cell) for source, cell in cells if source.attack != CLEAN]
    for record in records:
        flaws += record_mismatches(record)
    for source, cell in attacked:
        flaws += _row_flaws(source, cell, table)
    if alone:
        attacked = [(source, cell) for source, cell in attacked if not cell.lacks_images]
    clean_images = split.batch(0, n).x.numpy()
    counted, far = _counted(attacked, clean_images, subject)
    flaws += far
    return Claims(
        subject=subject,
        sources=tuple(source for source, _ in attacked),
        **table,
        clean_images=clean_images,
        clean_logits=np.concatenate([cell.logits for cell in clean], axis=1),
        **_counterexamples([cell for _, cell in attacked], counted, clean[0], records[0]),
        reported=dict(reported),
        flaws=tuple(dict.fromkeys(flaws)),
        records=tuple(records),
        store=store,
        figures_alone=alone,
    )


def _cells(store: Path, records: Sequence[RunRecord]) -> list[tuple[Source, Cell]]:
    """Return every finished cell once, clean ones in the order of their samples."""
    found: dict[str, tuple[Source, Cell]] = {}
    for record in records:
        for attack in as_specified(record).attacks:
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


def images_in(claims: Iterable[Claims]) -> Images:
    """Return the counterexamples of exported claims."""
    found: dict[str, dict[int, Floats]] = {}
    for each in claims:
        for m, image in enumerate(each.images):
            found.setdefault(each.sources[each.source[m]].key, {})[int(each.indices[each.row[m]])] = image
    return found


def completed(cell: Cell, images: Images) -> Cell:
    """Return a cell with its counterexamples, where it lacks them and all of them are at hand."""
    own = images.get(cell.key, {})
    samples = cell.indices[cell.broken_rows].tolist() if cell.lacks_images else []
    if not samples or not all(sample in own for sample in samples):
        return cell
    return replace(cell, counterexamples=np.stack([own[sample] for sample in samples]))


def _left_out(cells: Sequence[tuple[Source, Cell]], record: RunRecord) -> tuple[str, ...]:
    """Return the names of the attacks that the worst case does not need the missing images of; none where it needs any."""
    parts = [Part(source.attack, source.spec, [cell]) for source, cell in cells]
    policy = parse_policy(record.policy, record.n_exits, record.calibration)
    return figures_alone(parts) if is_shown(parts, record, policy) else ()


def _check_rows(source: Source, cell: Cell, n: int) -> None:
    """Refuse a cell whose samples are not of the evaluation, or whose images are not of its samples."""
    samples, rows = cell.indices, cell.broken_rows
    apart = bool(len(samples) and 0 <= samples.min() <= samples.max() < n and len(set(samples.tolist())) == len(samples))
    own = bool(not len(rows) or (0 <= rows.min() <= rows.max() < len(samples) and len(set(rows.tolist())) == len(rows)))
    if not apart or not own or len(cell.counterexamples) not in (0, len(rows)):
        raise UserError(
            f"{source.attack} (cell {cell.key[:12]}) names samples or images that it does not have; run the evaluation again"
        )


def _counted(
    cells: Sequence[tuple[Source, Cell]], clean_images: Floats, subject: ClaimSubject
) -> tuple[list[Bools], list[Mismatch]]:
    """Return which counterexamples of each cell count, and the cells whose distances are not those of their images.

    Images of attacks without a ball (WRM) count where they lie in it, by their distance from the clean images.
    """
    counted, flaws = [], []
    for source, cell in cells:
        rows = cell.broken_rows[: len(cell.counterexamples)]
        pairs = zip(cell.counterexamples, clean_images[cell.indices[rows]], strict=True)
        found = np.array([distance(image, clean, subject.norm) for image, clean in pairs], dtype=np.float64)
        said = cell.distances[rows]
        wrong = ~(np.abs(said - found) <= 2 * SLACK[subject.norm] * np.maximum(1, found))
        within = cell.within(subject.norm, subject.eps, source.spec)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            what = f"claimed at distance {said[first]:.6g} of its clean image, found at {found[first]:.6g}"
            flaws.append(Mismatch(f"{source.attack} (cell {cell.key[:12]}), sample {cell.indices[rows[first]]}", what))
        limit = subject.eps + SLACK[subject.norm]
        if is_bounded(source.spec) and not ((cell.distances >= 0) & (cell.distances <= limit)).all():
            flaws.append(
                Mismatch(f"{source.attack} (cell {cell.key[:12]})", f"claimed distances leave the ball of {subject.eps:.6g}")
            )
        counted.append(np.where(wrong, found <= limit, within[rows]) | is_bounded(source.spec))
    return counted, flaws


def _counterexamples(cells: Sequence[Cell], counted: Sequence[Bools], clean: Cell, record: RunRecord) -> dict[str, Any]:
    if any(cell.lacks_images for cell in cells):
        raise UserError(
            f"results of {record.model} ({record.training}) came without their counterexamples, for their figures alone: "
            "give them by --images FILE, made by `exitbench export --counterexamples` where they are, or run the evaluation in "
            "an empty results folder"
        )
    n_exits, _, n_classes = clean.logits.shape
    policy = parse_policy(record.policy, n_exits, record.calibration)
    nothing = (np.empty((n_exits, 0, n_classes), np.float32), np.empty(0, np.int64))
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
    if source.attack == CLEAN and cell.distances.any():
        flaws.append(
            Mismatch(where, f"clean images are claimed at a distance of {np.abs(cell.distances).max():.6g} from themselves")
        )
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
