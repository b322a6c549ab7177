"""Records of a stranger: what is no result of an evaluation is named, and everything else goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from exitbench.models.safe_name import safe_name
from exitbench.models.spec import digest
from exitbench.models.stored import Unreadable
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.page.html import to_html
from exitbench.report.write import boards, write_reports
from exitbench.scoring.load import evaluations
from exitbench.store.merge import merge
from exitbench.store.run_record import RUN_RECORD, check_rule, read_run
from exitbench.store.store import Store
from tests.bench.forged import REFUSED, forged, only_run, setting, theirs, whole
from tests.bench.hostile import STRINGS
from tests.bench.records import record_of
from tests.toys import ROOT

__all__ = ["theirs", "whole"]


@pytest.mark.parametrize("case", REFUSED)
def test_a_record_that_is_none_is_named_by_merge_and_by_what_reads_and_nothing_of_it_is_taken(theirs, tmp_path, caplog, case):
    honest = only_run(theirs)
    path = forged(theirs, REFUSED[case], beside=True)
    assert path != honest
    with pytest.raises(Unreadable, match=path.stem):
        check_rule(read_run(path), path)
    target = Store(tmp_path / "target").root
    done = merge(target, [theirs])
    (said,) = done.damaged
    assert str(path) in said and "\n" not in said and "\x1b" not in said
    assert [each.name for each in (target / "runs").iterdir()] == [honest.name]
    (found,) = evaluations(Store(theirs))
    (line,) = caplog.messages
    assert found.record.model == "toy" and path.name in line and "left out" in line


UNUSUAL = {
    "a dataset that nobody knows": setting("dataset", to="nobody-knows"),
    "a model in another script": setting("model", to="réseau_网络"),
    "specs of nothing": lambda content: [attack.update(spec={}) for attack in content["attacks"][1:]],
    "specs of other things": lambda content: [
        attack.update(spec={"type": "PGD", "start": 3, "region": [], "steps": {}}) for attack in content["attacks"][1:]
    ],
    "mathematics in a summary": setting("dataset_summary", to="$\\frac{$ \\undefined <b>"),
    "a summary with markup": setting("attacks", 1, "summary", to="</script><script>alert(1)</script>{{x}}"),
    "costs beyond anything": setting("mmacs", to=[1.0, 1e14, 1e15]),
    "the smallest costs": setting("mmacs", to=[1e-300, 1e-300, 1e-300]),
    "no radius": setting("eps", to=0.0),
    "an odd radius": setting("eps", to=123456.789),
    "an odd seed": setting("seed", to=-(2**63)),
}


def reported(root: Path) -> str:
    """The table and the page of a store."""
    found = evaluations(Store(root))
    return leaderboard(found).to_csv() + to_html(boards(found), {})


@pytest.mark.parametrize("case", UNUSUAL)
def test_what_is_only_unusual_is_reported(theirs, case):
    forged(theirs, UNUSUAL[case])
    with np.errstate(all="raise", under="ignore"):
        assert "toy" in reported(theirs) or "réseau" in reported(theirs)


def test_mathematics_in_a_summary_is_drawn_as_text(theirs, tmp_path):
    forged(theirs, UNUSUAL["mathematics in a summary"])
    assert any(path.suffix == ".svg" for path in write_reports(evaluations(Store(theirs)), tmp_path))


@pytest.mark.parametrize("command", ["report", "status", "compare", "export", "merge"])
def test_commands_go_on_beside_a_record_that_is_none(theirs, tmp_path, bench, caplog, command):
    path = forged(theirs, REFUSED["a dataset elsewhere"], beside=True)
    results, mine = theirs.parent, tmp_path / "mine"
    arguments = {
        "compare": ("compare", "toy", "toy", "--results", results),
        "export": ("export", "--format", "figures", "--output", tmp_path / "a.tar.xz", "--results", results),
        "merge": ("merge", results, "--results", mine),
    }
    code, _, err = bench(*arguments.get(command, (command, "--results", results)))
    assert (code == 0 or command == "compare") and path.name in err + caplog.text, err
    assert command != "compare" or "same evaluation" in err
    assert not (tmp_path / "somewhere").exists() and not any("somewhere" in str(each) for each in tmp_path.rglob("*"))


def test_a_network_is_run_swept_and_verified_beside_a_record_that_is_none(tmp_path, bench, caplog):
    results = tmp_path / "results"
    shutil.copytree(ROOT / "tests/bench/golden/schema1/store", results / "store")
    honest = min((results / "store" / "runs").glob("*.json"))
    content = {**json.loads(honest.read_bytes()), "dataset": "../../x"}
    path = honest.with_name(f"{digest(content)}.json")
    path.write_text(json.dumps(content))
    settings = ("--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single:1", "--n", "2", "--steps", "1")
    for command in (["verify", results], ["sweep", "--points", "2"], ["run", *settings]):
        caplog.clear()
        code, _, err = bench(*command, *([] if command[0] == "verify" else ["--results", results]))
        assert code == 0 and path.name in err + caplog.text and "left out" in err + caplog.text, err


def test_names_that_are_part_of_paths_are_those_that_are_safe():
    for text in (*STRINGS, "digits", "a.b-c_1", "a.", "-a", "a" * 80, "a" * 81):
        content = {**RUN_RECORD.content(record_of()), "dataset": text}
        try:
            read = RUN_RECORD.read(content, "it")
        except Unreadable:
            assert safe_name(text) != text or text == "unnamed"
        else:
            assert safe_name(read.dataset) == text
