"""The user's folders of data, weights and caches: those named in the environment, else the platform's."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path, user_data_path, user_log_path

_NAME = "exitbench"


def data_folder() -> Path:
    """Return the folder of datasets: ``EXITBENCH_DATA``, else ``data`` in the user's data folder.

    Raises:
        PermissionError: As ``homeless_folder``, where the user has no home.
    """
    return _folder(
        "EXITBENCH_DATA", lambda: user_data_path(_NAME, appauthor=False) / "data", ".local/share/exitbench/data", "data"
    )


def weights_folder() -> Path:
    """Return the folder of the user's own weights: ``EXITBENCH_WEIGHTS``, else ``weights`` in the user's data folder.

    Raises:
        PermissionError: As ``homeless_folder``, where the user has no home.
    """
    here = ".local/share/exitbench/weights"
    return _folder("EXITBENCH_WEIGHTS", lambda: user_data_path(_NAME, appauthor=False) / "weights", here, "weights")


def cache_folder() -> Path:
    """Return the folder of what can be measured again: ``EXITBENCH_CACHE``, else the user's cache folder.

    Raises:
        PermissionError: As ``homeless_folder``, where the user has no home.
    """
    earlier = f"{os.environ.get('XDG_CACHE_HOME') or '.cache'}/{_NAME}"
    return _folder("EXITBENCH_CACHE", lambda: user_cache_path(_NAME, appauthor=False), earlier, "cache")


def log_folder() -> Path:
    """Return the folder of tracebacks of bugs: ``EXITBENCH_LOGS``, else the user's log folder.

    Raises:
        PermissionError: As ``homeless_folder``, where the user has no home.
    """
    here = ".local/state/exitbench/log"
    return _folder("EXITBENCH_LOGS", lambda: user_log_path(_NAME, appauthor=False), here, "logs")


def homeless_folder() -> Path:
    """Return the folder of a user without a home: one for each user id, among the temporary files.

    In a container or a batch job there may be neither ``HOME`` nor an entry for the user id in the passwd file.

    Raises:
        PermissionError: If somebody else owns that folder, and could have put anything there.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"{_NAME}-{user}"
    if folder.exists() and folder.lstat().st_uid != user:
        raise PermissionError(
            f"there is no home folder, and {folder} belongs to another user; set HOME, or EXITBENCH_DATA, EXITBENCH_WEIGHTS and "
            "EXITBENCH_CACHE, to folders of your own"
        )
    return folder


def _folder(variable: str, platforms: Callable[[], Path], earlier: str, homeless: str) -> Path:
    """The place that the variable names, or the platform's, or version 0.1's (below the home) where only that one exists."""
    if named := os.environ.get(variable):
        return Path(named)
    try:
        found = platforms()
    except RuntimeError:  # there is no home, and no XDG variable in its place
        return homeless_folder() / homeless
    with contextlib.suppress(RuntimeError):
        if (before := Path.home() / earlier).is_dir() and not found.is_dir():
            return before
    return found
