"""Makes names of the user's networks and datasets fit for file names, tables, plots and pages."""

from __future__ import annotations

import re

_LONGEST = 80


def safe_name(text: str) -> str:
    """Return ``text`` with a dash for everything but ASCII letters, digits, ``_``, ``.`` and ``-``.

    The name begins with a letter or digit and has at most 80 characters. Different
    texts may give the same name: names are for reading, and digests tell things apart.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return re.sub(r"^[^A-Za-z0-9]+|[.-]+$", "", plain[:_LONGEST]) or "unnamed"
