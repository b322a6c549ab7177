"""Original files of a dataset, in the data directory or downloaded; only those with the published digest are read."""

from __future__ import annotations

from pathlib import Path

from exitbench.data.download import DataUnavailable, fetch, is_original
from exitbench.errors import UserError

N_CALIBRATION = 2_000
"""The last training images are held out to set thresholds."""


def rows_of(split: str, n: int) -> slice:
    """Return the rows of a split among ``n`` original images: all of ``test``, the last training images for ``calibration``."""
    held_out = max(n - N_CALIBRATION, 0)
    return {"test": slice(0, n), "train": slice(0, held_out), "calibration": slice(held_out, n)}[split]


def checked(path: Path, md5: str, title: str) -> Path:
    """Return the path of an original file.

    Args:
        path: The file.
        md5: Its published MD5 (hex).
        title: Name of the dataset in the message.

    Raises:
        UserError: If it is missing, cannot be read, or is another file.
    """
    try:
        found = is_original(path, md5)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if not found:
        raise UserError(f"{path} is not the original file of {title} (its MD5 is {md5}); delete it to have it downloaded again")
    return path


def find_or_fetch(root: Path, subfolder: str, name: str, url: str, md5: str, *, title: str, download: bool) -> Path:
    """Return the path of an original file in the data directory ``root`` or its ``subfolder``, downloaded if it is missing.

    Raises:
        UserError: If the file that is there is not the original.
        DataUnavailable: If it is missing and cannot be downloaded.
    """
    for folder in (root / subfolder, root):
        if (folder / name).exists():
            return checked(folder / name, md5, title)
    if not download:
        raise DataUnavailable(f"no {title} in {root} (looked for {subfolder}/{name} and {name})")
    fetch([url], md5, root / subfolder / name)
    return root / subfolder / name
