"""Slowdown attacks from plan to reports, on the toy."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from exitbench.attacks.slowdown import MODES
from exitbench.report.csv_file import to_csv
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.leaderboard.terminal import summary
from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from exitbench.scoring.load import evaluations
from exitbench.scoring.slowdown import efficacy
from tests.bench.evaluated import evaluate, only_evaluation, plan_of, prepared, toy_policy

NAMES = [f"slowdown:{mode}" for mode in MODES]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    outcomes, store = evaluate(tmp_path_factory.mktemp("results"), ["average", "slowdown"], prepared(toy_policy()))
    assert outcomes and not any(outcome.error for outcome in outcomes)
    return store


def test_what_was_done_is_found_again(store):
    plan = plan_of(prepared(toy_policy()), store, ["slowdown"])
    assert {cell.name for cell in plan.cells} == {"none", *NAMES} and not plan.missing
    assert all(cell.work > 0 for cell in plan.cells if cell.name in NAMES)


def test_the_judge_agrees_with_what_each_mode_promises(store):
    evaluation = only_evaluation(store)
    by_name = {attack.name: attack for attack in evaluation.attacks}
    assert set(by_name) == {"average", *NAMES}
    free, kept, killed = (by_name[name] for name in NAMES)
    assert not by_name["average"].is_slowdown and all(by_name[name].is_slowdown for name in NAMES)
    for result in (free, kept):
        assert (result.exits >= evaluation.clean.exits).all()
        assert evaluation.slowed(result).savings_erased > 0.2
    assert np.array_equal(kept.correct, evaluation.clean.correct)
    assert killed.correct.sum() < kept.correct.sum()
    assert not (killed.correct & ~evaluation.clean.correct).any()


def test_images_that_break_a_sample_count_in_the_worst_case(store):
    evaluation = only_evaluation(store)
    for attack in evaluation.attacks:
        assert not (evaluation.worst & ~attack.correct).any()


def test_the_csv_has_the_figures_of_every_row_with_exits(store):
    evaluation = only_evaluation(store)
    table = pd.read_csv(io.StringIO(to_csv(leaderboard([evaluation])))).set_index("attack")
    figures = table[["slowdown_ratio", "savings_erased", "efficacy"]]
    assert figures.loc["worst"].isna().all() and figures.drop("worst").notna().all(axis=None)
    assert figures.loc["none"].tolist()[:2] == [1, 0]
    costs = evaluation.record.mmacs
    for attack in evaluation.attacks:
        row = table.loc[attack.name]
        assert row["slowdown_ratio"] == pytest.approx(row["mmacs"] / table.loc["none", "mmacs"], abs=1e-2)
        assert row["efficacy"] == pytest.approx(efficacy(attack.exits, costs), abs=1e-6)
    assert table.loc["slowdown:free", "method"] == "gates shut, then soft gates; 25 steps each"


def test_the_terminal_shows_the_block_where_slowdown_was_asked_for(store):
    evaluation = only_evaluation(store)
    texts = []
    for asked_for in (NAMES, ["average"]):
        console = Console(file=io.StringIO(), width=80, record=True)
        console.print(summary(evaluation, asked_for))
        texts.append(console.export_text())
    assert "savings lost %" not in texts[1]
    (block,) = [part for part in texts[0].split("slowdown   ")[1:] if "savings lost %" in part]
    for name in NAMES:
        (line,) = [line for line in block.splitlines() if line.strip().startswith(name.partition(":")[2])]
        slowed = evaluation.slowed(next(attack for attack in evaluation.attacks if attack.name == name))
        assert f"{100 * slowed.savings_erased:.1f}" in line and f"-> {slowed.efficacy:.3f}" in line


def test_the_page_has_a_table_of_its_own_only_with_slowdowns(store, tmp_path):
    for found, expected in ((store, 1), (evaluate(tmp_path, ["average"])[1], 0)):
        shown = boards(evaluations(found))
        assert to_html(shown).count(">times the clean cost</th>") == expected
