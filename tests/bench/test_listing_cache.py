"""Listings are quick the second time, and never those of yesterday."""

import ast
import subprocess
import sys

import pytest
from click.testing import CliRunner

from exitbench.cli import listing_cache
from exitbench.cli.listing_cache import cache_file, remembered
from exitbench.cli.main import cli
from tests.toys import ROOT

ROWS = [("a", "b"), ("c", "d")]


def counted():
    calls = []

    def rows():
        calls.append(1)
        return ROWS

    return calls, rows


def test_the_second_call_asks_nobody():
    calls, rows = counted()
    assert remembered("models", rows) == remembered("models", rows) == ROWS
    assert len(calls) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 1}', '{"rows": []}'])
def test_a_damaged_cache_is_made_again(content):
    calls, rows = counted()
    cache_file("models").parent.mkdir(parents=True)
    cache_file("models").write_text(content, encoding="utf-8")
    assert remembered("models", rows) == remembered("models", rows) == ROWS
    assert len(calls) == 1


def test_new_weights_and_installed_packages_are_seen(tmp_path, monkeypatch):
    calls, rows = counted()
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))
    remembered("models", rows)
    (tmp_path / "card.json").write_text("{}", encoding="utf-8")
    remembered("models", rows)
    assert len(calls) == 2
    monkeypatch.setattr(listing_cache, "entry_points", lambda group: [group])
    remembered("models", rows)
    remembered("models", rows)
    assert len(calls) == 4, "the code of installed packages is not watched"


def test_remembered_listings_load_nothing_heavy():
    listings = ("models", "attacks", "datasets", "recipes")
    first = {what: CliRunner().invoke(cli, ["list", what]).output for what in listings}
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from exitbench.cli.main import cli\n"
        f"print(repr({{what: CliRunner().invoke(cli, ['list', what]).output for what in {listings}}}))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    second, loaded = done.stdout.splitlines()
    assert ast.literal_eval(second) == first and all(len(text.splitlines()) > 3 for text in first.values())
    assert not set(loaded.split()) & {"torch", "numpy", "pandas"}
