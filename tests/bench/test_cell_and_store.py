import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exitbench.attacks.clean import Clean
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.errors import UserError
from exitbench.store.cell import BadCell, Cell, cell_key
from exitbench.store.cell_error import CellError
from exitbench.store.store import Store

KEY = "ab" + "0" * 62


def make_cell(key=KEY, n=3):
    generator = np.random.RandomState(0)
    return Cell(
        key=key,
        header={
            **{"model": "toy", "weights": "0" * 64, "dataset": "digits", "attack": {"type": "PGD"}, "seed": 0},
            "provenance": {"seconds": 1.0, "device": "cpu", "torch": "2", "python": "3"},
        },
        indices=np.arange(n),
        labels=np.zeros(n, dtype=np.int64),
        inputs=np.zeros((n, 32), dtype=np.uint8),
        logits=generator.randn(2, n, 4).astype(np.float32),
        distances=np.zeros(n, dtype=np.float32),
        passes=np.array([6, 3]),
        broken_rows=np.array([1]),
        counterexamples=generator.rand(1, 1, 2, 2).astype(np.float32),
    )


def test_a_cell_comes_back_as_it_was():
    cell = make_cell()
    back = Cell.from_bytes(cell.to_bytes(), KEY)
    assert back.header == cell.header
    for name in ("indices", "labels", "inputs", "logits", "distances", "passes", "broken_rows", "counterexamples"):
        assert np.array_equal(getattr(back, name), getattr(cell, name)), name


def test_numpy_reads_a_cell_as_former_releases_do():
    cell = make_cell()
    raw = cell.to_bytes()
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        assert all(np.array_equal(stored[name], getattr(cell, name)) for name in stored.files if name != "header")
        assert len(stored.files) == 9
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_DEFLATED}


RAW = make_cell().to_bytes()


@given(st.integers(0, len(RAW) - 1))
def test_a_truncated_cell_is_noticed(length):
    with pytest.raises(BadCell):
        Cell.from_bytes(RAW[:length], KEY)


@settings(max_examples=300)
@given(st.integers(0, len(RAW) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_harmless(position, bit):
    """Bits of the archive that carry no content (time stamps, flags) may flip; content never does unnoticed."""
    damaged = bytearray(RAW)
    damaged[position] ^= 1 << bit
    try:
        back = Cell.from_bytes(bytes(damaged), KEY)
    except BadCell:
        return
    assert np.array_equal(back.logits, make_cell().logits)
    assert np.array_equal(back.counterexamples, make_cell().counterexamples)
    assert back.header == make_cell().header


def test_a_cell_under_another_name_is_foreign():
    with pytest.raises(BadCell, match="it is cell"):
        Cell.from_bytes(RAW, "cd" + "0" * 62)


def test_a_pickle_is_not_executed(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with pytest.raises(BadCell):
        Cell.from_bytes(pickle.dumps(Bomb()), KEY)
    assert not (tmp_path / "executed").exists()


def test_the_key_is_about_content_alone():
    attack = PGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.1), 3, 0.1)
    key = cell_key("w", ["a", "b"], attack, 0)
    assert key == cell_key("w", ["a", "b"], PGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.1), 3, 0.1), 0)
    others = [
        cell_key("v", ["a", "b"], attack, 0),
        cell_key("w", ["b", "a"], attack, 0),
        cell_key("w", ["a", "b"], attack, 1),
        cell_key("w", ["a", "b"], Clean(), 0),
        cell_key("w", ["a", "b"], PGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.1), 4, 0.1), 0),
    ]
    assert len({key, *others}) == 6


def test_the_store_keeps_whole_cells_and_nothing_else(tmp_path):
    store = Store(tmp_path / "store")
    assert not store.has(KEY)
    error = CellError(attack="average", error="no luck", spec={"type": "PGD"})
    store.write_error(KEY, error)
    assert store.read_error(KEY) == error
    store.write(make_cell())
    assert store.has(KEY)
    assert store.read_error(KEY) is None
    assert not list((tmp_path / "store").rglob(".partial*"))


def test_a_damaged_cell_goes_to_quarantine_and_is_missing(tmp_path, caplog):
    store = Store(tmp_path)
    store.write(make_cell())
    (path,) = (tmp_path / "cells").rglob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    assert store.read(KEY) is None
    assert "damaged cell" in caplog.text
    assert (tmp_path / "quarantine" / path.name).exists() and not path.exists()


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        store.write(make_cell())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        Store(tmp_path / "file" / "store")


def test_a_damaged_run_record_is_named_once_and_left_out(tmp_path, caplog):
    store = Store(tmp_path)
    (tmp_path / "runs" / "x.json").write_text("{")
    assert list(store.runs()) == [] and list(store.runs()) == []
    (said,) = caplog.messages
    assert said.startswith(f"{tmp_path}/runs/x.json cannot be read") and said.count("\n") == 0 and "left out" in said


def test_the_state_of_a_store_is_another_once_something_is_written(tmp_path):
    store = Store(tmp_path)
    states = [store.state()]
    for write in (
        lambda: store.write(make_cell()),
        lambda: store.write_error("0" * 64, CellError(attack="PGD", error="it raised")),
    ):
        assert store.state() == states[-1]
        write()
        states.append(store.state())
    store.write(make_cell(n=2))
    assert all(one != other for one, other in zip(states, [*states[1:], store.state()], strict=True))
