"""Names of things that users bring, made fit for file names, tables, plots and pages."""

from __future__ import annotations

import re

_LONGEST = 80


def safe_name(text: str) -> str:
    """``text`` with everything but letters, digits, ``_``, ``.`` and ``-`` (ASCII) as a dash; begins with a letter or digit.

    Different texts may become the same name: a name is for reading, digests tell things apart.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return re.sub(r"^[^A-Za-z0-9]+|[.-]+$", "", plain[:_LONGEST]) or "unnamed"
