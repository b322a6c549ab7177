"""The papers of networks, exit rules, attacks, defences and datasets, for citations; the facts are in ``citations.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("citations.toml")


@dataclass(frozen=True)
class Citation:
    """What is cited: a paper or a report.

    Attributes:
        title: as printed.
        authors: in order, as ``Given Family``; a family name of several words is in braces.
        year: of the venue.
        venue: conference, journal or institution; empty for a preprint.
        kind: of its BibTeX entry.
        url: where it can be read; empty where that is not known for certain.
        doi: empty where there is none, or it is not known for certain.
    """

    title: str
    authors: tuple[str, ...]
    year: int
    venue: str = ""
    kind: str = "inproceedings"
    url: str = ""
    doi: str = ""


@cache
def _content() -> Mapping[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


@cache
def citations() -> Mapping[str, Citation]:
    """Return all papers by the key of their BibTeX entry."""
    known = {field.name for field in fields(Citation)}
    found = {}
    for key, values in _content()["papers"].items():
        if unknown := set(values) - known:
            raise ValueError(f"{_FILE.name}: {key} has {', '.join(sorted(unknown))}, which no paper has")
        found[key] = Citation(**{**values, "authors": tuple(values["authors"])})
    return found


def of_network(name: str) -> tuple[str, ...]:
    """Return the keys of a network's papers, by its name in reports; none for a network of somebody's own."""
    package, dot, _ = name.partition(".")
    if dot:
        return tuple(_content()["packages"].get(package, ()))
    return _all(keys for part, keys in _content()["networks"].items() if part in name)


def of_rule(policy: str) -> tuple[str, ...]:
    """Return the keys of an exit rule's papers, by its text."""
    words = re.findall(r"(?:^|:)([a-z][a-z0-9-]*)", policy)
    return _all(_content()["rules"].get(word, ()) for word in words)


def of_attack(name: str, summary: str = "") -> tuple[str, ...]:
    """Return the keys of an attack's papers, by its name and the few words on how it was run."""
    method = re.split("[-, ]", summary)[0]
    return _all([_content()["methods"].get(method, ()), _content()["attacks"].get(name.partition(":")[0], ())])


def of_dataset(name: str) -> tuple[str, ...]:
    """Return the keys of a dataset's paper, by its registered name."""
    return tuple(_content()["datasets"].get(name, ()))


def of_defence(parts: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of a training's papers, by what it does."""
    return _all(_content()["defences"].get(part, ()) for part in parts)


def of_bounds(name: str) -> tuple[str, ...]:
    """Return the keys of a certificate's papers, by the name of its bounds."""
    return _all(keys for part, keys in _content()["bounds"].items() if part in name.lower())


def _all(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Return each key once, in order."""
    return tuple(dict.fromkeys(key for group in groups for key in group))
