"""Exported files and stores that are damaged, foreign or from the future are refused with a clear message."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitbench.errors import UserError
from exitbench.models.stored import SCHEMA
from exitbench.store.store import cell_path
from exitbench.verify.export_file import from_bytes, to_bytes
from exitbench.verify.results import find_results, reported
from tests.bench.evaluated import evaluate
from tests.bench.proof.toy_claims import texts, toy_claims, toy_store
from tests.bench.records import changed


@pytest.fixture(scope="module")
def claims(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    toy_store(folder, ["average"])
    return toy_claims(folder)


@pytest.fixture(scope="module")
def exported(claims):
    return to_bytes([claims])


def members(raw):
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return json.loads(arrays.pop("header").tobytes()), arrays


def written(header, arrays):
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays)
    return buffer.getvalue()


def refused(raw):
    with pytest.raises(UserError) as caught:
        from_bytes(raw, "theirs.npz")
    message = str(caught.value)
    assert message.startswith("theirs.npz")
    return message


@given(st.data())
def test_a_truncated_file_is_refused(exported, data):
    length = data.draw(st.integers(0, len(exported) - 1))
    assert "is not a whole file of exported counterexamples" in refused(exported[:length])


@given(st.data())
def test_a_flipped_bit_is_refused_or_changes_no_claim(exported, claims, data):
    """Bits that nobody reads, such as a zip's dates, may flip; no array and no word of the header may."""
    raw = bytearray(exported)
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    raw[at] ^= 1 << bit
    try:
        (back,) = from_bytes(bytes(raw), "theirs.npz")
    except UserError:
        return
    assert to_bytes([back]) == exported


def test_other_files_are_refused(claims):
    assert "is not a whole file" in refused(b"")
    assert "is not a whole file" in refused(b"a text\n")
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(b'{"format": "other", "schema": 1}', dtype=np.uint8))
    assert "its format is 'other'" in refused(buffer.getvalue())


def test_pickles_are_not_read():
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array([{"format": "exitbench counterexamples"}], dtype=object))
    assert "header is object (1,), expected uint8" in refused(buffer.getvalue())


def test_a_newer_schema_is_refused_by_its_number(exported):
    header, arrays = members(exported)
    assert "of schema 2, this exitbench reads 1" in refused(written({**header, "schema": 2, "evaluations": None}, arrays))


def test_a_file_of_nothing_is_refused(exported):
    header, _ = members(exported)
    assert "nothing to verify" in refused(written({**header, "evaluations": []}, {}))


WRONG = {
    "a missing array": lambda header, arrays: arrays.pop("0/images"),
    "another type": lambda header, arrays: arrays.update({"0/images": arrays["0/images"].astype(np.float64)}),
    "other lengths": lambda header, arrays: arrays.update({"0/images": arrays["0/images"][1:]}),
    "fewer dimensions": lambda header, arrays: arrays.update({"0/images": arrays["0/images"][0]}),
    "a row that is not there": lambda header, arrays: arrays.update({"0/row": arrays["0/row"] + 70}),
    "an exit that is not there": lambda header, arrays: arrays.update({"0/exits": arrays["0/exits"] + 3}),
    "a label that is no class": lambda header, arrays: arrays.update({"0/labels": arrays["0/labels"] + 4}),
    "a missing field": lambda header, arrays: header["evaluations"][0].pop("weights"),
    "another n": lambda header, arrays: header["evaluations"][0].update(n=69),
    "an unknown norm": lambda header, arrays: header["evaluations"][0].update(norm="L7"),
    "an eps that is no number": lambda header, arrays: header["evaluations"][0].update(eps=float("nan")),
    "a policy of another net": lambda header, arrays: header["evaluations"][0].update(policy="exit:9"),
}


@pytest.mark.parametrize("case", WRONG)
def test_contents_that_do_not_fit_together_are_refused(exported, case):
    header, arrays = members(exported)
    WRONG[case](header, arrays)
    assert "is not a whole file" in refused(written(header, arrays))


# Stores


def first_attack_cell(store, name="average"):
    """The path and content of the first cell of an attack that breaks something."""
    (records,) = find_results(str(store.root), store.root).records
    (attack,) = [attack for attack in records[0].attacks if attack.name == name]
    cells = [store.read(key) for key in attack.keys]
    cell = next(cell for cell in cells if len(cell.broken_rows))
    return cell_path(store.root, cell.key), cell


def test_a_store_whose_cells_were_changed_is_found_out(tmp_path):
    store = toy_store(tmp_path, ["average"])
    path, cell = first_attack_cell(store)
    sample = f"sample {cell.indices[cell.broken_rows[0]]}"

    def found(**tampered):
        path.write_bytes(replace(cell, **tampered).to_bytes())
        return texts(toy_claims(tmp_path))

    where = f"average (cell {cell.key[:12]})"
    assert found() == []
    images = cell.counterexamples.copy()
    images[0, 0, 0, 0] += np.float32(0.4)
    assert any(text.startswith(f"{where}, {sample}: ") for text in found(counterexamples=images))
    images[0, 0, 0, 0] = np.nan
    assert f"{where}, {sample}: 1 pixels are NaN or infinite" in found(counterexamples=images)
    logits = cell.logits.copy()
    logits[0, cell.broken_rows[0], 0] += 0.01
    assert any(text.startswith(f"{where}, {sample}: claimed") for text in found(logits=logits))
    labels = (cell.labels + (cell.indices == cell.indices[cell.broken_rows[0]])) % 5
    assert any(text.startswith(f"{where}, {sample}: claimed label") for text in found(labels=labels))
    inputs = np.roll(cell.inputs, 1, axis=0)
    assert f"{where}: its key is not the digest of its weights, inputs, attack and seed" in found(inputs=inputs)
    assert any("header names other weights" in text for text in found(header={**cell.header, "weights": "1" * 64}))
    fewer = {"broken_rows": cell.broken_rows[1:], "counterexamples": cell.counterexamples[1:]}
    assert any(f"{where}: the logits and the images kept disagree" in text for text in found(**fewer))


def test_a_clean_cell_that_flatters_is_found_out(tmp_path):
    """Clean logits that claim a wrong sample right: its clean image is re-scored."""
    store = toy_store(tmp_path, ["average"])
    path, cell = first_clean(store)
    wrong = int(np.flatnonzero((cell.logits.argmax(-1) != cell.labels).all(0))[0])
    logits = cell.logits.copy()
    logits[:, wrong, cell.labels[wrong]] = 9
    path.write_bytes(replace(cell, logits=logits).to_bytes())
    assert any(text.startswith(f"clean, sample {cell.indices[wrong]}: ") for text in texts(toy_claims(tmp_path)))


def first_clean(store):
    (records,) = find_results(str(store.root), store.root).records
    key = records[0].attacks[0].keys[0]
    return cell_path(store.root, key), store.read(key)


def test_a_damaged_cell_is_named_and_left_where_it_is(tmp_path):
    store = toy_store(tmp_path, ["average"])
    path, cell = first_attack_cell(store)
    path.write_bytes(cell.to_bytes()[:-40])
    with pytest.raises(UserError, match=f"{cell.key}.npz cannot be read"):
        toy_claims(tmp_path)
    assert path.exists() and not (store.root / "quarantine").exists()


def test_finished_cells_of_an_unfinished_attack_are_claims(tmp_path):
    store = toy_store(tmp_path, ["average", "single"])
    path, cell = first_attack_cell(store)
    before = toy_claims(tmp_path)
    path.unlink()
    after = toy_claims(tmp_path)
    assert len(after.row) == len(before.row) - len(cell.broken_rows)
    assert texts(after) == []


def test_runs_with_several_seeds_are_one_evaluation(tmp_path):
    from tests.bench.evaluated import prepared, toy_policy

    toy_store(tmp_path, ["average"])
    evaluate(tmp_path / "store", ["average"], prepared(toy_policy()), seed=5)
    claims = toy_claims(tmp_path)
    assert claims.n_attacks == 2 and len(claims.indices) == 70
    assert texts(claims) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 1}'])
def test_a_damaged_record_is_refused(tmp_path, content):
    (tmp_path / "store" / "runs").mkdir(parents=True)
    (tmp_path / "store" / "runs" / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json cannot be read"):
        find_results(str(tmp_path), tmp_path)


def test_a_record_of_a_newer_schema_is_refused_where_it_is_asked_for(tmp_path, caplog):
    store = toy_store(tmp_path, ["average"])
    (path,) = (store.root / "runs").glob("*.json")
    newer = path.with_name(f"{'0' * 64}.json")
    newer.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 99'))
    wanted = rf"0\.json is a run record of schema 99; this exitbench reads schemas up to {SCHEMA}: a newer exitbench is needed"
    for what in (str(newer), newer.stem[:12]):
        with pytest.raises(UserError, match=wanted):
            find_results(what, tmp_path)
    assert len(find_results(str(tmp_path), tmp_path).records) == 1 and re.search(wanted, caplog.text)


def test_an_empty_store_is_refused(tmp_path):
    (tmp_path / "store" / "runs").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no recorded run in .*; nothing to verify"):
        find_results(str(tmp_path), tmp_path)


def test_runs_are_found_by_folder_file_and_id(tmp_path):
    store = toy_store(tmp_path, ["average"])
    evaluate(store.root, ["single"])
    files = sorted((store.root / "runs").glob("*.json"))
    assert len(files) == 2
    assert find_results(str(store.root), tmp_path).whole and find_results(str(tmp_path), tmp_path).whole
    for path in files:
        by_file, by_id = find_results(str(path), tmp_path), find_results(path.stem[:12], tmp_path)
        assert by_file == replace(by_id, store=by_file.store) and not by_id.whole
    for none in ("0" * 64, "*", "no-such.npz"):
        with pytest.raises(UserError, match="is no file and no folder, and no run of that id"):
            find_results(none, tmp_path)
    with pytest.raises(UserError, match="no recorded run of model 'other'"):
        find_results(str(tmp_path), tmp_path, "other")


def test_the_leaderboard_s_figures_are_read_back(tmp_path):
    from exitbench.report.write import write_reports
    from exitbench.scoring.load import evaluations

    store = toy_store(tmp_path)
    (evaluation,) = evaluations(store)
    assert reported(store.root, evaluation.record) == {}
    write_reports([evaluation], tmp_path)
    expected = {"none": int(evaluation.clean.correct.sum()), "worst": int(evaluation.worst.sum())}
    assert reported(store.root, evaluation.record) == expected
    assert reported(store.root, changed(evaluation.record, n=69)) == {}
    (board,) = (tmp_path / "leaderboards").glob("*.csv")
    board.write_text("attack\nworst\n")
    with pytest.raises(UserError, match="write it again with `exitbench report`"):
        reported(store.root, evaluation.record)
