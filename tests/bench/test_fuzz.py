"""Readers of all that comes from outside meet damaged and made-up content: an answer or the reader's own error, nothing else."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from exitbench.analysis.regression.baseline import from_text, to_text
from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import describe
from exitbench.models.tensor_file import WeightsError, read_tensors
from exitbench.models.weights import SHIPPED, known_weights
from exitbench.scoring.load import evaluations
from exitbench.store.calibration_logits import BadHeldOut, HeldOut
from exitbench.store.cell import BadCell, Cell
from exitbench.store.merge import merge
from exitbench.store.status import statuses
from exitbench.store.store import Store
from exitbench.training.recipe_file import read_recipe
from exitbench.training.recipes import named_recipe
from exitbench.verify.export_file import from_bytes
from tests.bench.evaluated import evaluate
from tests.bench.gate.synthetic import bits, made
from tests.bench.hostile import byte_changes
from tests.bench.test_cell_and_store import KEY, make_cell
from tests.bench.test_data import noise_images, write_mnist, write_parquet

STATE = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}


@dataclass(frozen=True)
class Reader:
    """A reader, content that it takes, and the errors that it may answer with.

    Attributes:
        content: of a good file.
        read: is given a folder that is empty but for what ``place`` writes, and the content.
        errors: that are an answer.
    """

    content: bytes = field(repr=False)
    read: Callable[[Path, bytes], Any]
    errors: tuple[type[Exception], ...]


def written(name: str, read: Callable[[Path], Any]) -> Callable[[Path, bytes], Any]:
    """A reader of files: the content is written as ``name`` first."""

    def place(folder: Path, content: bytes) -> Any:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return read(path)

    return place


def saved(legacy: bool, folder: Path) -> bytes:
    torch.save(STATE, folder / "saved.pt", _use_new_zipfile_serialization=not legacy)
    return (folder / "saved.pt").read_bytes()


def parquet(folder: Path) -> bytes:
    write_parquet(folder / "a.parquet", noise_images(3), [1, 2, 3])
    return (folder / "a.parquet").read_bytes()


def mnist(folder: Path, name: str, content: bytes) -> Any:
    raw = folder / "mnist" / "MNIST" / "raw"
    if not raw.exists():
        write_mnist(folder, zipped=False)
    (raw / name).write_bytes(content)
    return load_split("mnist", "test", (1, 28, 28), folder, download=False)


def cifar10(path: Path) -> Any:
    return load_split("cifar10", "test", (3, 32, 32), path.parents[1], download=False)


def cards(path: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITBENCH_WEIGHTS", str(path.parent))
        return known_weights()


def exported(folder: Path) -> bytes:
    from exitbench.cli.main import cli  # one that the command line itself writes

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single:1", "--n", "2", "--steps", "1"]
        for command in (run, ["export", "--counterexamples", "--output", "claims.npz"]):
            try:
                cli.main(command, standalone_mode=False)
            except SystemExit as left:
                assert not left.code
    return (folder / "claims.npz").read_bytes()


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> dict[str, Reader]:
    folder = tmp_path_factory.mktemp("good")
    held = HeldOut(KEY, {"model": "toy"}, np.zeros((2, 32), np.uint8), np.zeros((3, 2, 4), np.float32))
    card = next(SHIPPED.glob("rdi_smallcnn-digits-*.json"))
    baseline = to_text(made(bits("1101"), {"average": bits("1001")})).encode()
    recipe = json.dumps(named_recipe("rdi_smallcnn-mnist-max_average_fast").summary()).encode()
    idx = bytes((0, 0, 8, 1)) + (4).to_bytes(4, "big") + bytes(range(4))
    torch_errors = written("w.pt", read_tensors)
    return {
        "cell": Reader(make_cell().to_bytes(), lambda _, raw: Cell.from_bytes(raw, KEY), (BadCell,)),
        "calibration logits": Reader(held.to_bytes(), lambda _, raw: HeldOut.from_bytes(raw, KEY), (BadHeldOut,)),
        "safetensors": Reader(save(STATE), torch_errors, (WeightsError,)),
        "checkpoint": Reader(saved(False, folder), torch_errors, (WeightsError,)),
        "old checkpoint": Reader(saved(True, folder), torch_errors, (WeightsError,)),
        "card": Reader(card.read_bytes(), written(card.name, cards), (WeightsError,)),
        "recipe": Reader(recipe, written("recipe.json", read_recipe), (UserError,)),
        "baseline": Reader(baseline, lambda _, raw: from_text(raw.decode(errors="replace"), "it"), (UserError,)),
        "parquet": Reader(parquet(folder), written("cifar10/test.parquet", cifar10), (UserError,)),
        "labels": Reader(idx, lambda root, raw: mnist(root, "t10k-labels-idx1-ubyte", raw), (UserError,)),
        "claims": Reader(exported(folder), lambda _, raw: from_bytes(raw, "it"), (UserError,)),
    }


NAMES = (
    *("cell", "calibration logits", "safetensors", "checkpoint", "old checkpoint"),
    *("card", "recipe", "baseline", "parquet", "labels", "claims"),
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(spoil=byte_changes())
def test_damaged_files_get_an_answer(readers, tmp_path, name, spoil):
    reader = readers[name]
    try:
        reader.read(tmp_path, spoil(reader.content))
    except reader.errors as error:
        assert str(error)


@pytest.mark.parametrize("name", NAMES)
def test_good_files_are_read(readers, tmp_path, name):
    assert readers[name].read(tmp_path, readers[name].content) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def replaced(content: Any, path: list[int], by: Any) -> Any:
    """``content`` with the value at the end of ``path`` replaced; numbers wrap around."""
    if not path or not isinstance(content, (dict, list)) or not content:
        return by
    keys = sorted(content) if isinstance(content, dict) else range(len(content))
    key = keys[path[0] % len(keys)]
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[key] = replaced(content[key], path[1:], by)
    return copy


@pytest.mark.parametrize("name", ["card", "recipe", "baseline"])
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(path=st.lists(st.integers(0, 20), min_size=1, max_size=4), by=JSON)
def test_json_of_another_shape_gets_an_answer(readers, tmp_path, name, path, by):
    reader = readers[name]
    content = json.dumps(replaced(json.loads(reader.content), path, by)).encode()
    try:
        reader.read(tmp_path, content)
    except reader.errors as error:
        assert str(error)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("store") / "store"
    evaluate(root, ("average",))
    return root


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(path=st.lists(st.integers(0, 40), min_size=1, max_size=4), by=JSON)
def test_a_run_record_of_another_shape_is_named_or_left_out(store, path, by):
    (record,) = (store / "runs").glob("*.json")
    good = record.read_bytes()
    try:
        record.write_text(json.dumps(replaced(json.loads(good), path, by)))
        statuses(store)
        merge(store.parent / "target", [store])
        try:
            evaluations(Store(store))
        except UserError as error:
            assert record.name in str(error)
    finally:
        record.write_bytes(good)


@given(st.text(max_size=30) | st.from_regex(r"(entropy|confidence|exit):[-0-9.,einfa]{0,12}", fullmatch=True), st.integers(1, 4))
def test_policies_are_read_or_refused(text, n_exits):
    try:
        policy = parse_policy(text, n_exits)
    except ValueError as error:
        assert str(error)
    else:
        assert describe(policy)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("name", NAMES)
def test_code_in_any_file_is_not_executed(readers, tmp_path, name):
    reader = readers[name]
    for content in (pickle.dumps(Bomb()), gzip.compress(pickle.dumps(Bomb()))):
        with pytest.raises(reader.errors):
            reader.read(tmp_path, content)
