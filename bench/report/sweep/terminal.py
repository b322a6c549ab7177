"""A sweep in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from exitbench.analysis.sweep.curve import Curve, Point
from exitbench.models.number_text import cost_text
from exitbench.models.policies import Policy
from exitbench.models.policy_text import policy_text
from exitbench.models.rules.own import PREFIX
from exitbench.report.leaderboard.flags import lines
from exitbench.report.plain_text import line
from exitbench.report.sweep.table import status
from exitbench.scoring.evaluation import Bools, accuracy

SHORT = 24
"""Most characters of a rule beside the figures."""


def curve_text(curve: Curve) -> RenderableType:
    """Return the table of a curve: cost, clean accuracy and worst case of every policy, with notes."""
    record = curve.pool.record
    threat = record.threat.text
    kind = "one exit" if curve.rule is None else f"exit rule {curve.rule}"
    where = f"{record.dataset} test, {threat}, n = {record.n}"
    title = f"{record.model} ({record.training}, {kind}) on {where}"
    table = Table()
    table.add_column("exit rule", no_wrap=True)
    for heading in ("mean\nmmacs", "clean %", "95 % interval", "worst\ncase %", "95 % interval"):
        table.add_column(heading, justify="right")
    for point in curve.points:
        style = "bold" if point.where == "deployed" else ""
        table.add_row(
            _name(curve, point), cost_text(point.mmacs), *_shares(point.judged.correct), *_shares(point.judged.worst), style=style
        )
    return Group(line(title, "bold"), table, *(line(note, style) for note, style in _notes(curve)))


def _name(curve: Curve, point: Point) -> str:
    if point.where == "target":
        return f"mmacs={point.target:g}"
    exits = {"first exit": "exit:1", "last exit": f"exit:{len(curve.pool.mmacs)}"}
    return exits.get(point.where) or ("deployed" if len(curve.deployed) == 1 else f"deployed, {_short(point.policy)}")


def _short(policy: Policy) -> str:
    """Return a rule's written form where it is short, without its numbers where it is not."""
    text = policy_text(policy).removeprefix(PREFIX).partition("@")[0]
    return text if len(text) <= SHORT else text.partition(":")[0]


def _shares(judged: Bools | None) -> tuple[str, str]:
    if judged is None:
        return "-", "-"
    share, low, high = accuracy(judged)
    return f"{100 * share:.2f}", f"{100 * low:.1f} - {100 * high:.1f}"


def _notes(curve: Curve) -> list[tuple[str, str]]:
    """Return notes on the validity of the figures, each with a style."""
    notes = []
    for point in curve.deployed:
        if point.evaluation is None:
            continue
        which = f"{_short(point.policy)}, {cost_text(point.mmacs)} mmacs" if len(curve.deployed) > 1 else "deployed rule"
        if (found := status(curve, point)) != "ok":
            notes.append((f"{which}: {found}", "yellow"))
        notes += [
            (f"{each.sign} {each.label}: {each.message}", "red" if each.kind == "failure" else "yellow")
            for each in lines(point.evaluation)
            if each.kind != "info"
        ]
        own = float(point.evaluation.worst.mean())
        if point.judged.worst is not None and point.judged.worst.mean() < own:
            notes.append(
                (
                    f"{which}: lower than the leaderboard's {100 * own:.2f} %, as images made against other rules count",
                    "dim",
                )
            )
    if curve.rule is not None:
        rule = f"{curve.rule}@mmacs=COST"
        notes.append(
            (
                "only deployed rules were attacked themselves; for the others the worst case is a looser upper bound, from "
                f"attacks on other rules and single exits; `exitbench run --policy {rule} --attack all` attacks one of them",
                "dim",
            )
        )
        notes.append(("rules set on held-out training images, costs measured on the evaluated ones", "dim"))
    if curve.rule is not None and curve.pool.attacked:
        notes.append(
            (
                f"on {100 * curve.any_exit_robust.mean():.2f} % every exit stays right on all stored images",
                "dim",
            )
        )
    return notes
