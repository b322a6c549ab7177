"""Checks an exported file against the dataset that it names, if that is available."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exitbench.data.download import DataUnavailable
from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models.errors import UnknownName
from exitbench.verify.claims import Claims, Mismatch


def dataset_mismatches(claims: Claims, data: Path) -> list[Mismatch] | None:
    """Return the samples that differ from the dataset's test split, by hash, or None if the dataset is not at hand.

    Nothing is downloaded.

    Raises:
        UserError: If the dataset is unknown or damaged, or has images of another shape.
    """
    try:
        split = load_split(claims.subject.dataset, "test", claims.clean_images.shape[1:], data, download=False)
    except DataUnavailable:
        return None
    except UnknownName as error:
        raise UserError(str(error)) from error
    theirs = [row.tobytes().hex() for row in claims.inputs]
    indices = claims.indices.tolist()
    if indices != list(range(len(indices))) or len(indices) > len(split):
        return [Mismatch("samples", f"claimed to be the first {len(indices)} of {split.dataset} test; their indices are not")]
    ours = split.input_hashes(len(indices))
    wrong = np.flatnonzero([one != other for one, other in zip(theirs, ours, strict=True)]).tolist()
    return [Mismatch(f"sample {i}", f"it is not sample {i} of {split.dataset} test ({split.source})") for i in wrong]
