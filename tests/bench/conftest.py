"""The command line in this process, and a browser for the tests of the page; without one they are skipped by name."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import checked_once
from tests.bench.browser import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line in an empty folder: exit code, what was printed and what was complained of, each as one line."""
    from exitbench.checks import probe as checks

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(checks, "probe", checked_once.remembering(checks.probe))

    def run(*arguments: object) -> tuple[int, str, str]:
        from exitbench.cli.main import main

        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), " ".join(out.split()), " ".join(err.split())

    return run


@pytest.fixture(scope="session", autouse=True)
def _toys_are_known() -> Iterator[None]:
    """The toy's noise, which evaluations call digits, counts as digits of 4x4, of which there are none."""
    from exitbench.data import known_inputs

    of_digits = known_inputs._of_digits

    def of_toys(shape: tuple[int, ...]) -> known_inputs.Hashes:
        if shape != (1, 4, 4):
            return of_digits(shape)
        from tests.bench.evaluated import toy_split

        hashes = [bytes.fromhex(text) for text in toy_split().batch(0, 70).input_hashes()]
        return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 32)[:, : known_inputs.BYTES]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_inputs, "_of_digits", of_toys)
        yield


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """The browser, for the session."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=PATIENCE)
        yield browser
        browser.close()
