"""What other packages' loaders rely on: servers that answer, and a home folder to keep downloads in."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exitbench.models.user_folders import homeless_folder

TIMEOUT_S = 30.0
"""Seconds that a server, or a proxy before it, may be silent: none of the loaders sets a limit of its own."""


@contextmanager
def limited_waiting() -> Iterator[None]:
    """Give every connection opened inside the context a time-out of ``TIMEOUT_S``, unless its code sets one.

    ``requests`` switches the time-out of sockets off where it is given none, so that its adapter has to be told, too.
    """
    before, adapter = socket.getdefaulttimeout(), _requests_adapter()
    send = adapter.send

    def send_with_limit(self: Any, request: Any, stream: bool = False, timeout: Any = None, *rest: Any, **others: Any) -> Any:
        return send(self, request, stream, TIMEOUT_S if timeout is None else timeout, *rest, **others)

    socket.setdefaulttimeout(TIMEOUT_S)
    adapter.send = send_with_limit
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
        adapter.send = send


@contextmanager
def some_home() -> Iterator[None]:
    """Set ``HOME`` inside the context where the user has no home: packages would make a folder called ``~``.

    Raises:
        PermissionError: As ``homeless_folder``.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(homeless_folder())
        try:
            yield
        finally:
            os.environ.pop("HOME", None)
        return
    yield


def _requests_adapter() -> Any:
    return importlib.import_module("requests.adapters").HTTPAdapter
