"""JSON files of a stated schema: read strictly into typed structs, older ones through migrations, and written in one form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from exitbench.models.errors import InvalidValue
from exitbench.models.field_types import in_words, printable

SCHEMA = 2
"""Schema of every JSON file that is written; a file that states none is of schema 1.

Bumped when the meaning of any stored field changes, together with a migration from the schema before."""

ATTACKS_RENAMED = {"policy": "adaptive"}
"""Names of attacks in files of schema 1, and what they are called now."""

DEEPEST = 100
"""Levels of nesting that are read; the deepest file that is written has a dozen."""

LARGEST = 2**1000
"""Whole numbers that are read; beyond it, they turn into no float."""

Content = dict[str, Any]
Migration = Callable[[Content], Content]


class Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what is kept in JSON files: typed, immutable, and no field more than is known."""


class Unreadable(InvalidValue):
    """A file that is not what it should be; the message names the file, and the field where it is one, in one printable line.

    Every reader of run records, cells, trust results, baselines, claims and archives ends in a value or in this error.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class NewerSchema(Unreadable):
    """A file of a schema that only a newer exitbench knows."""


Kind = TypeVar("Kind", bound=msgspec.Struct)


@dataclass(frozen=True)
class Format(Generic[Kind]):
    """How one kind of file is read and written.

    Attributes:
        what: the kind in words, with its article.
        kind: the struct that holds it.
        migrations: from each older schema to the next; a schema that is not named needs no change.
        indent: spaces per level of the text.
        sort: whether the text has its fields in alphabetical order, else in that of the struct.
    """

    what: str
    kind: type[Kind]
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    indent: int = 1
    sort: bool = True

    def read(self, content: object, source: object) -> Kind:
        """The struct that JSON values describe.

        Args:
            content: of the file, not changed.
            source: name of the file, for messages.

        Raises:
            NewerSchema: only a newer exitbench reads it.
            Unreadable: a field is missing, unknown, or of another type or range.
        """
        content, schema = self.checked(content, source)
        for older in range(schema, SCHEMA):
            content = self.migrations.get(older, dict)(content)
        return converted({name: value for name, value in content.items() if name != "schema"}, self.kind, self.what, source)

    def checked(self, content: object, source: object) -> tuple[Content, int]:
        """The JSON values and their schema, which this exitbench reads; see ``read``."""
        if not isinstance(content, dict):
            raise Unreadable(f"{source} cannot be read: it is not {self.what}")
        schema = content.get("schema", 1)
        if type(schema) is not int or schema < 1:
            raise Unreadable(f"{source} cannot be read: its schema is {schema!r:.40}")
        if schema > SCHEMA:
            raise NewerSchema(
                f"{source} is {self.what} of schema {str(schema)[:20]}; this exitbench reads schemas up to {SCHEMA}: "
                "a newer exitbench is needed"
            )
        check_values(content, source)
        return content, schema

    def read_text(self, text: str | bytes, source: object) -> Kind:
        """The struct that the text of a file describes; see ``read``."""
        return self.read(parsed(text, source), source)

    def content(self, value: Kind) -> Content:
        """The JSON values to write, of the newest schema."""
        plain = {"schema": SCHEMA, **msgspec.to_builtins(value)}
        content: Content = json.loads(json.dumps(plain, allow_nan=False))
        return content

    def text(self, value: Kind) -> bytes:
        """The file to write.

        Raises:
            ValueError: a float in it is not finite.
        """
        return self.text_of(self.content(value))

    def text_of(self, content: Content) -> bytes:
        """The file to write, of JSON values."""
        return (json.dumps(content, indent=self.indent, sort_keys=self.sort) + "\n").encode()


def converted(content: object, kind: type[Kind], what: str, source: object) -> Kind:
    """Return the struct that checked JSON values describe.

    Raises:
        Unreadable: a field is missing, unknown, or of another type or range.
    """
    try:
        return msgspec.convert(content, kind)
    except (ValueError, ArithmeticError) as error:  # a number beyond floats overflows
        raise Unreadable(f"{source} cannot be read as {what}: {in_words(str(error))}") from error


def parsed(text: str | bytes, source: object) -> Any:
    """The JSON values in the text of a file.

    Raises:
        Unreadable: it is not JSON, or names a field twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{source} cannot be read: it is not JSON ({error})") from error


def check_values(content: object, source: object) -> None:
    """Check what every JSON file has to have: finite numbers, whole characters, and no nesting without end.

    Raises:
        Unreadable: see above; the message has the path of the first fault.
    """
    if (found := _fault(content)) is not None:
        where, fault = found
        raise Unreadable(f"{source} cannot be read: ${where[:200]} {fault}")


def _once(pairs: list[tuple[str, Any]]) -> Content:
    found: Content = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has the field {name[:80]!r} twice")
        found[name] = value
    return found


def _fault(value: object, depth: int = 0) -> tuple[str, str] | None:
    """Return the path of the first value that no file may hold, and what is wrong with it."""
    if (wrong := _wrong(value, depth)) is not None:
        return "", wrong
    if isinstance(value, dict):
        for name, each in value.items():
            if (found := _fault(name, depth) or _fault(each, depth + 1)) is not None:
                return f".{name}{found[0]}", found[1]
    elif isinstance(value, list):
        for i, each in enumerate(value):
            if (found := _fault(each, depth + 1)) is not None:
                return f"[{i}]{found[0]}", found[1]
    return None


def _wrong(value: object, depth: int) -> str | None:
    """Return what is wrong with a value itself."""
    if isinstance(value, str):
        return None if _is_whole(value) else "has half a character in it"
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    if isinstance(value, int) and abs(value) > LARGEST:
        return "is a number beyond those that a float can hold"
    if depth == DEEPEST and isinstance(value, (dict, list)):
        return f"is nested in more than {DEEPEST} levels"
    return None


def _is_whole(text: str) -> bool:
    """Whether a text has no lone surrogate, which no file can be written with."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
