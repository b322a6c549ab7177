"""A forger who knows every digest: it changes a valid store and names everything anew, so that only evidence can contradict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from exitbench.models.spec import digest
from exitbench.store.cell import SCHEMA, Cell
from exitbench.store.store import cell_path
from exitbench.store.trust_result import TRUST_RESULT, sealed

Where = tuple[str | int, ...]
ARRAYS = tuple(field.name for field in fields(Cell) if field.name not in ("key", "header"))


def leaves(value: Any, where: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Yield every value of JSON that is not a list or an object, with the path to it."""
    if isinstance(value, dict | list):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*where, name))
    else:
        yield where, value


def with_leaf(content: Any, where: Where, value: Any) -> Any:
    """Return JSON values with one of them changed."""
    if not where:
        return value
    first, *rest = where
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[first] = with_leaf(copy[first], tuple(rest), value)  # type: ignore[index, call-overload]
    return copy


class Forger:
    """Writes into the store of one run.

    Args:
        store: Folder of the store.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        (self.run,) = sorted((store / "runs").glob("*.json"))
        self.record: dict[str, Any] = json.loads(self.run.read_text())

    def keys(self) -> list[str]:
        """Return the keys of all cells, clean ones first."""
        return [key for attack in self.record["attacks"] for key in attack["keys"]]

    def cell(self, key: str) -> Cell:
        """Return a cell."""
        return Cell.from_bytes(cell_path(self.store, key).read_bytes(), key)

    def write_record(self, record: dict[str, Any]) -> None:
        """Put a record in place of the only one, under the digest of its content."""
        self.run.unlink()
        self.run, self.record = self.run.with_name(f"{digest(record)}.json"), record
        self.run.write_text(json.dumps(record))

    def write_cell(self, cell: Cell) -> None:
        """Put a cell in place of its older version; where its inputs changed, it gets the key of the new ones."""
        inputs = [row.tobytes().hex() for row in cell.inputs]
        header = cell.header
        what = {
            "schema": SCHEMA,
            "weights": header["weights"],
            "inputs": inputs,
            "attack": header["attack"],
            "seed": header["seed"],
        }
        try:
            key = digest(what)
        except (TypeError, ValueError):
            key = cell.key
        cell_path(self.store, cell.key).unlink()
        path = cell_path(self.store, key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(replace(cell, key=key).to_bytes())
        self.write_record(json.loads(json.dumps(self.record).replace(cell.key, key)))

    def change_cells(self, of: Callable[[str], bool], change: Callable[[Cell], Cell]) -> None:
        """Change every cell of the attacks whose name ``of`` takes."""
        for attack in [each for each in self.record["attacks"] if of(each["name"])]:
            for key in attack["keys"]:
                self.write_cell(change(self.cell(key)))

    @property
    def trust(self) -> Path:
        """The file of the trust result."""
        return self.store / "trust" / f"{self.record['trust']}.json"

    def write_trust(self, content: dict[str, Any]) -> None:
        """Put a trust result in place, under its own digest."""
        result = TRUST_RESULT.read({name: value for name, value in content.items() if name != "digest"}, self.trust)
        self.trust.write_bytes(TRUST_RESULT.text(sealed(result)))
