"""Run records: they list the cells of a model, data, policy and attacks, and hold all that reports need."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from exitbench.models.errors import InvalidValue
from exitbench.models.field_types import Channels, Costs, Key, Line, Radius, Seed, Spec, Text
from exitbench.models.number_text import eps_text
from exitbench.models.spec import canonical_json, digest
from exitbench.models.stored import Format, NewerSchema, Stored, Unreadable, parsed
from exitbench.store.attack_spec import CLEAN as CLEAN  # noqa: PLC0414 - others import it from here
from exitbench.store.cell import SLICE
from exitbench.store.identity import Identity, Threat
from exitbench.store.inside import read_inside
from exitbench.store.migrations import run_record_1_to_2


class AttackEntry(Stored, frozen=True, kw_only=True):
    """One attack of a run.

    Attributes:
        name: as reported.
        goal: what it raises: the deployed rule's ``error``, or its ``cost``.
        summary: how it was run, in a few words; empty of the clean pass.
        spec: the resolved attack, as JSON values.
        component: there because a selection is made among it and others, not asked for by name.
        keys: of its cells, in the order of their samples.
    """

    name: Line
    goal: Literal["error", "cost"]
    summary: Text
    spec: Spec
    component: bool
    keys: tuple[Key, ...]


class Requested(Stored, frozen=True, kw_only=True):
    """What names the target, as it was asked for.

    Attributes:
        model: as on the command line.
        weights: a file of tensors; None for registered weights.
        policy: the exit rule; None for the weights' own.
        mean, std: of each channel, to normalise images with; None where they are the network's own.
        dataset: where the user's images are (``exitbench.data.references``); None for a registered dataset.
    """

    model: Text
    weights: Text | None
    policy: Text | None
    mean: Channels | None = None
    std: Channels | None = None
    dataset: Text | None = None


class RunRecord(Identity, frozen=True, kw_only=True):
    """One run of an evaluation.

    Attributes:
        source: where the weights come from.
        mmacs: 10^6 multiply-accumulates of each exit.
        mflops_paper: cost of each exit in the paper's figure; None of a network that it is not defined for.
        uncounted: operators that have no formula, so that mmacs is a lower bound.
        mmacs_dense: mmacs with zero weights counted; None where the network is not sparse.
        sparsity: share of the weights that are zero; None where it is not sparse.
        dataset_summary: the dataset in a line.
        usual_eps: radius that is usual for the dataset, where only an installed package knows it; None elsewhere.
        seed: of the attacks' noise.
        note: a choice made for the user, in a line; None where there was none.
        trust: key of the trust checks' result; None in records from before there were any.
        requested: what was asked for; None in records from before it was kept.
        attacks: in the order in which they are run, the clean pass among them.
    """

    source: Text
    mmacs: Costs
    mflops_paper: Costs | None = None
    uncounted: tuple[Text, ...] = ()
    mmacs_dense: Costs | None = None
    sparsity: Annotated[float, Meta(gt=0, le=1)] | None = None
    dataset_summary: Text
    usual_eps: Radius | None = None
    seed: Seed
    note: Text | None
    trust: Key | None = None
    requested: Requested | None = msgspec.field(default=None, name="asked")
    attacks: tuple[AttackEntry, ...]

    def __post_init__(self) -> None:
        if (self.mmacs_dense is None) != (self.sparsity is None):
            raise ValueError("`mmacs_dense` and `sparsity` are given together, or neither is")
        for name, costs in (("mflops_paper", self.mflops_paper), ("mmacs_dense", self.mmacs_dense)):
            if costs is not None and len(costs) != len(self.mmacs):
                raise ValueError(f"`{name}` has {len(costs)} values, `mmacs` has {len(self.mmacs)}: one of each exit")

    @property
    def n_exits(self) -> int:
        """How many exits the network has."""
        return len(self.mmacs)


RUN_RECORD = Format("a run record", RunRecord, {1: run_record_1_to_2})


def read_run(path: Path) -> RunRecord:
    """The record in a file, which is named by the digest of its content.

    Raises:
        NewerSchema: only a newer exitbench reads it.
        Unreadable: it is damaged, or no run record, or no file of the store.
        FileNotFoundError: there is no such file.
    """
    content, _ = RUN_RECORD.checked(parsed(read_inside(path.parent.parent, path), path), path)
    if digest(content) != path.stem:
        raise Unreadable(f"{path} cannot be read: its content is not that of its name")
    record = RUN_RECORD.read(content, path)
    if (flaw := _flaw(record)) is not None:
        raise Unreadable(f"{path} cannot be read as {RUN_RECORD.what}: {flaw}")
    return record


def check_rule(record: RunRecord, path: Path) -> None:
    """Check the exit rule of a record, which takes torch.

    Raises:
        LacksRule: it is a rule of somebody's own that was not given in this process.
        Unreadable: it is of no known form, or for another number of exits.
    """
    from exitbench.models.policy_text import parse_policy
    from exitbench.models.rules.own import RuleNotLoaded

    try:
        parse_policy(record.policy, record.n_exits)
    except RuleNotLoaded as error:
        raise LacksRule(f"{path} cannot be reported: {error}") from error
    except InvalidValue as error:
        raise Unreadable(f"{path} cannot be read as {RUN_RECORD.what}: {error}") from error


class LacksRule(Unreadable):
    """A run record is under a rule of somebody's own that is not at hand; nothing is wrong with the file."""


def left_out(why: Exception) -> str:
    """Return what is said of a run that reports leave out."""
    remedy = "" if isinstance(why, NewerSchema | LacksRule) else "; delete it and run the evaluation again"
    return f"{why}; this run is left out{remedy}"


def _flaw(record: RunRecord) -> str | None:
    """Return what of a record does not fit together."""
    names = [attack.name for attack in record.attacks]
    if len(set(names)) < len(names):
        return "it has two attacks of one name"
    slices = -(-record.n // SLICE)
    for attack in record.attacks:
        if len(attack.keys) != slices:
            return f"{attack.name} has {len(attack.keys)} cells; {record.n} samples are {slices}"
    if record.mmacs[0] <= 0 or any(later < earlier for earlier, later in pairwise(record.mmacs)):
        return f"costs of exits are positive and do not fall, `mmacs` is {list(record.mmacs[:8])}"
    return None


def run_name(record: RunRecord) -> str:
    """Name of the file that a record is written to: the same command, the same file."""
    return digest(RUN_RECORD.content(record))


def evaluation_key(record: RunRecord) -> str:
    """What two records share when they are of the same evaluation: all but attacks, trust checks, seed, note and request.

    Records of every schema of one evaluation have the same key, which links to the rows of pages depend on, too.
    """
    bare = msgspec.structs.replace(record, attacks=(), trust=None, seed=0, note=None, requested=None)
    content = {**RUN_RECORD.content(bare), "schema": 1}
    return canonical_json({name: value for name, value in content.items() if name not in ("attacks", "seed", "note")})


def board_name(dataset: str, threat: Threat) -> str:
    """Return the name of the leaderboard that a result belongs to, fit for file names."""
    grid = "" if threat.grid is None else f"-grid{threat.grid}"
    return f"{dataset}-{threat.norm}-{eps_text(threat.eps).replace('/', '_')}{grid}"
