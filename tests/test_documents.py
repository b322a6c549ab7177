"""The documents for whoever changes the code say nothing about it that is not so."""

import re
import tomllib
from datetime import date
from importlib.metadata import version

import pytest
import yaml

import exitbench
from tests.toys import ROOT

PAGES = ("CONTRIBUTING.md", "docs/architecture.md", "docs/mutation.md")
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
PATH = re.compile(
    r"`((?:bench|attacks|models|tests|docs|results|baselines|\.ci)/[\w./-]*|[\w.-]+\.(?:toml|ini|md|txt|cff|yaml))`"
)
NAME_IN = re.compile(r"`([A-Za-z_]\w*)`(?: and `([A-Za-z_]\w*)`)? (?:in|of) `((?:bench|attacks|models|tests)/[\w/.]+\.py)`")
TO_BE_WRITTEN = {"attacks/your_attack.py", "tests/attacks/test_your_attack.py", "__init__.py"}


def text_of(page):
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("page", PAGES)
def test_every_path_named_exists(page):
    paths = set(PATH.findall(text_of(page))) - TO_BE_WRITTEN
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES[:2])
def test_every_name_is_defined_where_it_is_said_to_be(page):
    found = [(name, path) for first, second, path in NAME_IN.findall(text_of(page)) for name in (first, second) if name]
    assert len(found) > 5
    for name, path in found:
        source = (ROOT / path).read_text(encoding="utf-8")
        defined = rf"^\s*(?:def|class) {name}\b|^{name}(?:: .+)? = "
        assert re.search(defined, source, re.MULTILINE), f"{path} defines no {name}"


def test_the_readme_is_short():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, more, _ = readme.partition("\n## More\n")
    assert more and len(readme.encode()) <= 8 * 1024 and len(before.split()) <= 700


def test_the_readme_has_the_two_commands_that_do_everything():
    """Setting up and the main job, setting up and the checks: of what CONTRIBUTING and the CI use."""
    fresh = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt "
    jobs = re.findall(rf"^{re.escape(fresh)}(.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert jobs == ["-e . && .venv/bin/python -m bench run --model rdi_resnet38 --attack all", "tox && .venv/bin/tox"]
    assert fresh + jobs[1] in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS])
def test_every_link_within_the_repository_leads_somewhere(page):
    folder = (ROOT / page).parent
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page))
    assert not [link for link in links if not (folder / link.strip()).exists()]


def test_every_room_is_in_the_architecture():
    named = set(PATH.findall(text_of("docs/architecture.md")))
    rooms = {path for path in (ROOT / "bench").rglob("*") if path.is_dir() and path.name != "__pycache__"}
    assert len(rooms) > 15
    assert not [room for room in rooms if f"{room.relative_to(ROOT).as_posix()}/" not in named]


def test_rooms_stand_in_the_order_in_which_they_may_import():
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [name for layer in contract["layers"] for name in layer.split(" | ") if name != "__main__"]
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## The tree")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(?:bench/)?(\w+)(?:/|\.py)` \|", table, re.MULTILINE)
    assert rows == layers


def test_every_public_name_is_in_the_reference_of_the_api():
    pages = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = [f"{module}.{name}" for name, module in exitbench._HOME.items()]
    assert {*exitbench.__all__} - {"__version__"} == {*exitbench._HOME}
    assert not [name for name in names if f"\n::: {name}\n" not in pages]


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == citation["preferred-citation"]["version"] == version("exitbench")
    released = re.findall(r"^## (\d+\.\d+\.\d+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == version("exitbench") and released == sorted(released, reverse=True)


def test_the_citation_is_one():
    """What the schema of CFF 1.2.0 requires, and what it says of the keys used."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["license"] == "MIT"
    for entry in (citation, citation["preferred-citation"], *citation["references"]):
        assert entry["title"] and all(author.get("name") or author.get("family-names") for author in entry["authors"])
    assert all(reference["type"] == "conference-paper" for reference in citation["references"])
    assert all(2019 < reference["year"] <= date.today().year for reference in citation["references"])
    titles = " ".join(reference["title"] for reference in citation["references"])
    assert all(name in titles for name in ("Triple Wins", "Reliable evaluation", "RobustBench"))


def test_hooks_before_a_commit_need_no_network():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" for hook in repository["hooks"])
