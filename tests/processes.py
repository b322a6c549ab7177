"""Commands in processes of their own that need not import torch: each is forked from one that has imported what they use.

Where a test is about how Python starts (its options, its limits, what is imported), it starts Python itself.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

from tests import checked_once
from tests.toys import ROOT

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.preloaded"])


class Started:
    """A running ``python -m bench``, or code, as ``subprocess.Popen`` has it: its output goes to files.

    Args:
        arguments: Of the command, or of ``code``.
        cwd: Folder in which it works.
        env: All environment variables.
        code: Python to run in place of the command.
    """

    def __init__(self, *arguments: object, cwd: Path, env: Mapping[str, str], code: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        outputs = [Path(self._folder.name) / name for name in ("out", "err")]
        _run_server()
        self._process = _forks.Process(target=_work, args=([*map(str, arguments)], code, str(cwd), dict(env), *map(str, outputs)))
        self._process.start()
        self._outputs = outputs

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait for the end and return what it wrote."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired("bench", timeout)
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in self._outputs)
        return out, err


def run(
    *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, code: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command, or code, to its end. ``env`` is added to the variables of this process."""
    started = Started(*arguments, cwd=cwd, env=environment(**(env or {})), code=code)
    out, err = started.communicate()
    assert started.returncode is not None
    return subprocess.CompletedProcess(arguments, started.returncode, out, err)


def environment(**changes: str) -> dict[str, str]:
    """The variables of this process, with the checkout in Python's path, and ``changes``."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **changes}


def _run_server() -> None:
    """Start the process that others are forked from, where the checkout is found."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        _set("PYTHONPATH", before)


def _set(name: str, value: str | None) -> None:
    if value is None:
        del os.environ[name]
    else:
        os.environ[name] = value


def _work(arguments: list[str], code: str | None, cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """Become the command: as Python would start, with default signals, streams to files and no variable but ``env``."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for path, number in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = ["" if code is not None else cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["-c" if code is not None else "bench", *arguments]
    if code is None:
        checked_once.share()
        runpy.run_module("bench", run_name="__main__", alter_sys=True)
    else:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
