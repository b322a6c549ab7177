"""Figures that are no chart of cost against accuracy, in Vega-Lite: letters, colours and markers of the charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exitbench.report.charts.drawing import Drawing
from exitbench.report.charts.looks import marker
from exitbench.report.charts.spec import LIGHT, Spec
from exitbench.report.palette import COLOURS

_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_CONFIG: Spec = {
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        **{"labelColor": LIGHT["--muted"], "titleColor": LIGHT["--muted"], "titleFontWeight": "normal", "titlePadding": 6},
        **{"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 320, "domainColor": LIGHT["--muted"]},
        **{"tickColor": LIGHT["--line"], "gridColor": LIGHT["--line"], "gridOpacity": 0.7},
    },
    "title": {"anchor": "start", "color": LIGHT["--fg"], "fontSize": 15, "offset": 12, "subtitleColor": LIGHT["--muted"]},
    "header": {
        "labelFontSize": 13,
        "labelFontWeight": "bold",
        "labelColor": LIGHT["--fg"],
        "labelAnchor": "start",
        "title": None,
    },
    "legend": {
        **{"orient": "bottom", "title": None, "labelFontSize": 12, "labelColor": LIGHT["--fg"], "labelLimit": 700},
        **{"symbolSize": 90, "offset": 14},
    },
}
_WIDE = 60
"""Characters of a legend's entry of which two fit beside each other."""


@dataclass(frozen=True)
class Series:
    """An entry of a legend.

    Attributes:
        name: In words.
        colour: As hexadecimal digits.
        shape: Of the marker, as an SVG path or a name of Vega.
        hollow: Whether the marker is not filled.
    """

    name: str
    colour: str
    shape: str
    hollow: bool = False


def series_of(name: str, look: int, *, hollow: bool = False) -> Series:
    """Return the entry of a network, in its colour and with its marker (``exitbench.report.charts.looks``)."""
    colour, shape = marker(look)
    return Series(name, COLOURS[colour], shape, hollow)


def encoded(series: Sequence[Series], field: str = "series") -> Spec:
    """Return the channels of the markers of several series, with one legend of them all."""
    names = [each.name for each in series]
    legend = {"columns": 1 if max(map(len, names), default=0) > _WIDE else 2, "values": names}
    ranges = {
        "stroke": [each.colour for each in series],
        "fill": [LIGHT["--bg"] if each.hollow else each.colour for each in series],
        "shape": [each.shape for each in series],
    }
    return {
        channel: {"field": field, "type": "nominal", "scale": {"domain": names, "range": values}, "legend": legend}
        for channel, values in ranges.items()
    }


OWN_COLOUR: Spec = {"color": {"field": "colour", "type": "nominal", "scale": None}}
"""The channel of lines and bars whose rows say their colour."""

POINT: Spec = {"type": "point", "strokeWidth": 1.5, "opacity": 1, "size": 80}


def drawing(spec: Spec) -> Drawing:
    """Return the drawing of a Vega-Lite specification."""
    import vl_convert

    whole: dict[str, Any] = {**spec, "config": _CONFIG, "background": LIGHT["--bg"], "padding": 6}
    return Drawing(vl_convert.vegalite_to_vega(whole))
