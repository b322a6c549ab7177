"""Charts before any browser: looks, rows, and what Vega makes of the specification."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from exitbench.errors import UserError
from exitbench.report.charts.axes import COSTS, SHARES, present
from exitbench.report.charts.drawing import Drawing
from exitbench.report.charts.figures import board_figure
from exitbench.report.charts.looks import looks_of, marker
from exitbench.report.charts.rows import rows_of
from exitbench.report.charts.runtime import _bundled, runtime
from exitbench.report.charts.spec import LIGHT, Chart, Size, coloured, filled, in_html, page_spec
from exitbench.report.page.board import rows as table_rows
from exitbench.report.write import boards
from exitbench.store.certificate import VERSION, Certificate, Method
from tests.bench.pages import HOSTILE, N, evaluation, few
from tests.bench.records import changed

SIZE = Size()


def row(key, mmacs, worst, **more):
    fields = {"key": key, "label": key, "colour": "#123", "shape": "circle", "hollow": False, "sign": "", "leads": True}
    return {**fields, "mmacs": mmacs, "worst": worst, "worst_low": worst, "worst_high": worst, **more}


def drawn(chart):
    """The marks that Vega draws, by name, each with its items."""
    found = {}

    def walk(node):
        if isinstance(node, list):
            for each in node:
                walk(each)
        elif isinstance(node, dict):
            if node.get("name"):
                found.setdefault(node["name"], []).extend(node.get("items", []))
            for each in node.values():
                walk(each)

    walk(vl_convert.vega_to_scenegraph(coloured(filled(chart, SIZE)))["scenegraph"])
    return found


def certified(one, right):
    """The evaluation with a certificate of these samples."""
    record = one.record
    method = Method(name="a test", right=tuple(right), last=(0,) * one.n, seconds=0.0)
    identity = {name: getattr(record, name) for name in Certificate.__struct_fields__ if hasattr(record, name)}
    own = {
        "version": VERSION,
        "mmacs": record.mmacs,
        "neurons": 1,
        "understood": True,
        "methods": (method,),
        "torch": "2",
        "device": "cpu",
    }
    return replace(one, certificate=Certificate(**{**identity, **own, "methods": (method,)}))


def test_a_network_looks_the_same_under_every_rule_rank_and_filter():
    one, other = evaluation(1, "b"), evaluation(2, "a")
    again = replace(one, record=changed(one.record, policy="exit:2"))
    looks = looks_of([one, other, again])
    assert looks == looks_of([again, one, other]) and len(looks) == 2
    shapes = [(each["colour"], each["shape"]) for each in rows_of([one, other, again], looks)]
    assert shapes[0] == shapes[2] != shapes[1]
    table = {each.cells["id"].text: each.style for each in table_rows(boards([one, other, again]))}
    assert {network.model: look for network, look in looks.items()} == table


def test_every_network_of_a_board_looks_different_and_boards_share_looks():
    looks = looks_of([evaluation(i) for i in range(56)])
    assert len({marker(look) for look in looks.values()}) == 56
    apart = looks_of([evaluation(1, dataset="cifar10"), evaluation(2, dataset="mnist")])
    assert set(apart.values()) == {0}, "no two of a board"


def test_rows_are_what_the_table_shows():
    for each, found in zip(few(), rows_of(few(), looks_of(few())), strict=True):
        assert found["worst"] == pytest.approx(each.worst.mean()) and found["clean"] == pytest.approx(each.clean.correct.mean())
        assert found["worst_low"] < found["worst"] < found["worst_high"]
        assert found["mmacs"] == each.mean_cost(each.clean)
        assert found["hollow"] == bool(found["sign"] or each.record.n_exits == 1)
        assert ("slowed" in found) == any(attack.is_slowdown for attack in each.attacks)
    assert set(present(SHARES, rows_of(few(), looks_of(few())))) == {"worst", "clean", "slowdown", "range"}


def test_rows_with_one_name_are_told_apart_by_rule_and_then_by_place():
    one = evaluation(1)
    again = replace(one, record=changed(one.record, policy="exit:2"))
    names = [found["label"] for found in rows_of([one, again, again, evaluation(2)], looks_of([one, evaluation(2)]))]
    assert len(set(names)) == 4 and "always exit 2" in names[1] and "exit 2" not in names[3]


@pytest.fixture(scope="module", autouse=True)
def warm():
    drawn(Chart([row("a", 1, 0.5)], shares=["worst"]))


def test_the_front_is_what_nothing_beats():
    points = [(3, 0.5), (1, 0.2), (2, 0.6), (4, 0.9), (1, 0.1), (2.5, 0.99)]
    rows = [row(f"k{i}", *point, leads=point[0] != 2.5) for i, point in enumerate(points)]
    marks = drawn(Chart(rows, shares=["worst"]))
    up = {item["y"] for item in marks["frontier"]}
    at = {item["description"].split("\n")[0]: item["y"] for item in marks["networks"]}
    assert up == {at["k1"], at["k2"], at["k3"]}


@pytest.mark.parametrize("shares", [[0.5] * 9, [0.9, 0.1], [0.01 * i for i in range(15)], [0.0] * 14])
def test_names_keep_their_order_and_their_distance(shares):
    marks = drawn(Chart([row(f"k{i:02d}", 1 + i, share) for i, share in enumerate(shares)], shares=["worst"]))
    names = sorted(marks["labels"], key=lambda item: item["y"])
    assert len(names) == len(shares)
    heights = [item["y"] for item in names]
    assert min(below - above for above, below in pairwise(heights)) >= 1.39 * SIZE.font
    assert heights[0] >= 0 and heights[-1] <= SIZE.height
    order = sorted(range(len(shares)), key=lambda i: (-shares[i], i))
    assert [item["text"] for item in names] == [f"k{i:02d}" for i in order]


def test_a_board_with_too_many_networks_names_its_front_and_draws_all():
    rows = [row(f"k{i:03d}", 1 + i, 0.9 - 0.001 * i) for i in range(60)]
    marks = drawn(Chart(rows, shares=["worst"]))
    assert [item["text"] for item in marks["labels"]] == ["k000"] and len(marks["networks"]) == 60


def test_the_sandwich_reaches_from_what_is_certified_to_the_worst_case():
    proven, nothing = certified(evaluation(1), range(10)), certified(evaluation(2), ())
    looks = looks_of([proven, nothing])
    first, second = rows_of([proven, nothing], looks)
    assert first["certified"] == 10 / N and "certified" not in second and second["proof"] == "nothing"
    marks = drawn(Chart([first, second], shares=["worst"]))
    (bar,) = marks["sandwich"]
    top = next(item for item in marks["networks"] if item["description"].startswith(first["label"]))
    assert bar["y2"] == pytest.approx(top["y"]) or bar["y"] == pytest.approx(top["y"])
    assert abs(bar["y"] - bar["y2"]) > 1
    assert sum(item["text"].endswith(", uncertified") for item in marks["labels"]) == 1
    assert "\ncertified nothing\n" in "".join(item["description"] for item in marks["networks"])


def test_a_range_reaches_from_the_worst_case_up_to_clean_accuracy():
    points = [row("a", 1, 0.2, range=0.2, clean=0.8, clean_high=0.82), row("b", 2, 0.4, range=0.4, clean=0.6, clean_high=0.65)]
    marks = drawn(Chart(points, shares=["range"]))
    (worst, clean) = ({item["x"]: item["y"] for item in marks[name]} for name in ("networks", "tops"))
    assert worst.keys() == clean.keys() and all(0 < clean[x] < worst[x] < SIZE.height for x in worst)
    assert sorted(clean.values()) == pytest.approx(sorted(min(item["y"], item["y2"]) for item in marks["ranges"]))
    assert all("clean accuracy" in item["description"] and "worst-case" in item["description"] for item in marks["networks"])
    assert not drawn(Chart(points, shares=["worst"]))["ranges"]


def test_no_axis_goes_beyond_all_of_the_images():
    shares = {"clean": 0.99, "clean_low": 0.985, "clean_high": 0.995}
    figure = Drawing(coloured(filled(Chart([row("a", 1, 0.2, **shares)], shares=["clean"]), SIZE)))
    labels = re.findall(r">(\d+)</text>", figure.to_bytes("svg").decode())
    assert "100" in labels and max(map(int, labels)) == 100


def test_the_axis_of_cost_is_logarithmic_on_request():
    rows = [row("a", 1, 0.5), row("b", 10, 0.5), row("c", 100, 0.5), row("d", 0, 0.5)]
    straight, log = (drawn(Chart(rows, shares=["worst"], log=log))["networks"] for log in (False, True))
    x = sorted(item["x"] for item in log)
    assert len(straight) == 4 and len(x) == 3, "zero has no logarithm"
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.1)


@given(st.text(max_size=40))
def test_no_name_can_end_the_data(text):
    content = in_html({"label": text})
    assert "<" not in content and json.loads(content) == {"label": text}


def test_figures_are_the_same_bytes_and_only_words(tmp_path):
    found = [each for each in few() if each.record.dataset == "cifar10"]
    figure = board_figure(found, looks_of(few()))
    svg = figure.to_bytes("svg").decode()
    assert svg == board_figure(found, looks_of(few())).to_bytes("svg").decode() and "var(--" not in svg
    assert HOSTILE not in svg and "&lt;script&gt;" in svg
    assert "cifar10-Linf" not in svg and "Linf 8/255" in svg and all(title in svg for title in (SHARES["clean"], COSTS["mmacs"]))
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        figure.save(tmp_path / f"figure.{kind}")
        assert (tmp_path / f"figure.{kind}").read_bytes().startswith(start)
    with pytest.raises(UserError, match=r"\.png, \.svg, \.pdf"):
        Drawing({}).save(tmp_path / "figure.bmp")


def test_every_colour_of_the_specification_is_known():
    assert set(re.findall(r"var\((--\w+)\)", page_spec())) <= set(LIGHT)


def test_the_script_is_kept_and_a_damaged_copy_is_not_used(tmp_path, monkeypatch):
    whole, bundled = runtime(), []
    assert "</script" not in whole.lower() and 300_000 < len(whole) < 800_000
    monkeypatch.setenv("EXITBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("exitbench.report.charts.runtime._bundled", lambda: bundled.append(whole) or whole)
    for times in (1, 1):
        runtime.cache_clear()
        assert runtime() == whole and len(bundled) == times
    (kept,) = tmp_path.glob("vega-*.js")
    kept.write_text(kept.read_text(encoding="utf-8").replace("vega", "evil", 1), encoding="utf-8")
    runtime.cache_clear()
    assert runtime() == whole and len(bundled) == 2


def test_the_script_is_bundled_to_the_same_bytes():
    assert _bundled() == runtime()
