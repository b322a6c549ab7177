"""Evaluations handed on without their images: the same reports elsewhere, and no more than that."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from exitbench.errors import UserError
from exitbench.report.write import write_reports
from exitbench.runner.record import write_record
from exitbench.scoring.load import evaluations
from exitbench.store.archive import figures, unpacked
from exitbench.store.merge import merge
from exitbench.store.store import Store
from exitbench.verify.gather import gather
from tests.bench.evaluated import evaluate, plan_of, prepared, toy_split

NAMES = ("single", "average", "max_average")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A results folder with a finished evaluation and its reports."""
    results = tmp_path_factory.mktemp("whole")
    _, store = evaluate(results / "store", NAMES)
    write_reports(evaluations(store), results)
    return results


@pytest.fixture(scope="module")
def packed(whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "toy.tar.xz"
    store = Store(whole / "store")
    path.write_bytes(figures(store, list(store.runs())))
    return path


def reports(results):
    """Every report's content by name."""
    return {
        path.relative_to(results): path.read_bytes()
        for path in results.rglob("*.*")
        if "store" not in path.parts and path.suffix != ".lock"
    }


def images(root):
    return sum(len(Store(root).read(path.stem).counterexamples) for path in root.glob("cells/*/*.npz"))


def test_reports_come_out_byte_for_byte(whole, packed, tmp_path, bench):
    code, _, err = bench("merge", packed, "--results", tmp_path)
    assert code == 0, err
    theirs, ours = reports(whole), reports(tmp_path)
    page = ours.pop(Path("index.html")).decode()
    assert (
        "they are not verified here and have no place" in page
        and "not verified here" not in theirs.pop(Path("index.html")).decode()
    )
    assert ours == theirs != {}
    assert images(whole / "store") > 0 == images(tmp_path / "store")


def test_the_same_results_are_the_same_bytes(whole, packed, tmp_path, bench):
    code, out, err = bench("export", "--format", "figures", "--output", tmp_path / "again.tar.xz", "--results", whole)
    assert code == 0 and "1 run," in out, err
    assert (tmp_path / "again.tar.xz").read_bytes() == packed.read_bytes()


def test_nothing_is_run_again(packed, tmp_path):
    assert merge_file(packed, tmp_path)
    outcomes, _ = evaluate(tmp_path, NAMES)
    assert outcomes == []


@pytest.mark.parametrize("first", ["whole", "packed"])
def test_whoever_has_the_images_keeps_or_gets_them(whole, packed, tmp_path, bench, first):
    order = [whole / "store", packed] if first == "whole" else [packed, whole / "store"]
    for source in order:
        assert bench("merge", source, "--results", tmp_path)[0] == 0
    assert images(tmp_path / "store") == images(whole / "store")


def test_conflicts_call_the_file_by_its_name(whole, packed, tmp_path, bench):
    shutil.copytree(whole / "store", tmp_path / "store")
    with unpacked(packed) as root:
        for path in root.glob("cells/*/*.npz"):
            cell = Store(root).read(path.stem)
            cell.labels[:] = (cell.labels + 1) % 5
            path.write_bytes(cell.to_bytes())
        other = tmp_path / "other.tar.xz"
        other.write_bytes(figures(Store(root), list(Store(root).runs())))
    code, _, err = bench("merge", other, "--prefer", other, "--results", tmp_path)
    assert code == 1 and f"kept that of {other}" in err


def test_claims_without_images_cannot_be_verified(packed):
    with unpacked(packed) as root, pytest.raises(UserError, match="came without their counterexamples"):
        gather(root, list(Store(root).runs()), toy_split(), {})


def test_a_selection_among_what_has_no_images_is_an_error_and_no_result(packed, tmp_path):
    assert merge_file(packed, tmp_path)
    selections = [attack for run in Store(tmp_path).runs() for attack in run.attacks if attack.name == "max_average"]
    key = selections[0].keys[0]
    (tmp_path / "cells" / key[:2] / f"{key}.npz").unlink()
    outcomes, _ = evaluate(tmp_path, NAMES)
    assert ["without its images" in outcome.error for outcome in outcomes] == [True]


def merge_file(packed, target):
    with unpacked(packed) as root:
        return merge(Store(target).root, [root]).copied


def archive(path, *members):
    with tarfile.open(path, "w:xz") as file:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd"
            file.addfile(member, io.BytesIO())
    return path


@pytest.mark.parametrize(
    "member",
    [
        ("../runs/00.json", tarfile.REGTYPE),
        ("/runs/00.json", tarfile.REGTYPE),
        ("runs/00.json", tarfile.SYMTYPE),
        ("runs/00.json", tarfile.LNKTYPE),
        ("cells/00.py", tarfile.REGTYPE),
    ],
)
def test_what_has_no_place_in_such_a_file_is_refused(tmp_path, member):
    with pytest.raises(UserError, match="has no place in it"), unpacked(archive(tmp_path / "f.tar.xz", member)):
        pass


def test_damaged_files_are_told(packed, tmp_path, monkeypatch, bench):
    raw = packed.read_bytes()
    for content in (b"", b"<html>", raw[: len(raw) // 2], raw[:-20]):
        path = tmp_path / "damaged.tar.xz"
        path.write_bytes(content)
        code, _, err = bench("merge", path, "--results", tmp_path / "into")
        assert code == 2 and "no whole figures" in err
    monkeypatch.setattr("exitbench.store.archive.MOST", 1000)
    code, _, err = bench("merge", packed, "--results", tmp_path / "into")
    assert code == 2 and "unpacks to more than" in err


def test_without_a_finished_cell_there_is_nothing_to_hand_on(tmp_path, bench):
    store = Store(tmp_path / "store")
    write_record(prepared(), plan_of(prepared(), store, NAMES), 0, store)
    for more, why in (([], "no finished cell"), (["--training", "other"], "no run of any model with training other")):
        code, _, err = bench("export", "--format", "figures", "--output", "f.tar.xz", "--results", tmp_path, *more)
        assert code == 2 and why in err and not (tmp_path / "f.tar.xz").exists()
