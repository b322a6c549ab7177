"""Threshold sweeps of stored evaluations: what is pooled, what is told, what is written, and the command."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from exitbench.analysis.sweep import thresholds
from exitbench.analysis.sweep.choose import Wanted, choose
from exitbench.analysis.sweep.curve import sweep
from exitbench.analysis.sweep.pool import pool_of
from exitbench.analysis.sweep.thresholds import at_target, held_out, targets
from exitbench.checks.flag import Flag
from exitbench.cli.main import cli
from exitbench.errors import UserError
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy
from exitbench.models.policy_text import policy_text
from exitbench.report.charts.figures import sweep_figure
from exitbench.report.charts.looks import looks_of
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.sweep.table import COLUMNS, NOT_ATTACKED, sweep_table
from exitbench.report.sweep.write import write_sweep
from exitbench.scoring.load import evaluations, result_of
from exitbench.store.calibration_logits import BadHeldOut, HeldOut, held_out_key
from exitbench.store.store import Store
from tests.bench.evaluated import FORMS, NET, evaluate, prepared, toy_policy, toy_split
from tests.bench.records import changed, record_of
from tests.toys import ROOT


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """The toy evaluated under two rules, the adaptive attack included; and the calibration logits that a sweep needs."""
    folder = tmp_path_factory.mktemp("attacked")
    store = evaluate(folder / "store", (*FORMS, "adaptive"), prepared(toy_policy(), n=40))[1]
    one = only(store)
    evaluate(folder / "store", ("adaptive",), prepared(EntropyPolicy((1.3, 1.2)), n=40))
    split = toy_split()
    hashes = "".join(split.batch(0, len(split)).input_hashes())
    inputs = np.frombuffer(bytes.fromhex(hashes), dtype=np.uint8).reshape(-1, 32)
    key = held_out_key("toy", "0" * 64, "digits")
    store.write_held_out(HeldOut(key, {"model": "toy"}, inputs, NET(split.batch(0, len(split)).x).numpy()))
    return folder, store, one


def only(store):
    (group,) = choose(evaluations(store), Wanted())
    return pool_of(group, store)


def swept(store, n_points=5):
    stored = only(store)
    return sweep(stored, held_out(stored.record, store, store.root / "no-data", None), n_points)


def test_the_deployed_rule_alone_has_the_leaderboards_numbers(attacked):
    """Exactly: no attack on another rule was pooled yet."""
    _, store, one = attacked
    (curve,) = sweep(one, held_out(one.record, store, store.root, None), 2)
    (deployed,) = curve.deployed
    evaluation = deployed.evaluation
    board = leaderboard([evaluation]).set_index("attack")
    row = sweep_table([curve]).set_index("point").loc["deployed"]
    for ours, (attack, theirs) in {
        "clean": ("none", "accuracy"),
        "clean_low": ("none", "ci_low"),
        "mmacs": ("none", "mmacs"),
        "mflops_paper": ("none", "mflops_paper"),
        "exits_taken": ("none", "exits_taken"),
        "worst": ("worst", "accuracy"),
        "worst_high": ("worst", "ci_high"),
        "ra_any": ("worst", "accuracy_any_exit"),
        "status": ("worst", "status"),
        "flags": ("worst", "flags"),
        "policy": ("worst", "policy"),
    }.items():
        assert row[ours] == board.loc[attack, theirs], ours
    assert row["ra_any"] <= row["worst"] < row["clean"] < 1
    assert (deployed.judged.worst == evaluation.worst).all()


def test_images_made_against_another_rule_count_under_every_rule(attacked):
    _, store, one = attacked
    both = only(store)
    assert len(both.evaluations) == 2
    assert len(both.attacked) == len(one.attacked) + 1  # every shared cell once
    (before,) = one.evaluations
    other = next(run for run in store.runs() if run.policy != before.record.policy)
    aimed = next(attack for attack in other.attacks if attack.name == "adaptive")
    carried_over = result_of(aimed, other, [store.read(key) for key in aimed.keys], toy_policy())
    assert (both.judge(toy_policy()).worst == before.worst & carried_over.survived).all()


def test_unfinished_attacks_count_with_the_cells_they_have(tmp_path):
    store = evaluate(tmp_path / "store", ["single"], prepared(toy_policy(), n=40))[1]
    before = only(store)
    (record,) = store.runs()
    key = next(attack for attack in record.attacks if attack.name == "single:1").keys[1]
    (tmp_path / "store" / "cells" / key[:2] / f"{key}.npz").unlink()
    after = only(store)
    assert sum(len(found.rows) for found in after.attacked) == sum(len(found.rows) for found in before.attacked) - 8
    (evaluation,) = after.evaluations
    assert (after.judge(toy_policy()).worst == evaluation.worst).all()
    assert (after.any_exit_robust() == evaluation.any_exit_robust).all()


def test_only_the_deployed_rules_are_said_to_have_been_attacked(attacked):
    _, store, _ = attacked
    (curve,) = swept(store)
    table = sweep_table([curve])
    assert list(table.columns) == [name for name in COLUMNS if name != "grid"]
    assert table["point"].tolist() == ["first exit", *["target"] * 5, "last exit", "deployed", "deployed"]
    assert table["status"].str.startswith(NOT_ATTACKED).tolist() == [True] * 7 + [False] * 2
    assert table["calibration"].notna().tolist() == [False, *[True] * 5, *[False] * 3]
    assert table["mmacs"][:7].is_monotonic_increasing
    figure = sweep_figure([curve], looks_of(curve.pool.evaluations)).to_bytes("svg").decode()
    assert "Only the rules at the markers" in figure and "looser upper bound" in figure


def test_a_swept_rule_that_was_evaluated_is_told_like_the_deployed_one(attacked):
    _, store, _ = attacked
    stored = only(store)
    calibration = held_out(stored.record, store, store.root, None)
    rule = at_target(calibration, stored.mmacs, targets(stored.mmacs, 1)[0], "entropy")
    evaluation = replace(stored.evaluations[0], record=changed(stored.record, policy=policy_text(rule), calibration=None))
    (curve,) = sweep(replace(stored, evaluations=(evaluation,)), calibration, 1)
    table = sweep_table([curve]).set_index("point")
    assert table.loc["target", "policy"] == table.loc["deployed", "policy"]
    assert table.loc["target", "status"] == table.loc["deployed", "status"] == "not the whole matrix"
    assert table.loc["first exit", "status"].startswith(NOT_ATTACKED)


def test_flagged_results_are_told_as_such(attacked):
    _, store, _ = attacked
    stored = only(store)
    flag = Flag("zero gradients", "failure", {}, "no gradient", "at exit 1")
    stored = replace(stored, evaluations=(replace(stored.evaluations[0], flags=(flag,)), stored.evaluations[1]))
    table = sweep_table(sweep(stored, held_out(stored.record, store, store.root, None), 1)).set_index("point")
    assert table.loc["first exit", "status"] == f"{NOT_ATTACKED}; not the whole matrix; flagged: zero gradients at exit 1"
    assert table.loc["target", "flags"] == "not checked;zero gradients"
    statuses = table.loc["deployed", "status"].tolist()
    assert sum("flagged: zero gradients" in status for status in statuses) == 1


def test_each_kind_of_deployed_rule_has_its_curve(attacked):
    _, store, _ = attacked
    stored = only(store)
    other = stored.evaluations[0]
    record = changed(other.record, policy=policy_text(ConfidencePolicy((0.5, 0.6))))
    stored = replace(stored, evaluations=(other, replace(other, record=record)))
    curves = sweep(stored, held_out(stored.record, store, store.root, None), 2)
    assert [curve.rule for curve in curves] == ["entropy", "confidence"]
    assert [len(curve.deployed) for curve in curves] == [1, 1]
    assert all(
        isinstance(curve.points[1].policy, kind) for curve, kind in zip(curves, (EntropyPolicy, ConfidencePolicy), strict=True)
    )


def test_a_second_sweep_needs_no_network_and_writes_the_same_bytes(attacked, monkeypatch, tmp_path):
    _, store, _ = attacked
    monkeypatch.setattr(thresholds, "_compute", lambda *_: pytest.fail("the store has the logits"))
    looks = looks_of(evaluations(store))
    first = {path.name: path.read_bytes() for path in write_sweep(swept(store), tmp_path / "a", looks)}
    second = {path.name: path.read_bytes() for path in write_sweep(swept(store), tmp_path / "b", looks)}
    assert first == second
    assert set(first) == {f"digits-Linf-0.15.{kind}" for kind in ("csv", "png", "svg")}


def test_calibration_logits_that_cannot_be_had_are_a_clear_error(tmp_path):
    store = evaluate(tmp_path / "store", ["average"])[1]
    with pytest.raises(UserError, match=r"held-out training images of digits, never on test images.*unknown model 'toy'"):
        swept(store)


def test_weights_of_another_digest_are_refused(tmp_path):
    from exitbench.models.weights import find_weights

    record = record_of(model="rdi_smallcnn", training="average", mmacs=(1.0, 2.0, 3.0))
    store = Store(tmp_path / "store")
    with pytest.raises(UserError, match="registered here"):
        held_out(record, store, tmp_path, None)
    with pytest.raises(UserError, match=r"the store is about 0{12}"):
        held_out(record, store, tmp_path, find_weights("rdi_smallcnn", "digits")[1])


def test_damaged_calibration_logits_are_set_aside(tmp_path):
    store = Store(tmp_path / "store")
    good = HeldOut("a" * 64, {}, np.zeros((5, 32), dtype=np.uint8), np.zeros((3, 5, 5), dtype=np.float32))
    store.write_held_out(good)
    assert store.read_held_out(good.key).logits.shape == (3, 5, 5)
    path = tmp_path / "store" / "calibration" / f"{good.key}.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert store.read_held_out(good.key) is None
    assert (tmp_path / "store" / "quarantine" / path.name).exists() and not path.exists()
    for wrong in (replace(good, inputs=good.inputs[:4]), replace(good, logits=good.logits + np.nan)):
        with pytest.raises(BadHeldOut, match=r"as in its other arrays|finite"):
            HeldOut.from_bytes(wrong.to_bytes(), good.key)
    with pytest.raises(BadHeldOut, match="schema"):
        HeldOut.from_bytes(good.to_bytes(), "b" * 64)


def test_of_runs_on_more_and_fewer_samples_the_larger_is_taken(tmp_path):
    evaluate(tmp_path, ["average"], prepared(n=40))
    store = evaluate(tmp_path, ["average"], prepared(n=32))[1]
    found = evaluations(store)
    assert [group[0].record.n for group in choose(found, Wanted())] == [40]
    assert [group[0].record.n for group in choose(found, Wanted(n=32))] == [32]
    assert len(choose(found, Wanted(eps=0.15, norm="Linf", dataset="digits", training="none"))) == 1
    for nothing in (Wanted(eps=0.2), Wanted(norm="L2"), Wanted(n=33), Wanted(training="mine"), Wanted(dataset="mnist")):
        with pytest.raises(UserError, match=r"it holds: toy \(none\) on digits, Linf 0.15, n = 32; toy"):
            choose(found, nothing)


def invoke(*arguments):
    return CliRunner().invoke(cli, ["sweep", *map(str, arguments)])


def test_the_command_end_to_end(tmp_path):
    run = ["run", "--dataset", "digits", "--n", "8", "--steps", "1", "--results", str(tmp_path), "--attack", "single"]
    assert CliRunner().invoke(cli, [*run, "--model", "rdi_smallcnn"]).exit_code == 0
    done = invoke("--results", tmp_path, "--points", 2)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "only deployed rules were attacked themselves" in text and "deployed" in text and "exit:3" in text
    table = pd.read_csv(tmp_path / "sweeps" / "digits-Linf-0.23.csv")
    assert table["point"].tolist() == ["first exit", "target", "target", "last exit", "deployed"]
    assert (table["worst"] <= table["clean"]).all()
    assert len(list((tmp_path / "store" / "calibration").glob("*.npz"))) == 1
    done = invoke("--results", tmp_path, "--model", "rdi_smallcnn", "--points", 1)
    assert done.exit_code == 0
    assert (tmp_path / "sweeps" / "digits-Linf-0.23-rdi_smallcnn.svg").stat().st_size > 500
    assert "Other thresholds" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert len(pd.read_csv(tmp_path / "sweeps" / "digits-Linf-0.23-rdi_smallcnn.csv")) == 4

    unknown = invoke("--results", tmp_path, "--model", "rdi_smallcn")
    assert isinstance(unknown.exception, UserError)
    assert "no finished evaluation of 'rdi_smallcn'" in str(unknown.exception)


def test_bad_input_is_refused_before_any_work(tmp_path):
    missing = invoke("--results", tmp_path / "nowhere")
    assert isinstance(missing.exception, UserError) and "there is no store" in str(missing.exception)
    for arguments in (["--points", "0"], ["--points", "many"], ["--norm", "L1"], ["--eps", "nan"]):
        refused = invoke("--results", tmp_path, *arguments)
        assert refused.exit_code == 2 and "Invalid value" in refused.output
    (tmp_path / "store").mkdir()
    empty = invoke("--results", tmp_path)
    assert isinstance(empty.exception, UserError) and "it holds: nothing" in str(empty.exception)


def test_every_column_is_documented_in_its_own_words():
    text = (ROOT / "docs" / "leaderboard.md").read_text().partition("\n## Sweeps\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE) == list(COLUMNS.items())
