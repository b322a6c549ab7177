"""Stores of several machines become one: what agrees is joined, what does not is told, nothing is lost or picked silently."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from exitbench.scoring.load import evaluations
from exitbench.store.cell import Cell
from exitbench.store.merge import merge
from exitbench.store.store import Store, cell_path
from exitbench.store.trust_result import TrustProvenance
from tests.bench.evaluated import evaluate
from tests.bench.records import changed, probe_of

NAMES = ("single", "average", "max_average")


def rows(root):
    """What a store's evaluations come to."""
    return {
        result.name: (result.correct.tolist(), result.exits.tolist(), result.forwards)
        for evaluation in evaluations(Store(root))
        for result in (evaluation.clean, *evaluation.attacks)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished evaluation."""
    root = tmp_path_factory.mktemp("whole") / "store"
    evaluate(root, NAMES)
    return root


def cells(root):
    return sorted((root / "cells").glob("*/*.npz"))


def part(whole, root, keep):
    """A copy with every cell whose place in the order ``keep`` accepts."""
    shutil.copytree(whole, root)
    for i, path in enumerate(cells(root)):
        if not keep(i):
            path.unlink()
    return root


def flipped(root, path):
    """Rewrite a cell so that the first sample's classes are others."""
    cell = Cell.from_bytes(path.read_bytes(), path.stem)
    logits = cell.logits.copy()
    logits[:, 0] = np.roll(logits[:, 0], 1, axis=-1)
    path.write_bytes(replace(cell, logits=logits).to_bytes())
    return cell


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_joined_are_the_whole(whole, tmp_path, shards):
    parts = [part(whole, tmp_path / str(k), lambda i, k=k: i % shards == k) for k in range(shards)]
    target = tmp_path / "joined"
    Store(target)
    done = merge(target, parts)
    assert not done.conflicts and not done.damaged and done.copied["cell"] == len(cells(whole))
    assert rows(target) == rows(whole)
    again = merge(target, parts)
    assert again.copied == {} and again.same == len(cells(whole)), "a second merge changes nothing"


def test_other_rounding_of_the_same_verdicts_is_no_conflict(whole, tmp_path):
    other = part(whole, tmp_path / "other", lambda _: True)
    for path in cells(other):
        cell = Cell.from_bytes(path.read_bytes(), path.stem)
        path.write_bytes(replace(cell, logits=cell.logits * np.float32(1 + 1e-6)).to_bytes())
    target = part(whole, tmp_path / "target", lambda _: True)
    assert not merge(target, [other]).conflicts


@pytest.mark.parametrize("has", [True, False])
def test_a_contradiction_is_told_and_not_settled(whole, tmp_path, has):
    path = cells(whole)[0]
    target = part(whole, tmp_path / "target", lambda i: has or i)
    one, other = (part(whole, tmp_path / name, lambda _: True) for name in ("one", "other"))
    cell = flipped(other, cell_path(other, path.stem))
    done = merge(target, [one, other])
    (conflict,) = done.conflicts
    assert (conflict.key, conflict.samples) == (path.stem, (int(cell.indices[0]),))
    assert conflict.taken == (target if has else None)
    assert set(conflict.places) == ({target, other} if has else {one, other})
    assert cell_path(target, path.stem).exists() == has


@pytest.mark.parametrize("preferred", ["one", "other"])
def test_a_preferred_store_settles_it(whole, tmp_path, preferred):
    path = cells(whole)[0]
    target = part(whole, tmp_path / "target", lambda _: True)
    sources = {name: part(whole, tmp_path / name, lambda _: True) for name in ("one", "other")}
    flipped(sources["other"], cell_path(sources["other"], path.stem))
    (conflict,) = merge(target, list(sources.values()), sources[preferred]).conflicts
    assert conflict.taken == sources[preferred]
    assert cell_path(target, path.stem).read_bytes() == cell_path(sources[preferred], path.stem).read_bytes()


def test_damaged_files_are_left_out(whole, tmp_path):
    source = part(whole, tmp_path / "source", lambda _: True)
    first, second, *_ = cells(source)
    first.write_bytes(first.read_bytes()[:-100])
    cell_path(source, "0" * 64).parent.mkdir(exist_ok=True)
    shutil.copy(second, cell_path(source, "0" * 64))
    run = next((source / "runs").glob("*.json"))
    run.write_text(run.read_text().replace('"toy"', '"another"', 1))
    target = tmp_path / "target"
    Store(target)
    done = merge(target, [source])
    assert len(done.damaged) == 3 and "run" not in done.copied
    assert not cell_path(target, first.stem).exists() and not list(target.rglob("0" * 64 + "*"))
    assert len(cells(target)) == len(cells(whole)) - 1


def test_trust_checks_and_calibration_logits_come_along(whole, tmp_path):
    sources = [part(whole, tmp_path / name, lambda _: False) for name in ("one", "other")]
    for seconds, source in enumerate(sources):
        provenance = TrustProvenance(seconds=float(seconds), device="cpu", torch="1", python="3")
        Store(source).write_probe(changed(probe_of("a" * 64, repeated=0.1 + 1e-9 * seconds), provenance=provenance))
        Store(source).write_probe(probe_of("b" * 64, repeated=0.1 * seconds))
    target = tmp_path / "target"
    Store(target)
    done = merge(target, sources)
    assert Store(target).read_probe("a" * 64) and not Store(target).read_probe("b" * 64)
    assert [(conflict.what, conflict.key) for conflict in done.conflicts] == [("trust checks", "b" * 64)]


def test_errors_come_along_until_the_cell_does(whole, tmp_path):
    source = part(whole, tmp_path / "source", lambda i: i)
    key, there = cells(whole)[0].stem, cells(whole)[1].stem
    for each in (key, there):
        (source / "errors" / f"{each}.json").write_text(json.dumps({"attack": "single:1", "error": "it raised"}))
    target = tmp_path / "target"
    Store(target)
    merge(target, [source])
    assert Store(target).read_error(key).error == "it raised" and Store(target).read_error(there) is None


def test_the_command(bench, whole, tmp_path):
    parts = [part(whole, tmp_path / str(k) / "store", lambda i, k=k: i % 2 == k) for k in range(2)]
    code, out, err = bench("merge", tmp_path / "0", parts[1], "--results", "joined")
    assert code == 0 and f"taken over: {len(cells(whole))} cells, 1 run; 0 were there" in out, err
    assert list((tmp_path / "joined" / "leaderboards").glob("*.csv")) and (tmp_path / "joined" / "index.html").exists()

    flipped(parts[0], cells(parts[0])[0])
    code, _, err = bench("merge", parts[0], "--results", "joined")
    assert code == 1 and "CONFLICT cell" in err and "kept that of joined/store" in err and "--prefer STORE" in err
    code, _, err = bench("merge", parts[0], "--results", "joined", "--prefer", parts[0])
    assert code == 1 and f"kept that of {parts[0]}" in err
    assert bench("merge", parts[0], "--results", "joined")[0] == 0, "settled"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["empty"], "empty holds no store"),
        (["mine", "--results", "mine"], "merged into itself"),
        (["mine", "--prefer", "empty"], "empty holds no store"),
        (["mine", "--prefer", "other"], "none of the stores that are merged"),
        ([], "STORE..."),
    ],
)
def test_bad_input(bench, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    for name in ("mine", "other"):
        Store(tmp_path / name / "store")
    code, _, err = bench("merge", *arguments)
    assert code == 2 and message in err


def test_sources_are_only_read(whole, tmp_path):
    source = part(whole, tmp_path / "source", lambda i: i % 2)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.rglob("*") if path.is_file()}
    merge(part(whole, tmp_path / "target", lambda i: not i % 2), [source])
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.rglob("*") if path.is_file()} == before
