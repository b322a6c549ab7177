"""The gate's files: what is not a regular file is never replaced, no output is an input, and what cannot be written is told."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from exitbench.cli import outputs
from tests.bench.gate.gated import BASELINE, CHECK, UPDATE


@pytest.fixture
def full_device(tmp_path):
    """A device of our own that is always full, as /dev/full."""
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"a device takes the right to make one ({error})")
    return path


@pytest.mark.parametrize("option", ["--markdown", "--junit"])
def test_a_device_and_a_pipe_are_written_into_and_stay(bench, option, full_device, tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    code, out, err = bench(*CHECK, option, pipe)
    assert code == 1 and "PASS" in out and "nobody reads from this pipe" in err

    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    while not reader.is_alive():
        pass
    for _ in range(50):  # until the reader has opened it
        code, out, err = bench(*CHECK, option, pipe)
        if code == 0:
            break
    reader.join(60)
    assert code == 0 and (b"PASS" in got[0] or b"<testsuites" in got[0]) and stat.S_ISFIFO(pipe.stat().st_mode)

    code, out, err = bench(*CHECK, option, full_device)
    assert code == 1 and "PASS" in out and f"{full_device} cannot be written (No space left on device)" in err
    assert stat.S_ISCHR(full_device.stat().st_mode)


def test_a_report_that_cannot_be_written_fails_with_the_judgement(bench, monkeypatch):
    Path("file").write_text("")
    for arguments in (["--junit", "file/gate.xml"], ["--markdown", "file/gate.md", "--junit", "gate.xml"]):
        code, out, err = bench(*CHECK, *arguments)
        assert code == 1 and "PASS nothing is significantly worse" in out and "cannot be written" in err
    assert Path("gate.xml").is_file(), "the other one is written"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "file/summary.md")
    code, out, err = bench(*CHECK)
    assert code == 1 and "PASS" in out and "file/summary.md cannot be written" in err


def test_the_summary_of_a_job_is_not_written_twice(bench, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert bench(*CHECK, "--markdown", "summary.md")[0] == 0
    assert Path("summary.md").read_text().count("tiny_digits (good) on digits") == 1


def test_no_output_is_an_input_or_another_output(bench):
    before = Path(BASELINE).read_bytes()
    Path("link.xml").symlink_to(BASELINE)
    os.link(BASELINE, "hard.xml")
    for arguments in (
        ["--junit", BASELINE],
        ["--markdown", BASELINE, "--baseline", BASELINE],
        ["--junit", f"./baselines/../{BASELINE}"],
        ["--junit", "link.xml"],
        ["--markdown", "hard.xml"],
        ["--markdown", "gate", "--junit", "gate"],
        ["--markdown", "gate", "--junit", "out/../gate"],
        ["--weights", "w/tiny_digits-digits-good.safetensors", "--junit", "w/tiny_digits-digits-good.safetensors"],
    ):
        code, _, err = bench(*CHECK, *arguments)
        assert code == 2 and "are one file" in err, (arguments, err)
    assert Path(BASELINE).read_bytes() == before and not Path("gate").exists()


def test_an_update_says_wrote_when_it_has(bench, monkeypatch):
    before = Path(BASELINE).read_bytes()

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(outputs, "write_whole", full)
    code, out, err = bench(*UPDATE)
    assert code == 2 and "wrote" not in out and f"{BASELINE} cannot be written: No space left on device" in err
    assert Path(BASELINE).read_bytes() == before


def test_export_writes_into_a_pipe_and_through_a_link(bench, tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    export = ["export", "--format", "figures", "--output"]
    assert bench(*export, pipe)[0] == 2 and bench(*export, pipe, "--force")[0] == 2
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    while (ended := bench(*export, pipe, "--force")[0]) != 0 and reader.is_alive():
        pass
    reader.join(60)
    assert ended == 0 and got[0][:5] == b"\xfd7zXZ" and stat.S_ISFIFO(pipe.stat().st_mode)
    Path("kept.tar.xz").write_bytes(b"")
    Path("link.tar.xz").symlink_to("kept.tar.xz")
    assert bench(*export, "link.tar.xz", "--force")[0] == 0
    assert Path("link.tar.xz").is_symlink() and Path("kept.tar.xz").read_bytes() == got[0]
