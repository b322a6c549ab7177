"""Weight files made to fill the memory are refused, in a process whose memory is limited."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import zipfile

import pytest
import torch

from exitbench.models.tensor_file import WeightsError, read_tensors
from exitbench.models.weights import load_weights
from tests.toys import ROOT

GIGABYTE = 10**9


def deflated_pickle(path):
    """A gigabyte of pickle in a megabyte of archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("weights/data.pkl", "w") as member:
        for _ in range(1000):
            member.write(b"N0" * (GIGABYTE // 2000))


def deflated_storage(path):
    """Tensors of a gigabyte of zeros in a megabyte of archive."""
    torch.save({"weight": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, bytes(GIGABYTE) if name.endswith("data/0") else content)


def declared_legacy(path):
    """An old checkpoint that says it holds 8 GB and ends after a page."""
    count = 1_000_003
    torch.save({"weight": torch.zeros(count)}, path, _use_new_zipfile_serialization=False)
    raw = path.read_bytes().replace(struct.pack("<i", count), struct.pack("<i", 2**31 - 1))
    path.write_bytes(raw[:5000])


def declared_safetensors(path):
    """A safetensors file that says it holds 10 GB and ends behind its header."""
    header = b'{"weight":{"dtype":"F32","shape":[2500000000],"data_offsets":[0,10000000000]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def sparse_safetensors(path):
    """A safetensors file that does hold 10 GB, as a sparse file."""
    declared_safetensors(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 10 * GIGABYTE)


def endless_header(path):
    """A safetensors file whose header is longer than any file."""
    path.write_bytes((2**62).to_bytes(8, "little") + b"{")


BOMBS = (deflated_pickle, deflated_storage, declared_legacy, declared_safetensors, sparse_safetensors, endless_header)

LOAD = """
import sys
from pathlib import Path
from torch import nn
from exitbench.models.weights import WeightsError, load_weights
try:
    load_weights(nn.Linear(3, 2), Path(sys.argv[1]))
except WeightsError as error:
    print(error)
    sys.exit(3)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bombs")


@pytest.mark.parametrize("make", BOMBS)
def test_they_are_refused_without_being_unpacked(make, folder):
    path = folder / f"{make.__name__}.pt"
    make(path)
    if make in (deflated_pickle, deflated_storage):
        assert path.stat().st_size < 0.01 * GIGABYTE

    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # What torch itself maps is several gigabytes of addresses, hardly any of them memory.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (int(0.9 * GIGABYTE), int(0.9 * GIGABYTE))),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert path.name in done.stdout and "Traceback" not in done.stderr


def test_a_checkpoint_with_its_optimizer_is_no_bomb(tmp_path):
    net = torch.nn.Linear(300, 300)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    torch.save({"state_dict": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "w.pt")
    load_weights(torch.nn.Linear(300, 300), tmp_path / "w.pt")


def test_a_file_far_larger_than_the_network_says_so(tmp_path):
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(10**6)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt has 4,\d+,\d+ bytes, the network's weights have 32: it holds something else"):
        load_weights(torch.nn.Linear(3, 2), tmp_path / "w.pt")
    assert len(read_tensors(tmp_path / "w.pt")) == 3
