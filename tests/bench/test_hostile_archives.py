"""Archives of a stranger are refused as a whole where any of their files is not what it should be."""

from __future__ import annotations

import json
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest

from exitbench.store.archive import figures
from exitbench.store.cell import Cell
from exitbench.store.store import Store
from tests.bench.forged import CELLS, REFUSED, forged, theirs, whole
from tests.bench.fuzz_readers import members, packed
from tests.bench.hostile import arrays_in, npz

__all__ = ["theirs", "whole"]


@pytest.fixture(scope="module")
def raw(whole):
    store = Store(whole)
    return figures(store, list(store.runs()))


def refused(tmp_path, content: bytes, bench) -> str:
    """What `merge` says of an archive that it takes nothing of."""
    path = tmp_path / "theirs.tar.xz"
    path.write_bytes(content)
    code, _, err = bench("merge", path, "--results", tmp_path / "mine")
    assert code == 2 and str(path) in err
    assert not [each for each in (tmp_path / "mine").rglob("*") if each.is_file()]
    return err


def test_two_members_of_one_name_are_refused(raw, tmp_path, bench):
    found = members(raw)
    for member, content in found[:: len(found) // 3]:
        assert f"it holds {member.name} twice" in refused(tmp_path, packed([*found, (member, content)]), bench)


RECORDS = ("a dataset elsewhere", "an unknown norm", "too many samples", "negative costs", "a missing model")
OF_CELLS = ("shifted indices", "shifted labels", "negative passes", "other weights", "logits of fewer exits")


@pytest.mark.parametrize("case", RECORDS)
def test_nothing_is_taken_of_an_archive_with_a_record_that_is_none(raw, theirs, tmp_path, bench, case):
    path = forged(theirs, REFUSED[case])
    found = [(member, content) for member, content in members(raw) if not member.name.startswith("runs/")]
    member = tarfile.TarInfo(f"runs/{path.name}")
    assert path.name in refused(tmp_path, packed([*found, (member, path.read_bytes())]), bench)


@pytest.mark.parametrize("case", OF_CELLS)
def test_nothing_is_taken_of_an_archive_with_a_cell_that_is_none(raw, tmp_path, bench, case):
    change, _ = CELLS[case]
    found = members(raw)
    at = next(i for i, (member, _) in enumerate(found) if member.name.endswith("npz"))
    member, content = found[at]
    cell = Cell.from_bytes(content, Path(member.name).stem)
    arrays = arrays_in(content)
    for name, make in change.items():
        made = make(cell)
        if name == "header":
            made = np.frombuffer(json.dumps({"schema": 1, "key": cell.key, **made}).encode(), np.uint8)
        arrays[name] = made
    found[at] = (member, npz(arrays))
    assert cell.key[:12] in refused(tmp_path, packed(found), bench)


KINDS = {
    "a device": tarfile.CHRTYPE,
    "a block device": tarfile.BLKTYPE,
    "a pipe": tarfile.FIFOTYPE,
    "a folder": tarfile.DIRTYPE,
    "a hard link": tarfile.LNKTYPE,
    "a link": tarfile.SYMTYPE,
    "a sparse file": tarfile.GNUTYPE_SPARSE,
    "an unknown kind": b"9",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [f"runs/{'a' * 64}.json", f"cells/aa/{'a' * 64}.npz"])
def test_members_that_are_no_files_are_refused(raw, tmp_path, bench, kind, name):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = KINDS[kind], "/etc/passwd"
    assert "no whole figures" in refused(tmp_path, packed([(member, b""), *members(raw)]), bench)


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/x.json", "../runs/x.json", f"runs/../../{'a' * 64}.json", f"runs/{'A' * 64}.json", f"runs/{'a' * 63}.json"),
        *(f"runs/{'a' * 64}.json\n", f"cells/bb/{'a' * 64}.npz", f"cells/aa/{'a' * 64}.json", "runs/CON", "live/x.json", "x"),
        *(f"runs/{chr(0xFF10) * 64}.json", f"runs/{'a' * 64}.json/../x", "a" * 300),
    ],
)
def test_members_of_other_names_are_refused(raw, tmp_path, bench, name):
    assert "has no place in it" in refused(tmp_path, packed([(tarfile.TarInfo(name), b"{}"), *members(raw)]), bench)


def test_a_name_of_megabytes_is_refused(tmp_path, bench):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 10**7
    said = refused(tmp_path, lzma.compress(header.tobuf() + b"a" * 10**7, preset=0), bench)
    assert "a name or a header of 10,000,384 bytes" in said


def test_what_stands_behind_an_archive_is_refused(raw, tmp_path, bench):
    for more in (raw, b"x", bytes(4)):
        assert "there is more behind its end" in refused(tmp_path, raw + more, bench)
