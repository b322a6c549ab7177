"""Takes pictures of a page in Chromium: ``python -m tests.bench.page_pictures results/published/index.html docs``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.bench.browser import PATIENCE, opened
from tests.bench.conftest import ARGUMENTS, NAMES

SIZE = {"width": 1200, "height": 1130}
NETWORK = "RDI-ResNet-38, max-average"


def main(page_file: Path, folder: Path) -> None:
    """Write ``page-board.png``, the page as it opens, and ``page-model.png``, the details of ``NETWORK``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = next(found for name in NAMES if (found := shutil.which(name)))
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=PATIENCE)
        page, _ = opened(browser, page_file.resolve(), viewport=SIZE)
        page.locator(".pt").first.wait_for()
        page.screenshot(path=folder / "page-board.png", full_page=True)
        page.get_by_role("link", name=NETWORK).click()
        page.locator("article:visible").wait_for()
        page.screenshot(path=folder / "page-model.png")
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
