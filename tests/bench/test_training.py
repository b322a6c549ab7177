"""The training loop on a few images: it learns, resumes exactly, and stops when it must."""

from dataclasses import replace

import pytest
import torch

from attacks.best_of import BestOf
from attacks.objectives import Mean, Only
from attacks.regions import Ball
from bench.data.digits import load_digits
from bench.data.split import Split
from bench.errors import UserError
from bench.training.loop import Diverged, Trainer
from bench.training.make_weights import make_weights
from bench.training.recipe import Recipe, named_recipe, recipe_names
from models.multi_exit import MultiExitNet
from models.policy_text import parse_policy
from models.registry import UnknownName, model_card
from models.weights import load_weights

RECIPE = Recipe("rdi_smallcnn", "digits", "average", Ball("Linf", 0.1), 1, 0.1, epochs=3, batch_size=32, peak_lr=0.02)


def few(n=96) -> Split:
    split = load_digits("train", (1, 28, 28))
    return replace(split, images=split.images[:n], labels=split.labels[:n])


def fresh() -> MultiExitNet:
    torch.manual_seed(0)
    return model_card("rdi_smallcnn").build()


def trained(folder, epochs=None) -> tuple[MultiExitNet, Trainer]:
    net = fresh()
    trainer = Trainer(net, RECIPE, few(), 0, folder / "x.resume")
    for record in trainer.epochs():
        if record.epoch == epochs:
            break
    return net, trainer


def test_the_loss_falls(tmp_path):
    _, trainer = trained(tmp_path)
    losses = [record.loss for record in trainer.history]
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_a_resumed_run_makes_the_weights_of_an_unbroken_one(tmp_path):
    whole, _ = trained(tmp_path / "a")
    trained(tmp_path / "b", epochs=1)
    resumed, trainer = trained(tmp_path / "b")
    assert [record.epoch for record in trainer.history] == [1, 2, 3]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_a_resume_file_of_another_recipe_is_refused(tmp_path):
    trained(tmp_path, epochs=1)
    for other in ({"recipe": replace(RECIPE, peak_lr=0.01), "seed": 0}, {"recipe": RECIPE, "seed": 1}):
        with pytest.raises(UserError, match="another recipe or seed"):
            Trainer(fresh(), train=few(), resume_file=tmp_path / "x.resume", **other)


def test_a_damaged_resume_file_is_refused(tmp_path):
    (tmp_path / "x.resume").write_bytes(b"PK half a file")
    with pytest.raises(UserError, match="not readable"):
        Trainer(fresh(), RECIPE, few(), 0, tmp_path / "x.resume")


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_epoch(tmp_path):
    net = fresh()
    trainer = Trainer(net, RECIPE, few(), 0, tmp_path / "x.resume")
    epochs = trainer.epochs()
    next(epochs)
    kept = (tmp_path / "x.resume").read_bytes()
    with torch.no_grad():
        net.heads[0][-1].bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="became nan in epoch 2"):
        next(epochs)
    assert (tmp_path / "x.resume").read_bytes() == kept


def test_defences_attack_what_they_say():
    assert replace(RECIPE, defence="standard").attack(3) is None
    assert replace(RECIPE, defence="main").attack(3).objective.over == Only(3)
    assert RECIPE.attack(3).objective.over == Mean()
    selection = replace(RECIPE, defence="max_average").attack(3)
    assert isinstance(selection, BestOf) and len(selection.attacks) == 3
    assert all(attack.keep == "last" for attack in selection.attacks)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fits_its_model(name):
    recipe = named_recipe(name)
    assert recipe.name == name
    net = model_card(recipe.model).build()
    assert recipe.defence == "standard" or recipe.attack(net.n_exits) is not None


def test_an_unknown_recipe_brings_suggestions():
    with pytest.raises(UnknownName, match="did you mean 'resnet38-digits-average'"):
        named_recipe("resnet38-digits-avg")


def test_weights_come_with_a_card_that_says_how_they_were_made(tmp_path):
    recipe = replace(RECIPE, epochs=1, batch_size=512)
    card, path = make_weights(recipe, 3, tmp_path, tmp_path / "out", "python -m bench train x --seed 3", lambda _: None)
    net = model_card("rdi_smallcnn").build()
    load_weights(net, path, card.sha256)
    assert card.source == "python -m bench train x --seed 3"
    assert card.details["seed"] == 3 and card.details["recipe"]["epochs"] == 1
    assert 0 <= card.details["on_calibration_split"]["pgd20_average"] <= card.details["on_calibration_split"]["clean"] <= 1
    parse_policy(card.policy, net.n_exits, card.calibration)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "rdi_smallcnn-digits-average.json",
        "rdi_smallcnn-digits-average.safetensors",
    ]
