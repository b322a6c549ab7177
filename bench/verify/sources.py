"""Loads claims from an exported file, or from a results folder and its dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from exitbench.data.cards import dataset_card
from exitbench.data.download import DataUnavailable
from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models.errors import InputError
from exitbench.verify.claims import Claims
from exitbench.verify.dataset import dataset_mismatches
from exitbench.verify.export_file import from_file
from exitbench.verify.gather import gather, images_in
from exitbench.verify.results import find_results, image_shape, reported

_log = logging.getLogger(__name__)


def claims_in_file(path: Path, data: Path, model: str | None) -> Iterator[Claims]:
    """Yield the claims of an exported file by evaluation, compared with the dataset if that is in ``data``.

    Raises:
        UserError: If the file cannot be read.
    """
    for claims in _exported(path):
        if model in (None, claims.subject.model):
            differing = dataset_mismatches(claims, data)
            yield replace(claims, flaws=tuple(differing or ()), is_the_dataset=None if differing is None else not differing)


def claims_in_results(
    what: str, results: Path, data: Path, model: str | None, images: Path | None = None, *, part: bool = False
) -> Iterator[Claims]:
    """Yield the claims of recorded runs by evaluation; see ``exitbench.verify.results.find_results``.

    Counterexamples that the store lacks are taken from the exported file ``images``; for ``part`` see ``gather``.

    Raises:
        UserError: If records, cells or data are missing or cannot be read.
    """
    found = find_results(what, results, model)
    theirs = None if images is None else images_in(_exported(images))
    for records in found.records:
        subject = records[0]
        try:
            shape = image_shape(found.store, records) or dataset_card(subject.dataset).input_shape
            split = load_split(subject.dataset, "test", shape, data)
            figures = reported(found.store, subject) if found.whole else {}
            claims = gather(found.store, records, split, figures, theirs, part=part)
        except DataUnavailable as error:
            raise UserError(
                f"a results folder holds no clean images, and {subject.dataset} is not at hand: {error}. Name its folder with "
                "--data, or have the claims exported where the data is: exitbench export --counterexamples --output FILE"
            ) from error
        except UserError:
            raise
        except InputError as error:
            raise UserError(str(error)) from error
        if claims is None:
            _log.error("a run of %s on %s has no finished clean pass: it claims nothing", subject.model, subject.dataset)
        else:
            yield claims


def _exported(path: Path) -> list[Claims]:
    try:
        with path.open("rb") as file:
            return from_file(file, str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
