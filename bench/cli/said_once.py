"""The log of a command says each thing once."""

from __future__ import annotations

import logging


class Once(logging.Filter):
    """A filter that lets each message of the log pass once: several parts of a command read the same files."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        fresh = message not in self._said
        self._said.add(message)
        return fresh
