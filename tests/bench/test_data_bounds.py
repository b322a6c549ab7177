"""Data files made to fill the memory are refused before they are unpacked, in a process whose memory is limited."""

from __future__ import annotations

import gzip
import io
import os
import resource
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exitbench.data import download, parquet_bounds
from exitbench.data.download import DataUnavailable, fetch
from exitbench.data.load import load_split
from exitbench.errors import UserError
from tests.bench.test_data import GREY, RGB, noise_images, write_mnist, write_parquet
from tests.toys import ROOT

LIMIT = 10**9

LOAD = """
import re, sys
from pathlib import Path
from exitbench.data.load import load_split
from exitbench.errors import UserError
shapes = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28)}
for root in sorted(Path(sys.argv[1]).iterdir()):
    for dataset in (path.name for path in root.iterdir()):
        try:
            load_split(dataset, "test", shapes[dataset], root)
        except UserError as error:
            print(root.name, str(error).encode().hex())
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def _table(images, labels):
    images = pa.array(
        [{"bytes": image, "path": None} for image in images], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    return pa.table({"img": images, "label": pa.array(labels, pa.int64())})


def _png(width, height):
    """A PNG file that says that it is so large, of a few bytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def repeated_image(path):
    """Thousands of rows that refer to one long image: the footer says what the dictionary takes, not the rows."""
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 7400, pa.int32()), pa.array([bytes(10**6)]))
    images = pa.StructArray.from_arrays([images, pa.nulls(7400, pa.string())], ["bytes", "path"])
    pq.write_table(pa.table({"img": images, "label": pa.array([0] * 7400)}), path)


def long_dictionary(path):
    """A dictionary that is longer than any writer makes one, in few bytes."""
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 60, pa.int32()), pa.array([bytes(10**8)]))
    images = pa.StructArray.from_arrays([images, pa.nulls(60, pa.string())], ["bytes", "path"])
    pq.write_table(pa.table({"img": images, "label": pa.array([0] * 60)}), path, compression="zstd")


def deflated_images(path):
    """Images of zeros, each another, which their column says it holds."""
    pq.write_table(
        _table([bytes(10**6) + i.to_bytes(4) for i in range(260)], [0] * 260), path, use_dictionary=False, compression="zstd"
    )


def many_rows(path):
    """More rows than any dataset here has, in a column that takes nothing."""
    rows = parquet_bounds.MOST_ROWS + 1
    image = pa.nulls(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"img": image, "label": pa.array([0] * rows)}), path)


def lying_footer(path):
    """Pages that unpack to 300 MB, under a footer that says they are small."""
    table = _table([bytes(60_000) + i.to_bytes(4) for i in range(5000)], [0] * 5000)
    pq.write_table(table, path, use_dictionary=False, compression="zstd", write_statistics=False)
    said = pq.read_metadata(path).row_group(0)
    raw = path.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - length : -8]
    size = said.column(0).total_uncompressed_size
    small = _varint(2 * 1000, len(_varint(2 * size)))
    assert footer.count(_varint(2 * size)) == 1
    path.write_bytes(raw[: -8 - length] + footer.replace(_varint(2 * size), small) + raw[-8:])
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 1000


def _varint(number, length=0):
    """A number in Thrift's compact form, as long as asked for."""
    found = bytearray()
    while number or not found or len(found) < length:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found[-1] &= 0x7F
    return bytes(found)


def huge_png(path):
    pq.write_table(_table([_png(30_000, 30_000)], [0]), path)


def large_png(path):
    pq.write_table(_table([_png(9_000, 9_000)], [0]), path)


def endless_footer(path):
    path.write_bytes(b"PAR1" + bytes(64) + (2**31 - 1).to_bytes(4, "little") + b"PAR1")


PARQUETS = (repeated_image, long_dictionary, deflated_images, many_rows, lying_footer, huge_png, large_png, endless_footer)


def endless_idx(path):
    """Gigabytes of zeros behind a header of ten images."""
    with gzip.open(path, "wb", 9) as file:
        file.write(bytes((0, 0, 8, 3)) + b"".join(d.to_bytes(4, "big") for d in (10, 28, 28)))
        for _ in range(1000):
            file.write(bytes(10**6))


def declared_idx(path):
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + b"".join(d.to_bytes(4, "big") for d in (2**32 - 1, 28, 28))))


def large_idx(path):
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + b"".join(d.to_bytes(4, "big") for d in (1, 30_000, 30_000))))


IDX = (endless_idx, declared_idx, large_idx)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """Return what is said of each file, by its maker's name, in one process after the other file."""
    root = tmp_path_factory.mktemp("bombs")
    for make in PARQUETS:
        path = root / make.__name__ / "cifar10" / "test.parquet"
        path.parent.mkdir(parents=True)
        make(path)
        assert path.stat().st_size < 10**7
    for make in IDX:
        make(write_mnist(root / make.__name__) / "t10k-images-idx3-ubyte.gz")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(root)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    *said, kilobytes = done.stdout.splitlines()
    assert int(kilobytes) * 1024 < LIMIT
    return {name: bytes.fromhex(message).decode() for name, message in map(str.split, said)}


@pytest.mark.parametrize("make", (*PARQUETS, *IDX))
def test_they_are_refused_without_being_unpacked(make, refusals):
    message = refusals[make.__name__]
    name = "test.parquet" if make in PARQUETS else "t10k-images-idx3-ubyte.gz"
    assert name in message and len(message.splitlines()) == 1


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 70_000), st.integers(1, 40)), max_size=3),
    st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), max_size=2),
    st.sampled_from(["none", "gzip", "zstd"]),
)
def test_any_parquet_is_read_or_refused(lengths, sizes, compression):
    images = [bytes(length) for length, times in lengths for _ in range(times)] + [_png(*size) for size in sizes]
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "cifar10" / "test.parquet"
        path.parent.mkdir()
        pq.write_table(_table(images, [0] * len(images)), path, compression=compression)
        if not images:
            assert len(load_split("cifar10", "test", RGB, Path(root))) == 0
            return
        with pytest.raises(UserError, match=r"test\.parquet") as caught:
            load_split("cifar10", "test", RGB, Path(root))
        assert len(str(caught.value).splitlines()) == 1


def test_what_pages_say_is_what_the_footer_says_where_nobody_lies(tmp_path):
    path = tmp_path / "cifar10" / "test.parquet"
    for compression in ("none", "snappy", "zstd"):
        for version in ("1.0", "2.0"):
            write_parquet(path, noise_images(40), [0] * 40)
            table = pq.read_table(path)
            pq.write_table(table, path, compression=compression, data_page_version=version, data_page_size=20_000)
            metadata = pq.read_metadata(path)
            chunks = [metadata.row_group(0).column(i) for i in range(metadata.num_columns)]
            headers = sum(chunk.total_uncompressed_size for chunk in chunks) - parquet_bounds._in_pages(path, chunks)
            assert 0 < headers < 10_000
            assert len(load_split("cifar10", "test", RGB, tmp_path)) == 40


def test_files_that_are_large_together_are_refused(tmp_path, monkeypatch):
    for part in range(3):
        write_parquet(tmp_path / "cifar10" / f"test-{part}.parquet", noise_images(4), [0] * 4)
    assert len(load_split("cifar10", "test", RGB, tmp_path)) == 12
    monkeypatch.setattr("exitbench.data.cifar10.MOST_ROWS", 11)
    with pytest.raises(UserError, match="12 test images; at most 11"):
        load_split("cifar10", "test", RGB, tmp_path)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=30))
def test_any_idx_header_is_read_or_refused(n, height, width, rest):
    with tempfile.TemporaryDirectory() as root:
        raw = write_mnist(Path(root))
        header = bytes((0, 0, 8, 3)) + b"".join(d.to_bytes(4, "big") for d in (n, height, width))
        (raw / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + rest))
        with pytest.raises(UserError, match=r"t10k-images|do not fit"):
            load_split("mnist", "test", GREY, Path(root))


def test_a_server_that_sends_without_end_is_given_up(tmp_path, monkeypatch):
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return bytes(size)

    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: Endless())
    monkeypatch.setattr(download, "MOST_BYTES", 10_000_000)
    with pytest.raises(DataUnavailable, match="more than 10,000,000 bytes"):
        fetch(["http://127.0.0.1/x"], "0" * 32, tmp_path / "x")
    assert not list(tmp_path.iterdir())
