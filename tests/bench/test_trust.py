"""Planted faults are each flagged by name, and a healthy network is not flagged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from exitbench.checks.probe import ensure_probe
from exitbench.errors import UserError
from exitbench.report.leaderboard.table import leaderboard
from exitbench.runner.probe_key import probe_key, probed_batch
from exitbench.runner.record import write_record
from exitbench.scoring.flags import flags_of
from exitbench.scoring.ranking import flags_text, worst_status
from exitbench.store.run_record import read_run
from exitbench.store.store import Store
from exitbench.target.target import check_model
from tests.bench import trained as toys
from tests.bench.evaluated import evaluate, only_evaluation, plan_of
from tests.bench.records import changed
from tests.bench.trained import planted, ready


def checked(folder, prepared, names=("single", "average", "adaptive"), seed=0):
    """The evaluation of ``prepared`` with its trust checks."""
    _, store = evaluate(folder, names, prepared, seed)
    error = ensure_probe(prepared, seed, store)
    assert error is None
    return only_evaluation(store)


def names(evaluation, *levels):
    return {flag.name for flag in evaluation.flags if flag.level in levels}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return checked(tmp_path_factory.mktemp("healthy"), ready())


def test_nothing_is_said_against_a_healthy_net(healthy):
    assert names(healthy, "failure", "warning") == set()
    assert {"exit switches", "accuracy by radius", "black-box controls"} <= names(healthy, "info")
    assert flags_text(healthy) == "none"
    assert 0 < healthy.worst.sum() < healthy.clean.correct.sum(), "there is something to judge"


FAULTS = {
    "logits x 1000": ({"head": toys.Scaled(1000)}, "failure", {"zero gradients", "black-box beats white-box"}),
    "hard-quantised input": (
        {"stage": toys.Quantised()},
        "failure",
        {"zero gradients", "noise as good as gradients", "unbounded attack fails"},
    ),
    "noise": ({"stage": toys.Noisy()}, "failure", {"randomised outputs"}),
    "noise by place in the batch": ({"stage": toys.NoisyWithTheBatch()}, "failure", {"randomised outputs"}),
    "a softmax with a little on top": ({"head": toys.Probabilities()}, "failure", {"probabilities"}),
    "log-probabilities": ({"head": nn.LogSoftmax(-1)}, "warning", {"log-probabilities"}),
    "a gate that is always sure": ({"head": toys.Scaled(20), "heads": [0]}, "warning", {"saturated gates"}),
    "an exit that is detached": ({"head": toys.Detached(), "heads": [1]}, "failure", {"zero gradients"}),
    "gradients that mislead": (
        {"stage": toys.Misleading()},
        "failure",
        {"black-box beats white-box", "noise as good as gradients", "unbounded attack fails"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_by_name(fault, tmp_path):
    what, level, expected = FAULTS[fault]
    # Of 30 samples, random points break 3 to 7 by chance, and unbounded attacks leave 0 to 7: with this seed both decide.
    evaluation = checked(tmp_path, ready(planted(**what)), ["average"], seed=13)
    assert expected <= names(evaluation, level)
    assert expected <= set(flags_text(evaluation).split(";"))
    if level == "failure":
        assert "flagged: " in worst_status(evaluation)


def test_a_model_cut_off_from_its_input_gives_errors_and_the_checks_say_why(tmp_path):
    evaluation = checked(tmp_path, ready(planted(stage=toys.Detached())), ["average"])
    assert "does not require grad" in evaluation.unfinished[0].reason
    assert "missing gradients" in names(evaluation, "failure")
    assert worst_status(evaluation) == "attacks unfinished: 1; flagged: missing gradients at exits 1, 2, 3"


def test_plain_probabilities_are_still_refused_before_any_work():
    batch = probed_batch(ready())
    with pytest.raises(UserError, match="returns probabilities at exit 1, 2, 3"):
        check_model(planted(head=nn.Softmax(-1)), batch.x, batch.y)


def test_the_exits_at_fault_are_named(tmp_path):
    evaluation = checked(tmp_path, ready(planted(head=toys.Scaled(1000), heads=[1])), ["average"])
    assert "zero gradients at exit 2" in worst_status(evaluation)


def test_zero_gradients_at_an_exit_that_nobody_takes_are_nobodys_loss(tmp_path):
    from exitbench.models.policies import FixedExit

    prepared = ready(planted(head=toys.Scaled(1000), heads=[1]))
    prepared = replace(prepared, target=replace(prepared.target, policy=FixedExit(3)))
    assert "zero gradients" not in names(checked(tmp_path, prepared, ["average"]), "failure")


def test_a_twin_that_is_another_net_is_caught(tmp_path):
    prepared = ready()
    prepared.target.__dict__["search_model"] = planted(head=toys.Scaled(1.1), heads=[2])
    assert "search-model mismatch" in names(checked(tmp_path, prepared, ["average"]), "failure")


def test_what_noise_breaks_and_no_attack_does_is_a_warning(tmp_path):
    """The stored attack takes one tiny step, so that its robust accuracy is far too high."""
    prepared = ready(settings=replace(toys.SETTINGS, steps=1, step_size=1e-4))
    assert "missed by attacks" in names(checked(tmp_path, prepared, ["single:3"]), "warning")


def test_the_cure_that_a_flag_names_lifts_it(tmp_path):
    """The margin has a gradient where the cross-entropy of large logits has none; merged, the worst case is over both runs."""
    from exitbench.attacks.objectives import Margin

    net = planted(head=toys.Scaled(1000))
    evaluation = checked(tmp_path, ready(net), ["single"])
    (flag,) = [flag for flag in evaluation.flags if flag.name == "zero gradients"]
    assert "--loss margin" in flag.message
    evaluation = checked(tmp_path, ready(net, replace(toys.SETTINGS, loss=Margin())), ["single"])
    assert len(evaluation.probes) == 2
    assert "zero gradients" not in names(evaluation, "failure")


def test_a_cure_that_has_not_attacked_every_exit_lifts_nothing(tmp_path):
    """A probe under other settings, or on another exit, does not count as an attack."""
    from exitbench.attacks.objectives import Margin

    net = planted(head=toys.Scaled(1000))
    before = names(checked(tmp_path, ready(net), ["single", "average"]), "failure")
    assert "zero gradients" in before
    cure = ready(net, replace(toys.SETTINGS, loss=Margin()))
    for attacks in (["autoattack:1"], ["single:1"]):
        store = Store(tmp_path)
        write_record(cure, plan_of(cure, store, attacks), 0, store)
        assert ensure_probe(cure, 0, store) is None
        assert before <= names(only_evaluation(store), "failure")


def test_what_is_wrong_with_the_model_no_setting_lifts(tmp_path):
    net = planted(stage=toys.Noisy())
    assert "randomised outputs" in names(checked(tmp_path, ready(net), ["single"]), "failure")
    found = only_evaluation(Store(tmp_path))
    (probe,) = found.probes
    clean = changed(probe, settings={"another": 1}, outputs=changed(probe.outputs, repeated=0.0, batched=0.0))
    merged = replace(found, probes=(*found.probes, clean), attacked_settings=frozenset(['{"another":1}']))
    assert "randomised outputs" in {flag.name for flag in flags_of(merged) if flag.level == "failure"}


def test_l2_is_checked_too(tmp_path):
    from exitbench.attacks.regions import ThreatModel

    settings = replace(toys.SETTINGS, region=ThreatModel("L2", 1.0), step_size=0.25)
    assert names(checked(tmp_path / "healthy", ready(settings=settings)), "failure") == set()
    quantised = checked(tmp_path / "quantised", ready(planted(stage=toys.Quantised()), settings), ["average"])
    assert "zero gradients" in names(quantised, "failure")


class TestStoredProbes:
    def test_a_probe_is_measured_once_and_the_same_twice(self, tmp_path):
        prepared, stores = ready(), [Store(tmp_path / name) for name in ("a", "b")]
        key = probe_key(prepared, 0)
        assert [ensure_probe(prepared, 0, store) for store in stores] == [None, None]
        first, second = (store.read_probe(key) for store in stores)
        assert changed(first, provenance=None) == changed(second, provenance=None)
        (path,) = (tmp_path / "a" / "trust").iterdir()
        before = path.read_bytes()
        ensure_probe(prepared, 0, stores[0])
        assert path.read_bytes() == before

    def test_its_key_is_about_what_decides_it(self):
        keys = {
            probe_key(ready(), 0),
            probe_key(ready(), 1),
            probe_key(ready(weights="1"), 0),
            probe_key(ready(n=16), 0),
            probe_key(ready(settings=replace(toys.SETTINGS, keep="last")), 0),
        }
        keys |= {probe_key(ready(n=n), 0) for n in (40, 70)}  # the first slice is the same, but comparisons may grow further
        assert len(keys) == 7

    def test_a_damaged_one_is_put_aside_and_measured_again(self, tmp_path, caplog):
        prepared, store = ready(), Store(tmp_path)
        ensure_probe(prepared, 0, store)
        key = probe_key(prepared, 0)
        wanted = store.read_probe(key)
        path = tmp_path / "trust" / f"{key}.json"
        path.write_bytes(path.read_bytes()[:-20])
        assert store.read_probe(key) is None and "damaged trust checks" in caplog.text
        assert (tmp_path / "quarantine" / path.name).exists()
        ensure_probe(prepared, 0, store)
        assert store.read_probe(key).path == wanted.path

    def test_what_stops_the_checks_is_kept_and_shown(self, tmp_path, monkeypatch):
        from exitbench.checks import radii

        prepared = ready()
        _, store = evaluate(tmp_path, ["average"], prepared)
        monkeypatch.setattr(radii, "measure", lambda *_: 1 / 0)
        assert ensure_probe(prepared, 0, store) == "ZeroDivisionError: division by zero"
        evaluation = only_evaluation(store)
        assert not evaluation.checked and evaluation.probe_error == "ZeroDivisionError: division by zero"
        monkeypatch.undo()
        assert ensure_probe(prepared, 0, store) is None
        assert only_evaluation(store).probe_error is None

    def test_a_net_that_is_never_right_is_checked_as_far_as_can_be(self, tmp_path):
        prepared = ready()
        labels = (prepared.split.labels + 1) % 10
        rights = checked(tmp_path, replace(prepared, split=replace(prepared.split, labels=labels), n=4), ["average"])
        assert rights.clean.correct.sum() == 0
        assert rights.checked and names(rights, "failure") == set()


def test_runs_recorded_before_there_were_checks_are_read_and_shown_as_not_checked(tmp_path):
    _, store = evaluate(tmp_path, ["average"], ready())
    (path,) = (tmp_path / "runs").iterdir()
    record = read_run(path)
    path.unlink()
    store.write_run(changed(record, trust=None))
    old = only_evaluation(store)
    assert not old.checked and flags_text(old) == "not checked"
    assert set(leaderboard([old])["flags"]) == {"not checked"}

    new = checked(tmp_path, ready(), ["average"])
    assert new.checked, "the same command again adds the checks to the old record"
    assert len(new.attacks) == len(old.attacks)
