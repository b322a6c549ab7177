"""JSON files of a stated schema: read strictly into typed structs, older ones through migrations, and written in one form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

SCHEMA = 2
"""Schema of every JSON file that is written; a file that states none is of schema 1.

Bumped when the meaning of any stored field changes, together with a migration from the schema before."""

ATTACKS_RENAMED = {"policy": "adaptive"}
"""Names of attacks in files of schema 1, and what they are called now."""

Content = dict[str, Any]
Migration = Callable[[Content], Content]


class Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what is kept in JSON files: typed, immutable, and no field more than is known."""


class Unreadable(ValueError):
    """A file that is not what it should be; the message names the file and the field."""


class NewerSchema(Unreadable):
    """A file of a schema that only a newer exitbench knows."""


Kind = TypeVar("Kind", bound=Stored)


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
        try:
            return msgspec.convert({name: value for name, value in content.items() if name != "schema"}, self.kind)
        except msgspec.ValidationError as error:
            raise Unreadable(f"{source} cannot be read as {self.what}: {error}") from error

    def checked(self, content: object, source: object) -> tuple[Content, int]:
        """The JSON values and their schema, which this exitbench reads; see ``read``."""
        if not isinstance(content, dict):
            raise Unreadable(f"{source} cannot be read: it is not {self.what}")
        schema = content.get("schema", 1)
        if type(schema) is not int or schema < 1:
            raise Unreadable(f"{source} cannot be read: its schema is {schema!r}")
        if schema > SCHEMA:
            raise NewerSchema(
                f"{source} is {self.what} of schema {schema}; this exitbench reads schemas up to {SCHEMA}: "
                "a newer exitbench is needed"
            )
        if (where := _not_finite(content)) is not None:
            raise Unreadable(f"{source} cannot be read: {where} is not a finite number")
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


def parsed(text: str | bytes, source: object) -> Any:
    """The JSON values in the text of a file.

    Raises:
        Unreadable: it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{source} cannot be read: it is not JSON ({error})") from error


def _not_finite(value: object, where: str = "$") -> str | None:
    """The path of the first float that is NaN or infinite; None where there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else where
    if isinstance(value, dict):
        inside = ((f"{where}.{name}", each) for name, each in value.items())
    elif isinstance(value, list):
        inside = ((f"{where}[{i}]", each) for i, each in enumerate(value))
    else:
        return None
    return next((found for place, each in inside if (found := _not_finite(each, place)) is not None), None)
