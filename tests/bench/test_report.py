import csv
import hashlib
import io
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from exitbench.report.charts.rows import names_of
from exitbench.report.csv_file import to_csv
from exitbench.report.leaderboard.table import COLUMNS, leaderboard
from exitbench.report.leaderboard.terminal import summary
from exitbench.report.page.html import to_html
from exitbench.report.write import boards, write_reports
from exitbench.scoring.load import evaluations
from tests.bench.evaluated import FORMS, evaluate, only_evaluation
from tests.bench.records import changed
from tests.toys import ROOT


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return evaluate(folder / "store", FORMS)[1]


def hashes(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_reports_are_the_same_bytes_every_time(store, tmp_path):
    write_reports(evaluations(store), tmp_path / "a")
    first = hashes(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    write_reports(evaluations(store), tmp_path / "a")
    assert hashes(tmp_path / "a") == first
    name = "digits-Linf-0.15"
    assert set(first) == {f"leaderboards/{name}.csv", f"plots/{name}.png", f"plots/{name}.svg", "index.html"}


def test_the_csv_is_tidy_and_agrees_with_the_verdicts(store):
    evaluation = only_evaluation(store)
    table = pd.read_csv(io.StringIO(to_csv(leaderboard([evaluation]))), dtype={"attack": str})
    assert list(table.columns) == [name for name in COLUMNS if not name.startswith("certified") and name != "grid"]
    by_attack = table.set_index("attack")
    assert by_attack.index.is_unique
    assert by_attack.loc["none", "accuracy"] == pytest.approx(evaluation.clean.correct.mean(), abs=1e-6)
    assert by_attack.loc["worst", "accuracy"] == pytest.approx(evaluation.worst.mean(), abs=1e-6)
    assert by_attack.loc["worst", "accuracy"] == by_attack["accuracy"].min()
    exits = by_attack.loc["average", "exits_taken"].split()
    assert sum(map(int, exits)) == evaluation.n
    assert (table["ci_low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["ci_high"]).all()


def test_no_exit_broken_is_a_floor_of_the_worst_case(store):
    evaluation = only_evaluation(store)
    table = leaderboard([evaluation]).set_index("attack")
    assert (evaluation.any_exit_robust <= evaluation.worst).all()
    assert table.loc["worst", "accuracy_any_exit"] == evaluation.any_exit_robust.mean() < evaluation.worst.mean()
    assert table["accuracy_any_exit"].drop("worst").isna().all()
    assert "an attacker who could choose the exit would not break them" in to_html(boards([evaluation]))


def test_a_name_cannot_become_a_formula():
    table = pd.DataFrame({"model": ["=1+1", "@x", "-2", "+a", "-", "fine"]})
    cells = [row["model"] for row in csv.DictReader(io.StringIO(to_csv(table)))]
    assert cells == ["'=1+1", "'@x", "'-2", "'+a", "-", "fine"]


def test_somebody_elses_weights_are_told_apart_everywhere(store, tmp_path):
    evaluation = only_evaluation(store)
    taken_over = replace(evaluation, record=changed(evaluation.record, training="theirs", source="imported from theirs.pth"))
    table = leaderboard([evaluation, taken_over])
    assert set(table["source"]) == {"a test", "imported from theirs.pth"}
    assert names_of([taken_over])[0].startswith("toy, theirs")
    page = to_html(boards([evaluation, taken_over]))
    assert page.count("theirs, imported") >= 1 and "none, imported" not in page


def test_an_empty_store_makes_an_honest_page(tmp_path):
    write_reports([], tmp_path)
    assert "No network has been evaluated yet" in (tmp_path / "index.html").read_text()


def test_the_terminal_summary_shows_the_headline(store):
    from rich.console import Console

    evaluation = only_evaluation(store)
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(summary(evaluation, ["average", "max_average"]))
    text = console.export_text()
    assert f"{100 * evaluation.worst.mean():.2f}" in text
    assert "worst case" in text and "max_average" in text and "not in the table" in text


def test_every_column_is_documented_in_its_own_words():
    text = (ROOT / "docs" / "leaderboard.md").read_text().partition("\n## Sweeps")[0]
    assert re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE) == list(COLUMNS.items())
