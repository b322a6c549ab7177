"""``bench list``: what can be named on the command line."""

from __future__ import annotations

import click


@click.command("list", short_help="List networks, attacks, exit rules, datasets, recipes")
@click.argument("what", type=click.Choice(["models", "attacks", "policies", "datasets", "recipes"]))
def command(what: str) -> None:
    """List networks (models), attacks, exit rules (policies), datasets or training recipes."""
    from rich.table import Table

    from exitbench.cli.console import terminal
    from exitbench.cli.listing_cache import remembered
    from exitbench.report.plain_text import cell

    rows = remembered(what, _ROWS[what])
    table = Table(box=None, pad_edge=False)
    for heading in ("name", *_EXTRA.get(what, ()), "what it is"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    terminal().print(table)


_EXTRA = {"models": ("dataset", "weights"), "policies": ("calibrated",), "datasets": ("Linf eps", "L2 eps", "test images")}


def _models() -> list[tuple[str, ...]]:
    from exitbench.errors import UserError
    from exitbench.models.registry import model_card, model_names
    from exitbench.models.weights import WeightsError
    from exitbench.models.zoo.sources import SOURCES

    rows: list[tuple[str, ...]] = []
    try:
        for card in map(model_card, model_names()):
            weights = ", ".join(f"{found.dataset} ({found.training})" for found in card.weights())
            rows.append((card.name, card.dataset, weights or "-", card.summary))
    except WeightsError as error:
        raise UserError(str(error)) from error
    return [*rows, *((source.form, source.dataset, source.weights, source.summary) for source in SOURCES.values())]


def _attacks() -> list[tuple[str, ...]]:
    from exitbench.attacks.presets import attack_texts, names_in_all

    return [("all", ", ".join(names_in_all())), *attack_texts().items()]


def _datasets() -> list[tuple[str, ...]]:
    from exitbench.data.cards import dataset_card, dataset_names
    from exitbench.data.references import FORMS
    from exitbench.models.number_text import eps_text

    cards = map(dataset_card, dataset_names())
    rows = [(card.name, eps_text(card.eps["Linf"]), eps_text(card.eps["L2"]), str(card.n_test), card.summary) for card in cards]
    return [*rows, *((form, eps_text(eps["Linf"]), eps_text(eps["L2"]), "-", what) for form, (what, eps) in FORMS.items())]


def _recipes() -> list[tuple[str, ...]]:
    from exitbench.training.recipes import named_recipe, recipe_names

    recipes = map(named_recipe, recipe_names())
    return [(r.name, r.text()) for r in recipes]


def _policies() -> list[tuple[str, ...]]:
    from exitbench.models.policy_text import LAST
    from exitbench.models.rules.registry import policy_cards
    from exitbench.target.calibrate import METHODS

    rows = [(card.form, "yes" if card.kind.is_family() else "", card.summary) for card in policy_cards().values()]
    return [
        *rows,
        (LAST, "", "the last exit, for every network"),
        ("file.py:make", "", "a rule of your own: what the function returns"),
        ("RULE:...:temperature=T1,...", "", "the rule on logits that are divided by a temperature per exit"),
        *((f"RULE@{method}", "", text) for method, text in METHODS.items()),
        ("RULE@...,temperature", "", "the same, with temperatures fitted first"),
    ]


_ROWS = {"models": _models, "attacks": _attacks, "policies": _policies, "datasets": _datasets, "recipes": _recipes}
