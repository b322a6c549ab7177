"""Pruning: the schedule, removed weights that stay removed, and the costs that recipes promise."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exitbench.attacks.regions import ThreatModel
from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models.cost import measure_costs
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.registry import ModelCard, model_card
from exitbench.models.spec import digest
from exitbench.models.weights import load_weights
from exitbench.training import fits
from exitbench.training import make_weights as make_weights_module
from exitbench.training.fits import check_fit
from exitbench.training.loop import Diverged
from exitbench.training.make_weights import make_weights
from exitbench.training.prune import Pruner, prunable
from exitbench.training.recipe import Crafting, Phase, Pruning, Recipe
from exitbench.training.recipe_file import read_recipe, recipe_of
from exitbench.training.recipes import named_recipe, shortened
from tests.bench.test_training_loop import PGD, RECIPE, collapsing, fresh, trained, trainer

HALF = Pruning(0.5, epochs=2)
PRUNED = replace(RECIPE, pruning=HALF, phases=(Phase(3, PGD),))
STEPS = 3  # of an epoch of RECIPE
MIDDLE = "stages.1.0.weight"  # the one layer of `fresh` that is neither its first nor a classifier


def zeros(tensor):
    return int((tensor == 0).sum())


@given(sparsity=st.floats(0.01, 0.99), epochs=st.integers(0, 5), steps=st.integers(1, 50))
def test_the_share_rises_and_ends_exactly_where_it_should(sparsity, epochs, steps):
    pruning = Pruning(sparsity, epochs)
    shares = [pruning.share(step, steps) for step in range(epochs * steps + 10)]
    assert shares == sorted(shares) and shares[epochs * steps :] == [sparsity] * 10
    assert shares[0] == (0 if epochs else sparsity)


def test_the_share_is_the_papers_cubic():
    assert [Pruning(0.8, 4).share(step, 10) for step in (0, 10, 20, 30, 40)] == pytest.approx(
        [0.8 * (1 - left**3) for left in (1, 3 / 4, 1 / 2, 1 / 4, 0)]
    )


def test_the_smallest_weights_of_every_layer_go_and_first_layer_and_classifiers_stay():
    layers = [nn.Linear(4, 4, bias=False) for _ in range(4)]
    for layer in layers:
        layer.weight.data = torch.tensor([1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12, 13, -14, 15, -16.0]).view(4, 4)
    whole = layers[0].weight.clone()
    net = MultiExitNet([nn.Sequential(*layers[:2])], [nn.Sequential(*layers[2:])])
    assert list(prunable(net)) == ["stages.0.1.weight", "heads.0.0.weight"]
    Pruner(net, Pruning(0.25), steps_per_epoch=1)
    pruned = whole.clone()
    pruned[0] = 0
    for layer, wanted in zip(layers, (whole, pruned, pruned, whole), strict=True):
        assert torch.equal(layer.weight, wanted)


def test_what_is_removed_stays_so_and_of_every_layer_something_is_left():
    net = fresh()
    pruner = Pruner(net, Pruning(0.9999, epochs=4), steps_per_epoch=5)
    weight, before = prunable(net)[MIDDLE], torch.zeros_like(pruner.removed[MIDDLE])
    for step in range(1, 26):
        with torch.no_grad():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)))
        pruner.after(step)
        removed = pruner.removed[MIDDLE]
        assert (removed >= before).all() and zeros(weight) == int(removed.sum())
        before = removed.clone()
    assert zeros(weight) == weight.numel() - 1


def test_momentum_and_weight_decay_revive_nothing(tmp_path):
    net, run = trained(tmp_path, recipe=replace(PRUNED, weight_decay=0.1))
    removed, weight = run.pruner.removed[MIDDLE], prunable(net)[MIDDLE]
    assert int(removed.sum()) == weight.numel() / 2
    assert torch.equal(weight == 0, removed) and not torch.signbit(weight[removed]).any()
    momentum = run.descent.optimizer.state[weight]["momentum_buffer"]
    assert (momentum[removed] != 0).all()  # it would revive removed weights
    assert not any(zeros(tensor) for name, tensor in net.state_dict().items() if tensor.ndim > 1 and name != MIDDLE)


def test_removal_is_gradual(tmp_path):
    run = trainer(tmp_path, PRUNED)
    shares = [zeros(prunable(run.model)[MIDDLE]) / prunable(run.model)[MIDDLE].numel()]
    for _ in run.epochs():
        shares.append(zeros(prunable(run.model)[MIDDLE]) / prunable(run.model)[MIDDLE].numel())
    assert shares == pytest.approx([0, 0.5 * 7 / 8, 0.5, 0.5], abs=1e-3)


@pytest.mark.parametrize("epochs", [0, 2, 3])
@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_resumed_run_makes_the_weights_of_an_unbroken_one(tmp_path, epochs, killed_after):
    recipe = replace(PRUNED, pruning=Pruning(0.5, epochs))
    whole, unbroken = trained(tmp_path / "a", recipe=recipe)
    trained(tmp_path / "b", epochs=killed_after, recipe=recipe)
    resumed, run = trained(tmp_path / "b", recipe=recipe)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert torch.equal(run.pruner.removed[MIDDLE], unbroken.pruner.removed[MIDDLE])


def test_a_resume_file_from_before_there_was_pruning_goes_on(tmp_path):
    path = tmp_path / "x.resume"
    trained(tmp_path, epochs=1)
    state = torch.load(path, weights_only=True)
    del state["removed"]
    torch.save(state, path)
    _, run = trained(tmp_path)
    assert len(run.history) == 3


def test_an_undone_epoch_gives_back_what_it_removed(tmp_path, monkeypatch):
    run = trainer(tmp_path, PRUNED)
    epochs = run.epochs()
    next(epochs)
    masks, weights = copy.deepcopy(run.pruner.removed), copy.deepcopy(run.model.state_dict())
    collapsing(run, monkeypatch, [0.0, 0.0, 0.0])
    run.history[0] = replace(run.history[0], held_out_pgd=0.5)
    with pytest.raises(Diverged):
        next(epochs)
    assert torch.equal(run.pruner.removed[MIDDLE], masks[MIDDLE])
    assert torch.equal(run.model.state_dict()[MIDDLE], weights[MIDDLE])


def test_training_after_a_collapse_ends_as_sparse_as_any(tmp_path, monkeypatch):
    run = trainer(tmp_path, PRUNED)
    collapsing(run, monkeypatch, [0.4, 0.05, 0.41, 0.42])
    assert [record.collapses for record in run.epochs()] == [0, 1, 1]
    weight = prunable(run.model)[MIDDLE]
    assert zeros(weight) == weight.numel() / 2 and torch.equal(weight == 0, run.pruner.removed[MIDDLE])


def test_zeros_are_exact_in_the_saved_weights_and_the_card_tells_of_them(tmp_path, monkeypatch):
    def few(*request):
        split = load_split(*request)
        return replace(split, images=split.images[:64], labels=split.labels[:64])

    monkeypatch.setattr(make_weights_module, "load_split", few)
    recipe = Recipe("rdi_smallcnn", "digits", "x", ThreatModel("Linf", 0.1), (Phase(2),), 16, 0.02, pruning=Pruning(0.3, 1))
    card, path = make_weights(recipe, 0, tmp_path, tmp_path, "")
    net = model_card("rdi_smallcnn").build()
    load_weights(net, path, card.sha256)
    for weight in prunable(net).values():
        assert zeros(weight) == round(0.3 * weight.numel())
    assert card.details["recipe"]["pruning"] == {"sparsity": 0.3, "epochs": 1}
    assert read_recipe(tmp_path / f"{recipe.name}.run.json") == recipe
    costs = measure_costs(net, (1, 28, 28))
    assert costs.sparsity == pytest.approx(0.3, abs=0.01) and 0.69 < costs.mmacs[-1] / costs.mmacs_dense[-1] < 0.72


RDI_AT_EQUAL_SHARES = sum([17.61, 39.50, 53.79, 69.13, 82.23, 96.39, 101.11]) / 7
WANTED = {"resnet38-cifar10-pruned_fast": RDI_AT_EQUAL_SHARES, "resnet38-cifar10-pruned50_fast": 83.28 / 2}


@pytest.mark.parametrize("name", WANTED)
def test_the_named_recipes_cost_what_they_promise(name):
    recipe = named_recipe(name)
    assert recipe.after == "pgd_fast" and f"resnet38-cifar10-{recipe.after}" == named_recipe("resnet38-cifar10-pgd_fast").name
    card = model_card(recipe.model)
    net = card.build()
    assert recipe.pruning is not None and recipe.pruning.epochs < recipe.epochs
    Pruner(net, recipe.pruning, 100).after(100 * recipe.pruning.epochs)
    assert measure_costs(net, card.input_shape).mmacs[0] == pytest.approx(WANTED[name], abs=0.05)


OLD_DIGESTS = {
    "rdi_resnet38-cifar10-max_average_fast": "ff06a70c62aec755e6dcaf3a7f2e5b2ed0ca5cf43b6ca52122b9850bc4c28276",
    "resnet38-cifar10-pgd_fast": "f4dd1f39331ad8d6bbf8204567aa88ab67f90448e5cfae86eca905ae55cd6487",
}


@pytest.mark.parametrize("name", OLD_DIGESTS)
def test_a_recipe_without_pruning_keeps_the_identity_of_its_resume_files(name):
    assert digest({"recipe": named_recipe(name).summary(), "seed": 0}) == OLD_DIGESTS[name]


def test_shorter_training_prunes_in_the_same_part_of_it():
    recipe = replace(PRUNED, phases=(Phase(10, Crafting("main")),), pruning=Pruning(0.5, 6))
    assert [shortened(recipe, n).pruning for n in (5, 1)] == [Pruning(0.5, 3), Pruning(0.5, 1)]
    assert shortened(replace(recipe, pruning=Pruning(0.5)), 1).pruning == Pruning(0.5)
    assert shortened(replace(recipe, pruning=None), 1).pruning is None


@pytest.mark.parametrize("sparsity", [-0.1, 0.0, 1.0, 1.5, float("nan")])
def test_a_sparsity_that_is_no_share_is_refused(sparsity, tmp_path):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Pruning(sparsity)
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**RECIPE.summary(), "pruning": {"sparsity": sparsity}}), encoding="utf-8")
    with pytest.raises(UserError, match="is not a recipe: sparsity is a share of the weights"):
        read_recipe(path)


def test_other_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="number of epochs >= 0, got -1"):
        Pruning(0.5, -1)
    with pytest.raises(ValueError, match="unknown pruning settings share"):
        recipe_of({**RECIPE.summary(), "pruning": {"share": 0.5}})
    with pytest.raises(UserError, match=r"pruning takes 4 epochs, training has 3; allowed are 0 \(at once\) to 3"):
        check_fit(replace(PRUNED, pruning=Pruning(0.5, 4)))


def test_a_net_of_a_first_layer_and_classifiers_has_nothing_to_prune(monkeypatch):
    def build():
        return MultiExitNet([nn.Conv2d(1, 2, 3)], [nn.Sequential(nn.Flatten(), nn.Linear(72, 10))])

    card = ModelCard("tiny", "-", "digits", (1, 8, 8), "-", "MIT", build)
    monkeypatch.setattr(fits, "model_card", lambda name: card)
    with pytest.raises(UserError, match="has nothing to prune"):
        check_fit(replace(PRUNED, model="tiny"))


def test_listings_tell_of_it():
    assert named_recipe("resnet38-cifar10-pruned50_fast").text().endswith("50% of the weights pruned")
