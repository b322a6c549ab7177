"""Every shipped weight file is intact, is made by an existing recipe, and is as accurate as its card says."""

from functools import cache
from pathlib import Path

import pytest
import torch

from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.data.cards import dataset_card
from exitbench.data.load import load_split
from exitbench.models.about_weights import about_weights
from exitbench.models.policies import FixedExit, deployed_logits
from exitbench.models.policy_text import parse_policy
from exitbench.models.registry import model_card
from exitbench.models.weights import JOURNAL, SHIPPED, load_weights, shipped_weights
from exitbench.training.about import about
from exitbench.training.recipe_file import read_recipe
from exitbench.training.recipes import named_recipe

pytestmark = [pytest.mark.long, pytest.mark.no_cover]  # forward passes and PGD alone, which other tests count as well

CARDS = {card.stem: (card, path) for card, path in shipped_weights()}
MEASURED = [stem for stem, (card, _) in CARDS.items() if "measured" in card.details]
"""Weights whose card has results under the whole matrix of attacks; other cards have results on held-out training images."""
ATTACKED = 12
"""Samples of a card's subset that are attacked here; clean, all of them are looked at."""
LIMIT = 60 * 2**20
"""Largest total size of the shipped weights, in bytes."""


def test_there_is_something_to_check_and_it_is_small():
    assert CARDS
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < LIMIT


@pytest.mark.parametrize("stem", CARDS)
def test_the_file_is_the_cards_and_the_recipe_is_still_there(stem):
    card, path = CARDS[stem]
    net = model_card(card.model).build()
    load_weights(net, path, card.sha256)
    assert all(torch.isfinite(tensor).all() for tensor in net.state_dict().values())
    recipe = named_recipe(stem)
    assert (recipe.model, recipe.dataset, recipe.training) == (card.model, card.dataset, card.training)
    assert card.source.startswith(f"python -m bench train {stem} ")
    assert about_weights(card) == about(recipe, net), "readers are told what the recipe does"
    journal = path.with_name(f"{stem}{JOURNAL}")
    assert not journal.is_file() or read_recipe(journal).rule == recipe.rule, "any journal is a recipe, with the rule deployed"
    if card.policy:
        parse_policy(card.policy, net.n_exits, card.calibration)


@pytest.mark.parametrize("stem", CARDS)
def test_held_out_images_score_as_the_card_says(stem, request):
    net, policy, card = deployed(stem)
    root = Path() if card.dataset == "digits" else request.getfixturevalue("data_dir")
    held_out = card.details["on_calibration_split"]
    split = split_of(card, "calibration", root)
    batch = split.batch(0, held_out["n"])
    right = "".join(verdicts(net, policy, x, y) for x, y in zip(batch.x.split(100), batch.y.split(100), strict=True))
    # One sample at a gate's edge may fall the other way where convolutions round differently.
    assert abs(right.count("1") - held_out["clean"] * held_out["n"]) <= 1.01


def test_the_first_samples_score_as_the_cards_say(request):
    for stem in MEASURED:
        net, policy, card = deployed(stem)
        subset = card.details["measured"]["subset"]
        root = request.getfixturevalue("data_dir")
        split = split_of(card, "test", root)
        batch = split.batch(0, subset["n"])
        ball = ThreatModel("Linf", dataset_card(card.dataset).eps["Linf"])
        pgd = PGD(Objective(CE(), Mean()), ball, subset["steps"], subset["step_size"])
        x, y = batch.x[:ATTACKED], batch.y[:ATTACKED]
        attacked = pgd(net, x, y, noise=Noise(0, batch.indices[:ATTACKED]))
        assert verdicts(net, policy, batch.x, batch.y) == subset["none"], stem
        found = verdicts(net, policy, attacked, y)
        wanted = subset.get("average", subset.get("single:1"))[:ATTACKED]
        assert sum(a != b for a, b in zip(found, wanted, strict=True)) <= 1, stem


def split_of(card, name, root):
    return _split(card.dataset, name, model_card(card.model).input_shape, root)


@cache
def _split(*which):
    return load_split(*which, download=False)


@cache
def deployed(stem):
    card, path = CARDS[stem]
    net = model_card(card.model).build()
    load_weights(net, path, card.sha256)
    policy = parse_policy(card.policy, net.n_exits, card.calibration) if card.policy else FixedExit(1)
    return net.eval().requires_grad_(False), policy, card


@torch.no_grad()
def verdicts(net, policy, x, y) -> str:
    logits, _ = deployed_logits(net(x), policy)
    return "".join("1" if right else "0" for right in logits.argmax(-1) == y)
