"""Finds the two evaluations to compare, by model and weights or by run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, product
from pathlib import Path

from exitbench.analysis.compare.pairs import unpaired
from exitbench.errors import UserError
from exitbench.models.zoo.published import is_published, published_name
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.load import evaluation_of, evaluations
from exitbench.store.store import Store
from exitbench.verify.results import find_results


def find_pair(a: str, b: str, results: Path) -> tuple[Evaluation, Evaluation]:
    """Find the evaluations given by two names, which must share samples and threat model.

    A name is ``model`` or ``model:training`` for everything stored of it in ``results``, what names a published network, or a
    run as ``bench verify`` takes them: its record's file, or the first digits of its id.

    Raises:
        UserError: If a name matches nothing, no two evaluations share samples, or there are several such pairs.
    """
    a, b = (published_name(name) if is_published(name) else name for name in (a, b))
    found_a, found_b = _named(a, results), _named(b, results)
    both = combinations(found_a, 2) if a == b else product(found_a, found_b)
    pairs = [(x, y) for x, y in both if x.record != y.record and not list(unpaired(x.record, y.record))]
    if len(pairs) == 1:
        return pairs[0]
    if not pairs:
        raise UserError(f"no evaluation of {a} is paired with one of {b}: {_why(found_a, found_b)}")
    which = "; ".join(f"{describe(x)} with {describe(y)}" for x, y in pairs)
    raise UserError(f"{a} and {b} may mean several pairs: {which}. Name the runs by their ids (the names in store/runs)")


def _named(name: str, results: Path) -> list[Evaluation]:
    stored = evaluations(Store(results / "store")) if (results / "store").is_dir() else []
    found = [each for each in stored if name in (each.record.model, f"{each.record.model}:{each.record.training}")]
    if found:
        return found
    try:
        runs = find_results(name, results)
    except UserError as error:
        have = ", ".join(dict.fromkeys(f"{each.record.model}:{each.record.training}" for each in stored)) or "none"
        raise UserError(f"{name!r} is no model evaluated in {results} (there are: {have}), and no run: {error}") from error
    each_run = [evaluation_of(records, Store(runs.store)) for records in runs.records]
    found = [each for each in each_run if each is not None]
    if not found:
        raise UserError(f"{name} has no finished clean pass; give its `exitbench run` again")
    return found


def _why(found_a: Sequence[Evaluation], found_b: Sequence[Evaluation]) -> str:
    if len(found_a) == len(found_b) == 1:
        if found_a[0].record == found_b[0].record:
            return "both names mean the same evaluation"
        return (
            f"{'; '.join(unpaired(found_a[0].record, found_b[0].record))}. Evaluate both on the same samples with `exitbench run`"
        )
    return f"{_all(found_a)} against {_all(found_b)}. Evaluate both on the same samples with `exitbench run`"


def _all(found: Iterable[Evaluation]) -> str:
    return " and ".join(describe(each) for each in found)


def describe(evaluation: Evaluation) -> str:
    """Return a description of an evaluation that distinguishes it from others, in one line."""
    record = evaluation.record
    threat = record.threat.text
    policy = record.policy if len(record.policy) < 40 else f"{record.policy[:37]}..."
    return f"{record.model}:{record.training} ({record.dataset}, {threat}, n = {record.n}, {policy})"
