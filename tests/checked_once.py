"""Trust checks with the same key are measured once for all commands of a test run, which are tests of something else.

Most of a small evaluation's time goes into them. Tests of the checks measure them in their own process, always anew, and so does
``verify``. A key is a digest of weights, samples, settings and rule.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = "TESTS_CHECKED_ONCE"
"""Environment variable with the folder of what was measured; without it, everything is measured."""


def share() -> None:
    """Let this process take from the folder what was measured before, and put there what is measured."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    from exitbench.checks import probe as checks
    from exitbench.models.whole_file import write_whole
    from exitbench.store.trust_result import TRUST_RESULT, TrustResult

    measure = checks.probe

    def once(key: str, *args: Any) -> TrustResult:
        path = Path(folder, f"{key}.json")
        if path.exists():
            return TRUST_RESULT.read_text(path.read_bytes(), path)
        result = measure(key, *args)
        write_whole(path, TRUST_RESULT.text(result))
        return result

    checks.probe = once
