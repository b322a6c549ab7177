"""What the user names as an output: files, links, pipes, devices and our own streams; what is none of these is refused."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exitbench.cli.outputs import refuse_clashes, write_output
from exitbench.errors import UserError
from exitbench.models.whole_file import write_whole
from tests.toys import ROOT


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


def folder(path):
    path.mkdir()


def disk(path):
    """A block device that no disk is behind."""
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(240, 200))
    except OSError as error:
        pytest.skip(f"a device takes the right to make one ({error})")


@pytest.mark.parametrize("make", [fifo, unix_socket, folder, disk])
@pytest.mark.parametrize("write", [write_whole, write_output])
def test_what_is_no_file_is_never_replaced(make, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = tmp_path / "it"
    make(path.relative_to(tmp_path))
    before = path.stat()
    with pytest.raises(OSError, match=r"not a file|nobody reads|Is a directory|cannot"):
        write(path, b"content")
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    assert {each.name for each in tmp_path.iterdir()} == {"it"}


def test_files_appear_whole_and_links_stay(tmp_path):
    write_output(tmp_path / "new" / "file", b"content")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    (tmp_path / "link").symlink_to("new/file")
    (tmp_path / "dangling").symlink_to("new/other")
    for name in ("link", "dangling"):
        write_output(tmp_path / name, b"more")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"more"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError):
        write_output(tmp_path / "loop", b"")


WRITE = """
from pathlib import Path
from exitbench.cli.outputs import write_output
print("before")
write_output(Path("/dev/stdout"), b"content\\n")
print("after")
"""


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="the system has no /dev/stdout")  # noqa: PTH110
@pytest.mark.parametrize("to_file", [True, False])
def test_our_own_output_is_written_in_order(to_file, tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-c", WRITE],
            cwd=ROOT,
            stdout=log if to_file else subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert (path.read_bytes() if to_file else done.stdout) == b"before\ncontent\nafter\n"


NAMES = st.sampled_from(["a", "b", "./a", "x/../a", "link", "hard", "x/b"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=NAMES, other=NAMES, read=NAMES)
def test_two_names_of_one_file_are_noticed(one, other, read, tmp_path_factory):
    root = tmp_path_factory.mktemp("clash")
    (root / "x").mkdir()
    (root / "a").write_text("")
    (root / "link").symlink_to("a")
    os.link(root / "a", root / "hard")
    is_a = {name: name not in ("b", "x/b") for name in (one, other, read)}

    def same(first, second):
        return is_a[first] if is_a[first] == is_a[second] and is_a[first] else first == second

    outputs, inputs = {"--one": root / one, "--other": root / other, "--none": None}, {"--read": root / read}
    if same(one, other) or same(one, read) or same(other, read):
        with pytest.raises(UserError, match="are one file"):
            refuse_clashes(outputs, inputs)
    else:
        refuse_clashes(outputs, inputs)
