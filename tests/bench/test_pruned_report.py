"""Reports show the sparsity of a sparse network, pruned or trained to be so, and are unchanged for any other."""

import copy
import io
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from rich.console import Console

from exitbench.models.cost import measure_costs
from exitbench.report.charts.looks import looks_of
from exitbench.report.charts.rows import rows_of
from exitbench.report.csv_file import to_csv
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.leaderboard.terminal import summary
from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from exitbench.store.run_record import RUN_RECORD
from tests.bench.evaluated import NET, evaluate, only_evaluation, prepared, toy_policy

NOWHERE_ELSE = ("with zeros (mmacs)", "of the weights are zero", "zero weights", "pruned", ", sparse")


def half_pruned():
    ready = prepared(toy_policy(), name="sparse")
    net = copy.deepcopy(NET)
    for weight in net.parameters():
        if weight.ndim > 1:
            weight.flatten()[torch.arange(0, weight.numel(), 2)] = 0
    target = replace(ready.target, model=net, weights="1" * 64, costs=measure_costs(net, (1, 4, 4)))
    return replace(ready, target=target)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    return only_evaluation(evaluate(tmp_path_factory.mktemp("pruned"), ["average"], half_pruned())[1])


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return only_evaluation(evaluate(tmp_path_factory.mktemp("dense"), ["average"], prepared(toy_policy()))[1])


def shown(evaluation):
    console = Console(file=io.StringIO(), width=140, record=True)
    console.print(summary(evaluation, ["average"]))
    explained = r'<table id="board".*?</thead>|<dl class="columns">.*?</dl>|<script>.*?</script>'
    page = re.sub(explained, "", to_html(boards([evaluation])), flags=re.DOTALL)
    return console.export_text(), page, rows_of([evaluation], looks_of([evaluation]))[0]["label"]


def test_both_costs_stand_in_the_csv(pruned, dense):
    table = pd.read_csv(io.StringIO(to_csv(leaderboard([pruned, dense]))))
    assert (table.loc[table["model"] == "sparse", "sparsity"] == 0.5).all()
    assert (table.loc[table["model"] == "toy", "sparsity"] == 0).all()
    measured = table[table["attack"] != "worst"].set_index("model")
    sparse = measured.loc["sparse"]
    assert sparse["mmacs_dense"].tolist() == pytest.approx((2 * sparse["mmacs"]).tolist(), abs=2e-6)
    assert (measured.loc["toy", "mmacs_dense"] == measured.loc["toy", "mmacs"]).all()


def test_people_are_told(pruned):
    terminal, page, label = shown(pruned)
    assert "pruned" not in terminal + page, "zeros may come from training as well"
    assert "mmacs_dense" in terminal and "sparse: 50.0% of the weights are zero" in terminal
    for phrase in (", sparse", "50.0 % of the weights are zero; with them", "with zeros (mmacs)", "speed up no dense hardware"):
        assert phrase in page
    assert "50% zero weights" in label


def test_of_a_dense_network_nothing_is_said(dense):
    for text in shown(dense):
        assert not any(phrase in text for phrase in NOWHERE_ELSE)


def test_the_record_of_a_dense_network_is_what_it_was_before_there_were_pruned_ones(dense):
    assert not {"sparsity", "mmacs_dense"} & set(RUN_RECORD.content(dense.record))
