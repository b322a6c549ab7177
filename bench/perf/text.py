"""Formats a measurement as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exitbench.perf.compare import NOISE, Change

NAMES = {
    "pgd": "PGD, every exit",
    "autoattack": "AutoAttack, all views",
    "autoattack_deployed": "AutoAttack, deployed",
}


def perf_text(found: Mapping[str, Any]) -> RenderableType:
    """Return tables of the ratios and of the suite's steps, and lines of the other figures."""
    rates = found["throughput"]
    lines = [
        f"forward and gradient, images/s at batch {rates['batch']}: plain {rates['plain']:.0f}, "
        f"search model ({found['searched_on']}) {rates['twin']:.0f}: {rates['ratio']:.2f} times; "
        f"of what a matrix product reaches in the same precision ({rates['matrix_gflops']:.0f} and "
        f"{rates['matrix_gflops_of_search']:.0f} GFLOP/s), plain {rates['plain_of_ceiling']:.0%}, "
        f"search model {rates['twin_of_ceiling']:.0%}"
    ]
    for name, each in found["against"].items():
        if each["ratios_first"]:
            first, ratios = each["first"], each["ratios_first"]
            lines.append(
                f"{NAMES[name]}: as low for the first time after {first['step']} ({first['seconds']:.1f} s), "
                f"{ratios['seconds']:.1f} times the suite's seconds and {ratios['gradients']:.1f} times its gradients"
            )
    ways = found.get("autoattack_deployed")
    if ways:
        plain, quick = ways["plain"], ways["twin"]
        lines.append(
            f"AutoAttack on the deployed rule: {plain['seconds']:.0f} s on the plain model ({plain['robust']} robust), "
            f"{quick['seconds']:.0f} s on the search model ({quick['robust']} robust): "
            f"{plain['seconds'] / quick['seconds']:.2f} times"
        )
    shares = ", ".join(f"{part} {share:.0%}" for part, share in found["profile"].items() if share >= 0.01)
    lines.append(f"where the adaptive attack's time goes: {shares}")
    search = found["search"]
    lines.append(
        f"the adaptive attack: {search['gradients']:.0f} gradients/s, {search['share']:.0%} of the {search['ceiling']:.0f} "
        "that its network does alone"
    )
    return Group(_ratios(found), _suite(found), _per_gradient(found), *_run(found), *map(Text, lines))


def changes_text(found: Sequence[Change], differences: Sequence[str]) -> RenderableType:
    """Return a table of what changed by more than noise, the slower first, and lines of what cannot be compared."""
    table = _table("compared with before; 1.5: takes half as long again", ("", "before", "now", "slower by"))
    for change in found:
        if not 1 / NOISE <= change.slower <= NOISE:
            table.add_row(change.figure, f"{change.before:.4g}", f"{change.after:.4g}", f"{change.slower:.2f}")
    same = sum(1 / NOISE <= change.slower <= NOISE for change in found)
    lines = [*(f"not the same: {line}" for line in differences), f"{same} further figures differ by less than {NOISE - 1:.0%}"]
    return Group(table, *map(Text, lines))


def _per_gradient(found: Mapping[str, Any]) -> Table:
    table = _table("for each gradient of the whole batch", ("attack", "launches", "waits"))
    for attack, each in found["per_gradient"].items():
        table.add_row(attack, f"{each['launches']:.0f}", f"{each['waits']:.2g}")
    return table


def _run(found: Mapping[str, Any]) -> list[Table]:
    """Return the table of a whole run, where one was timed."""
    if "run" not in found:
        return []
    run = found["run"]
    table = _table(f"a whole run of {', '.join(run['attacks'])}, n = {run['n']}", ("stage", "s", "share"))
    for stage, took in {**run["seconds"], "in all": run["total"]}.items():
        table.add_row(stage, f"{took:.2f}", f"{took / run['total']:.0%}")
    return [table]


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    return table


def _ratios(found: Mapping[str, Any]) -> Table:
    title = f"to the same or lower robust accuracy, {found['clean']} of {found['n']} right when clean"
    caption = "torchattacks, pyautoattack on the plain fp32 model; left: robust; s: seconds; g: gradients per image"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", padding=(0, 0, 0, 1))
    table.add_column("by hand", no_wrap=True)
    for heading in ("left", "s", "g", "suite:\nleft", "s", "g", "ratio\ns", "ratio\ng"):
        table.add_column(heading, justify="right")
    for name, each in found["against"].items():
        last, point, ratios = each["course"][-1], each["suite"], each["ratios"]
        row = [str(last["robust"]), f"{last['seconds']:.1f}", f"{last['backwards'] / found['n']:.0f}"]
        if point is None:
            row += ["not reached", "", "", "", ""]
        else:
            row += [str(point["robust"]), f"{point['seconds']:.1f}", f"{point['backwards'] / found['n']:.0f}"]
            row += [f"{ratios['seconds']:.1f}", f"{ratios['gradients']:.1f}"]
        table.add_row(NAMES[name], *row)
    return table


def _suite(found: Mapping[str, Any]) -> Table:
    table = _table("the suite, step by step", ("after", "robust", "s", "gradients"))
    for spent in found["suite"]:
        table.add_row(spent["step"], str(spent["robust"]), f"{spent['seconds']:.1f}", str(spent["backwards"]))
    return table
