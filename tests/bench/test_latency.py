"""Latency counts exactly the stages that run, shown with a clock that counts them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pytest
import torch

from exitbench.cli.main import main
from exitbench.models.policies import EntropyPolicy, FixedExit
from exitbench.report.charts.lite import Series
from exitbench.report.charts.looks import looks_of
from exitbench.report.latency.latency import COLUMNS, latency_table
from exitbench.report.latency.plot import MANY, ONE, draw_latency, exit_rows, names_of
from exitbench.report.leaderboard.table import leaderboard
from exitbench.scoring.load import evaluations
from exitbench.store.identity import Network
from exitbench.store.store import Store
from exitbench.timing import latency as module
from exitbench.timing.latency import BATCH, LATENCY, latencies, latency_of, measure_latency, run_to, write_latency
from tests.bench.evaluated import NET, evaluate, prepared, toy_policy, toy_split
from tests.bench.records import changed, record_of
from tests.toys import ROOT

IMAGES = toy_split().batch(0, 70).x


class Layers:
    """A clock that advances by a second for every image that a stage computes."""

    def __init__(self, net):
        self.seconds = 0.0
        self.handles = [stage.register_forward_hook(self.count) for stage in net.stages]

    def count(self, _module, inputs, _out):
        self.seconds += len(inputs[0])

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    layers = Layers(NET)
    yield layers
    for handle in layers.handles:
        handle.remove()


def measured(clock, policy, rounds=3):
    return measure_latency(prepared(policy).target, "digits", IMAGES, rounds, clock)


def network(each):
    return Network(each.model, each.training, each.weights)


def looks(found):
    return looks_of([], [(network(each), each.dataset) for each in found])


def lines(found):
    return [Series(name, "#123", "circle") for name in names_of(found)]


def test_what_follows_an_exit_is_not_computed(clock):
    found = measured(clock, EntropyPolicy((1.45, 1.45)))
    for times in (found.one, found.many):
        assert [median for _, median, _ in times] == [1000.0, 2000.0, 3000.0]
    assert found.stops and found.rounds == 3 and found.mmacs == prepared().target.costs.mmacs


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_rule_that_always_leaves_at_an_exit_takes_as_long_as_that_exit(clock, k):
    found = measured(clock, FixedExit(k))
    assert found.deployed_one == found.deployed_many == found.one[k - 1]


def test_a_batch_goes_on_with_those_that_are_left(clock):
    policy = toy_policy()
    found = measured(clock, policy)
    with torch.no_grad():
        exits = policy(NET(IMAGES[torch.arange(BATCH) % len(IMAGES)]))
    mean = float((exits + 1).double().mean())
    assert found.deployed_many[1] == pytest.approx(1000 * mean) and 1 < mean < 3


def test_every_round_times_another_image_and_the_first_is_not_counted(clock, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "run_to", lambda model, x, k, policy: seen.append((len(x), x[0].sum().item())))
    measured(clock, EntropyPolicy((1.45, 1.45)), rounds=4)
    singles = [value for n, value in seen if n == 1]
    assert len(set(singles)) == 5 and len(singles) == 5 * 3


def test_a_logit_is_what_the_whole_network_says():
    with torch.no_grad():
        whole = NET(IMAGES[:4])
        for k in range(3):
            assert torch.equal(run_to(NET, IMAGES[:4], k, toy_policy()), whole[k])


def test_it_comes_back_from_the_store_the_newest_last(clock, tmp_path):
    store = Store(tmp_path / "store")
    first = measured(clock, toy_policy())
    later = changed(first, measured="2999-01-01T00:00:00Z", machine="another")
    for each in (later, first):
        write_latency(each, store.root)
    (tmp_path / "store" / "latency" / "bad.json").write_text("{")
    (tmp_path / "store" / "latency" / "old.json").write_text(json.dumps({"schema": 0}))
    assert latencies(store.root) == [first, later]
    assert LATENCY.read_text(LATENCY.text(first), "a file") == first
    record = record_of(policy=first.policy, mmacs=first.mmacs)
    assert latency_of(record, [first, later]) == later
    assert latency_of(changed(record, policy="exit:1"), [first, later]) is None
    assert latency_of(record_of(policy=first.policy, mmacs=(1.0, 2.0)), [first, later]) is None, (
        "it is of another number of exits"
    )


def test_the_leaderboard_charges_each_exit_taken(clock, tmp_path):
    _, store = evaluate(tmp_path / "store", ("average",))
    found = measured(clock, EntropyPolicy((1.45, 1.45)))
    write_latency(found, store.root)
    (evaluation,) = evaluations(store)
    table = leaderboard([evaluation]).set_index("attack")
    for result in (evaluation.clean, *evaluation.attacks):
        assert table.loc[result.name, "latency_ms"] == pytest.approx(1000 * (result.exits + 1).mean())
    assert table.loc["none", "latency_on"] == found.where
    other = changed(found, policy="exit:1")
    assert leaderboard([replace(evaluation, latency=None)])["latency_ms"].isna().all() and other.key != found.key


def test_table_and_plot_hold_every_exit(clock):
    found = [measured(clock, toy_policy()), changed(measured(clock, toy_policy()), model="other", stops=False)]
    table = latency_table(found)
    assert list(table.columns) == list(COLUMNS) and len(table) == 2 * (3 + 1)
    assert table["exit"].tolist() == ["1", "2", "3", "deployed"] * 2
    timed = table[table["model"] == "toy"]
    assert (timed["ms_1_low"] <= timed["ms_1"]).all() and (timed["ms_1"] <= timed["ms_1_high"]).all()
    assert table["ptflops"].dropna().tolist() == pytest.approx(table["mmacs"].dropna().tolist(), rel=0.1), (
        "ptflops counts biases and pooling as well"
    )
    names = names_of(found)
    assert len(set(names)) == 2 and names[1].endswith("whole") and not names[0].endswith("whole")
    rows = exit_rows(found, lines(found))
    assert [row["mmacs"] for row in rows if row["series"] == names[0] and row["batch"] == ONE] == list(found[0].mmacs)
    assert all(row["low"] <= row["ms"] <= row["high"] for row in rows)
    svg = draw_latency(found, looks(found)).to_bytes("svg").decode()
    assert all(f">{name}</text>" in svg for name in (*names, ONE, MANY))


def test_what_was_timed_alone_looks_unlike_what_was_evaluated(clock):
    (first, second, third) = (changed(measured(clock, toy_policy()), model=name) for name in "bac")
    found = looks_of([], [(network(each), "digits") for each in (first, second)])
    assert sorted(found.values()) == [0, 1]
    more = looks_of([], [(network(third), "digits"), (network(first), "digits"), (network(second), "cifar10")])
    assert more[network(first)] != more[network(third)] and more[network(second)] == 0


def test_measurements_of_one_network_are_told_apart(clock):
    one = measured(clock, toy_policy())
    again = [one, changed(one, policy="exit:1"), changed(one, machine="another"), changed(one, machine="another")]
    assert len(set(names_of(again))) == 4


def test_exits_of_a_network_that_runs_whole_have_no_latency(clock, tmp_path):
    whole = changed(measured(clock, toy_policy()), stops=False)
    table = latency_table([whole]).set_index("exit")
    times = [name for name in COLUMNS if name.startswith("ms_")]
    assert table.loc[["1", "2", "3"], times].isna().all(axis=None) and table.loc["deployed", times].notna().all()
    assert [row["mmacs"] for row in exit_rows([whole], lines([whole]))] == [whole.mmacs[-1]] * 2
    _, store = evaluate(tmp_path / "store", ())
    (evaluation,) = evaluations(store)
    row = leaderboard([replace(evaluation, latency=whole)]).iloc[0]
    assert row["latency_ms"] is None and row["latency_on"] is None


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["bench", "latency", "--model", "rdi_smallcnn", "--dataset", "digits", "--n", "4", "--rounds", "3"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert not left.value.code, err
    assert "medians of 3 rounds" in out and "deployed" in out
    for name in ("latency.csv", "plots/latency.png", "plots/latency.svg"):
        assert (tmp_path / "results" / name).stat().st_size > 300, name


@pytest.mark.parametrize("arguments", [["--rounds", "2"], ["--threads", "0"], ["--n", "0"], ["--model", "nothing"]])
def test_bad_input(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "latency", "--model", "rdi_smallcnn", "--dataset", "digits", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and capsys.readouterr().err


def test_the_documentation_explains_every_column():
    text = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    section = text.partition("\n## Latency\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE) == list(COLUMNS.items())
