"""A canonical description of frozen data classes, from which their JSON and their digests are made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

from exitbench.models.own_code import is_own

JSONValue = None | bool | int | float | str | list[Any] | dict[str, Any]


def describe(value: Any) -> JSONValue:
    """Turn a frozen data class (nested, with tuples) into plain JSON values.

    A data class becomes ``{"type": class name, field: value, ...}``. The name of a class from outside exitbench includes its
    module, so that it is never mistaken for one of exitbench; a class attribute ``spec_type`` takes the place of the name. A
    class attribute ``version``, raised by hand when behaviour changes, is included, so that results of an older behaviour are
    never mistaken for new ones.

    Raises:
        TypeError: If a value has no canonical JSON form.
        ValueError: If a float is NaN.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        described: dict[str, Any] = {"type": type_name(type(value))}
        version = getattr(type(value), "version", None)
        if version is not None:
            described["version"] = version
        for field in dataclasses.fields(value):
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


def description(value: Any) -> dict[str, Any]:
    """The description of a frozen data class; see ``describe``."""
    described = describe(value)
    if not isinstance(described, dict):
        raise TypeError(f"{type(value).__name__} is no data class")
    return described


def type_name(kind: type) -> str:
    """What a description calls a class: its ``spec_type`` where it states one, so that it may be renamed."""
    if (stated := kind.__dict__.get("spec_type")) is not None:
        return str(stated)
    return kind.__name__ if is_own(kind.__module__) else f"{kind.__module__}.{kind.__qualname__}"


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
