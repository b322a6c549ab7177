"""Downloads original data files, checked by digest; a partial or wrong file is never left behind."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from exitbench.errors import UserError

_TIMEOUT_S = 20
"""Seconds that a server, or a proxy before it, may be silent."""

_BLOCK = 1 << 20

MOST_BYTES = 1_000_000_000
"""Where a server has sent more, it is given up: CIFAR-10, the largest, has 170 MB."""


class DataUnavailable(UserError):
    """The data are not in the data directory and cannot be downloaded; the message says where to put them."""


def fetch(urls: Sequence[str], md5: str, target: Path) -> None:
    """Download ``target`` from the first of ``urls`` that has it.

    The file gets its name only once it is complete and has the right digest. One that is there and has the digest, such as one
    fetched by hand, is taken as it is.

    Args:
        urls: Addresses, tried in order.
        md5: Expected MD5 (hex).
        target: Path to download to.

    Raises:
        DataUnavailable: If no address can be reached, or none has the file with that digest.
    """
    if is_original(target, md5):
        return
    problems = []
    for url in urls:
        try:
            _fetch_one(url, md5, target)
            return
        except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            problems.append(f"{url}: {reason}")
    raise DataUnavailable(f"could not download {target.name} ({'; '.join(problems)}); fetch it elsewhere and put it at {target}")


def is_original(path: Path, md5: str) -> bool:
    """Return whether there is a file at ``path`` with this MD5 (hex).

    Raises:
        OSError: If it cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def _fetch_one(url: str, md5: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            first, size = b"", 0
            while block := response.read(_BLOCK):
                first, size = first or block[:200], size + len(block)
                if size > MOST_BYTES:
                    raise ValueError(f"more than {MOST_BYTES:,} bytes were sent, the file is far smaller")
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != md5:
            page = " (it is an HTML page)" if b"<html" in first.lower() or b"<!doctype" in first.lower() else ""
            raise ValueError(f"the downloaded file is not the original{page}: MD5 {digest.hexdigest()}, expected {md5}")
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)
