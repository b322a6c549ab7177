"""Counts, stages, comparison and history of `bench perf`."""

import json
import re
import runpy
import sys
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
from exitbench.perf.rates import rates
from exitbench.perf.text import changes_text
from exitbench.runner.prepare import Request
from tests.bench.evaluated import prepared, toy_policy

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
    assert {change.slower for change in changes(measured(seconds=0.01), measured(seconds=0.04))} == {1.0}, "too short to tell"
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


def test_a_file_of_the_check_on_a_gpu_is_read_as_its_measurement(tmp_path):
    inner = {key: value for key, value in measured().items() if key != "run"}
    whole = {"perf": {"found": inner}, "run": {"found": measured(seconds=5.0)["run"]}, "all": {"found": None}}
    assert read_measurement(write(tmp_path, "gpu.json", whole)) == measured(seconds=5.0)
    assert read_measurement(write(tmp_path, "gpu.json", {"perf": {"found": inner}})) == inner
    with pytest.raises(UserError, match="is not a measurement"):
        read_measurement(write(tmp_path, "gpu.json", {"perf": {"found": None}}))


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
    monkeypatch.setattr(timing, "time", SimpleNamespace(process_time=lambda: float(next(clock))))
    request = Request.of(
        {"model": "rdi_smallcnn", "dataset": "digits", "n": 2, "precision": "fp32", "steps": 1, "data": tmp_path}
    )
    found = stages(request, ["average"])
    names = list(found["seconds"])
    assert names[:4] == ["loading", "planning", "choice of the search model", "trust checks"] and names[-1] == "reports"
    assert found["seconds"]["average"] == 1 and found["failed"] == [] and found["n"] == 2
    assert found["total"] == sum(found["seconds"].values()) == found["work"] + found["seconds"]["loading"]


PERF = Path(__file__).parents[2] / "docs/perf"


def test_every_step_of_the_check_on_a_gpu_has_a_limit_and_all_end_within_six_minutes():
    script = (PERF / "gpu-check.sh").read_text(encoding="utf-8")
    limits = {step: int(seconds) for step, seconds in re.findall(r"\[(\w+)\]=(\d+)", script)}
    default = re.search(r"\$\{\*:-([\w ]+)\}", script)
    steps = runpy.run_path(str(PERF / "gpu_check.py"))["STEPS"]
    assert default is not None and set(limits) == set(steps) == set(default[1].split())
    assert sum(limits.values()) <= 360


def test_a_step_that_failed_is_told_and_the_others_are_kept(tmp_path, monkeypatch):
    write(tmp_path, "run.json", {"total": 1.5})
    for step, code in (("run", 0), ("all", 124)):
        (tmp_path / f"{step}.code").write_text(f"{code} 90\n")
        (tmp_path / f"{step}.log").write_text("first\nlast words\n")
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "join", str(tmp_path), str(tmp_path / "out.json")])
    runpy.run_path(str(PERF / "gpu_check.py"), run_name="__main__")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["run"] == {"ended_with": 0, "seconds": 90, "found": {"total": 1.5}, "printed": []}
    assert found["all"]["found"] is None and found["all"]["printed"] == ["first", "last words"]
    assert found["machine"]["cpu"] and found["torch"] == torch.__version__


NETS = [f"{net}, launched" for net in ("searched", "plain", "search")]


def test_rates_are_measured_for_both_networks_and_what_fails_is_told(monkeypatch):
    found = rates(prepared(toy_policy(), n=2), (2, 3))
    assert {name: list(each) for name, each in found.items()} == {name: ["2", "3"] for name in NETS}
    assert all(rate > 0 for each in found.values() for rate in each.values())

    def fails(net, x):
        raise RuntimeError("CUDA out of memory\nmore")

    monkeypatch.setattr("exitbench.perf.rates.forward_and_gradient", fails)
    assert rates(prepared(toy_policy(), n=2), (2,))["plain, launched"] == {"2": "RuntimeError: CUDA out of memory"}
