"""A flagged row never looks like an unflagged one, wherever it is shown."""

from __future__ import annotations

import html
import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from exitbench.checks.probe import ensure_probe
from exitbench.report.charts.figures import board_figure
from exitbench.report.charts.looks import looks_of
from exitbench.report.charts.rows import rows_of
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.leaderboard.terminal import summary
from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from exitbench.scoring.load import evaluations
from tests.bench import trained as toys
from tests.bench.evaluated import evaluate
from tests.bench.trained import planted, ready


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By name: a healthy net, one that is masked and seems far better, one whose gate is saturated, one not checked."""
    folder = tmp_path_factory.mktemp("store")
    nets = {
        "healthy": None,
        "masked": planted(stage=toys.Quantised()),
        "doubtful": planted(head=toys.nn.LogSoftmax(-1)),
        "unchecked": None,
    }
    for i, (name, net) in enumerate(nets.items()):
        prepared = ready(net, weights=str(i))
        prepared = replace(prepared, target=replace(prepared.target, name=name))
        _, store = evaluate(folder, ["average"], prepared)
        if name != "unchecked":
            assert ensure_probe(prepared, 0, store) is None
    return {evaluation.record.model: evaluation for evaluation in evaluations(store)}


def shown(evaluation):
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(summary(evaluation, ["average"]))
    return console.export_text()


def test_what_cannot_be_believed_ranks_behind_whatever_it_claims(found):
    assert found["masked"].worst.mean() > found["healthy"].worst.mean()
    table = leaderboard(list(found.values()))
    order = list(dict.fromkeys(table["model"]))
    assert order[-1] == "masked"
    worst = table[table["attack"] == "worst"].set_index("model")
    assert "flagged: zero gradients at exits 1, 2, 3" in worst.loc["masked", "status"]
    assert "zero gradients" in worst.loc["masked", "flags"].split(";")
    assert worst.loc["doubtful", "flags"] == "log-probabilities"
    assert (worst.loc["healthy", "flags"], worst.loc["unchecked", "flags"]) == ("none", "not checked")
    for _, rows in table.groupby("model"):
        assert rows["flags"].nunique() == 1, "every row of a model carries its flags"


def test_an_unchecked_whole_matrix_is_not_ok(found, monkeypatch):
    from exitbench.scoring import evaluation as verdicts
    from exitbench.scoring.ranking import rank, worst_status

    monkeypatch.setattr(verdicts.Evaluation, "complete", True)
    assert worst_status(found["healthy"]) == "ok"
    assert worst_status(found["unchecked"]) == "trust not checked"
    assert rank(found["healthy"]) < rank(found["unchecked"]) < rank(found["masked"])


def test_the_terminal_marks_the_headline_and_gives_a_line_for_each_flag(found):
    text = shown(found["masked"])
    assert "worst case !" in text
    for flag in found["masked"].failures:
        assert f"✕ failure: {flag.label}" in text
    assert "▲ warning: log-probabilities" in shown(found["doubtful"])
    assert "worst case ?" in shown(found["unchecked"]) and "trust not checked" in shown(found["unchecked"])
    healthy = shown(found["healthy"])
    assert re.search(r"worst case +│", healthy) and "failure:" not in healthy and "warning:" not in healthy
    assert max(map(len, text.splitlines())) <= 80


def test_the_page_has_a_class_a_sign_and_the_numbers(found):
    page = to_html(boards(list(found.values())))
    table = page.split("<tbody>")[1].split("</tbody>")[0]
    parts = re.split(r"(?=<tr class=)", html.unescape(table))[1:]
    rows = {re.search(r'<a href="[^"]*">(\w+), none</a>', part).group(1): part for part in parts}
    entries = html.unescape(page).split("<noscript ")[1:]
    details = {name: part for name in found for part in entries if f"<b>{name}, none</b>" in part}
    assert set(rows) == set(found) == set(details)
    assert '<tr class="failure"' in rows["masked"] and "✕ failure" in rows["masked"]
    for flag in found["masked"].failures:
        assert flag.label in rows["masked"] and flag.message in details["masked"]
    assert '<tr class="warning"' in rows["doubtful"] and "▲ warning" in rows["doubtful"]
    assert '<tr class="not-checked"' in rows["unchecked"] and "? not checked" in rows["unchecked"]
    assert "trust not checked" in details["unchecked"]
    assert '<tr class="ok"' in rows["healthy"] and "badge" not in rows["healthy"]


def test_the_plot_marks_them_and_leaves_the_unbelievable_out_of_the_front(found):
    evaluations_ = list(found.values())
    rows = {row["sign"]: row for row in rows_of(evaluations_, looks_of(evaluations_))}
    assert set(rows) == {"✕", "!", "?", ""}
    assert [sign for sign, row in rows.items() if not row["leads"]] == ["✕"]
    assert [sign for sign, row in rows.items() if not row["hollow"]] == [""]
    figure = board_figure(evaluations_, looks_of(evaluations_))
    assert "flagged: not to be believed" in figure.to_bytes("svg").decode()
    assert figure.to_bytes("png") == board_figure(evaluations_, looks_of(evaluations_)).to_bytes("png")
