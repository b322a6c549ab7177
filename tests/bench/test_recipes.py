"""Recipes: their settings, whether they fit their models, and the round trip through files."""

import json
from dataclasses import replace

import pytest

from exitbench.attacks.regions import ThreatModel
from exitbench.errors import UserError
from exitbench.models.errors import UnknownName
from exitbench.training.fits import check_fit
from exitbench.training.recipe import Crafting, Phase, Recipe
from exitbench.training.recipe_file import read_recipe, recipe_of
from exitbench.training.recipes import named_recipe, recipe_names, shortened

FAST = Recipe(
    "rdi_resnet38",
    "cifar10",
    "x",
    ThreatModel("Linf", 8 / 255),
    (Phase(5, image_size=16), Phase(3, Crafting("sampled"), attacked_share=0.5), Phase(2, Crafting("average", steps=2))),
    batch_size=128,
    peak_lr=0.1,
)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fits_its_model_and_comes_back_from_its_file(name, tmp_path):
    recipe = named_recipe(name)
    assert recipe.name == name and recipe.text()
    assert check_fit(recipe).name == recipe.model
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"recipe": recipe.summary(), "seed": 0}), encoding="utf-8")
    assert read_recipe(path) == recipe


def test_the_papers_schedules():
    recipe = named_recipe("rdi_resnet38-cifar10-max_average")
    steps = -(-48_000 // recipe.batch_size) * recipe.epochs
    assert 64_000 <= steps < 64_500 and recipe.schedule == "steps" and (recipe.peak_lr, recipe.weight_decay) == (0.1, 1e-4)
    (phase,) = recipe.phases
    assert phase.attacked_share is None and phase.crafting == Crafting("max_average", 10, 0.25, start=1.0, bounded=True)
    mnist = named_recipe("rdi_smallcnn-mnist-average").phases[0].crafting
    assert mnist is not None and mnist.steps == 40 and mnist.step * 0.3 == pytest.approx(0.01)


def test_an_unknown_recipe_brings_suggestions():
    with pytest.raises(UnknownName, match="did you mean 'resnet38-digits-average'"):
        named_recipe("resnet38-digits-avg")


def test_epochs_find_their_phase():
    assert [FAST.phase_start(epoch) for epoch in range(10)] == [0] * 5 + [5] * 3 + [8] * 2
    assert FAST.phase(7) == FAST.phases[1]
    with pytest.raises(ValueError, match=r"epochs 0\.\.9, asked for 10"):
        FAST.phase(10)


@pytest.mark.parametrize("epochs", [3, 4, 5, 7, 10, 20, 171])
def test_shortened_recipes_keep_every_phase(epochs):
    short = shortened(FAST, epochs)
    assert short.epochs == epochs and len(short.phases) == 3
    if epochs % 10 == 0:
        assert [phase.epochs for phase in short.phases] == [epochs // 2, 3 * epochs // 10, epochs // 5]


def test_fewer_epochs_than_phases_are_refused():
    with pytest.raises(ValueError, match="has 3 phases; it needs at least as many epochs, got 2"):
        shortened(FAST, 2)


def test_the_summary_leaves_out_defaults_so_that_new_settings_change_no_old_file():
    assert FAST.summary()["phases"][0] == {"epochs": 5, "image_size": 16}
    assert "momentum" not in FAST.summary()
    assert recipe_of(FAST.summary()) == FAST


def test_work_tells_long_epochs_from_short_ones():
    small, mixed, halves = (FAST.work(7, 32)[epoch] for epoch in (0, 5, 8))
    assert small == 0.25 and mixed == 1 + 0.75 / 2 and halves == 2 + 2 * 0.75


SMALL = replace(FAST, model="rdi_smallcnn", dataset="mnist", phases=(Phase(1),))
MISFITS = {
    "model": (replace(FAST, model="rdi_resnet39"), "unknown model 'rdi_resnet39'; did you mean 'rdi_resnet38'"),
    "dataset": (replace(FAST, dataset="cifar"), "unknown dataset 'cifar'"),
    "shape": (replace(FAST, dataset="mnist"), "mnist has images of 1x28x28, rdi_resnet38 takes 3x32x32"),
    "policy": (replace(FAST, model="resnet38", phases=(Phase(1, Crafting("policy")),)), "one exit and so no exit policy"),
    "larger": (replace(FAST, phases=(Phase(1, image_size=64),)), "can only be shrunk, to 1..32"),
    "size": (
        replace(FAST, model="rdi_smallcnn", dataset="mnist", phases=(Phase(1), Phase(1, image_size=20))),
        "phase 2: rdi_smallcnn cannot be trained on images of 20x20",
    ),
    "rule without gates": (replace(SMALL, rule="gate@equal"), "'gate@equal' cannot be set: .* no gate heads"),
    "unknown rule": (replace(SMALL, rule="entrpy@equal"), "'entrpy@equal' cannot be set: rule 'entrpy' cannot be calibrated"),
    "unknown way to set it": (replace(SMALL, rule="entropy@half"), "cannot be set: unknown calibration 'half'"),
    "too few thresholds": (replace(SMALL, rule="margin:0.9"), "'margin:0.9' cannot be set: policy 'margin:0.9': "),
    "unknown rule with thresholds": (replace(SMALL, rule="margn:0.9,0.2"), "unknown .*'margn'"),
    "cost of the rule": (replace(SMALL, rule="vote@mmacs=900"), "a mean cost of 900 is out of reach"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_recipe_that_does_not_fit_is_refused_before_any_work(kind):
    recipe, message = MISFITS[kind]
    with pytest.raises(UserError, match=message):
        check_fit(recipe)


BAD_SETTINGS = {
    "share": (lambda: Phase(1, attacked_share=0.0), "probability above 0"),
    "no epochs": (lambda: Phase(0), "at least one epoch"),
    "no phases": (lambda: replace(FAST, phases=()), "at least one phase"),
    "steps": (lambda: Crafting("main", steps=0), "at least one step"),
    "deferral": (lambda: Crafting("main", deferral=1.0), "only crafting against the policy"),
    "deployed": (lambda: Phase(1, deployed_weight=-1.0), "at least 0"),
    "agreement": (lambda: Phase(1, agreement=-1.0), "at least 0"),
    "against": (lambda: Crafting("exits"), "known: main, average"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", BAD_SETTINGS)
def test_settings_that_make_no_sense(kind):
    make, message = BAD_SETTINGS[kind]
    with pytest.raises(ValueError, match=message):
        make()


BAD_FILES = {
    "not json": ("{", "not a readable recipe"),
    "a list": ("[]", "settings are an object"),
    "unknown setting": ({"lr": 1}, "unknown recipe settings lr"),
    "missing setting": ({"peak_lr": None}, "missing"),
    "value": ({"ball": {"norm": "L7", "eps": 1}}, "'L7' is not one of"),
    "phase": ({"phases": [{"epoch": 3}]}, "unknown phase settings epoch"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_recipe_files_say_what_is_wrong(kind, tmp_path):
    change, message = BAD_FILES[kind]
    path = tmp_path / "r.json"
    if isinstance(change, str):
        path.write_text(change, encoding="utf-8")
    else:
        content = {**FAST.summary(), **change}
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_recipe(path)


def test_a_recipe_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="not a readable recipe"):
        read_recipe(tmp_path / "none.json")
