"""RobustBench's leaderboard against cost: what is published, its Pareto front, and our measured networks on it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from exitbench.analysis.robustbench.join import DATASET, CostAxis, Costed
from exitbench.data.cards import dataset_card
from exitbench.models.number_text import eps_text
from exitbench.report.charts.drawing import Drawing
from exitbench.report.charts.lite import OWN_COLOUR, POINT, Series, drawing, encoded, series_of
from exitbench.report.charts.looks import Looks, looks_of
from exitbench.report.charts.rows import SIGNS, Row
from exitbench.report.charts.spec import Spec
from exitbench.report.label_places import Box, places, text_size
from exitbench.report.leaderboard.flags import verdict
from exitbench.report.palette import MEANING
from exitbench.report.robustbench.table import autoattack_accuracy
from exitbench.scoring.evaluation import Evaluation, accuracy

FRONT = Series("Pareto front of the published", "#2B3A4A", "stroke")
ALONE = Series("small and hollow: here, AutoAttack alone", "#555555", "circle", hollow=True)
PUBLISHED = {
    "plain": Series("published (RobustBench)", "#7F8C9A", "circle"),
    "data": Series("published, trained on additional data", "#7F8C9A", "triangle-up"),
    "unreliable": Series("published, unreliable by RobustBench", "#B9C0C7", "cross"),
}
_INSIDE = Box(0, 0, 760, 420)
_FONT = 10
_NOTE = [
    "Published: the lowest robust accuracy that RobustBench knows (AutoAttack, or less where others found less), 10,000 test",
    "images; mmacs of one image, counted here from the architecture. Here: measured on the first n test images, 95 % intervals;",
    "the worst case over all attacks is stricter than AutoAttack; mmacs are the mean on clean images.",
]


def draw(axis: CostAxis, looks: Looks | None = None) -> Drawing:
    """Draw robust accuracy in per cent against mmacs, on a logarithmic axis.

    Args:
        axis: What to draw.
        looks: Of the networks of the store, so that they look the same in every figure.
    """
    looks = {**looks_of(axis.measured), **(looks or {})}
    published, here = published_rows(axis), [row for each in axis.measured for row in measured_rows(each, axis.measured, looks)]
    front = [row for row in published if row["front"]]
    costs, shares = [row["x"] for row in (*published, *here)] or [1.0], [row["y"] for row in (*published, *here)] or [92.0]
    x = {"type": "log", "domain": [min(costs) / 1.6, max(costs) * 1.9], "nice": False}
    y = {"domain": [-3, 8 + max(shares)], "nice": False}
    kinds = {row["series"] for row in (*published, *here)}
    mine = [_series(each, axis.measured, looks) for each in axis.measured]
    series = [each for each in (*PUBLISHED.values(), *mine, ALONE) if each.name in kinds]
    signs = sorted({f"{row['sign']}: {row['meaning']}" for row in here if row.get("sign")})
    title = f"Robust accuracy against cost: CIFAR-10, {axis.norm} {eps_text(dataset_card(DATASET).eps[axis.norm])}"
    notes = [*_NOTE, *([". ".join(signs) + "."] if signs else []), f"Line: {FRONT.name}. Hollow: one exit, or flagged."]
    encoding = {
        "x": {"field": "x", "type": "quantitative", "scale": x, "title": "cost of one image (million MACs, logarithmic)"},
        "y": {"field": "y", "type": "quantitative", "scale": y, "title": "robust accuracy, %"},
    }
    layers = [*_published(published, front, series), *_measured(here, series), *_names(axis, _spots(published, here, x, y))]
    panel = {"width": _INSIDE.right, "height": _INSIDE.bottom, "encoding": encoding, "layer": layers}
    return drawing({"title": {"text": title, "subtitle": notes}, **panel})


def published_rows(axis: CostAxis) -> list[Row]:
    """Return a row for each published network with a cost, cheapest first."""
    return [
        {
            **{"x": costed.mmacs, "y": 100 * costed.entry.robust, "front": costed.on_front},
            **{"series": PUBLISHED[_kind(costed)].name, "colour": FRONT.colour, "name": costed.entry.model_id},
        }
        for costed in axis.published
        if costed.mmacs is not None
    ]


def measured_rows(evaluation: Evaluation, among: Sequence[Evaluation], looks: Looks) -> list[Row]:
    """Return a network's worst case with its interval, and what AutoAttack alone leaves where it was run."""
    line, kind = _series(evaluation, among, looks), verdict(evaluation)
    share, low, high = (100 * value for value in accuracy(evaluation.worst))
    same = {"x": evaluation.mean_cost(evaluation.clean), "colour": line.colour, "shape": line.shape}
    sign = {"sign": SIGNS.get(kind, ""), "meaning": MEANING.get(kind, "")}
    rows: list[Row] = [{**same, **sign, "series": line.name, "y": share, "low": low, "high": high, "flagged": kind != "ok"}]
    if (alone := autoattack_accuracy(evaluation)) is not None:
        rows.append({**same, "series": ALONE.name, "y": 100 * alone, "low": share, "high": 100 * alone})
    return rows


def _series(evaluation: Evaluation, among: Sequence[Evaluation], looks: Looks) -> Series:
    record = evaluation.record
    return series_of(label(evaluation, among), looks[record.network], hollow=record.n_exits == 1)


def short_name(costed: Costed) -> str:
    """First author and year, and the architecture where it is told: ``Wang2023, WRN-28-10``."""
    entry = costed.entry
    who = re.match(r"[^\W\d_]+\d{4}", entry.model_id)
    architecture = entry.texts.get("architecture", "").replace("WideResNet", "WRN").replace("ResNet", "RN")
    name = who.group() if who else entry.model_id
    return f"{name}\n{architecture}" if architecture else name


def label(evaluation: Evaluation, among: Sequence[Evaluation]) -> str:
    """Return a name of the network; its exit rule, too, where only that tells it from another."""
    record = evaluation.record
    same = [
        each for each in among if (each.record.model, each.record.training, each.n) == (record.model, record.training, record.n)
    ]
    rule = f", {record.policy[:24]}..." if len(same) > 1 else ""
    partial = "" if evaluation.complete and not evaluation.unfinished else ", not the whole matrix"
    exits = "one exit" if record.n_exits == 1 else f"{record.n_exits} exits"
    return f"here: {record.model} ({record.training}, {exits}, n = {record.n}{partial}{rule})"


def _kind(costed: Costed) -> str:
    if costed.entry.unreliable:
        return "unreliable"
    return "data" if costed.entry.texts.get("additional_data", "").lower() == "true" else "plain"


def _published(rows: Sequence[Row], front: Sequence[Row], series: Sequence[Series]) -> list[Spec]:
    line = {"type": "line", "interpolate": "step-after", "color": FRONT.colour, "strokeWidth": 1.4}
    on_front = encoded(series)
    on_front = {**on_front, "fill": {"value": FRONT.colour}, "stroke": {"value": FRONT.colour}}
    return [
        {"data": {"values": list(rows)}, "mark": {**POINT, "size": 50}, "encoding": encoded(series)},
        {"data": {"values": list(front)}, "mark": line},
        {"data": {"values": list(front)}, "mark": {**POINT, "size": 60}, "encoding": on_front},
    ]


def _measured(rows: Sequence[Row], series: Sequence[Series]) -> list[Spec]:
    worst, alone = ([row for row in rows if (row["series"] == ALONE.name) == is_alone] for is_alone in (False, True))
    own: Spec = {"stroke": OWN_COLOUR["color"], "shape": {"field": "shape", "type": "nominal", "scale": None}}
    ends: Spec = {"y": {"field": "low"}, "y2": {"field": "high"}, **OWN_COLOUR}
    white: Spec = {"value": "#ffffff"}
    hollow: Spec = {**encoded(series), "fill": {"condition": {"test": "datum.flagged", **white}, **encoded(series)["fill"]}}
    return [
        {"data": {"values": alone}, "mark": {"type": "rule", "strokeDash": [2, 2]}, "encoding": ends},
        {"data": {"values": worst}, "mark": "rule", "encoding": ends},
        {"data": {"values": alone}, "mark": {**POINT, "size": 40}, "encoding": {**own, "fill": white}},
        {"data": {"values": worst}, "mark": {**POINT, "size": 110}, "encoding": hollow},
        {"data": {"values": worst}, "mark": {"type": "text", "fontWeight": "bold"}, "encoding": {"text": {"field": "sign"}}},
    ]


def _spots(published: Sequence[Row], here: Sequence[Row], x: Spec, y: Spec) -> list[tuple[float, float]]:
    """Return where the points are drawn, in pixels."""
    (least, most), (low, high) = x["domain"], y["domain"]
    return [
        (
            _INSIDE.right * math.log(row["x"] / least) / math.log(most / least),
            _INSIDE.bottom * (high - row["y"]) / (high - low),
        )
        for row in (*published, *here)
    ]


def _names(axis: CostAxis, spots: Sequence[tuple[float, float]]) -> list[Spec]:
    """Return names of the front, with a thin line from each that stands apart from its point."""
    counted = [costed for costed in axis.published if costed.mmacs is not None]
    at = [(costed, spot) for costed, spot in zip(counted, spots, strict=False) if costed.on_front]
    boxes = places([(*spot, text_size(short_name(costed), _FONT)) for costed, spot in at], spots, _INSIDE)
    rows: list[Row] = [
        {"text": short_name(costed).split("\n"), "cx": box.middle[0], "cy": box.middle[1], "px": spot[0], "py": spot[1]}
        for (costed, spot), box in zip(at, boxes, strict=True)
    ]
    own: Spec = {"x": _pixels("cx"), "y": _pixels("cy")}
    text = {"type": "text", "fontSize": _FONT, "lineHeight": 1.15 * _FONT, "color": FRONT.colour, "baseline": "middle"}
    line = {"type": "rule", "color": "#999999", "strokeWidth": 0.6}
    ends: Spec = {"x": _pixels("px"), "y": _pixels("py"), "x2": {"field": "nx"}, "y2": {"field": "ny"}}
    for row, box in zip(rows, boxes, strict=True):
        row["nx"], row["ny"] = min(max(row["px"], box.left), box.right), min(max(row["py"], box.top), box.bottom)
    return [
        {"data": {"values": rows}, "mark": line, "encoding": ends},
        {"data": {"values": rows}, "mark": text, "encoding": {**own, "text": {"field": "text"}}},
    ]


def _pixels(field: str) -> Spec:
    return {"field": field, "type": "quantitative", "scale": None}
