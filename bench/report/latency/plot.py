"""Multiply-accumulates against milliseconds, a line for each network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from exitbench.report.charts.drawing import Drawing
from exitbench.report.charts.lite import OWN_COLOUR, POINT, Series, drawing, encoded, series_of
from exitbench.report.charts.looks import Looks
from exitbench.report.charts.rows import Row
from exitbench.report.charts.spec import Spec
from exitbench.store.identity import Network
from exitbench.timing.latency import BATCH, Latency

_COST, _TIME = "cost up to the exit (million MACs)", "milliseconds per image"
ONE, MANY = "one image at a time", f"an image of a batch of {BATCH}"


def draw_latency(measured: Sequence[Latency], looks: Looks) -> Drawing:
    """Draw milliseconds against mmacs for every exit, a row of panels for each dataset.

    Args:
        measured: What to draw: one image at a time on the left, an image of a large batch on the right.
        looks: Of their networks.
    """
    names = names_of(measured)
    machines = sorted({_machine(each) for each in measured})
    series = [
        series_of(name, looks[_network(each)], hollow=len(each.mmacs) == 1) for name, each in zip(names, measured, strict=True)
    ]
    several = len({each.dataset for each in measured}) > 1
    facet: Spec = {"column": {"field": "batch", "type": "nominal", "sort": [ONE, MANY]}}
    if several:
        facet["row"] = {"field": "dataset", "type": "nominal"}
    log = {"type": "log", "nice": False, "padding": 8}
    axis = {"labelOverlap": "greedy"}
    panel = {
        "width": 380,
        "height": 270,
        "encoding": {
            "x": {"field": "mmacs", "type": "quantitative", "scale": log, "axis": axis, "title": _COST},
            "y": {"field": "ms", "type": "quantitative", "scale": log, "axis": axis, "title": _TIME},
        },
        "layer": [
            {"mark": "line", "encoding": {**OWN_COLOUR, "detail": {"field": "series"}}},
            {"mark": "rule", "encoding": {"y": {"field": "low"}, "y2": {"field": "high"}, **OWN_COLOUR}},
            {"mark": POINT, "encoding": encoded(series)},
        ],
    }
    where = machines[0] if len(machines) == 1 else "several machines"
    title = {"text": f"Multiply-accumulates against time: {where}", "subtitle": "medians and quartiles, logarithmic axes"}
    spec = {"title": title, "data": {"values": exit_rows(measured, series)}, "facet": facet, "spec": panel}
    return drawing({**spec, "resolve": {"scale": {"x": "independent", "y": "independent"}}})


def names_of(measured: Sequence[Latency]) -> list[str]:
    """Return a name of each measurement, all different: network, and machine, rule or number where there are several."""
    machines = {_machine(each) for each in measured}
    names = [f"{each.model} ({each.training}), {each.dataset}{'' if each.stops else ', whole'}" for each in measured]
    if len(machines) > 1:
        names = [f"{name}, {_machine(each)}" for name, each in zip(names, measured, strict=True)]
    often = Counter(names)
    names = [f"{name}, {each.policy}" if often[name] > 1 else name for name, each in zip(names, measured, strict=True)]
    often = Counter(names)
    return [f"{name} ({i})" if often[name] > 1 else name for i, name in enumerate(names, 1)]


def exit_rows(measured: Sequence[Latency], series: Sequence[Series]) -> list[Row]:
    """Return a row for each exit, alone and in a batch; a network that runs whole has one time, at the cost of all of it."""
    rows = []
    for latency, line in zip(measured, series, strict=True):
        for batch, exits, deployed in ((ONE, latency.one, latency.deployed_one), (MANY, latency.many, latency.deployed_many)):
            costs, times = (latency.mmacs, exits) if latency.stops else (latency.mmacs[-1:], (deployed,))
            for mmacs, (low, ms, high) in zip(costs, times, strict=True):
                about = {"series": line.name, "colour": line.colour, "dataset": latency.dataset, "batch": batch}
                rows.append({**about, "mmacs": mmacs, "low": low, "ms": ms, "high": high})
    return rows


def _network(latency: Latency) -> Network:
    return Network(latency.model, latency.training, latency.weights)


def _machine(latency: Latency) -> str:
    return f"{latency.where}, torch {latency.torch}"
