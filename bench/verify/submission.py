"""The claims of a submission, from its file alone, and its evaluation as a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.data.known_inputs import are_known
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.errors import InputError, InvalidValue
from exitbench.store.archive import unpacked
from exitbench.store.cell import Cell
from exitbench.store.inside import write_inside
from exitbench.store.store import Store, cell_path
from exitbench.verify.claims import Bools, Claims, Mismatch
from exitbench.verify.dataset import dataset_mismatches
from exitbench.verify.export_file import from_file
from exitbench.verify.gather import completed, gather, images_in
from exitbench.verify.results import find_results
from exitbench.verify.submission_file import FIGURES as FIGURES_FILE
from exitbench.verify.submission_file import IMAGES, MANIFEST, Opened, opened

_ARRAYS = {"row": (), "source": (), "images": (1, 2, 3), "logits": (0, 2), "exits": (), "predictions": (), "broken": ()}
"""The arrays of counterexamples, and their axes but that of the counterexamples."""


@dataclass(frozen=True)
class Submitted:
    """What is to be verified of a submission.

    Attributes:
        opened: the file.
        claims: what it claims, in a temporary store.
        split: its clean images, as the test split.
    """

    opened: Opened
    claims: Claims
    split: Split


@contextmanager
def submitted(path: Path, data: Path) -> Iterator[Submitted]:
    """Read the claims of a submission; its clean images are compared with the dataset where that is in ``data``.

    Nothing is downloaded, and nothing in the file is executed.

    Raises:
        UserError: If the file is damaged, or holds nothing that can be verified.
    """
    with opened(path) as file, unpacked(file.folder / FIGURES_FILE) as root:
        exported = _exported(file)
        split = _split(exported, path)
        claims = _gathered(file, root, exported, split)
        differing = dataset_mismatches(claims, data)
        flaws = [*_contradictions(file, claims, exported), *claims.flaws, *(differing or ())]
        known = None if differing is None else not differing
        if not are_known(claims.subject.dataset, claims.inputs, claims.clean_images.shape[1:]):
            known, what = False, f"they are not the first {len(claims.indices)} test images of {claims.subject.dataset}"
            flaws.append(Mismatch("samples", f"{what}, by their digests"))
        yield Submitted(file, replace(claims, flaws=tuple(dict.fromkeys(flaws)), is_the_dataset=known), split)


@contextmanager
def as_store(path: Path) -> Iterator[Path]:
    """Yield the root of a temporary store with the evaluation of a submission, its counterexamples in their cells.

    Raises:
        UserError: If the file is damaged, or one of its members is another than it says.
    """
    with opened(path) as file, unpacked(file.folder / FIGURES_FILE) as root:
        if file.damaged:
            raise UserError(f"{path}: {file.damaged[0]}; nothing of it is taken")
        images = images_in([_exported(file)])
        store = Store(root)
        for name in sorted(cell.stem for cell in root.glob("cells/*/*.npz")):
            cell = store.read(name)
            if cell is not None and cell.lacks_images:
                write_inside(root, cell_path(root, name), _whole(completed(cell, images), path).to_bytes())
        yield root


def _whole(cell: Cell, path: Path) -> Cell:
    if cell.lacks_images:
        raise UserError(f"{path}: {IMAGES} lacks counterexamples of cell {cell.key[:12]}; nothing of it is taken")
    return cell


def _exported(file: Opened) -> Claims:
    """Return the claims beside the counterexamples, which must be of one evaluation."""
    with (file.folder / IMAGES).open("rb") as content:
        found = from_file(content, f"{file.path}: {IMAGES}")
    if len(found) != 1:
        raise UserError(f"{file.path}: {IMAGES} holds {len(found)} evaluations; a submission is of one")
    return found[0]


def _split(exported: Claims, path: Path) -> Split:
    """Return the clean images as a test split."""
    n_classes = exported.clean_logits.shape[-1]
    return Split(exported.subject.dataset, "test", exported.clean_images, exported.labels, n_classes, path.name)


def _gathered(file: Opened, root: Path, exported: Claims, split: Split) -> Claims:
    """Return the claims of the figures, with the counterexamples of the other member."""
    records = find_results(str(root), root).records
    if len(records) != 1:
        raise UserError(f"{file.path}: {FIGURES_FILE} holds {len(records)} evaluations; a submission is of one")
    try:
        claims = gather(root, records[0], split, file.says.reported, images_in([exported]))
    except InvalidValue as error:
        raise UserError(f"{file.path}: {error}") from error
    except InputError as error:
        raise UserError(f"{file.path}: its figures and counterexamples do not fit together: {error}") from error
    if claims is None:
        raise UserError(f"{file.path} has no finished clean pass: it claims nothing")
    return claims


def _contradictions(file: Opened, claims: Claims, exported: Claims) -> Iterator[Mismatch]:
    """Yield where the members of a submission say different things."""
    for what in file.damaged:
        yield Mismatch("the file", what)
    for name, told in ((MANIFEST, file.says.subject), (IMAGES, exported.subject)):
        if told != claims.subject:
            yield Mismatch(name, f"it is about another evaluation than {FIGURES_FILE}")
    if {source.key for source in claims.sources} != {source.key for source in exported.sources}:
        yield Mismatch(IMAGES, f"its attacks are not those of {FIGURES_FILE}")
    elif any(getattr(claims, name).shape != getattr(exported, name).shape for name in (*_ARRAYS, "clean_logits", "labels")):
        yield Mismatch(IMAGES, f"it holds other counterexamples than {FIGURES_FILE}")
    else:
        wrong = np.zeros(len(claims.row), dtype=np.bool_)
        for name, axes in _ARRAYS.items():
            wrong |= _differs(getattr(claims, name), getattr(exported, name), axes)
        for m in np.flatnonzero(wrong).tolist():
            yield Mismatch(claims.where(m), f"{IMAGES} says other things of it than {FIGURES_FILE}")
        clean = _differs(claims.clean_logits, exported.clean_logits, (0, 2))
        for i in np.flatnonzero(clean).tolist():
            yield Mismatch(f"clean, sample {claims.indices[i]}", f"{IMAGES} says other things of it than {FIGURES_FILE}")


def _differs(one: npt.NDArray[Any], other: npt.NDArray[Any], axes: tuple[int, ...]) -> Bools:
    """Return where two arrays of one shape differ, over ``axes``; NaN is NaN."""
    found: Bools = ~((one == other) | ((one != one) & (other != other)))  # noqa: PLR0124 - NaN alone
    return np.any(found, axis=axes) if axes else found
