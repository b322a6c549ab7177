"""Charts of cost against accuracy, laid out for SVG: the page's share of the look of ``exitbench.report.leaderboard.plot``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from exitbench.report.leaderboard.plot import Point, pareto_front, points
from exitbench.report.page.board import key_of, percent
from exitbench.report.page.curves import Curves, Swept, network_of
from exitbench.report.style import COLOURS, MARKERS, MEANING, SHAPES
from exitbench.scoring.evaluation import Evaluation

What = Literal["clean", "worst"]
TITLES: Mapping[What, str] = {"clean": "clean accuracy", "worst": "worst-case robust accuracy"}

WIDTH, HEIGHT = 520, 350
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 30, 44
_SIGNS = {"failure": "\u2715", "warning": "!", "not checked": "?"}


@dataclass(frozen=True)
class Mark:
    """A network's marker.

    Attributes:
        key: of its row.
        x, y: its centre; ``low`` and ``high`` are the ends of its interval.
        colour: number of its colour.
        shape: path about the origin.
        hollow: one exit, or flagged.
        sign: across it; empty for none.
        tip: lines of what to show of it.
    """

    key: str
    x: float
    y: float
    low: float
    high: float
    colour: int
    shape: str
    hollow: bool
    sign: str
    tip: str


@dataclass(frozen=True)
class Curve:
    """A network under other thresholds.

    Attributes:
        key: of the row it belongs to.
        line, band: as ``points`` of SVG.
        floor: where no rule falls below, as height; None for none.
        dots: x, y and tip of each rule.
    """

    key: str
    colour: int
    line: str
    band: str
    floor: float | None
    ends: tuple[float, float]
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Panel:
    """One of a chart's panels: everything in pixels, ticks with their text."""

    what: What
    title: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    front: str
    marks: tuple[Mark, ...]
    curves: tuple[Curve, ...]
    label: str
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Chart:
    """The panels of a board, and what the signs on them mean."""

    panels: tuple[Panel, ...]
    signs: tuple[tuple[str, str], ...]
    swept: bool


def chart(evaluations: Sequence[Evaluation], curves: Curves, styles: Sequence[int] | None = None) -> Chart:
    """Clean and worst-case accuracy against mean cost.

    Args:
        evaluations: of one board, in the order of rank.
        curves: of sweeps.
        styles: number of each evaluation's colour and marker; its place where there are none.
    """
    styles = range(len(evaluations)) if styles is None else styles
    owners: dict[tuple[str, ...], tuple[str, int]] = {}
    for style, evaluation in zip(styles, evaluations, strict=True):
        owners.setdefault(network_of(evaluation.record), (key_of(evaluation), style))
    swept = {network: curves[network] for network in owners if network in curves}
    costs = [point.mmacs for point in points(evaluations, "clean")]
    costs += [point.mmacs for found in swept.values() for curve in found for point in curve.points]
    most = 1.08 * max(costs, default=1.0)
    panels = tuple(_panel(what, evaluations, styles, swept, owners, most) for what in TITLES)
    kinds = {point.kind for point in points(evaluations, "clean")}
    signs = tuple((_SIGNS[kind], MEANING[kind]) for kind in MEANING if kind in kinds)
    return Chart(panels, signs, bool(swept))


def marker(style: int) -> tuple[int, str]:
    """Number of the colour, and shape, of a board's network."""
    return style % len(COLOURS), SHAPES[MARKERS[style % len(MARKERS)]]


def _panel(
    what: What,
    evaluations: Sequence[Evaluation],
    styles: Sequence[int],
    swept: Curves,
    owners: Mapping[tuple[str, ...], tuple[str, int]],
    most: float,
) -> Panel:
    def x(mmacs: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * mmacs / most, 1)

    def y(share: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1.03 - share) / 1.06, 1)

    found = [(evaluation, style, points([evaluation], what)) for evaluation, style in zip(evaluations, styles, strict=True)]
    drawn = [(evaluation, style, point) for evaluation, style, (point,) in (each for each in found if each[2])]
    marks = []
    for evaluation, style, point in drawn:
        colour, shape = marker(style)
        hollow = not point.multi_exit or point.kind != "ok"
        place = (x(point.mmacs), y(point.share), y(point.low), y(point.high))
        marks.append(Mark(key_of(evaluation), *place, colour, shape, hollow, _SIGNS.get(point.kind, ""), _tip(what, point)))
    front = pareto_front([point for *_, point in drawn])
    steps = [f"{'L' if i else 'M'}{x(p.mmacs)} {y(p.share)}H{x(q.mmacs)}" for i, (p, q) in enumerate(_pairs(front))]
    lines = []
    for network, curves in swept.items():
        key, style = owners[network]
        for curve in curves:
            shares = [(point, _share(point, what)) for point in curve.points]
            known = [(point, share) for point, share in shares if share is not None]
            if len(known) < len(shares) or not known:
                continue
            line = " ".join(f"{x(point.mmacs)},{y(share[0])}" for point, share in known)
            upper = [f"{x(point.mmacs)},{y(share[2])}" for point, share in known]
            lower = [f"{x(point.mmacs)},{y(share[1])}" for point, share in reversed(known)]
            dots = tuple((x(point.mmacs), y(share[0]), _rule_tip(what, curve.rule, point, share)) for point, share in known)
            floor = y(curve.floor) if what == "worst" and curve.floor is not None else None
            ends = (dots[0][0], dots[-1][0])
            lines.append(Curve(key, style % len(COLOURS), line, " ".join([*upper, *lower]), floor, ends, dots))
    return Panel(
        what,
        TITLES[what],
        tuple((x(value), f"{value:g}") for value in _ticks(most)),
        tuple((y(value / 100), str(value)) for value in range(0, 101, 20)),
        "".join(steps),
        tuple(marks),
        tuple(lines),
        f"{TITLES[what]} in percent against mean mmacs, {len(marks)} networks",
    )


def _pairs(front: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Each of the front's points with the next, the last with itself."""
    return list(zip(front, [*front[1:], *front[-1:]], strict=True))


def _share(point: Swept, what: What) -> tuple[float, float, float] | None:
    return point.clean if what == "clean" else point.worst


def _tip(what: What, point: Point) -> str:
    words = f"{percent(point.share)} % ({percent(point.low)} - {percent(point.high)})"
    return f"{point.label}\n{TITLES[what]} {words}\nmean cost {point.mmacs:.2f} mmacs"


def _rule_tip(what: What, rule: str, point: Swept, share: tuple[float, float, float]) -> str:
    name = point.policy if point.policy.startswith("exit:") else f"{rule} thresholds"
    words = f"{percent(share[0])} % ({percent(share[1])} - {percent(share[2])})"
    note = "\nnot attacked itself: attacks on other rules, carried over" if what == "worst" else ""
    return f"{name}\n{TITLES[what]} {words}\nmean cost {point.mmacs:.2f} mmacs{note}"


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to ``most``, five to ten of them."""
    step = 10.0 ** math.floor(math.log10(most))
    step = next(size for size in (step, step / 2, step / 5, step / 10) if most / size >= 4)
    return [round(i * step, 10) for i in range(int(most / step) + 1)]
