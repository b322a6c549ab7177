"""Measures how long a page takes to open in Chromium: ``python -m tests.bench.open_page --rows 500``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from tests.bench.browser import PATIENCE, ready
from tests.bench.conftest import ARGUMENTS, NAMES
from tests.bench.pages import evaluation


def main() -> None:
    """Write a page of made-up networks, open it three times, and print its size and the seconds of its own thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500)
    rows = parser.parse_args().rows
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "index.html"
        path.write_text(to_html(boards([evaluation(i) for i in range(rows)])), encoding="utf-8")
        bare = len(to_html(boards([evaluation(0)])))
        found = next(found for name in NAMES if (found := shutil.which(name)))
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=PATIENCE)
        seconds = [_opened(browser, path) for _ in range(3)]
        browser.close()
        size = path.stat().st_size
    taken = ", ".join(f"{each:.2f}" for each in seconds)
    sys.stdout.write(f"{rows} rows, {size / 1e6:.2f} MB, of which {bare / 1e6:.2f} MB with one row: opened in {taken} s\n")


def _opened(browser, path: Path) -> float:
    """Return seconds of work of the page's own thread until it is ready, whatever others run on the machine meanwhile."""
    page = browser.new_page()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.set_default_timeout(PATIENCE)
    page.goto(f"file://{path}")
    ready(page)
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    page.close()
    return metrics["TaskDuration"]


if __name__ == "__main__":
    main()
