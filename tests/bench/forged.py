"""A finished evaluation, and what a stranger makes of its records and cells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from exitbench.store.cell import Cell
from exitbench.store.store import Store, cell_path
from tests.bench.evaluated import evaluate
from tests.bench.fuzz_readers import digested


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store of a finished evaluation."""
    root = tmp_path_factory.mktemp("whole") / "store"
    evaluate(root, ("single", "average"))
    return root


@pytest.fixture
def theirs(whole, tmp_path):
    """A copy of it, to forge."""
    return Path(shutil.copytree(whole, tmp_path / "theirs" / "store"))


def only_run(root: Path) -> Path:
    (path,) = (root / "runs").glob("*.json")
    return path


def forged(root: Path, change, *, beside: bool = False) -> Path:
    """The record of a store changed, under the digest of its content, in place of the honest one or beside it."""
    path = only_run(root)
    content = json.loads(path.read_bytes())
    change(content)
    text = json.dumps(content)
    other = path.with_name(f"{digested(json.loads(text))}.json")
    if not beside:
        path.unlink()
    other.write_text(text)
    return other


def setting(*path, to):
    """A change of one value of a record."""

    def change(content):
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = to

    return change


def leaving_out(*path):
    def change(content):
        for name in path[:-1]:
            content = content[name]
        del content[path[-1]]

    return change


REFUSED = {
    "an unknown norm": setting("norm", to="L9"),
    "another case of the norm": setting("norm", to="linf"),
    "too many samples": setting("n", to=10**11),
    "more samples than its cells": setting("n", to=71 + 32),
    "no samples": setting("n", to=0),
    "half a sample": setting("n", to=1.5),
    "a negative radius": setting("eps", to=-1),
    "an endless radius": setting("eps", to=1e300),
    "a radius that is no number": setting("eps", to=float("nan")),
    "negative costs": setting("mmacs", to=[-1.0, -0.5, -0.1]),
    "costs that fall": setting("mmacs", to=[3.0, 2.0, 1.0]),
    "costs of nothing": setting("mmacs", to=[0.0, 0.0, 0.0]),
    "no costs": setting("mmacs", to=[]),
    "costs of too few exits": setting("mmacs", to=[1.0]),
    "costs as text": setting("mmacs", to="1 2 3"),
    "an integer beyond all": setting("mmacs", to=[1, 2, 10**400]),
    "a dataset elsewhere": setting("dataset", to="../../somewhere/x"),
    "an absolute dataset": setting("dataset", to="/etc/passwd"),
    "a dataset with a NUL": setting("dataset", to="digits\0"),
    "a dataset with a line feed": setting("dataset", to="digits\n"),
    "a model elsewhere": setting("model", to="../x"),
    "a model of escape codes": setting("model", to="\x1b[2Jtoy"),
    "a model written backwards": setting("model", to="toy\u202egpj"),
    "a training elsewhere": setting("training", to="a/b"),
    "a weights digest elsewhere": setting("weights", to="../../x"),
    "weights in full-width digits": setting("weights", to="\uff10" * 64),
    "a cell elsewhere": setting("attacks", 0, "keys", 0, to="/etc/passwd"),
    "a cell of another name": setting("attacks", 0, "keys", 0, to=f"{'a' * 64}\n"),
    "a cell key too short": setting("attacks", 0, "keys", 0, to="ab"),
    "too few cells": leaving_out("attacks", 0, "keys", 0),
    "trust checks elsewhere": setting("trust", to="../../../etc/x"),
    "two attacks of one name": lambda content: content["attacks"].append(content["attacks"][1]),
    "an attack's name with a line feed": setting("attacks", 1, "name", to="a\nb"),
    "a goal that is none": setting("attacks", 1, "goal", to="fame"),
    "a spec that is none": setting("attacks", 1, "spec", to=[]),
    "an unknown rule": setting("policy", to="luck:0.5,0.5"),
    "a rule of too many exits": setting("policy", to="entropy:1,1,1,1,1"),
    "a rule in full-width digits": setting("policy", to="exit:\uff11"),
    "a rule of no number": setting("policy", to="entropy:nan,1"),
    "a missing seed": leaving_out("seed"),
    "a seed that is none": setting("seed", to="0"),
    "a missing model": leaving_out("model"),
    "a number beyond floats in a spec": setting("attacks", 1, "spec", to={"type": "PGD", "step_size": 10**400}),
    "a field of its own": setting("x", to=1),
    "a field of escape codes": setting("\x1b[2J\n\u202ex", to=1),
    "half a character": setting("note", to="\ud800"),
    "nesting without end": setting("attacks", 1, "spec", to={"type": json.loads("[" * 200 + "]" * 200)}),
}


def changed_cell(root: Path, at: int, **arrays) -> Path:
    path = cell_path(root, next(Store(root).runs()).attacks[1].keys[at])
    cell = Cell.from_bytes(path.read_bytes(), path.stem)
    content = {**{name: getattr(cell, name) for name in _FIELDS}, **{name: make(cell) for name, make in arrays.items()}}
    path.write_bytes(Cell(cell.key, content.pop("header"), **content).to_bytes())
    return path


_FIELDS = (
    *("header", "indices", "labels", "inputs", "logits", "distances"),
    *("passes", "broken_rows", "counterexamples"),
)

CELLS = {
    "shifted indices": ({"indices": lambda cell: cell.indices + 1}, "it is of samples 33-64, not 32-63"),
    "indices far away": ({"indices": lambda cell: cell.indices + 10**9}, "it is of samples"),
    "indices backwards": ({"indices": lambda cell: cell.indices[::-1].copy()}, "not consecutive"),
    "shifted labels": ({"labels": lambda cell: (cell.labels + 1) % 5}, "its labels or its inputs are not"),
    "labels of no class": ({"labels": lambda cell: cell.labels + 5}, "labels are outside 0..4"),
    "negative passes": ({"passes": lambda cell: -cell.passes - 1}, "negative numbers of passes"),
    "negative distances": ({"distances": lambda cell: cell.distances - 1}, "negative distances"),
    "endless distances": ({"distances": lambda cell: cell.distances + np.float32(np.inf)}, "no finite numbers"),
    "logits that are no number": ({"logits": lambda cell: cell.logits * np.float32(np.nan)}, "no finite numbers"),
    "logits of fewer exits": ({"logits": lambda cell: cell.logits[:2].copy()}, "it has 2 exits and 5 classes, not 3 and 5"),
    "logits of more classes": ({"logits": lambda cell: np.tile(cell.logits, 2)}, "it has 3 exits and 10 classes, not 3 and 5"),
    "broken rows that are none": ({"broken_rows": lambda cell: cell.broken_rows + 32}, "broken rows are not rising"),
    "too few images": ({"counterexamples": lambda cell: cell.counterexamples[1:]}, "images of"),
    "other weights": ({"header": lambda cell: {**cell.header, "weights": "1" * 64}}, "its name is not the digest"),
    "another attack": ({"header": lambda cell: {**cell.header, "attack": {"type": "Clean"}}}, "its name is not the digest"),
    "other inputs": ({"inputs": lambda cell: cell.inputs[::-1].copy()}, "its name is not the digest"),
    "seconds that are none": (
        {"header": lambda cell: {**cell.header, "provenance": {**cell.header["provenance"], "seconds": -1}}},
        r"Expected `float` >= 0.0 - at `\$.provenance.seconds`",
    ),
    "no provenance": ({"header": lambda cell: {**cell.header, "provenance": {}}}, "missing required field"),
}
