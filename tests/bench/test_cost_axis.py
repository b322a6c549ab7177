"""RobustBench's leaderboard with a cost axis: reading, joining, the front, the table and the plot."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from exitbench.analysis.robustbench.join import join
from exitbench.analysis.robustbench.published import REQUIRED, PublishedEntry, read_published
from exitbench.cli.main import main
from exitbench.errors import UserError
from exitbench.report.charts.looks import marker
from exitbench.report.label_places import Box, places, text_size
from exitbench.report.robustbench.plot import draw, measured_rows, short_name
from exitbench.report.robustbench.table import COLUMNS, autoattack_accuracy, cost_axis_table
from exitbench.report.robustbench.terminal import cost_axis_text
from exitbench.report.robustbench.write import write_cost_axis
from tests.bench.evaluated import evaluate, only_evaluation, prepared
from tests.bench.records import changed
from tests.toys import ROOT

HEAD = "model_id,clean_acc,autoattack_acc,reported,external,architecture,additional_data,unreliable,venue"


def entry(name, robust, *, external=None, unreliable=False, architecture=""):
    return PublishedEntry(name, 0.9, robust, external, None, unreliable, {"architecture": architecture})


PUBLISHED = [
    entry("Cheap2020One", 0.5, architecture="ResNet-18"),
    entry("Dear2021Worse", 0.4),
    entry("Middle2022Better", 0.7, external=0.6, architecture="WideResNet-28-10"),
    entry("Same2022Cost", 0.55),
    entry("Doubtful2023", 0.99, unreliable=True),
    entry("Lost2019", 0.8),
    entry("Last2024Best", 0.61),
]
COUNTS = {
    "Cheap2020One": 10.0,
    "Dear2021Worse": 900.0,
    "Middle2022Better": 100.0,
    "Same2022Cost": 100.0,
    "Doubtful2023": 50.0,
    "Lost2019": "not in the zoo",
    "Last2024Best": 5000.0,
}


def broken(result, name, every):
    """The result under another name, with one sample in ``every`` broken."""
    correct = result.correct.copy()
    correct[::every] = False
    return replace(result, name=name, correct=correct)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The toy's evaluation as one on CIFAR-10 (Linf 8/255)."""
    _, store = evaluate(tmp_path_factory.mktemp("toy"), ("single", "average"))
    found = only_evaluation(store)
    record = changed(found.record, dataset="cifar10", norm="Linf", eps=8 / 255)
    first, second, *others = found.attacks
    return replace(found, record=record, attacks=(broken(first, "autoattack", 4), broken(second, "single:2", 3), *others))


@pytest.fixture
def axis(measured):
    other_ball = replace(measured, record=changed(measured.record, eps=4 / 255))
    fewer = replace(measured, record=changed(measured.record, mmacs=measured.record.mmacs), attacks=())
    return join("Linf", PUBLISHED, COUNTS, [measured, other_ball, fewer], ["Cheap2020One", "Fresh2025"])


def test_the_front_is_of_the_lowest_known_robustness_and_leaves_doubtful_and_uncounted_out(axis):
    assert [costed.entry.model_id for costed in axis.front] == ["Cheap2020One", "Middle2022Better", "Last2024Best"]
    assert [costed.entry.model_id for costed in axis.published][-1] == "Lost2019"
    assert axis.unpublished == ["Fresh2025"] and len(axis.measured) == 1


def test_published_and_measured_figures_never_share_a_column(axis):
    table = cost_axis_table(axis)
    assert list(table.columns) == list(COLUMNS)
    published, measured = table[table.kind == "published"], table[table.kind == "measured"]
    theirs = [name for name in COLUMNS if name.startswith("published_")]
    ours = [name for name in COLUMNS if name.startswith("measured_")]
    assert len(published) == 7 and len(measured) == 1
    assert published[ours].isna().all(axis=None) and measured[theirs].isna().all(axis=None)
    assert published.set_index("network").loc["Lost2019", ["mmacs", "status"]].tolist()[1] == "not in the zoo"
    assert pd.isna(published.set_index("network").loc["Lost2019", "mmacs"])
    middle = published.set_index("network").loc["Middle2022Better"]
    assert (middle.published_autoattack, middle.published_external, middle.published_front) == (0.7, 0.6, "yes")
    row, evaluation = measured.iloc[0], axis.measured[0]
    assert row.measured_worst == evaluation.worst.mean() and row.n == "70"
    assert row.measured_worst < row.measured_autoattack == evaluation.robust(evaluation.attacks[0]).mean()
    assert row.mmacs == evaluation.mean_cost(evaluation.clean)


def test_of_one_network_under_one_rule_the_largest_evaluation_counts(measured, tmp_path):
    _, store = evaluate(tmp_path, ("single",), prepared(n=33))
    smaller = only_evaluation(store)
    smaller = replace(
        smaller, record=changed(smaller.record, **{name: getattr(measured.record, name) for name in ("dataset", "norm", "eps")})
    )
    assert join("Linf", [], {}, [smaller]).measured == [smaller]
    assert join("Linf", [], {}, [measured, smaller]).measured == join("Linf", [], {}, [smaller, measured]).measured == [measured]


def test_the_files_are_the_same_bytes_every_time(axis, tmp_path):
    first = {path.name: path.read_bytes() for path in write_cost_axis(axis, tmp_path / "a")}
    second = {path.name: path.read_bytes() for path in write_cost_axis(axis, tmp_path / "b")}
    assert first == second and set(first) == {"cifar10-Linf.csv", "cifar10-Linf.png", "cifar10-Linf.svg"}


def test_the_figure_names_the_front_on_a_logarithmic_axis_and_marks_what_is_published(axis, measured):
    looks = {measured.record.network: 9}
    figure = draw(axis, looks)
    svg = figure.to_bytes("svg").decode()
    named = ("Cheap2020", "RN-18", "Middle2022", "WRN-28-10", "Last2024")
    assert all(f">{name}</" in svg for name in named) and "Dear2021" not in svg
    assert ">published (RobustBench)</text>" in svg and ">published, unreliable by RobustBench</text>" in svg
    assert ">published, trained on additional data</text>" not in svg and ">here: toy (none, 3 exits, n = 70" in svg
    across = next(scale for scale in figure.spec["scales"] if scale["name"] == "x")
    assert across["type"] == "log" and json.dumps(marker(9)[1]) in json.dumps(figure.spec)
    assert short_name(axis.published[1]) == "Doubtful2023"
    first, second = measured_rows(measured, axis.measured, looks)
    assert first["low"] <= first["y"] <= first["high"] and first["flagged"] and first["sign"] == "?"
    assert second["y"] == 100 * autoattack_accuracy(measured) and second["low"] == first["y"]


def test_an_empty_store_and_nothing_counted_can_be_drawn():
    axis = join("Linf", PUBLISHED, {}, [])
    assert axis.front == [] and draw(axis).to_bytes("svg")
    console = Console(file=io.StringIO(), width=200)
    console.print(cost_axis_text(axis))
    assert "7 published networks, 0 with their cost" in console.file.getvalue()


def test_the_summary_tells_the_front_the_measured_and_what_has_no_cost(axis):
    console = Console(file=io.StringIO(), width=200)
    console.print(cost_axis_text(axis))
    said = " ".join(console.file.getvalue().split())
    assert "7 published networks, 6 with their cost" in said and "100 90.00 60.00 Middle2022Better (WideResNet-28-10)" in said
    assert "no cost, not in the zoo: Lost2019" in said and "without published accuracies: Fresh2025" in said
    assert "toy (none, not the whole matrix)" in said


def test_names_lie_on_nothing_and_inside():
    points = [(300 + 6 * i, 200 + 3 * i) for i in range(6)] + [(3, 3), (597, 397)]
    inside = Box(0, 0, 600, 400)
    boxes = places([(*point, text_size(f"name {i}\nsecond line", 10)) for i, point in enumerate(points)], points, inside)
    assert len(boxes) == 8 and all(box.within(inside) for box in boxes)
    assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])
    assert not any(box.overlaps(Box(x, y, x + 0.1, y + 0.1)) for box in boxes for x, y in points)


def test_a_published_file_is_read(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(f"{HEAD}\nA2020,90.5,50,51,49.5,ResNet-18,True,True,ICML 2020\nB2021,80,0,,,,,,\n", encoding="utf-8-sig")
    first, second = read_published(path)
    assert (first.clean, first.autoattack, first.reported, first.external, first.robust) == (0.905, 0.5, 0.51, 0.495, 0.495)
    assert first.unreliable and first.texts["architecture"] == "ResNet-18" and first.texts["link"] == ""
    assert (second.robust, second.external, second.unreliable) == (0.0, None, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lacks the columns model_id, clean_acc, autoattack_acc"),
        ("name,clean_acc\nA,1\n", "lacks the columns model_id, autoattack_acc (it has: name, clean_acc)"),
        (f"{','.join(REQUIRED)}\n", "has no row"),
        (f"{','.join(REQUIRED)}\nA,90,\n", "line 2: A has no clean_acc or no autoattack_acc"),
        (f"{','.join(REQUIRED)}\nA,90,x\n", "line 2: autoattack_acc is 'x'"),
        (f"{','.join(REQUIRED)}\nA,90,nan\n", "line 2: autoattack_acc is 'nan'"),
        (f"{','.join(REQUIRED)}\nA,101,1\n", "line 2: clean_acc is '101'"),
        (f"{','.join(REQUIRED)}\n,9,1\n", "line 2: model_id is empty"),
        (f"{','.join(REQUIRED)}\nA,9,1\nA,9,2\n", "names A more than once"),
    ],
)
def test_a_bad_published_file_is_an_error_that_says_what(tmp_path, text, said):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_published(path)
    assert said in str(caught.value)


def test_what_is_no_text_cannot_be_read(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_published(path)


def test_the_command_counts_joins_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text(f"{','.join(REQUIRED)}\nWong2020Fast,83.34,43.21\nNobody2020,1,1\n")
    monkeypatch.setattr(sys, "argv", ["bench", "robustbench", "--published", "p.csv"])
    with pytest.raises(SystemExit) as left:
        main()
    out = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0 and "2 published networks, 1 with their cost" in out
    assert "no cost, not in the model zoo of robustbench" in out and "Nobody2020" in out
    table = pd.read_csv(tmp_path / "results" / "robustbench" / "cifar10-Linf.csv").set_index("network")
    assert table.loc["Wong2020Fast", "mmacs"] == pytest.approx(555, abs=0.5)
    assert table.loc["Wong2020Fast", ["published_clean", "published_autoattack"]].tolist() == [0.8334, 0.4321]


def test_the_page_explains_every_column():
    page = (ROOT / "docs" / "robustbench.md").read_text(encoding="utf-8")
    for name, meaning in COLUMNS.items():
        assert f"| `{name}` | {meaning} |" in page
