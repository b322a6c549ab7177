"""A training run writes weights, card, journal and curve."""

import json
import re
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from msgspec.structs import replace as replace_card

from exitbench.attacks.regions import ThreatModel
from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models.about_weights import about_weights
from exitbench.models.policy_text import parse_policy
from exitbench.models.registry import model_card
from exitbench.models.weights import WEIGHTS_CARD, known_weights, load_weights
from exitbench.training import deploy as deploy_module
from exitbench.training import machine
from exitbench.training import make_weights as make_weights_module
from exitbench.training.about import about
from exitbench.training.curve_style import RC, styled, to_png
from exitbench.training.deploy import deploy_again
from exitbench.training.make_weights import make_weights
from exitbench.training.recipe import Crafting, Phase, Recipe
from exitbench.training.recipe_file import read_recipe

RECIPE = Recipe(
    "rdi_smallcnn",
    "digits",
    "x",
    ThreatModel("Linf", 0.1),
    (Phase(1), Phase(1, Crafting("average"), 1.0)),
    batch_size=8,
    peak_lr=0.02,
)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    def few(*request):
        split = load_split(*request)
        return replace(split, images=split.images[:24], labels=split.labels[:24])

    for module in (make_weights_module, deploy_module):
        monkeypatch.setattr(module, "load_split", few)


def test_weights_come_with_a_card_a_journal_and_a_curve(tmp_path, monkeypatch):
    out = tmp_path / "out"
    card, path = make_weights(RECIPE, 3, tmp_path, out, "python -m bench train x --seed 3")
    net = model_card("rdi_smallcnn").build()
    load_weights(net, path, card.sha256)
    assert card.source == "python -m bench train x --seed 3"
    assert card.details["seed"] == 3 and card.details["trained_on"]
    assert 0 <= card.details["on_calibration_split"]["pgd20_average"] <= card.details["on_calibration_split"]["clean"] <= 1
    assert about_weights(card) == about(RECIPE, net) and about_weights(card).title == "x"
    parse_policy(card.policy, net.n_exits, card.calibration)
    stem = "rdi_smallcnn-digits-x"
    assert sorted(p.name for p in out.iterdir()) == [f"{stem}{end}" for end in (".json", ".run.json", ".run.png", ".safetensors")]
    journal = json.loads((out / f"{stem}.run.json").read_text())
    assert [epoch["epoch"] for epoch in journal["history"]] == [1, 2] and journal["seed"] == 3 and journal["versions"]["torch"]
    commit = card.details["versions"]["commit"]
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)
    assert read_recipe(out / f"{stem}.run.json") == RECIPE
    assert (out / f"{stem}.run.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(out))
    assert [found.stem for found, _ in known_weights("rdi_smallcnn") if found.training == "x"] == [stem]


def test_the_curve_is_drawn_alike_whatever_the_user_s_settings_which_stay():
    import matplotlib

    plain = to_png(styled(Figure)())
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"axes.titlesize": 40, "axes.grid.axis": "x", "figure.figsize": (2, 2), "savefig.dpi": 30}):
        theirs = dict(matplotlib.rcParams)
        assert to_png(styled(Figure)()) == plain and dict(matplotlib.rcParams) == theirs
    assert dict(matplotlib.rcParams) == before and before["axes.spines.top"] != RC["axes.spines.top"]


def test_the_card_has_the_rule_of_the_recipe(tmp_path):
    card, _ = make_weights(replace(RECIPE, phases=(Phase(1),), rule="vote@mmacs=7"), 0, tmp_path, tmp_path, "")
    assert card.policy.startswith("vote:") and card.calibration and card.details["recipe"]["rule"] == "vote@mmacs=7"


def test_another_rule_leaves_the_weights_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))
    short = replace(RECIPE, phases=(Phase(1),))
    before, path = make_weights(short, 0, tmp_path, tmp_path, "the command")
    weights = path.read_bytes()
    figures = {"measured": {"policy": before.policy}}
    path.with_suffix(".json").write_bytes(WEIGHTS_CARD.text(replace_card(before, details={**before.details, **figures})))

    same, _ = deploy_again(short, tmp_path, tmp_path)
    assert same == replace_card(before, details={**before.details, **figures})
    asked = replace(short, rule="vote@mmacs=7")
    after, copied = deploy_again(asked, tmp_path, tmp_path / "copy")
    assert copied.read_bytes() == weights and copied != path
    assert sorted(p.name for p in copied.parent.iterdir()) == sorted(
        f"{asked.name}{end}" for end in (".json", ".run.json", ".run.png", ".safetensors")
    )
    made, _ = make_weights(asked, 0, tmp_path, tmp_path / "made", "the command")  # the same as training with this rule
    assert (after.policy, after.calibration, after.source) == (made.policy, made.calibration, "the command")
    assert {**after.details, "trained_with": ""} == {**made.details, "trained_with": ""}
    assert after.policy.startswith("vote:") and "measured" not in after.details
    given, _ = deploy_again(replace(short, rule="margin:0.9,0.2"), tmp_path, tmp_path / "given")
    assert read_recipe(tmp_path / "copy" / f"{asked.name}.run.json") == asked, "its journal trains what was deployed"
    assert "rule" not in json.loads((tmp_path / f"{asked.name}.run.json").read_text())["recipe"]
    assert (given.policy, given.calibration, given.details["recipe"]["rule"]) == ("margin:0.9,0.2", None, "margin:0.9,0.2")


@pytest.mark.parametrize("compiled", [None, False, True])
def test_it_is_compiled_where_that_is_asked_for(tmp_path, monkeypatch, compiled):
    pieces = []
    monkeypatch.setattr(machine, "compile_pieces", pieces.extend)
    make_weights(
        replace(RECIPE, phases=(Phase(1),)), 0, tmp_path, tmp_path, "", device="cpu", precision="fp32", compiled=compiled
    )
    assert len(pieces) == (6 if compiled else 0), "three stages and three heads"
    assert json.loads((tmp_path / f"{RECIPE.name}.run.json").read_text())["machine"]["compiled"] is bool(compiled)


def test_a_recipe_can_start_from_the_weights_of_another(tmp_path, monkeypatch):
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))
    make_weights(replace(RECIPE, training="first"), 0, tmp_path, tmp_path, "")
    second = replace(RECIPE, training="second", after="first", phases=(Phase(1),), peak_lr=1e-4)
    card, _ = make_weights(second, 0, tmp_path, tmp_path, "")
    assert card.details["recipe"]["after"] == "first"
    make_weights(replace(second, training="fresh", after=None), 0, tmp_path, tmp_path, "")
    first_losses = [
        json.loads((tmp_path / f"rdi_smallcnn-digits-{t}.run.json").read_text())["history"][0]["loss"]
        for t in ("second", "fresh")
    ]
    assert first_losses[0] < first_losses[1]


def test_weights_to_start_from_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"starts from the weights of the training 'none'.*no weights"):
        make_weights(replace(RECIPE, after="none"), 0, tmp_path, tmp_path, "")


def test_finished_weights_are_never_trained_over(tmp_path):
    (tmp_path / "rdi_smallcnn-digits-x.safetensors").write_bytes(b"hours of work")
    with pytest.raises(UserError, match="is there already; move it away"):
        make_weights(RECIPE, 0, tmp_path, tmp_path, "")
    assert (tmp_path / "rdi_smallcnn-digits-x.safetensors").read_bytes() == b"hours of work"


def test_a_machine_without_a_gpu_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU here"):
        make_weights(RECIPE, 0, tmp_path, tmp_path, "", device="cuda")
