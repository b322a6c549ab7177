"""Counts, stages, comparison and history of `bench perf`."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from exitbench.api import stages as timing
from exitbench.api.stages import stages
from exitbench.cli.main import cli
from exitbench.errors import UserError
from exitbench.perf.compare import changes, differences, read_measurement
from exitbench.perf.counts import Counts, counts
from exitbench.perf.text import changes_text
from exitbench.runner.prepare import Request

CPU = torch.device("cpu")


def test_launches_are_operations_that_compute_and_waits_those_that_ask():
    x = torch.arange(6.0).view(2, 3)
    assert counts(lambda: (x + 1).T[0].unsqueeze(0), CPU) == Counts(1, 0)
    assert counts(lambda: x[x > 2], CPU).waits == 1
    assert counts(lambda: float((x * 2)[0, 0]), CPU) == Counts(2, 1)
    assert counts(lambda: x[torch.tensor([0])], CPU).waits == 0


def measured(seconds=2.0, rate=100.0, launches=10, **others):
    return {
        "time": others.pop("time", "2026-01-01T00:00:00Z"),
        "model": "net",
        "n": 8,
        "machine": {"cpu": "a processor"},
        "throughput": {"plain": 50.0, "twin": rate},
        "suite": [{"seconds": 1.0}],
        "per_gradient": {"average": {"launches": launches, "waits": 0}},
        "run": {"seconds": {"adaptive": seconds}, "total": seconds, "n": 8, "attacks": ["adaptive"]},
        **others,
    }


def test_what_got_slower_comes_first_whether_more_is_better_or_less():
    found = changes(measured(), measured(seconds=3.0, rate=50.0, launches=5))
    assert [(change.figure, change.slower) for change in found[:3]] == [
        ("forward and gradient, search model, images/s", 2.0),
        ("a whole run, adaptive, s", 1.5),
        ("a whole run, s", 1.5),
    ]
    assert (found[-1].figure, found[-1].slower) == ("launches per gradient, average", 0.5)
    assert {change.slower for change in found[3:-1]} == {1.0}
    assert changes(measured(), measured(rate=0.0))[0].slower == float("inf")


def test_figures_that_one_file_lacks_are_left_out_and_other_machines_are_named():
    old = {key: value for key, value in measured().items() if key in ("throughput", "model")}
    assert {change.figure.split(",")[0] for change in changes(old, measured())} == {"forward and gradient"}
    assert differences(measured(), measured(n=9)) == ["n: 8 before, 9 now"]


def test_a_comparison_shows_what_differs_by_more_than_noise():
    console = Console(width=120)
    with console.capture() as captured:
        console.print(changes_text(changes(measured(), measured(seconds=3.0)), ["n: 8 before, 9 now"]))
    text = captured.get()
    assert "a whole run, adaptive, s" in text and "1.50" in text and "not the same: n: 8 before, 9 now" in text
    assert "images/s" not in text and "5 further figures differ by less than 10%" in text


def write(folder: Path, name: str, content: dict) -> Path:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_history_is_drawn_from_a_folder(tmp_path):
    first = write(tmp_path, "a.json", measured())
    write(tmp_path, "b.json", measured(time="2026-02-01T00:00:00Z", machine={"cpu": "a processor", "gpu": "a GPU"}))
    done = CliRunner().invoke(cli, ["perf", "--history", str(tmp_path)])
    assert done.exit_code == 0, done.output
    image = (tmp_path / "history.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    first.unlink()
    assert CliRunner().invoke(cli, ["perf", "--history", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "history.png").read_bytes() != image


def test_what_is_no_measurement_is_refused(tmp_path):
    for content in ("{", "[]", "{}"):
        path = tmp_path / "x.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"x\.json is not a"):
            read_measurement(path)
    done = CliRunner().invoke(cli, ["perf", "--history", str(tmp_path / "x.json")])
    assert done.exit_code != 0
    (tmp_path / "x.json").unlink()
    assert "no measurements" in str(CliRunner().invoke(cli, ["perf", "--history", str(tmp_path)]).exception)


def test_a_whole_run_is_timed_stage_by_stage(monkeypatch, tmp_path):
    clock = iter(range(1000))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    request = Request.of(
        {"model": "rdi_smallcnn", "dataset": "digits", "n": 2, "precision": "fp32", "steps": 1, "data": tmp_path}
    )
    found = stages(request, ["average"])
    names = list(found["seconds"])
    assert names[:4] == ["loading", "planning", "choice of the search model", "trust checks"] and names[-1] == "reports"
    assert found["seconds"]["average"] == 1 and found["failed"] == [] and found["n"] == 2
    assert found["total"] == sum(found["seconds"].values()) == found["work"] + found["seconds"]["loading"]
