"""A real browser for tests of the page: Debian's Chromium, or whichever is found; without one these tests are skipped by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 30_000  # milliseconds: the machine may be busy


@dataclass
class Watched:
    """What a page did that it should not."""

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """The browser, for the session."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


def opened(browser, path: Path, hash_: str = "", **options):
    """A page of the browser showing the file, ready, and what it does from then on."""
    page = browser.new_page(**{"viewport": {"width": 1400, "height": 900}, "accept_downloads": True, **options})
    page.set_default_timeout(PATIENCE)
    watched = Watched()
    page.on("console", lambda message: watched.messages.append(message.text))
    page.on("pageerror", lambda error: watched.messages.append(str(error)))
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("dialog", lambda dialog: (watched.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"file://{path}{hash_}")
    ready(page)
    return page, watched


def ready(page) -> None:
    """Wait until the page's script is done."""
    page.wait_for_function("performance.getEntriesByName('exitbench-ready').length > 0")


def rows(page) -> list[str]:
    """Names of the models in the table, as seen."""
    return page.locator("#board tbody td.model:visible").all_inner_texts()
