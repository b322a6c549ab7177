"""Fills in the charts' specification, ``templates/panel.vg.json``; the page's script does the same with the same file."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from exitbench.report.charts.axes import COSTS, SHARES
from exitbench.report.charts.rows import Row
from exitbench.report.page.assets import own
from exitbench.report.palette import COLOURS

Spec = dict[str, Any]

LIGHT: Mapping[str, str] = {
    **{f"--c{i}": colour for i, colour in enumerate(COLOURS)},
    **{"--bg": "#ffffff", "--fg": "#1c2024", "--muted": "#60666d", "--line": "#d9dde1"},
}
"""Colours on paper; on the page its style sheet gives them."""


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Attributes:
        rows: of evaluations.
        curves, floors: of sweeps.
        shares: what stands up, a panel for each.
        cost: what stands across.
        log: whether the axis of cost is logarithmic.
        title: above all panels; empty for none.
        notes: lines below the title.
    """

    rows: Sequence[Row]
    curves: Sequence[Row] = ()
    floors: Sequence[Row] = ()
    shares: Sequence[str] = ("clean", "worst")
    cost: str = "mmacs"
    log: bool = False
    title: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Size:
    """How large a panel is drawn, in CSS pixels, 96 an inch.

    Attributes:
        width, height: of the plotting area.
        font: size of letters.
        names: where the networks' names stand.
        name_width: room for a name beside the panel.
    """

    width: float = 360
    height: float = 290
    font: float = 12
    names: Literal["right", "below", "none"] = "right"
    name_width: float = 290


def page_spec() -> str:
    """Return the specification as JSON that may stand between ``<script>`` tags, with the words of its axes."""
    content = {**_template(), "costs": COSTS, "shares": SHARES, "light": LIGHT}
    return in_html(content)


def in_html(content: object) -> str:
    """Return JSON that no tag can be hidden in."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")


def filled(chart: Chart, size: Size) -> Spec:
    """Return the specification of a figure, whole; its colours are still those that the page's style sheet names."""
    spec = copy.deepcopy(_template())
    panel = spec.pop("panel")
    given = {
        **{"w": size.width, "h": size.height, "font": size.font, "names": size.names, "nameWidth": size.name_width},
        **{"x": chart.cost, "xTitle": COSTS[chart.cost], "logX": chart.log},
    }
    _give(spec["signals"], given)
    for data, values in zip(spec["data"], (chart.rows, chart.curves, chart.floors), strict=True):
        data["values"] = list(values)
    spec["marks"] = [_panel(panel, share, log=chart.log) for share in chart.shares]
    if chart.title:
        look = {"fontSize": 1.3 * size.font, "subtitleFontSize": size.font, "subtitlePadding": 6, "offset": 14}
        spec["title"] = {"text": chart.title, "subtitle": list(chart.notes), "anchor": "start", **look}
    return spec


def coloured(spec: Spec, colours: Mapping[str, str] = LIGHT) -> Spec:
    """Return the specification with colours in place of the names that the page's style sheet has for them."""
    found: Spec = json.loads(re.sub(r"var\((--\w+)\)", lambda name: colours[name[1]], json.dumps(spec)))
    return found


def _panel(panel: Spec, share: str, *, log: bool) -> Spec:
    found = copy.deepcopy(panel)
    _give(found["signals"], {"y": share, "yTitle": SHARES[share]})
    found["scales"][0]["type"] = "log" if log else "linear"
    return found


def _give(signals: Sequence[Spec], values: Mapping[str, Any]) -> None:
    for signal in signals:
        if signal["name"] in values:
            signal["value"] = values[signal["name"]]


@cache
def _template() -> Spec:
    found: Spec = json.loads(own("panel.vg.json"))
    return found
