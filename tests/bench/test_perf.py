"""The race is fair: the same images, the same re-scoring, and all costs are counted."""

import json
from itertools import pairwise

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.cli.main import cli
from exitbench.perf import measure as measuring
from exitbench.perf.measure import Race, Spent, compared, measure, named_attacks, reached
from exitbench.perf.text import perf_text
from exitbench.runner.prepare import Prepared
from exitbench.runner.search_backend import SearchBackend
from tests.bench.evaluated import prepared, toy_policy

READY = prepared(toy_policy(), n=8)
COURSE = [Spent("a", 6, 1.0, 10, 8), Spent("b", 3, 4.0, 40, 32), Spent("c", 3, 9.0, 90, 80)]


def test_the_suite_is_compared_where_it_first_is_as_low():
    suite = [Spent("x", 5, 0.5, 9, 4), Spent("y", 2, 2.0, 20, 10), Spent("z", 1, 3.0, 30, 20)]
    assert reached(suite, 3) is suite[1] and reached(suite, 0) is None
    found = compared(COURSE, suite)
    assert found["ratios"] == {"seconds": 4.5, "gradients": 8.0}
    assert (found["first"]["step"], found["ratios_first"]) == ("b", {"seconds": 2.0, "gradients": 3.2})
    assert compared(COURSE, suite[:1])["ratios"] is None and compared(COURSE, suite[:1])["suite"] is None


def test_by_hand_all_images_go_through_every_exit():
    race = Race(READY)
    course = race.plain_pgd()
    steps = READY.settings.steps
    assert [spent.step for spent in course] == ["exit 1", "exit 2", "exit 3"]
    assert [spent.backwards for spent in course] == [8 * steps, 16 * steps, 24 * steps]
    assert all(later.robust <= earlier.robust for earlier, later in pairwise(course))
    assert course[-1].robust < int(race.right.sum()), "the toy must break"


def test_the_suite_attacks_survivors_until_the_goal_is_reached():
    race = Race(READY)
    names = list(named_attacks(READY))
    assert names[:4] == ["adaptive, 10 gradients", "adaptive, 50 gradients", "adaptive", "single:1"] and names[-1] == "autoattack"
    course = race.suite(goal=int(race.right.sum()))
    assert len(course) == 1 and course[0].backwards > 0
    assert race.suite(goal=course[0].robust)[-1].robust <= course[0].robust


def test_a_measurement_is_json_and_a_table(monkeypatch):
    monkeypatch.setattr(measuring, "MATRIX", 32)
    told = []
    found = json.loads(json.dumps(measure(READY, SearchBackend(), told.append, autoattack=False, batch=4)))
    assert told == ["throughput", "torchattacks PGD on every exit", "the suite", "a profile", "launches and waits"]
    assert found["n"] == 8 and found["machine"]["cpu"] and found["versions"]["torch"] == torch.__version__
    assert found["suite"][-1]["robust"] <= found["against"]["pgd"]["course"][-1]["robust"]
    assert sum(found["profile"].values()) == pytest.approx(1)
    rates = found["throughput"]
    assert rates["ratio"] == pytest.approx(rates["twin"] / rates["plain"]) and rates["twin_of_ceiling"] > 0
    console = Console(width=200)
    with console.capture() as captured:
        console.print(perf_text(found))
    assert "PGD, every exit" in captured.get() and "where the adaptive attack's time goes" in captured.get()
    steps = found["per_gradient"]
    assert steps["average"]["launches"] > steps["forward and gradient"]["launches"] > 0 and steps["average"]["waits"] == 0
    assert found["search"]["share"] == pytest.approx(found["search"]["gradients"] / found["search"]["ceiling"])


def test_pgd_by_hand_is_for_linf_alone(monkeypatch):
    monkeypatch.setattr(measuring, "MATRIX", 32)
    monkeypatch.setattr(Race, "suite", lambda self, goal: [Spent("all", goal, 1.0, 1, 1)])
    in_l2 = Prepared(READY.target, READY.split, 2, AttackSettings(ThreatModel("L2", 0.5), steps=2, step_size=0.2), None)
    found = measure(in_l2, SearchBackend(), lambda _: None, autoattack=False, batch=2)
    assert found["against"] == {} and found["suite"] == [vars(Spent("all", 0, 1.0, 1, 1))]


def test_the_command_refuses_what_it_cannot_load(tmp_path):
    done = CliRunner().invoke(cli, ["perf", "--model", "nothing", "--data", str(tmp_path)])
    assert done.exit_code != 0 and "nothing" in str(done.exception)
