"""Resolves requested names to attacks on a network of K exits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exitbench.attacks.registry import AttackCard, AttackGroup, Goal, build, find_attack, registered

if TYPE_CHECKING:
    from exitbench.attacks.base import Attack
    from exitbench.attacks.deployment import Deployment
    from exitbench.attacks.settings import AttackSettings


@dataclass(frozen=True)
class Skipped:
    """A name that adds no attack, and the reason."""

    name: str
    reason: str


def expand(names: Iterable[str], deployment: Deployment, settings: AttackSettings) -> tuple[dict[str, Attack], list[Skipped]]:
    """Return the attacks that ``names`` stand for, by name, in order, and the names skipped with the reason.

    ``all`` is the whole matrix and ``single`` every ``single:k``. On a one-exit network every form of the
    gradient attack is ``single:1``; the others are skipped, and so is ``slowdown``. Attacks that need more classes than the
    network has, by their loss for example, are skipped, too; in a threat model with a grid, so are those that hold no region.

    Args:
        names: of registered attacks and groups (``exitbench.attacks.registry``), or ``all``.
        deployment: of the network; its costs are needed by slowdown attacks alone.
        settings: of the evaluation.

    Raises:
        UnknownName: with suggestions.
        NameTaken: two attacks of one name, whichever is asked for.
        InvalidValue: for an exit that the network does not have, a slowdown attack without costs, or an attack of an installed
            package that cannot be made.
    """
    attacks: dict[str, Attack] = {}
    skipped: list[Skipped] = []
    for name in _elementary(names, deployment.n_exits):
        reason = _superfluous(find_attack(name)[0]) if deployment.n_exits == 1 else None
        if reason is None:
            attack = build(name, deployment, settings)
            if (fault := _off_grid(attack, settings)) is not None:
                skipped.append(Skipped(name, fault))
            elif deployment.has_classes_for(attack):
                attacks[name] = attack
            else:
                skipped.append(Skipped(name, f"it needs {attack.least_classes} classes, the network has {deployment.n_classes}"))
            continue
        skipped.append(Skipped(name, reason))
        single = build("single:1", deployment, settings)
        if find_attack(name)[0].same_on_one_exit and deployment.has_classes_for(single):
            attacks.setdefault("single:1", single)
    return attacks, skipped


def matrix_names(n_exits: int) -> set[str]:
    """Return the names of the whole matrix on a network of ``n_exits`` exits, to which ``all`` expands."""
    return set(matrix(n_exits))


def matrix(n_exits: int, goal: Goal | None = None) -> list[str]:
    """Return the names of the whole matrix in order.

    Args:
        n_exits: Number of exits of the network.
        goal: Goal of the attacks; None for all.
    """
    cards = {name: find_attack(name)[0] for name in _elementary(["all"], n_exits)}
    wanted = {name: card for name, card in cards.items() if goal in (None, card.goal)}
    return [name for name, card in wanted.items() if n_exits > 1 or _superfluous(card) is None]


def attack_texts() -> dict[str, str]:
    """Return every name and its one-line description, including those of installed packages."""
    return {name: each.summary for name, each in registered().items()}


def names_in_all() -> list[str]:
    """Return the names that ``all`` expands to."""
    return [name for name, each in registered().items() if each.in_all]


def groups(n_exits: int) -> dict[str, list[str]]:
    """Return the groups in ``all``, each with the names that it expands to."""
    found = [each for each in registered().values() if isinstance(each, AttackGroup) and each.in_all]
    return {group.name: list(group.members(n_exits)) for group in found}


def _off_grid(attack: Attack, settings: AttackSettings) -> str | None:
    """Return why an attack is not run in a threat model with a grid, or None if it is: its key must say what it searches."""
    from exitbench.attacks.base import region_of  # it takes torch, which listings do without

    region, grid = region_of(attack), settings.region.grid
    if grid is None or (region is not None and region.grid == grid):
        return None
    return "it has no field with the threat model, so that its results on a grid would be taken for others"


def _superfluous(card: AttackCard) -> str | None:
    """Return why an attack is not run on a network with one exit, or None if it is."""
    if card.same_on_one_exit:
        return "the same as single:1 on a network with one exit"
    return "one exit has one cost" if card.goal == "cost" else None


def _elementary(names: Iterable[str], n_exits: int) -> Iterable[str]:
    """Yield the names of single attacks that ``names`` expand to."""
    known = registered()
    aliases = {alias: card.name for card in known.values() if isinstance(card, AttackCard) for alias in card.aliases}
    for name in names:
        group = known.get(name)
        if name == "all":
            yield from _elementary(names_in_all(), n_exits)
        elif isinstance(group, AttackGroup):
            yield from group.members(n_exits)
        else:
            yield aliases.get(name, name)
