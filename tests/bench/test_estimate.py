"""What an evaluation will cost, against what it then costs."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from exitbench.attacks.best_of import BestOf
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.cli.main import main
from exitbench.models.policies import EntropyPolicy
from exitbench.runner.estimate import EXPECTED, estimate
from exitbench.store.store import Store
from exitbench.timing.throughput import Throughput, measure_throughput
from tests.bench.evaluated import NET, SETTINGS, evaluate, plan_of, prepared

WEIGHTS = "0" * 64
NAMES = ("single", "average_max", "adaptive")


def rows_of(store, ready=None, names=NAMES, weights=WEIGHTS):
    return {row.name: row for row in estimate(plan_of(ready or prepared(), store, names), weights, store)}


def test_without_anything_measured_attacks_are_taken_at_their_word(tmp_path):
    store = Store(tmp_path)
    rows = rows_of(store)
    steps = SETTINGS.steps
    assert (rows["single:2"].samples, rows["single:2"].backwards, rows["single:2"].source) == (70, steps, EXPECTED)
    assert rows["single:2"].forwards == steps + 2, "one to see the last iterate, one to judge it"
    assert (rows["none"].forwards, rows["none"].backwards) == (1, 0)
    assert "average_max" not in rows, "a selection is derived"
    plan = plan_of(prepared(), store, NAMES)
    assert {cell.name for cell in plan.cells if not isinstance(cell.attack, BestOf)} == set(rows)


def test_what_is_measured_on_the_same_images_is_what_it_takes(tmp_path):
    evaluate(tmp_path, NAMES)
    store = Store(tmp_path)
    plan = plan_of(prepared(), store, NAMES)
    passes = {}
    for cell in plan.cells:
        passes[cell.name] = passes.get(cell.name, 0) + store.read(cell.key).passes
    for path in (tmp_path / "cells").rglob("*.npz"):
        path.rename(path.with_suffix(".away"))
    again = plan_of(prepared(), store, NAMES)
    for path in (tmp_path / "cells").rglob("*.away"):
        path.rename(path.with_suffix(".npz"))
    rows = {row.name: row for row in estimate(again, WEIGHTS, store)}
    assert {row.source for name, row in rows.items() if name != "none"} == {"measured on this network, n = 70"}
    for name in ("single:1", "single:3", "adaptive"):
        assert np.allclose(70 * np.array([rows[name].forwards - 1, rows[name].backwards]), passes[name])
    # average_max[2] starts from single:1, whose passes its cells hold too; they are spent once.
    own = passes["average_max[2]"] - passes["single:1"]
    assert np.allclose(70 * np.array([rows["average_max[2]"].forwards - 1, rows["average_max[2]"].backwards]), own)


def test_other_settings_and_other_networks_do_for_want_of_better(tmp_path):
    evaluate(tmp_path, ["adaptive", "single:1"])
    store = Store(tmp_path)
    wider = replace(prepared(), settings=replace(SETTINGS, region=ThreatModel("Linf", 0.3), step_size=0.1))
    assert rows_of(store, wider, ["single:1"])["single:1"].source == "measured on this network, other settings, n = 70"
    stricter = prepared(EntropyPolicy((0.5, 0.5)))
    assert "other settings" in rows_of(store, stricter, ["adaptive"])["adaptive"].source
    ready = prepared()
    other = replace(ready, target=replace(ready.target, weights="1" * 64))
    assert rows_of(store, other, ["adaptive"], "1" * 64)["adaptive"].source == "measured on toy, n = 70"
    longer = replace(prepared(), settings=AttackSettings(SETTINGS.region, steps=5, step_size=0.06))
    assert rows_of(store, longer, ["single:1"])["single:1"].source == EXPECTED, "more steps are another attack"


def test_what_is_done_costs_nothing_but_what_missing_attacks_start_from(tmp_path):
    evaluate(tmp_path, ["single", "average_max"])
    store = Store(tmp_path)
    plan = plan_of(prepared(), store, ["single", "average_max"])
    assert not estimate(plan, WEIGHTS, store)
    (missing,) = [cell for cell in plan.cells if cell.name == "average_max[2]" and cell.slice.start == 32]
    (store.root / "cells" / missing.key[:2] / f"{missing.key}.npz").unlink()
    rows = rows_of(store, names=["single", "average_max"])
    assert {name: row.samples for name, row in rows.items()} == {"average_max[2]": 32, "single:1": 32}
    assert rows["single:1"].forwards == pytest.approx(rows["average_max[2]"].forwards - 1, abs=1.5), "started from, not judged"


def test_time_is_that_of_gradients_and_of_the_forwards_beside_them():
    throughput = Throughput(forward_s=1.0, gradient_s=3.0)
    assert throughput.seconds(5, 2) == 3 * 1.0 + 2 * 3.0
    assert throughput.seconds(2, 5) == 15.0
    measured = measure_throughput(NET, (1, 4, 4))
    assert measured.forward_s >= 0 and 0 < measured.gradient_s < 1


RUN = ["--model", "rdi_smallcnn", "--dataset", "digits", "--n", "8", "--steps", "2", "--attack", "average"]


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--results", str(tmp_path)])
        left = None
        try:
            main()
        except SystemExit as error:
            left = error.code
        return (left or 0, *capsys.readouterr())

    return run


def test_the_command_tells_passes_and_hours_and_runs_nothing(bench, tmp_path):
    code, out, _ = bench("plan", *RUN, "--estimate", "--cores", "4")
    assert code == 0 and "2 to run" in out and EXPECTED in out
    assert re.search(r"total: 40 forward and 16 backward passes, [\d.]+ s on one core .*, [\d.]+ s on 4 cores", out)
    assert not list(tmp_path.rglob("*.npz"))
    assert bench("run", *RUN)[0] == 0
    code, out, _ = bench("plan", *RUN, "--estimate")
    assert code == 0 and "nothing left to do" in out and "total" not in out
    code, out, _ = bench("plan", *RUN[:-5], "16", *RUN[-4:], "--estimate")
    assert code == 0 and "measured on this network, n = 8" in out


@pytest.mark.parametrize(
    ("options", "message"), [(["--cores", "2"], "go with --estimate"), (["--estimate", "--gpus", "2"], "which has no GPU")]
)
def test_what_cannot_be_divided_is_refused(bench, options, message):
    code, _, err = bench("plan", *RUN, "--device", "cpu", *options)
    assert code == 2 and message in err
