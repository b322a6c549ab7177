"""Publishing weights: the figures on the card, and the evaluations that are refused."""

from dataclasses import replace

import numpy as np
import pytest

from exitbench.errors import UserError
from exitbench.models.weights import WEIGHTS_CARD, WeightsCard
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from exitbench.training.publish import SUBSET, publish
from tests.bench.evaluated import SETTINGS, evaluate, prepared
from tests.bench.records import changed


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """The toy under two attacks; checked and complete are set by hand, as no toy faces AutoAttack."""
    folder = tmp_path_factory.mktemp("results")
    evaluate(folder, ["single", "average"], prepared())
    (found,) = evaluations(Store(folder))
    return found


class Finished:
    """An evaluation as if the whole matrix and the trust checks were done."""

    def __init__(self, evaluation, **different):
        self._evaluation = evaluation
        self.complete, self.checked, self.failures = True, True, []
        self.__dict__.update(different)

    def __getattr__(self, name):
        return getattr(self._evaluation, name)


def card_of(evaluation, **different):
    record = evaluation.record
    card = WeightsCard("toy", "digits", "none", record.weights, "python -m bench train x", record.policy, details={"seed": 0})
    return changed(card, **different)


def weights_in(folder):
    path = folder / "toy-digits-none.safetensors"
    path.write_bytes(b"tensors")
    (folder / "toy-digits-none.run.json").write_text("{}")
    return path


def test_the_card_says_what_the_leaderboard_says(evaluation, tmp_path):
    out = tmp_path / "shipped"
    path = publish(card_of(evaluation), weights_in(tmp_path), [Finished(evaluation)], out)
    card = WEIGHTS_CARD.read_text(path.read_text(), path)
    figures = card.details["measured"]
    assert card.details["seed"] == 0
    assert figures["accuracy"]["none"] == evaluation.clean.correct.mean()
    assert figures["accuracy"]["worst"] == evaluation.worst.mean()
    assert set(figures["accuracy"]) == {"none", "single:1", "single:2", "single:3", "average", "worst"}
    right = np.array([character == "1" for character in figures["subset"]["average"]])
    (average,) = (attack for attack in evaluation.attacks if attack.name == "average")
    assert {key: figures["subset"][key] for key in ("steps", "step_size")} == {
        key: average.spec[key] for key in ("steps", "step_size")
    }
    assert figures["subset"]["n"] == len(right) == SUBSET and (right == average.correct[:SUBSET]).all()
    assert sorted(p.name for p in out.iterdir()) == [f"toy-digits-none{end}" for end in (".json", ".run.json", ".safetensors")]
    assert path.with_suffix(".safetensors").read_bytes() == b"tensors"


REFUSED = {
    "nothing stored": (lambda e: [], "no evaluation of toy-digits-none"),
    "other policy": (lambda e: [Finished(e, record=changed(e.record, policy="exit:1"))], "under its own policy"),
    "other weights": (lambda e: [Finished(e, record=changed(e.record, weights="1" * 64))], "no evaluation of"),
    "part of the matrix": (lambda e: [Finished(e, complete=False)], "does not cover the whole matrix"),
    "unchecked": (lambda e: [Finished(e, checked=False)], "its trust checks are missing"),
}


def test_one_attack_under_several_settings_is_not_published(tmp_path):
    for steps in (1, 2):
        evaluate(tmp_path, ["average"], replace(prepared(), settings=replace(SETTINGS, steps=steps)))
    (found,) = evaluations(Store(tmp_path))
    with pytest.raises(UserError, match="average under several settings"):
        publish(card_of(found), weights_in(tmp_path), [Finished(found)], tmp_path / "out")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_finished_or_not_to_be_believed_is_not_published(kind, evaluation, tmp_path):
    stored, message = REFUSED[kind]
    with pytest.raises(UserError, match=message):
        publish(card_of(evaluation), weights_in(tmp_path), stored(evaluation), tmp_path / "out")
    assert not (tmp_path / "out").exists()
