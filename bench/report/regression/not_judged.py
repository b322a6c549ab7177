"""The reports of a check that has not come to a judgement: they say that it failed, until they are replaced."""

from __future__ import annotations

from exitbench.report.regression.junit import junit_of
from exitbench.report.regression.markdown import SIGNS, escaped

STARTED = "the check was started and has not ended: nothing was judged"
"""The reason in the reports that are written before any work."""


def not_judged_junit(why: str) -> bytes:
    """Return UTF-8 XML with one test case, which failed."""
    return junit_of("bench check", "gate", [("judged", why, [])])


def not_judged_markdown(why: str) -> str:
    """Return a headline that says that nothing was judged, and the reason."""
    return f"### {SIGNS['fail']} FAIL: not judged\n\n* {escaped(why)}\n"
