"""The user's folders of data, weights and caches: those named in the environment, else the platform's."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

_NAME = "exitbench"


def data_folder() -> Path:
    """Return the folder of datasets: ``EXITBENCH_DATA``, else ``data`` in the user's data folder."""
    return _folder("EXITBENCH_DATA", user_data_path(_NAME, appauthor=False) / "data", _earlier_data() / "data")


def weights_folder() -> Path:
    """Return the folder of the user's own weights: ``EXITBENCH_WEIGHTS``, else ``weights`` in the user's data folder."""
    return _folder("EXITBENCH_WEIGHTS", user_data_path(_NAME, appauthor=False) / "weights", _earlier_data() / "weights")


def cache_folder() -> Path:
    """Return the cache folder: ``EXITBENCH_CACHE``, else the user's cache folder."""
    earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _NAME
    return _folder("EXITBENCH_CACHE", user_cache_path(_NAME, appauthor=False), earlier)


def _earlier_data() -> Path:
    return Path.home() / ".local" / "share" / _NAME


def _folder(variable: str, platforms: Path, earlier: Path) -> Path:
    """Return the folder in the variable, else the platform's, or that of version 0.1 if only this one exists."""
    if named := os.environ.get(variable):
        return Path(named)
    return earlier if earlier.is_dir() and not platforms.is_dir() else platforms
