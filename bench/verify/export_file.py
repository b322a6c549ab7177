"""The export format: claims that others can verify without the store and the dataset."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from exitbench.errors import UserError
from exitbench.models.field_types import Key, Line, Number, Seed, Spec
from exitbench.models.stored import NewerSchema, check_values, converted, parsed
from exitbench.store.migrations import renamed
from exitbench.store.npz import TEXT, Kind, read_arrays, read_text, text_of
from exitbench.verify.claims import Claims, ClaimSubject, Source

FORMAT = "exitbench counterexamples"
EXPORT_SCHEMA = 1
"""Version of the format; it is raised when the meaning of a field changes. Newer files are rejected."""

_TYPES = {
    "indices": Kind(np.int64, ("n",)),
    "labels": Kind(np.int64, ("n",)),
    "inputs": Kind(np.uint8, ("n", 32)),
    "clean_images": Kind(np.float32, ("n", "C", "H", "W")),
    "clean_logits": Kind(np.float32, ("K", "n", "classes")),
    "source": Kind(np.int64, ("M",)),
    "row": Kind(np.int64, ("M",)),
    "images": Kind(np.float32, ("M", "C", "H", "W")),
    "logits": Kind(np.float32, ("K", "M", "classes")),
    "exits": Kind(np.int64, ("M",)),
    "predictions": Kind(np.int64, ("M",)),
    "broken": Kind(np.bool_, ("M",)),
}
"""Type and shape of every array of an evaluation; a letter stands for the same size in all of them."""

_MOST = 10_000
"""Largest number of evaluations in a file."""


class StoredSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cell that counterexamples come from, as it is written; see ``Source``."""

    attack: Line
    spec: Spec
    seed: Seed
    key: Key


class StoredClaims(ClaimSubject, frozen=True, kw_only=True):
    """What is written of an evaluation beside its arrays.

    Attributes:
        reported: number of samples reported right.
        cells: that the counterexamples come from.
    """

    reported: dict[Line, Number]
    cells: tuple[StoredSource, ...]


class _Header(msgspec.Struct, frozen=True):
    format: Literal["exitbench counterexamples"]
    schema: Literal[1]
    evaluations: Annotated[tuple[StoredClaims, ...], Meta(max_length=_MOST)]


def to_bytes(evaluations: Sequence[Claims]) -> bytes:
    """Return a compressed npz without pickles: a JSON ``header``, and the arrays of evaluation i as ``i/name``."""
    described = [
        {
            **msgspec.to_builtins(claims.subject),
            "reported": dict(claims.reported),
            "cells": [asdict(source) for source in claims.sources],
        }
        for claims in evaluations
    ]
    header = json.dumps({"format": FORMAT, "schema": EXPORT_SCHEMA, "evaluations": described}, sort_keys=True)
    arrays = {f"{i}/{name}": getattr(claims, name) for i, claims in enumerate(evaluations) for name in _TYPES}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.frombuffer(header.encode(), dtype=np.uint8), **arrays)
    return buffer.getvalue()


def from_bytes(raw: bytes, name: str) -> list[Claims]:
    """Read an exported file from memory; see ``from_file``."""
    return from_file(io.BytesIO(raw), name)


def from_file(file: BinaryIO, name: str) -> list[Claims]:
    """Read an exported file; ``name`` is used in error messages.

    Raises:
        UserError: If the file is truncated, damaged, not an export, or of a newer schema.
    """
    try:
        header = _header(file)
        kinds = {f"{i}/{member}": kind for i in range(len(header.evaluations)) for member, kind in _TYPES.items()}
        arrays, sizes = read_arrays(file, {"header": TEXT, **kinds})
        evaluations = [_claims(i, described, arrays, sizes) for i, described in enumerate(header.evaluations)]
    except NewerSchema as error:
        raise UserError(f"{name} {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # zip, numpy and JSON may raise anything on damaged bytes
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{name} is not a whole file of exported counterexamples ({reason}); get or export it again") from error
    if not evaluations:
        raise UserError(f"{name} holds no evaluation; nothing to verify")
    return evaluations


def _header(file: BinaryIO) -> _Header:
    """Read the header alone, which says which arrays there have to be."""
    content = parsed(text_of(read_text(file, "header")), "its header")
    check_values(content, "its header")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise ValueError(f"its format is {found!r:.80}")
    if content.get("schema") != EXPORT_SCHEMA:
        raise NewerSchema(
            f"is of schema {content.get('schema')!r:.40}, this exitbench reads {EXPORT_SCHEMA}; "
            "verify it with the exitbench that made it"
        )
    return converted(content, _Header, "a header of counterexamples", "its header")


def _claims(i: int, described: StoredClaims, arrays: Mapping[str, npt.NDArray[Any]], sizes: Mapping[str, int]) -> Claims:
    own: dict[str, Any] = {name: arrays[f"{i}/{name}"] for name in _TYPES}
    n, n_exits, n_classes = (sizes[f"{i}/{name}"] for name in ("n", "K", "classes"))
    if n != described.n or not n_exits or not n_classes:
        raise ValueError(f"it is of {described.n} samples and has arrays of {n}, with {n_exits} exits and {n_classes} classes")
    limits = (("source", len(described.cells)), ("row", n), ("exits", n_exits), ("predictions", n_classes), ("labels", n_classes))
    for name, stop in limits:
        if len(own[name]) and not 0 <= own[name].min() <= own[name].max() < stop:
            raise ValueError(f"{name} is outside 0..{stop - 1}")
    cells = tuple(Source(renamed(cell.attack), cell.spec, cell.seed, cell.key) for cell in described.cells)
    subject = ClaimSubject(**{name: getattr(described, name) for name in ClaimSubject.__struct_fields__})
    claims = Claims(subject, cells, reported=dict(described.reported), **own)
    claims.policy.check(n_exits)
    return claims
