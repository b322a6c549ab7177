"""The claims of the toy evaluation, as they come out of its store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exitbench.models.policies import Policy
from exitbench.store.store import Store
from exitbench.verify.check import Verified, verify
from exitbench.verify.claims import Claims
from exitbench.verify.gather import gather
from exitbench.verify.results import find_results
from exitbench.verify.scorer import Scorer
from tests.bench.evaluated import FORMS, NET, evaluate, prepared, toy_policy, toy_split


def toy_store(folder: Path, names: Sequence[str] = FORMS, policy: Policy | None = None) -> Store:
    """A results folder whose store holds the toy's evaluation under a policy that uses every exit."""
    return evaluate(folder / "store", names, prepared(policy or toy_policy()))[1]


def toy_claims(folder: Path) -> Claims:
    """The claims of the only evaluation in a results folder."""
    found = find_results(str(folder), folder)
    (records,) = found.records
    claims = gather(found.store, records, toy_split(), {})
    assert claims is not None
    return claims


def verified(claims: Claims, weights: str = "0" * 64) -> Verified:
    """The claims checked against the toy."""
    return verify(claims, Scorer(NET), weights)


def texts(claims: Claims, weights: str = "0" * 64) -> list[str]:
    """Every mismatch in words."""
    return [str(mismatch) for mismatch in verified(claims, weights).mismatches]
