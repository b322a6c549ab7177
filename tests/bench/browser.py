"""The page in a real browser, watched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 60_000  # milliseconds: the machine may be busy


@dataclass
class WatchedPage:
    """What a page did that it should not."""

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


def opened(browser, path: Path, hash_: str = "", **options):
    """A page of the browser showing the file, ready, and what it does from then on."""
    page = browser.new_page(**{"viewport": {"width": 1400, "height": 900}, "accept_downloads": True, **options})
    page.set_default_timeout(PATIENCE)
    stopping = WatchedPage()
    page.on("console", lambda message: stopping.messages.append(message.text))
    page.on("pageerror", lambda error: stopping.messages.append(str(error)))
    page.on("request", lambda request: stopping.requests.append(request.url))
    page.on("dialog", lambda dialog: (stopping.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"file://{path}{hash_}")
    ready(page)
    return page, stopping


def ready(page) -> None:
    """Wait until the page's script is done."""
    page.wait_for_function("() => performance.getEntriesByName('exitbench-ready').length > 0")


def rows(page) -> list[str]:
    """Names of the models in the table, as seen, without the name of their training."""
    return [text.removesuffix(", trained") for text in page.locator("#board tbody td.model:visible a").all_inner_texts()]
