"""The functions that networks of one code and tensors had when their results were stored, one generation each.

A network of the user's own is named by the digest of its code and tensors. What it reads elsewhere, or what an installed package
does, may change without that digest; its fingerprint then differs from the stored one, and its results get a name of their own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from msgspec import Meta

from exitbench.errors import UserError
from exitbench.models.field_types import Count, Key, Text
from exitbench.models.fingerprint import Fingerprint, renewed
from exitbench.models.stored import Format, NewerSchema, Stored, Unreadable, parsed
from exitbench.store.inside import read_inside, write_inside

_log = logging.getLogger(__name__)

SCHEMA = 1
"""Bumped when the meaning of a stored field changes."""


@dataclass(frozen=True)
class Generation:
    """One function that a network had.

    Attributes:
        weights: digest that its results are stored under: of code and tensors for the first, of the fingerprint too for others.
        fingerprint: what it computes on fixed noise.
        note: why it is not the first; None for the first.
    """

    weights: str
    fingerprint: Fingerprint
    note: str | None = None


class StoredGeneration(Stored, frozen=True):
    """A generation as it is stored: ``float32`` are the values of the fingerprint, ``shape`` is theirs."""

    weights: Key
    note: Text | None
    shape: tuple[Count, Count, Count]
    float32: Annotated[str, Meta(max_length=2**24)]

    def generation(self, source: object) -> Generation:
        """Return it unpacked.

        Raises:
            Unreadable: the values are not as many as the shape says.
        """
        try:
            taken = Fingerprint.read({"shape": self.shape, "float32": self.float32})
        except ValueError as error:
            raise Unreadable(f"{source} cannot be read: {error}") from error
        return Generation(self.weights, taken, self.note)


class StoredNetwork(Stored, frozen=True):
    """The generations of the network whose digest of code and tensors is ``key``."""

    key: Key
    generations: tuple[StoredGeneration, ...]


NETWORK = Format("the fingerprints of a network", StoredNetwork)


class Generations:
    """The generations in a store, a file in ``networks/`` for each digest of code and tensors.

    Args:
        root: of the store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, code: str, fingerprint: Fingerprint) -> Generation | None:
        """Return the generation that computes the same up to rounding; None where there is none."""
        return next((each for each in self.read(code) if fingerprint.agrees(each.fingerprint)), None)

    def settle(self, code: str, fingerprint: Fingerprint, *, unknown: bool) -> Generation:
        """Return the generation that computes the same, which is added where there is none.

        Args:
            code: digest of code and tensors.
            fingerprint: of the network as it is now.
            unknown: whether the store may have results of this code and these tensors whose fingerprint is not known.
        """
        with self._locked():
            known = self.read(code)
            if found := next((each for each in known if fingerprint.agrees(each.fingerprint)), None):
                return found
            note: str | None = None
            if known:
                differs = min(fingerprint.difference(each.fingerprint) for each in known)
                note = _changed(f"its logits on fixed noise differ by {differs:.2g} of their spread")
            elif unknown:
                note = _changed("of those it is not known what the network computed")
            found = Generation(code if note is None else renewed(code, fingerprint), fingerprint, note)
            self.write(code, [*known, found])
        return found

    def read(self, code: str) -> list[Generation]:
        """Return the generations of a network, the first first; a damaged file is set aside."""
        path = self.path(code)
        try:
            return self.load(code)
        except NewerSchema as error:
            raise UserError(str(error)) from error
        except Unreadable as error:
            quarantine = self.root / "quarantine"
            quarantine.mkdir(exist_ok=True)
            path.replace(quarantine / path.name)
            _log.error("damaged fingerprints %s moved to %s (%s)", path.name, quarantine, error)
            return []

    def load(self, code: str) -> list[Generation]:
        """Return the generations of a network, the first first; nothing is changed.

        Raises:
            NewerSchema: only a newer exitbench reads them.
            Unreadable: the file is damaged, or another network's.
        """
        path = self.path(code)
        try:
            content = parsed(read_inside(self.root, path), path)
        except FileNotFoundError:
            return []
        if isinstance(content, dict) and content.get("schema") != SCHEMA:
            _refuse_schema(content.get("schema"), path)
        kept = NETWORK.read(content, path)
        if kept.key != code:
            raise Unreadable(f"{path} cannot be read: it is another network's")
        return [each.generation(path) for each in kept.generations]

    def write(self, code: str, generations: list[Generation]) -> None:
        """Store the generations of a network."""
        described = [{"weights": each.weights, "note": each.note, **each.fingerprint.describe()} for each in generations]
        content = {"schema": SCHEMA, "key": code, "generations": described}
        write_inside(self.root, self.path(code), (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    def file_of(self, weights: str) -> Path | None:
        """Return the file that holds the generation of this digest; None where none does."""
        direct = self.path(weights)
        if self.read(weights):
            return direct
        return next((path for path in self._files() if any(each.weights == weights for each in self.read(path.stem))), None)

    def path(self, code: str) -> Path:
        """Return where the generations of a network are kept."""
        return self.root / "networks" / f"{code}.json"

    def _files(self) -> Iterator[Path]:
        yield from sorted((self.root / "networks").glob("*.json"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        (self.root / "networks").mkdir(exist_ok=True)
        with FileLock(self.root / "networks" / ".lock"):
            yield


def _changed(why: str) -> str:
    return (
        f"the network computes something else than when the results of this code and these weights were stored, or gets images "
        f"of another shape ({why}): they are kept, and everything is computed again"
    )


def _refuse_schema(schema: object, path: Path) -> None:
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerSchema(f"{path} holds fingerprints of schema {schema}; use the exitbench that wrote it")
    raise Unreadable(f"{path} cannot be read: its schema is {schema!r:.40}")
