"""Joins what several stores know of the functions of networks, and finds those of one digest that were different functions."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from exitbench.models.stored import Unreadable
from exitbench.store.generations import Generation, Generations
from exitbench.store.merged import Conflict, Merged


@dataclass
class JoinedNetworks:
    """What joining did.

    Attributes:
        copied: how many files were written.
        clashes: digest of code and tensors, and the stores in which it was different functions, the one that is kept first.
        refused: stores and the digests in them whose results must not be taken: they are of another function.
    """

    copied: int = 0
    clashes: list[tuple[str, tuple[Path, ...]]] = field(default_factory=list)
    refused: set[tuple[Path, str]] = field(default_factory=set)


def join_networks(target: Path, sources: Sequence[Path], prefer: Path | None) -> JoinedNetworks:
    """Add the generations of ``sources`` to those of the store ``target``; of clashing ones the target's stay."""
    done = JoinedNetworks()
    places = [target, *sorted(sources, key=lambda place: place != prefer)]
    codes = {path.stem for place in places for path in (place / "networks").glob("*.json") if _valid(place, path.stem)}
    for code in sorted(codes):
        _join(code, target, places, done)
    return done


def _join(code: str, target: Path, places: Sequence[Path], done: JoinedNetworks) -> None:
    known = {place: generations for place in places if (generations := _valid(place, code))}
    joined: dict[str, tuple[Path, Generation]] = {}
    for place, generations in known.items():
        for each in generations:
            kept, found = joined.setdefault(each.weights, (place, each))
            if not found.fingerprint.agrees(each.fingerprint):
                done.refused.add((place, each.weights))
                done.clashes.append((each.weights, (kept, place)))
    if [each.weights for each in known.get(target, [])] != list(joined):
        Generations(target).write(code, [each for _, each in joined.values()])
        done.copied += 1


def take_networks(target: Path, sources: Sequence[Path], prefer: Path | None, done: Merged) -> Set[tuple[Path, str]]:
    """Join what is known of networks; return the stores and digests whose results are of another function than is kept."""
    joined = join_networks(target, sources, prefer)
    done.copied |= {"network": joined.copied} if joined.copied else {}
    done.conflicts += [Conflict("network", code, "what it computes", places, (), places[0]) for code, places in joined.clashes]
    return joined.refused


def _valid(place: Path, code: str) -> list[Generation]:
    """Return what a store knows of a network; nothing where that cannot be read, which ``inspect`` tells."""
    try:
        return Generations(place).load(code)
    except Unreadable:
        return []
