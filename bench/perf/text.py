"""Formats a measurement as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

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
        f"of the {rates['matrix_gflops']:.0f} GFLOP/s that an fp32 matrix "
        f"product reaches, plain {rates['plain_of_ceiling']:.0%}, search model {rates['twin_of_ceiling']:.0%}"
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
    return Group(_ratios(found), _suite(found), *map(Text, lines))


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
    table = Table(box=None, pad_edge=False, title="the suite, step by step", title_justify="left")
    for heading in ("after", "robust", "s", "gradients"):
        table.add_column(heading, justify="left" if heading == "after" else "right")
    for spent in found["suite"]:
        table.add_row(spent["step"], str(spent["robust"]), f"{spent['seconds']:.1f}", str(spent["backwards"]))
    return table
