"""Nothing outside a store's folder is read, written or moved, whatever links and names are in it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from exitbench.models.stored import Unreadable
from exitbench.scoring.load import evaluations
from exitbench.store.heartbeat import RunMonitor, heartbeats
from exitbench.store.inside import read_inside, write_inside
from exitbench.store.merge import merge
from exitbench.store.store import Store
from tests.bench.forged import forged, setting, theirs, whole
from tests.bench.fuzz_readers import members
from tests.bench.records import probe_of

__all__ = ["theirs", "whole"]


def linked(path: Path, elsewhere: Path) -> Path:
    """The file or folder moved elsewhere, with a link in its place."""
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    return elsewhere


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["runs", "trust", "cells"])
def test_a_file_behind_a_link_is_not_read(theirs, tmp_path, caplog, kind):
    Store(theirs).write_probe(probe_of("a" * 64))
    path = next((theirs / kind).rglob("*.*"))
    elsewhere = linked(path, tmp_path / path.name)
    before = elsewhere.read_bytes()
    done = merge(Store(tmp_path / "target").root, [theirs])
    assert any(str(path) in said and "link" in said for said in done.damaged)
    Store(theirs).read_probe("a" * 64)
    found = evaluations(Store(theirs))
    assert kind == "trust" or found == [] or found[0].unfinished
    assert path.stem in caplog.text and "link" in caplog.text
    assert elsewhere.read_bytes() == before


@pytest.mark.parametrize("folder", ["runs", "cells", "trust", "logs", "live", "quarantine", "errors"])
def test_a_store_with_a_link_for_a_folder_is_refused(theirs, tmp_path, bench, folder):
    (theirs / folder).mkdir(exist_ok=True)
    elsewhere = linked(theirs / folder, tmp_path / "elsewhere")
    before = tree(elsewhere)
    for command in (["report", "--results", theirs.parent], ["merge", theirs.parent, "--results", tmp_path / "mine"]):
        code, _, err = bench(*command)
        assert code == 2 and f"{theirs / folder} is a link" in err
    assert tree(elsewhere) == before


def test_a_folder_of_cells_behind_a_link_is_neither_read_nor_written(theirs, tmp_path):
    folder = next(path for path in (theirs / "cells").iterdir() if path.is_dir())
    cell = next(folder.iterdir())
    elsewhere = linked(folder, tmp_path / "elsewhere")
    store, raw = Store(theirs), cell.read_bytes()
    assert store.read(cell.stem) is None
    with pytest.raises(Unreadable, match="is a link"):
        store.write_bytes(cell.stem, raw)
    assert tree(elsewhere) == {elsewhere / cell.name: raw}


def test_what_is_outside_of_a_store_is_not_opened_whatever_its_path(theirs, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for path in (tmp_path / "x.json", theirs / ".." / ".." / "x.json", theirs / "runs" / ".." / ".." / ".." / "x.json"):
        with pytest.raises(Unreadable, match="outside"):
            read_inside(theirs, path)
        with pytest.raises(Unreadable, match="outside"):
            write_inside(theirs, path, b"")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_the_log_and_the_heartbeat_of_a_run_are_files_of_the_store(theirs, tmp_path, bench, kind):
    (run,) = (theirs / "runs").glob("*.json")
    secret = tmp_path / "secret"
    secret.write_text("what nobody may read\n")
    for path in (theirs / "logs" / f"{run.stem}.log", theirs / "live" / f"{run.stem}-{os.getpid()}.json"):
        path.parent.mkdir(exist_ok=True)
        {"link": lambda path: path.symlink_to(secret), "pipe": os.mkfifo, "folder": Path.mkdir}[kind](path)
    assert list(heartbeats(theirs)) == []
    with RunMonitor(theirs, run.stem, cells=1, work=1.0) as monitor:
        monitor.working_on("average on 0-31")
    code, out, err = bench("status", run.stem[:8], "--results", theirs.parent)
    assert secret.read_text() == "what nobody may read\n" and "nobody" not in out + err
    assert (code == 2 and "cannot be read" in err) or (theirs / "logs" / f"{run.stem}.log").is_file()


def test_figures_hold_files_of_the_store_alone(theirs, tmp_path, bench):
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"password": "x"}))
    for trust in ("../../secret", str(secret.with_suffix("")), "a" * 64):
        forged(theirs, setting("trust", to=trust))
        if trust == "a" * 64:
            (theirs / "trust").mkdir(exist_ok=True)
            (theirs / "trust" / f"{trust}.json").symlink_to(secret)
        output = tmp_path / f"{len(trust)}.tar.xz"
        bench("export", "--format", "figures", "--output", output, "--results", theirs.parent)
        assert not output.exists() or not any(b"password" in content for _, content in members(output.read_bytes()))
        forged(theirs, setting("trust", to=None))


def test_a_cell_that_names_another_file_moves_nothing(theirs, tmp_path):
    victim = tmp_path / "victim.npz"
    victim.write_bytes(b"mine")
    for key in (str(victim.with_suffix("")), f"../../../{victim.stem}"):
        forged(theirs, setting("attacks", 0, "keys", 0, to=key))
        assert evaluations(Store(theirs)) == []
        forged(theirs, setting("attacks", 0, "keys", 0, to="a" * 64))
    assert victim.read_bytes() == b"mine" and not (theirs / "quarantine").exists()
