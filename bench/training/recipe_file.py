"""Reads recipes from JSON, the form in which every training run stores its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from exitbench.attacks.regions import ThreatModel
from exitbench.errors import UserError
from exitbench.models.errors import InputError, InvalidValue
from exitbench.models.spec import type_name
from exitbench.training.certified import Certified
from exitbench.training.distillation import Distillation
from exitbench.training.recipe import Crafting, Phase, Pruning, Recipe

Setting = TypeVar("Setting", Recipe, Phase, Crafting, Pruning, Distillation, Certified, ThreatModel)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a JSON file: the recipe itself, or the journal of a training run, which has it under ``recipe``.

    Raises:
        UserError: If the file is missing or not JSON, or settings are unknown, missing or invalid; the message names them.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable recipe ({error})") from error
    if isinstance(content, Mapping) and "recipe" in content:
        content = content["recipe"]
    try:
        return recipe_of(content)
    except (TypeError, InputError) as error:
        raise UserError(f"{path} is not a recipe: {error}") from error


def recipe_of(content: Any) -> Recipe:
    """Return the recipe whose ``summary()`` is ``content``.

    Raises:
        InvalidValue: If settings are unknown, missing or invalid.
    """
    recipe = dict(_mapping(content, Recipe))
    recipe["ball"] = _made(ThreatModel, recipe.get("ball", {}))
    recipe["phases"] = tuple(_phase(phase) for phase in recipe.get("phases", ()))
    if recipe.get("pruning") is not None:
        recipe["pruning"] = _made(Pruning, recipe["pruning"])
    return _made(Recipe, recipe)


def _phase(content: Any) -> Phase:
    phase = dict(_mapping(content, Phase))
    if phase.get("crafting") is not None:
        phase["crafting"] = _made(Crafting, phase["crafting"])
    if phase.get("distillation") is not None:
        phase["distillation"] = _made(Distillation, phase["distillation"])
    if phase.get("certified") is not None:
        phase["certified"] = _made(Certified, phase["certified"])
    return _made(Phase, phase)


def _mapping(content: Any, kind: type) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise InvalidValue(f"{type_name(kind).lower()} settings are an object, got {content!r}")
    return content


def _made(kind: type[Setting], content: Any) -> Setting:
    settings = {name: value for name, value in _mapping(content, kind).items() if name != "type"}
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(settings) - set(known)):
        raise InvalidValue(f"unknown {type_name(kind).lower()} settings {', '.join(unknown)} (known: {', '.join(known)})")
    try:
        return kind(**settings)
    except TypeError as error:  # a setting is missing, or of a type that cannot be compared
        raise InvalidValue(f"{type_name(kind).lower()}: {error}") from error
