"""Fetches an original data file where a network exists: whole, with the right digest, or not at all."""

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
_BLOCK = 1 << 20


class DataUnavailable(UserError):
    """The data is neither in the data directory nor to be had; the message says where to put it."""


def fetch(urls: Sequence[str], md5: str, target: Path) -> None:
    """Download ``target`` from the first of ``urls`` that has it.

    The file appears under its name only once complete and of the right digest; nothing partial stays behind.

    Raises:
        DataUnavailable: no address could be reached, or none had the file of that digest.
    """
    problems = []
    for url in urls:
        try:
            _fetch_one(url, md5, target)
            return
        except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            problems.append(f"{url}: {reason}")
    raise DataUnavailable(f"could not download {target.name} ({'; '.join(problems)})")


def _fetch_one(url: str, md5: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            first = b""
            while block := response.read(_BLOCK):
                first = first or block[:200]
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != md5:
            page = " (it is an HTML page)" if b"<html" in first.lower() or b"<!doctype" in first.lower() else ""
            raise ValueError(f"what came is not the original file{page}: MD5 {digest.hexdigest()}, expected {md5}")
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)
