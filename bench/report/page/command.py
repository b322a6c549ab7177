"""Reconstructs the commands behind a row of the leaderboard from its run records."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from exitbench.attacks.knobs import Spec
from exitbench.attacks.presets import groups
from exitbench.attacks.settings import read_back
from exitbench.data.in_memory import is_in_memory
from exitbench.models.number_text import eps_text
from exitbench.scoring.evaluation import Evaluation
from exitbench.store.run_record import CLEAN, Requested, RunRecord
from exitbench.target.in_memory import IN_MEMORY

_FROM_FILE = "file "  # how the source of weights begins in records from before it was kept what was asked for


def commands(evaluation: Evaluation) -> list[str]:
    """Return one ``exitbench run`` for each setting and seed, with all attacks requested under it.

    Model, weight file and policy are given as in the original command. Older records, which lack these, give thresholds as
    numbers (the same policy and results) and files without their folder.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for record in _worth_telling(evaluation.records or (evaluation.record,)):
        attacks = [attack for attack in record.attacks if not attack.component and attack.name != CLEAN]
        names = found.setdefault((*_target(record), *_settings([each.spec for each in attacks], record)), [])
        names += [attack.name for attack in attacks if attack.name not in names]
    record = evaluation.record
    shown = {rest: ",".join(_short(names, record.n_exits)) for rest, names in found.items() if names}
    if is_in_memory(record.dataset) or record.source.startswith(IN_MEMORY):
        return [_call(record, names, dict(zip(rest[::2], rest[1::2], strict=True))) for rest, names in shown.items()]
    return [shlex.join(["exitbench", "run", *rest[:6], "--attack", names, *rest[6:]]) for rest, names in shown.items()]


def _call(record: RunRecord, attacks: str, options: Mapping[str, str]) -> str:
    """Return the call of ``exitbench.evaluate`` for a network or images that were in memory; these must be at hand."""
    model = "net" if record.source.startswith(IN_MEMORY) else repr(record.model)
    dataset = "(images, labels)" if is_in_memory(record.dataset) else repr(_dataset(record))
    rest = {name.removeprefix("--").replace("-", "_"): value for name, value in options.items()}
    arguments = [model, f"dataset={dataset}", f"attacks={attacks!r}"]
    arguments += [f"{name}={_literal(value)}" for name, value in rest.items() if name not in ("model", "dataset", "training")]
    return f"exitbench.evaluate({', '.join(arguments)})"


def _literal(text: str) -> str:
    """Return an option's value as it is written in Python: a number, several as a tuple, or a quoted text."""
    if re.fullmatch(r"[0-9.e-]+(,[0-9.e-]+)+", text):
        return f"({text.replace(',', ', ')})"
    return text if re.fullmatch(r"[0-9.e+-]+(/[0-9]+)?", text) else repr(text)


def _worth_telling(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records, without those that lack the original request if later runs of the same cells have it."""
    told = {key for record in records if record.requested is not None for key in _cells(record)}
    return [record for record in records if record.requested is not None or not _cells(record) <= told]


def _cells(record: RunRecord) -> set[str]:
    return {key for attack in record.attacks for key in attack.keys}


def _target(record: RunRecord) -> Iterator[str]:
    requested = record.requested or _before(record)
    yield from ("--model", requested.model, "--dataset", _dataset(record))
    if requested.weights is not None:
        yield from ("--weights", requested.weights)
    elif requested.model == record.model:  # registered; what anybody's factory makes has no other weights than its own
        yield from ("--training", record.training)
    if requested.policy is not None:
        yield from ("--policy", requested.policy)
    for name, values in (("--mean", requested.mean), ("--std", requested.std)):
        if values is not None:
            yield from (name, ",".join(map(repr, values)))
    yield from ("--n", str(record.n), "--norm", record.norm, "--eps", number_text(record.eps))
    if record.grid is not None:
        yield from ("--grid", str(record.grid))


def _dataset(record: RunRecord) -> str:
    """Return how the dataset is asked for: the user's own by where it was."""
    return (record.requested and record.requested.dataset) or record.dataset


def _before(record: RunRecord) -> Requested:
    """Return the request of a record that lacks it."""
    source = record.source
    weights = source.removeprefix(_FROM_FILE) if source.startswith(_FROM_FILE) else None
    return Requested(model=record.model, weights=weights, policy=record.policy)


def _short(names: Sequence[str], n_exits: int) -> list[str]:
    """Return names with ``single`` in place of all of ``single:1..K``, and so on for each group, where there is more than one."""
    for short, parts in groups(n_exits).items():
        if len(parts) > 1 and set(parts) <= set(names):
            names = [short if name == parts[0] else name for name in names if name not in parts[1:]]
    return list(names)


def _settings(specs: Iterable[Spec], record: RunRecord) -> Iterator[str]:
    for name, value in _read_back(specs):
        yield from (f"--{name.replace('_', '-')}", number_text(value) if isinstance(value, float) else str(value))
    yield from ("--seed", str(record.seed))


def _read_back(specs: Iterable[Spec]) -> list[tuple[str, Any]]:
    """Return the settings of described attacks; none where a description only looks like one of ours."""
    try:
        return list(read_back(specs))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return []


def number_text(value: float) -> str:
    """Return the shortest text that the command line parses as exactly this number, as a fraction of 255 if it is one."""
    text = eps_text(value)
    over, _, under = text.partition("/")
    return text if float(over) / float(under or 1) == value else repr(value)
