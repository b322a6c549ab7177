"""From plan to cells: resuming, errors, and cells that prove their verdicts."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from exitbench.attacks import registry
from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.models.spec import canonical_json
from exitbench.scoring.load import evaluations
from exitbench.store.cell import SLICE
from exitbench.store.store import Store
from tests.bench.evaluated import FORMS, NET, SETTINGS, evaluate, only_evaluation, plan_of, prepared, toy_policy, toy_split


def contents(store: Store) -> dict[str, tuple[bytes, ...]]:
    """What is in the cells, provenance apart."""
    found = {}
    for path in (store.root / "cells").rglob("*.npz"):
        cell = store.read(path.stem)
        found[path.stem] = tuple(getattr(cell, name).tobytes() for name in ("logits", "passes", "broken_rows", "counterexamples"))
    return found


def test_a_second_run_does_nothing(tmp_path):
    first, store = evaluate(tmp_path)
    before = contents(store)
    second, _ = evaluate(tmp_path)
    assert len(first) == len(before) and all(outcome.error is None for outcome in first)
    assert second == []
    assert contents(store) == before


@pytest.mark.parametrize("survivors", range(0, 42, 6))
def test_a_run_resumed_anywhere_ends_the_same(tmp_path, survivors):
    """Whichever cells survive, the rest come out as in an unbroken run, passes included."""
    _, whole = evaluate(tmp_path / "whole")
    wanted = contents(whole)
    _, store = evaluate(tmp_path / "broken")
    paths = sorted((store.root / "cells").rglob("*.npz"))
    for path in paths[survivors % len(paths) :: 3]:
        path.unlink()
    evaluate(tmp_path / "broken")
    assert contents(store) == wanted


def test_a_larger_n_finds_the_whole_slices_of_a_smaller_done(tmp_path):
    small, _ = evaluate(tmp_path, ["average"], prepared(n=SLICE))
    large, _ = evaluate(tmp_path, ["average"], prepared(n=70))
    assert len(small) == 2  # clean and average
    assert len(large) == 2 * 2  # two more slices of each


def test_other_names_share_the_cells_they_have_in_common(tmp_path):
    evaluate(tmp_path, ["single"])
    outcomes, _ = evaluate(tmp_path, ["max_average"])
    assert {outcome.cell.name for outcome in outcomes} == {"max_average"}


def test_counterexamples_prove_the_verdicts_without_the_attack(tmp_path):
    """Every broken sample is re-scored from the stored image alone, and lies in the ball."""
    evaluate(tmp_path)
    split, ball = toy_split(), SETTINGS.region
    evaluation = only_evaluation(Store(tmp_path))
    store, shown = Store(tmp_path), 0
    for attack in evaluation.record.attacks:
        for key in attack.keys:
            cell = store.read(key)
            x = torch.from_numpy(split.images[cell.indices])
            images = dict(zip(cell.broken_rows.tolist(), torch.from_numpy(cell.counterexamples), strict=False))
            wrong_somewhere = (cell.logits.argmax(-1) != cell.labels).any(0)
            if attack.name == "none":
                assert not images
                continue
            assert set(images) == set(np.flatnonzero(wrong_somewhere))
            for row, image in images.items():
                torch.testing.assert_close(NET(image[None])[:, 0], torch.from_numpy(cell.logits[:, row]), atol=1e-5, rtol=1e-5)
                assert ball.distance(image[None], x[row][None]).item() <= ball.eps + 1e-6
                shown += 1
    assert shown > 100


def test_a_derived_selection_is_what_the_attack_itself_returns(tmp_path):
    """``max_average`` from stored logits equals running it from scratch, and costs no pass of its own."""
    _, store = evaluate(tmp_path, ["max_average"], prepared(n=SLICE))
    plan = plan_of(prepared(n=SLICE), store, ["max_average"])
    (planned,) = (cell for cell in plan.cells if isinstance(cell.attack, BestOf))
    cell = store.read(planned.key)
    batch = planned.slice.batch()
    x_adv = planned.attack(NET, batch.x, batch.y, noise=Noise(0, batch.indices))
    torch.testing.assert_close(torch.from_numpy(cell.logits), NET(x_adv), atol=1e-5, rtol=1e-5)
    for row, image in zip(cell.broken_rows, cell.counterexamples, strict=True):
        assert np.array_equal(image, x_adv[row].numpy())
    singles = [store.read(other.key).passes for other in plan.cells if other.name.startswith("single")]
    assert (cell.passes == np.sum(singles, axis=0)).all()


def test_passes_are_those_of_the_attack_on_its_own(tmp_path):
    _, store = evaluate(tmp_path, FORMS, prepared(n=SLICE))
    evaluation = only_evaluation(store)
    found = {attack.name: attack.backwards for attack in evaluation.attacks}
    steps = SETTINGS.steps
    assert found["single:2"] == found["average"] == found["max"] == steps
    assert found["max_average"] == 3 * steps
    assert found["average_max"] == steps + 3 * 2 * steps


@dataclass(frozen=True)
class Crashes(Attack):
    def generate(self, model, x, y, *, noise, candidates):
        raise RuntimeError("boom")


@dataclass(frozen=True)
class Leaves(Attack):
    by: float = 1e-3

    def generate(self, model, x, y, *, noise, candidates):
        return (x + SETTINGS.region.eps + self.by).clamp(0, 1)


@dataclass(frozen=True)
class Boasts(Attack):
    """Returns the clean image and calls itself successful: re-scored by the runner, it breaks nothing."""

    claims_success: bool = True

    def generate(self, model, x, y, *, noise, candidates):
        return x


def with_attack(monkeypatch, attack):
    """Register ``attack`` as ``planted`` for the length of a test."""
    assert registry.registered(), "ours come first"
    others = {name: each for name, each in registry._registered.items() if name != "planted"}
    monkeypatch.setattr(registry, "_registered", others)
    registry.register_attack("planted", "a test's")(lambda _deployment, _settings: attack)


@pytest.mark.parametrize(("attack", "why"), [(Crashes(), "RuntimeError: boom"), (Leaves(), "leave the Linf ball")])
def test_an_attack_that_fails_is_an_error_and_neither_robust_nor_broken(tmp_path, monkeypatch, attack, why):
    with_attack(monkeypatch, attack)
    outcomes, store = evaluate(tmp_path, ["average", "planted"])
    failed = [outcome for outcome in outcomes if outcome.error]
    assert {outcome.cell.name for outcome in failed} == {"planted"} and why in failed[0].error
    evaluation = only_evaluation(store)
    assert [result.name for result in evaluation.attacks] == ["average"]
    assert [each.name for each in evaluation.unfinished] == ["planted"] and why in evaluation.unfinished[0].reason
    again, _ = evaluate(tmp_path, ["average", "planted"])
    assert {outcome.cell.name for outcome in again} == {"planted"}, "failures are tried again, nothing else is"


def test_finished_cells_of_an_unfinished_attack_count_in_the_worst_case(tmp_path):
    """A certified counterexample is never thrown away because another slice is missing."""
    from exitbench.report.leaderboard.table import leaderboard

    _, store = evaluate(tmp_path, ["single", "average"])
    whole = only_evaluation(store)
    average = next(attack for attack in whole.record.attacks if attack.name == "average")
    (store.root / "cells" / average.keys[-1][:2] / f"{average.keys[-1]}.npz").unlink()
    partial = only_evaluation(Store(tmp_path))
    assert [each.name for each in partial.unfinished] == ["average"]
    assert (partial.worst[: 2 * SLICE] == whole.worst[: 2 * SLICE]).all()
    table = leaderboard([partial]).set_index("attack")
    assert table.loc["worst", "status"] == "attacks unfinished: 1"
    assert table.loc["average", "status"] == "not finished"


@dataclass(frozen=True)
class Scribbles(Attack):
    """Writes its adversarial images into the clean ones, so that they would seem to be at distance zero."""

    loud: bool = True

    def generate(self, model, x, y, *, noise, candidates):
        x += 0.8
        x.clamp_(0, 1)
        y.zero_()
        model.train()
        return x


def test_an_attack_cannot_write_into_what_it_is_judged_by(tmp_path, monkeypatch):
    with_attack(monkeypatch, Scribbles())
    _, store = evaluate(tmp_path / "scribbled", ["planted", "average"])
    evaluation = only_evaluation(store)
    assert "leave the Linf ball" in evaluation.unfinished[0].reason
    monkeypatch.undo()
    _, clean = evaluate(tmp_path / "clean", ["average"])
    assert (evaluation.worst == only_evaluation(clean).worst).all()
    assert not NET.training


def test_an_attack_that_boasts_breaks_nothing(tmp_path, monkeypatch):
    with_attack(monkeypatch, Boasts())
    _, store = evaluate(tmp_path, ["planted"])
    evaluation = only_evaluation(store)
    assert (evaluation.worst == evaluation.clean.correct).all()


def test_a_selection_whose_child_fails_fails_and_says_why(tmp_path, monkeypatch):
    singles = (Crashes(), Boasts())
    with_attack(monkeypatch, BestOf(singles, Objective(CE(), Mean())))
    outcomes, _ = evaluate(tmp_path, ["planted"], prepared(n=SLICE))
    errors = {outcome.cell.name: outcome.error for outcome in outcomes}
    assert "did not finish" in errors["planted"] and "boom" in errors["planted[1]"] and errors["planted[2]"] is None


def test_a_damaged_cell_is_computed_again(tmp_path):
    _, store = evaluate(tmp_path, ["average"])
    wanted = contents(store)
    path = sorted((tmp_path / "cells").rglob("*.npz"))[0]
    path.write_bytes(path.read_bytes()[:-20])
    outcomes, _ = evaluate(tmp_path, ["average"])
    assert len(outcomes) == 1
    assert contents(store) == wanted


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    _, store = evaluate(tmp_path_factory.mktemp("store"), FORMS, prepared(policy=toy_policy()))
    return only_evaluation(store)


class TestVerdicts:
    def test_the_toy_is_worth_judging(self, evaluation):
        assert 0 < evaluation.worst.sum() < evaluation.clean.correct.sum() < evaluation.n
        assert min(evaluation.exit_counts(evaluation.clean)) > 0

    def test_the_worst_case_is_at_most_every_attack(self, evaluation):
        for attack in evaluation.attacks:
            assert (evaluation.worst <= evaluation.robust(attack)).all()

    def test_the_worst_case_is_the_conjunction(self, evaluation):
        survived = [evaluation.robust(attack) for attack in evaluation.attacks]
        assert (evaluation.worst == np.logical_and.reduce(survived)).all()

    def test_every_broken_sample_is_first_broken_once(self, evaluation):
        results = (evaluation.clean, *evaluation.attacks)
        assert sum(map(evaluation.first_to_break, results)) == evaluation.n - evaluation.worst.sum()
        assert evaluation.first_to_break(evaluation.clean) == (~evaluation.clean.correct).sum()

    def test_only_the_whole_matrix_is_complete(self, evaluation):
        assert not evaluation.complete, "AutoAttack was not run"

    def test_another_policy_is_judged_from_the_same_cells(self, tmp_path):
        from exitbench.models.policies import FixedExit

        evaluate(tmp_path, ["single", "average"])
        outcomes, store = evaluate(tmp_path, ["single", "average"], prepared(policy=FixedExit(1)))
        assert outcomes == [], "no new gradients for a new policy"
        assert len(evaluations(store)) == 2

    def test_another_seed_joins_the_same_worst_case(self, tmp_path):
        evaluate(tmp_path, ["average"])
        alone = only_evaluation(Store(tmp_path)).worst
        evaluate(tmp_path, ["average"], seed=1)
        both = only_evaluation(Store(tmp_path))
        assert sorted(attack.seed for attack in both.attacks) == [0, 1]
        assert (both.worst <= alone).all()


def test_plan_order_has_children_first(tmp_path):
    plan = plan_of(prepared(n=SLICE), Store(tmp_path), ["average_max"])
    place = {canonical_json(cell.attack): i for i, cell in enumerate(plan.cells)}
    for cell in plan.cells:
        for child in cell.attack.children if isinstance(cell.attack, BestOf) else ():
            assert place[canonical_json(child)] < place[canonical_json(cell.attack)]


def test_noise_is_the_samples_own(tmp_path):
    """Cells of the second slice are what the attack computes on these samples alone."""
    _, store = evaluate(tmp_path, ["average"])
    plan = plan_of(prepared(), store, ["average"])
    second = [cell for cell in plan.cells if cell.name == "average"][1]
    batch = second.slice.batch()
    x_adv = second.attack(NET, batch.x, batch.y, noise=Noise(0, batch.indices))
    torch.testing.assert_close(torch.from_numpy(store.read(second.key).logits), NET(x_adv), atol=1e-5, rtol=1e-5)
