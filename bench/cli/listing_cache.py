"""Listings remembered between calls: what can be named changes seldom, and to import all that has a name takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path

Rows = list[tuple[str, ...]]

SCHEMA = 1
"""Bumped when what is kept changes its meaning."""

GROUPS = ("exitbench.models", "exitbench.attacks", "exitbench.policies", "exitbench.datasets")
"""Entry points of installed packages, whose code is not ours to watch: where there are any, nothing is remembered."""


def remembered(what: str, rows: Callable[[], Rows]) -> Rows:
    """The rows of a listing, from the user's cache where no file that they depend on has changed since.

    A cache that is damaged, or cannot be written, is done without.
    """
    from exitbench.models.whole_file import write_whole

    if any(entry_points(group=group) for group in GROUPS):
        return rows()
    path, state = cache_file(what), _state()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["state"] == state:
            return [tuple(map(str, row)) for row in kept["rows"]]
    found = rows()
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps({"state": state, "rows": found}).encode())
    return found


def cache_file(what: str) -> Path:
    """Return where the listing is kept."""
    from exitbench.models.user_folders import cache_folder

    return cache_folder() / f"list-{what}.json"


def _state() -> str:
    """Digest of the names, sizes and times of our sources and of all weights."""
    from exitbench.models.own_code import own_folders, own_sources
    from exitbench.models.user_folders import weights_folder

    users = weights_folder()
    files = [*own_sources().values()]
    files += [path for folder in (own_folders()["exitbench.models"] / "weights", users) for path in _entries(folder)]
    seen = hashlib.sha256(f"{SCHEMA} {users}".encode())
    for path in sorted(files):
        stat = path.stat()
        seen.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def _entries(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()
