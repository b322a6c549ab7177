"""The export format: claims that others can verify without the store and the dataset."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np

from exitbench.errors import UserError
from exitbench.store.migrations import renamed
from exitbench.verify.claims import Claims, ClaimSubject, Source

FORMAT = "exitbench counterexamples"
EXPORT_SCHEMA = 1
"""Version of the format; it is raised when the meaning of a field changes. Newer files are rejected."""

_TYPES = {
    "indices": (np.int64, ("n",)),
    "labels": (np.int64, ("n",)),
    "inputs": (np.uint8, ("n", 32)),
    "clean_images": (np.float32, ("n", "C", "H", "W")),
    "clean_logits": (np.float32, ("K", "n", "classes")),
    "source": (np.int64, ("M",)),
    "row": (np.int64, ("M",)),
    "images": (np.float32, ("M", "C", "H", "W")),
    "logits": (np.float32, ("K", "M", "classes")),
    "exits": (np.int64, ("M",)),
    "predictions": (np.int64, ("M",)),
    "broken": (np.bool_, ("M",)),
}
"""Type and shape of every array of an evaluation; a letter stands for the same size in all of them."""


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
    """Read an exported file; ``name`` is used in error messages.

    Raises:
        UserError: If the file is truncated, damaged, not an export, or of a newer schema.
    """
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
            arrays = {member: stored[member] for member in stored.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}")
        schema = header["schema"]
        if schema == EXPORT_SCHEMA:
            evaluations = [_claims(i, described, arrays) for i, described in enumerate(header["evaluations"])]
    except Exception as error:  # zip, numpy and JSON may raise anything on damaged bytes
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{name} is not a whole file of exported counterexamples ({reason}); get or export it again") from error
    if schema != EXPORT_SCHEMA:
        raise UserError(
            f"{name} is of schema {schema}, this exitbench reads {EXPORT_SCHEMA}; verify it with the exitbench that made it"
        )
    if not evaluations:
        raise UserError(f"{name} holds no evaluation; nothing to verify")
    return evaluations


def _claims(i: int, described: dict[str, Any], arrays: dict[str, Any]) -> Claims:
    own = {name: arrays[f"{i}/{name}"] for name in _TYPES}
    sizes: dict[str, int] = {"n": described["n"]}
    for name, (dtype, shape) in _TYPES.items():
        array = own[name]
        named = zip(shape, array.shape, strict=True) if array.ndim == len(shape) else ()
        expected = tuple(sizes.setdefault(size, at) if isinstance(size, str) else size for size, at in named)
        if array.dtype != dtype or array.ndim != len(shape) or array.shape != expected:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {expected or shape}")
    cells = tuple(Source(**{**cell, "attack": renamed(cell["attack"])}) for cell in described["cells"])
    limits = (("source", len(cells)), ("row", sizes["n"]), ("exits", sizes["K"]), ("predictions", sizes["classes"]))
    for name, stop in limits:
        if len(own[name]) and not 0 <= own[name].min() <= own[name].max() < stop:
            raise ValueError(f"{name} is outside 0..{stop - 1}")
    if not 0 <= own["labels"].min() <= own["labels"].max() < sizes["classes"]:
        raise ValueError(f"labels are outside 0..{sizes['classes'] - 1}")
    known = {name: value for name, value in described.items() if name not in ("reported", "cells")}
    subject = msgspec.convert(known, ClaimSubject)
    claims = Claims(subject, cells, reported={name: int(count) for name, count in described["reported"].items()}, **own)
    if not math.isfinite(subject.eps):
        raise ValueError(f"no such threat model: {subject.norm} {subject.eps}")
    claims.policy.check(sizes["K"])
    return claims
