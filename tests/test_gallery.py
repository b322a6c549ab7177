"""The notebooks of the gallery run, show what is stored in them, and are linked from the pages."""

import json
import re

import pytest

from tests.notebooks import GALLERY, executed
from tests.toys import ROOT

NOTEBOOKS = sorted(GALLERY.glob("*.ipynb"))
POINTS = 20
"""By which a share may differ on another machine: training and attacks on few images magnify rounding."""


def content(path):
    return json.loads(path.read_text(encoding="utf-8"))


def texts(output):
    """What an output says, in text: its first line without numbers, and all shares in it."""
    text = "".join(output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"])
    first = re.sub(r"[\d.]+(e-\d+)?", "#", text.splitlines()[0])
    return " ".join(first.split()), [float(share) for share in re.findall(r"([\d.]+) % [(c]", text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored_in_it(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = content(path)
    stored = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    shown = list(executed(notebook))
    assert any(stored) and not list(tmp_path.iterdir()), "it leaves no file behind"
    for here, there in zip(shown, stored, strict=True):
        assert [(each["output_type"], sorted(each.get("data", ()))) for each in here] == [
            (each["output_type"], sorted(each.get("data", ()))) for each in there
        ]
        for one, other in zip(here, there, strict=True):
            (first, shares), (their_first, their_shares) = texts(one), texts(other)
            assert first == their_first or one["output_type"] == "stream" or first.startswith("[")
            assert shares == pytest.approx(their_shares, abs=POINTS)


def test_three_notebooks_are_small_linked_and_without_traces_of_a_machine():
    assert [path.stem for path in NOTEBOOKS] == ["certify", "compare_exit_rules", "evaluate"]
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        notebook = content(path)
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and len(text) < 100_000
        assert f"(gallery/{path.name})" in page
        assert not re.search(r"/home/|/tmp/|/root/|/work/|Traceback", text)
        ids = [cell["id"] for cell in notebook["cells"]]
        assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z0-9-]{1,64}", each) for each in ids)
        written = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        links = re.findall(r"\]\((?!https?:)([^)#]+)", written)
        assert links and not [link for link in links if not (path.parent / link).exists()]
