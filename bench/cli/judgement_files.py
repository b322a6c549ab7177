"""The files of the regression gate's judgement: one that cannot be written fails the gate, for its readers see no judgement."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from exitbench.cli.outputs import reason, write_output
from exitbench.cli.say import say


def write_judgement(files: Mapping[Path | None, bytes], summary: str) -> bool:
    """Write the files that were asked for, and the summary of a GitHub job, and return whether all were written.

    Args:
        files: Contents by path; what stands under None was not asked for.
        summary: Markdown to append to the file at ``GITHUB_STEP_SUMMARY``, unless that is one of the files.
    """
    written = True
    for path, content in files.items():
        if path is not None:
            written &= _tried(path, write_output, content)
    job = os.environ.get("GITHUB_STEP_SUMMARY")
    if job and Path(job).resolve() not in {path.resolve() for path in files if path is not None}:
        written &= _tried(Path(job), _append, summary.encode())
    return written


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def _tried(path: Path, write: Callable[[Path, bytes], None], content: bytes) -> bool:
    try:
        write(path, content)
    except OSError as error:
        say(f"error: {path} cannot be written ({reason(error)}); the judgement above stands, the exit code is 1", err=True)
        return False
    return True
