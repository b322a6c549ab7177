"""Describes a recipe for readers of cards and pages."""

from __future__ import annotations

from torch import nn

from exitbench.models import papers
from exitbench.models.about_weights import AboutWeights
from exitbench.models.number_text import eps_text
from exitbench.models.papers import Paper
from exitbench.training.recipe import Crafting, Recipe

_TITLES = {
    "standard": "no defence",
    "sdn": "no defence",
    "main": "main branch",
    "average": "average",
    "max_average": "max-average",
    "pgd": "adversarial",
    "policy": "agreeing exits",
    "gates": "max-average",
    "pruned": "adversarial, pruned",
    "pruned50": "adversarial, half pruned",
    "neo_kd": "NEO-KD",
    "skd": "SKD",
    "ard": "ARD",
    "ibp": "IBP",
    "crown_ibp": "CROWN-IBP",
    "certified_rule": "certified rule",
}
_AGAINST = {
    "main": "attacks on the last exit",
    "average": "attacks on the mean loss of the exits",
    "max_average": "the max-average attack",
    "sampled": "the max-average attack, approximated by one attack per image",
    "policy": "attacks on the deployed rule",
}
_PAPERS = {"average": papers.RDI, "max_average": papers.RDI, "neo_kd": papers.NEO_KD}


def about(recipe: Recipe, net: nn.Module) -> AboutWeights:
    """Return what readers are told of weights of ``net`` that were trained by ``recipe``."""
    kind = recipe.training.removesuffix("_fast")
    paper: Paper | None = _PAPERS.get(kind)
    return AboutWeights(
        title=_TITLES.get(kind, kind.replace("_", "-")),
        defence=_defence(recipe),
        paper=str(paper or ""),
        link=paper.link if paper else "",
        extra_data="none",
        parameters=sum(parameter.numel() for parameter in net.parameters()),
    )


def _defence(recipe: Recipe) -> str:
    last = recipe.phases[-1]
    ball = f"{recipe.ball.norm} {eps_text(recipe.ball.eps)}"
    if last.certified is not None:
        return f"training on certified bounds, {ball}, {recipe.epochs} epochs"
    if last.crafting is None:
        return f"none: {recipe.epochs} epochs on clean images"
    distilled = f", {_TITLES[last.distillation.kind]} between the exits" if last.distillation else ""
    agreeing = ", the exits learn to agree" if last.agreement else ""
    pruned = f", {recipe.pruning.sparsity:.0%} of the weights pruned" if recipe.pruning else ""
    before = (recipe.after or "").rpartition(":")[2].removesuffix("_fast")
    after = f" after {_TITLES.get(before, before)} training" if before else ""
    if recipe.trained == "gates":
        return f"gates alone, {recipe.epochs} epochs on clean and attacked images{after}"
    rest = f"{distilled}{agreeing}{pruned}, {ball}, {recipe.epochs} epochs{after}"
    return f"adversarial training against {_attack(last.crafting, recipe.model)}{rest}"


def _attack(crafting: Crafting, model: str) -> str:
    """Return the attack of a crafting in words; a network without branches has one exit, whatever is aimed at."""
    steps = "single-step" if crafting.steps == 1 else f"{crafting.steps}-step"
    alone = crafting.against == "main" and not model.startswith("rdi_")
    return f"{steps} attacks" if alone else f"{_AGAINST[crafting.against]} ({steps})"
