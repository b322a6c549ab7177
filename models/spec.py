"""A canonical description of frozen data classes, from which their JSON and their digests are made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from functools import cache
from typing import Any

from exitbench.models.own_code import is_own

WHEN_SET = {"when_set": True}
"""Metadata of a field that descriptions leave out where it is None."""

JSONValue = None | bool | int | float | str | list[Any] | dict[str, Any]


def describe(value: Any) -> JSONValue:
    """Turn a frozen data class (nested, with tuples) into plain JSON values.

    A data class becomes ``{"type": name, field: value, ...}`` (see ``type_name``). A class attribute ``version``, raised by hand
    when behaviour changes, is included, so that results of an older behaviour are never mistaken for new ones. For a
    class from outside exitbench so is a digest of its code, as ``code``: its author may not have raised the version.

    A field whose metadata is ``WHEN_SET`` is left out where it is None, so that a class may gain one and keep its descriptions.

    Raises:
        TypeError: If a value has no canonical JSON form.
        ValueError: If a float is NaN.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        described: dict[str, Any] = {"type": type_name(type(value))}
        version = getattr(type(value), "version", None)
        if version is not None:
            described["version"] = version
        if not is_own(type(value).__module__):
            described["code"] = _code(type(value))
        for field in dataclasses.fields(value):
            if getattr(value, field.name) is not None or not field.metadata.get("when_set"):
                described[field.name] = describe(getattr(value, field.name))
        return described
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value]
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError("NaN has no canonical description")
        return value if math.isfinite(value) else repr(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"no canonical description for {type(value).__name__}")


def type_name(kind: type) -> str:
    """Return the name of a class in descriptions.

    It is the class's own attribute ``spec_name``, which keeps old results valid when a class is renamed, else its name; a class
    that is not ours has its module before it, so that it is never mistaken for ours.
    """
    if is_own(kind.__module__):
        return str(vars(kind).get("spec_name", kind.__name__))
    return f"{kind.__module__}.{kind.__qualname__}"


def description(value: Any) -> dict[str, Any]:
    """Return the description of a frozen data class; see ``describe``."""
    described = describe(value)
    if not isinstance(described, dict):
        raise TypeError(f"{type(value).__name__} is no data class")
    return described


@cache
def _code(kind: type) -> str:
    from exitbench.models.value_identity import class_digest  # noqa: PLC0415 - it takes torch, and digests of its own

    return class_digest(kind)[:16]


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of ``value``: keys sorted, no white space.

    Raises:
        TypeError: If a value has no canonical JSON form.
        ValueError: If a float is NaN.
    """
    return json.dumps(describe(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
