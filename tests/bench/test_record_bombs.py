"""Archives, cells and claims made to fill the memory are refused by what they declare, in a process whose memory is limited."""

from __future__ import annotations

import io
import lzma
import math
import os
import resource
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from exitbench.store.archive import figures
from exitbench.store.cell import BadCell, Cell
from exitbench.store.store import Store
from exitbench.verify.export_file import to_bytes
from tests.bench.fuzz_readers import members, packed
from tests.bench.hostile import arrays_in
from tests.bench.proof.toy_claims import toy_claims, toy_store
from tests.toys import ROOT


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The store of a finished evaluation."""
    return toy_store(tmp_path_factory.mktemp("toy"), ["average"]).root


def sparse_archive(_: Path) -> bytes:
    """A kilobyte that says it is a file of seven gigabytes with nothing in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(f"runs/{'a' * 64}.json")
        sparse = {"major": "1", "minor": "0", "name": member.name, "realsize": str(7 * 10**9)}
        member.pax_headers = {f"GNU.sparse.{name}": value for name, value in sparse.items()}
        content = b"0\n".ljust(512, b"\0")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return lzma.compress(buffer.getvalue())


def large_dictionary(_: Path) -> bytes:
    """An archive that takes 1.6 gigabytes to unpack whatever is in it."""
    return lzma.compress(b"", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 3 * 2**29}])


def cell_of(root: Path, shape: tuple[int, ...], name: str) -> bytes:
    """An archive with a cell that has an array of gigabytes."""
    found = members(figures(Store(root), list(Store(root).runs())))
    at = next(i for i, (member, _) in enumerate(found) if member.name.endswith("npz"))
    found[at] = (found[at][0], with_zeros(arrays_in(found[at][1]), name, shape))
    return packed(found)


def with_zeros(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> bytes:
    """The npz file of arrays, one of which is all zeros and of another shape."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for each, array in arrays.items():
            with archive.open(f"{each}.npy", "w", force_zip64=True) as member:
                if each != name:
                    np.lib.format.write_array(member, array)
                    continue
                about = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, about)
                whole, rest = divmod(int(np.prod(shape)) * array.itemsize, 10**7)
                for size in [*[10**7] * whole, rest]:
                    member.write(bytes(size))
    return buffer.getvalue()


def images_in_a_cell(root: Path) -> bytes:
    return cell_of(root, (1, 1, 10**4, 3 * 10**4), "counterexamples")


def logits_in_a_cell(root: Path) -> bytes:
    return cell_of(root, (3, 32, 3 * 10**6), "logits")


BOMBS = (
    *(sparse_archive, large_dictionary),
    *(images_in_a_cell, logits_in_a_cell),
)

LOAD = """
import sys
from pathlib import Path
from exitbench.errors import UserError
from exitbench.store.archive import unpacked
try:
    with unpacked(Path(sys.argv[1])):
        pass
except UserError as error:
    print(error)
    sys.exit(3)
"""


def limited(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Python in a process that may hold 0.9 GB, of which torch takes some."""
    return subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (9 * 10**8, 9 * 10**8)),
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("make", BOMBS)
def test_an_archive_that_unpacks_without_end_is_refused(root, make, tmp_path):
    path = tmp_path / "theirs.tar.xz"
    path.write_bytes(make(root))
    assert path.stat().st_size < 5 * 10**6
    done = limited(LOAD, path)
    assert done.returncode == 3, done.stderr
    assert path.name in done.stdout and "Traceback" not in done.stderr


VERIFY = """
import sys
from exitbench.cli.main import main
sys.argv = ["exitbench", "verify", sys.argv[1]]
main()
"""


def test_claims_that_unpack_without_end_are_refused(root, tmp_path):
    """More than a gigabyte of zeros in a megabyte of claims."""
    path = tmp_path / "claims.npz"
    path.write_bytes(with_zeros(arrays_in(to_bytes([toy_claims(root.parent)])), "0/images", (2 * 10**7, 1, 4, 4)))
    done = limited(VERIFY, path)
    assert done.returncode == 2, done.stderr
    assert "claims.npz" in done.stderr and "bytes" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["header", "labels", "inputs", "broken_rows"])
def test_no_array_of_a_cell_is_larger_than_its_others_allow(root, name):
    raw = figures(Store(root), list(Store(root).runs()))
    member, content = next(each for each in members(raw) if each[0].name.endswith("npz"))
    arrays = arrays_in(content)
    row = arrays[name].dtype.itemsize * math.prod(arrays[name].shape[1:])
    bomb = with_zeros(arrays, name, (2 * 10**7 // row, *arrays[name].shape[1:]))
    with pytest.raises(BadCell):
        Cell.from_bytes(bomb, Path(member.name).stem)


def test_more_than_eight_times_a_file_s_size_is_not_read(root):
    """What is read of a file is bounded by its size, and by 400 MB where it is small."""
    from exitbench.store import npz

    raw = figures(Store(root), list(Store(root).runs()))
    content = next(content for member, content in members(raw) if member.name.endswith("npz"))
    kinds = {name: npz.Kind(array.dtype.type, array.shape) for name, array in arrays_in(content).items()}
    assert npz.read_arrays(io.BytesIO(content), kinds)[0].keys() == kinds.keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npz, "FLOOR", 100)
        patch.setattr(npz, "TIMES", 0)
        with pytest.raises(ValueError, match=r"it unpacks to [\d,]+ bytes, at most 100 are read"):
            npz.read_arrays(io.BytesIO(content), kinds)
