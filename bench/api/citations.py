"""What the numbers of evaluations rest on, as papers to cite: networks, exit rules, defences, attacks and data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from exitbench.models import citations
from exitbench.scoring.evaluation import Evaluation
from exitbench.store.run_record import RunRecord
from exitbench.training.recipe import Phase, Recipe
from exitbench.training.recipes import named_recipe, recipe_names

_TRAINED_HERE = "python -m bench train "
"""How the source of weights begins that a recipe of ours made."""


def cited(evaluations: Sequence[Evaluation]) -> tuple[list[str], list[str]]:
    """Return the keys of all papers in ``exitbench.models.citations``, and what has none there, in words."""
    keys: list[str] = []
    missing: list[str] = []
    for evaluation in evaluations:
        record = evaluation.record
        own = citations.of_network(record.model)
        missing += [] if own else [f"the network {record.model}"]
        keys += [*own, *citations.of_defence(_defence(record)), *citations.of_dataset(record.dataset)]
        missing += [] if citations.of_dataset(record.dataset) else [f"the dataset {record.dataset}"]
        keys += citations.of_rule(record.policy) if record.n_exits > 1 else ()
        for attack in evaluation.attacks:
            keys += citations.of_attack(attack.name, attack.summary)
        methods = evaluation.certificate.methods if evaluation.certificate else ()
        keys += [key for method in methods for key in citations.of_bounds(method.name)]
    return list(dict.fromkeys(keys)), list(dict.fromkeys(missing))


def _defence(record: RunRecord) -> Iterable[str]:
    """Return what the training of weights did that were made by one of our recipes; nothing is known of others."""
    if not record.source.startswith(_TRAINED_HERE):
        return ()
    name = record.source.removeprefix(_TRAINED_HERE).partition(" ")[0]
    if name not in recipe_names():
        return ()
    recipe = named_recipe(name)
    return dict.fromkeys(part for phase in recipe.phases for part in _parts(recipe, phase))


def _parts(recipe: Recipe, phase: Phase) -> Iterator[str]:
    """Yield the parts of a phase as ``citations.toml`` calls them."""
    if phase.distillation:
        yield phase.distillation.kind
    if phase.certified:
        yield from ("ibp", *(["crown_ibp"] if phase.certified.bounds == "crown_ibp" else []))
    if phase.crafting:
        yield "pgd" if phase.crafting.bounded else "n_fgsm"
        if recipe.model.startswith("rdi_") or phase.crafting.against in ("average", "max_average", "sampled"):
            yield "exits"
