"""Checks before training that a recipe fits its model and dataset."""

from __future__ import annotations

import torch

from exitbench.data.cards import dataset_card
from exitbench.errors import UserError
from exitbench.models.calibration import equal_share, target_cost
from exitbench.models.cost import measure_costs
from exitbench.models.errors import InputError, UnknownName
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policy_text import parse_policy
from exitbench.models.registry import ModelCard, model_card
from exitbench.models.rules.fit import check_rule
from exitbench.target.calibrate import Method
from exitbench.training.prune import prunable
from exitbench.training.recipe import Pruning, Recipe


def check_fit(recipe: Recipe) -> ModelCard:
    """Check a recipe and return the card of its model.

    Raises:
        UserError: If the model or dataset is unknown, or the model cannot be trained with the recipe's settings.
    """
    try:
        card = model_card(recipe.model)
        dataset = dataset_card(recipe.dataset)
    except UnknownName as error:
        raise UserError(f"recipe {recipe.name}: {error}") from error
    if not dataset.fits(card.input_shape):
        raise UserError(
            f"recipe {recipe.name}: {recipe.dataset} has images of {_by(dataset.input_shape)}, "
            f"{recipe.model} takes {_by(card.input_shape)}"
        )
    model = card.build().eval()
    for number, phase in enumerate(recipe.phases, start=1):
        where = f"recipe {recipe.name}, phase {number}"
        if phase.needs_policy and model.n_exits == 1:
            raise UserError(f"{where}: {recipe.model} has one exit and so no exit policy to train with; attack 'main'")
        if phase.image_size is not None:
            _check_size(model, card, phase.image_size, where)
    if recipe.trained == "gates" and not model.has_gate_scores:
        raise UserError(f"recipe {recipe.name}: {recipe.model} has no gates to train")
    _check_rule(recipe, model, card)
    if recipe.pruning:
        _check_pruning(recipe, recipe.pruning, model)
    return card


def _check_rule(recipe: Recipe, model: MultiExitNet, card: ModelCard) -> None:
    """Check the rule for the card, which is set when the weights are trained, as far as it can be set on random logits."""
    kind, at, text = recipe.rule.partition("@")
    try:
        if not at:
            return check_rule(parse_policy(recipe.rule, model.n_exits), model)
        method = Method.parsed(text)
        logits = torch.randn(model.n_exits, 16, 2, generator=torch.Generator().manual_seed(0))
        check_rule(equal_share(logits, kind), model)
        if method.name == "mmacs" and model.n_exits > 1:
            target_cost(logits, measure_costs(model, card.input_shape).mmacs, method.target, kind)
    except InputError as error:
        raise UserError(f"recipe {recipe.name}: the rule {recipe.rule!r} cannot be set: {error}") from error
    return None


def _check_pruning(recipe: Recipe, pruning: Pruning, model: MultiExitNet) -> None:
    if pruning.epochs > recipe.epochs:
        raise UserError(
            f"recipe {recipe.name}: pruning takes {pruning.epochs} epochs, training has {recipe.epochs}; allowed are 0 (at once) "
            f"to {recipe.epochs}"
        )
    if not prunable(model):
        raise UserError(f"recipe {recipe.name}: {recipe.model} has nothing to prune between its first layer and its classifiers")


def _check_size(model: MultiExitNet, card: ModelCard, size: int, where: str) -> None:
    channels, height, _ = card.input_shape
    try:
        if not 0 < size <= height:
            raise ValueError(f"images can only be shrunk, to 1..{height} pixels a side")
        with torch.no_grad():
            model(torch.zeros(1, channels, size, size))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where}: {card.name} cannot be trained on images of {size}x{size} ({reason})") from error


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
