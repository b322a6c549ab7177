"""The header of a cell as it is read: what it is of, and how it was computed."""

from __future__ import annotations

from typing import Any

import msgspec

from exitbench.models.field_types import Count, Key, Line, Measured, Name, Number, SafeName, Seed, Spec, Text
from exitbench.models.stored import Unreadable, check_values, converted, parsed


class SearchProvenance(msgspec.Struct, frozen=True):
    """The search model: its configuration (``on``), and how many images it and the plain model disagreed on.

    ``undefined`` of the candidates had no finite logits: their samples have the clean image in place of one.
    """

    on: Line
    disagreements: Number
    again: Number
    undefined: Number = 0


class Provenance(msgspec.Struct, frozen=True):
    """How a cell was computed.

    Attributes:
        seconds: that it took.
        device, torch, python: where, and with which versions.
        time: when, UTC.
        implementation: package and version, of an attack that is another package's.
        batches: parts that the slice was attacked in.
        search: None where there was no search.
    """

    seconds: Measured
    device: Line
    torch: Line
    python: Line
    time: Line = ""
    implementation: Line | None = None
    batches: Count = 1
    search: SearchProvenance | None = None


class CellHeader(msgspec.Struct, frozen=True):
    """What a cell is of: model, weights, dataset, attack, seed."""

    model: Name
    weights: Key
    dataset: SafeName
    attack: Spec
    seed: Seed
    provenance: Provenance


class HeldOutHeader(msgspec.Struct, frozen=True):
    """What calibration logits are of: model, weights, dataset, and where the pixels come from."""

    model: Name | None = None
    weights: Key | None = None
    dataset: SafeName | None = None
    source: Text = ""


def header_in(text: bytes, kind: type[msgspec.Struct], what: str, key: str, schema: int) -> dict[str, Any]:
    """Return the header of an npz file, without its schema and key.

    Args:
        text: of the header.
        kind: what it has to be; fields beyond it are kept.
        what: the file holds, in words.
        key: that it has to have.
        schema: that it has to have.

    Raises:
        Unreadable: it is another.
    """
    header = parsed(text, "its header")
    check_values(header, "its header")
    if not isinstance(header, dict):
        raise Unreadable("its header cannot be read: it is no JSON object")
    found = (header.pop("schema", None), header.pop("key", None))
    if found != (schema, key):
        raise Unreadable(f"it is {what} {found[1]!r:.80} of schema {found[0]!r:.20}")
    converted(header, kind, "a header", "its header")
    return header
