"""The engine takes the candidate that will finish first, remembers what it measured, and is told when it may not choose."""

import json

import pytest
import torch
from torch import nn

from exitbench.errors import UserError
from exitbench.models.foreign import ForeignNet
from exitbench.models.twins import FOLDED, PLAIN, Form
from exitbench.runner import search_backend as engine
from exitbench.runner.search_backend import Engine, choose, equipped
from exitbench.timing.cache import Timing, cache_file, key_of, read_cache
from tests.bench.evaluated import NET, prepared

SHAPE = (1, 4, 4)
CPU = torch.device("cpu")
HALF = Form(precision="bf16")


@pytest.fixture
def clock(monkeypatch):
    """Candidates take what a table says, and the table tells how often each was timed."""
    rates = {"plain fp32": 100.0, "folded fp32": 150.0, "folded bf16": 400.0, "folded fp32 compiled": 300.0}
    asked = []

    def measured(_model, _shape, forms):
        asked.extend(map(str, forms))
        return {str(form): Timing(rates.get(str(form), 0.0), 60.0 if form.compiled else 0.0) for form in forms}

    monkeypatch.setattr(engine, "_measured", measured)
    monkeypatch.setattr(engine, "_has_bf16", lambda _device: False)
    return asked


def test_the_quickest_is_taken_and_remembered(clock):
    first = choose(NET, SHAPE, "auto", 1000)
    assert (first.form, first.remembered) == (FOLDED, False)
    assert clock == ["plain fp32", "folded fp32"]
    again = choose(NET, SHAPE, "auto", 1000)
    assert (again.form, again.remembered, len(clock)) == (FOLDED, True, 2)
    assert "measured before: folded fp32 150, plain fp32 100" in again.text()


def test_bf16_is_a_candidate_where_the_hardware_has_it(clock, monkeypatch):
    monkeypatch.setattr(engine, "_has_bf16", lambda _device: True)
    assert choose(NET, SHAPE, "auto", 1000).form == HALF


def test_compiled_candidates_are_tried_only_for_work_that_pays_for_it(clock):
    assert choose(NET, SHAPE, "auto", 150 * engine.COMPILE_FROM_S).form == FOLDED
    assert not any("compiled" in name for name in clock)
    clock.clear()
    assert choose(NET, SHAPE, "auto", 151 * engine.COMPILE_FROM_S).form == Form(compiled=True)
    assert clock == ["plain fp32", "folded fp32", "folded fp32 compiled"], "those timed before as well"
    clock.clear()
    assert choose(NET, SHAPE, "auto", 151 * engine.COMPILE_FROM_S).remembered and not clock
    assert choose(NET, SHAPE, "auto", 10).form == FOLDED, "60 s of compiling do not pay for ten gradients"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 0, "timings": {}}',
        '{"schema": 1, "timings": {"k": 3}}',
        '{"schema": 1, "timings": {"k": {"a": ["x", 1]}}}',
    ],
)
def test_a_damaged_cache_is_measured_again(clock, content):
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(content, encoding="utf-8")
    assert read_cache(cache_file()) == {}
    assert not choose(NET, SHAPE, "auto", 1000).remembered
    assert choose(NET, SHAPE, "auto", 1000).remembered
    assert json.loads(cache_file().read_text(encoding="utf-8"))["schema"] == 1


def test_a_cache_that_cannot_be_written_is_done_without(clock, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("EXITBENCH_CACHE", str(tmp_path / "file"))
    assert choose(NET, SHAPE, "auto", 1000).form == FOLDED


def test_what_timings_depend_on_tells_them_apart():
    other = ForeignNet(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), SHAPE)
    assert len({key_of(NET, SHAPE, CPU), key_of(NET, (3, 4, 4), CPU), key_of(other, SHAPE, CPU)}) == 3


def test_fp32_is_the_plain_model_and_measures_nothing(clock):
    assert choose(NET, SHAPE, "fp32", 1e9) == Engine(PLAIN)
    assert choose(NET, SHAPE, "bf16", 1).form == HALF
    assert clock == []


def test_a_network_that_is_run_whole_has_no_choice(clock):
    whole = ForeignNet(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), SHAPE)
    assert choose(whole, SHAPE, "auto", 1e9) == Engine(PLAIN)
    with pytest.raises(UserError, match="run whole and has no twin"):
        choose(whole, SHAPE, "bf16", 1)


def test_real_timings_are_positive_and_an_unfaithful_or_broken_candidate_is_none(monkeypatch):
    timings = engine._measured(NET, SHAPE, [PLAIN, FOLDED])
    assert all(timing.rate > 0 for timing in timings.values())
    build = engine.build_twin
    monkeypatch.setattr(engine, "build_twin", lambda model, form: Scaled(model) if form == FOLDED else build(model, form))
    assert engine._measured(NET, SHAPE, [FOLDED])[str(FOLDED)] == Timing(0.0, 0.0)

    def fails(_model, _form):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(engine, "build_twin", fails)
    assert engine._measured(NET, SHAPE, [FOLDED])[str(FOLDED)] == Timing(0.0, 0.0)


class Scaled(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return 1.2 * self.net(x)


def test_an_equipped_victim_searches_on_the_form_chosen(clock):
    ready, chosen = equipped(prepared(), 1000)
    assert ready.victim.form == chosen.form == FOLDED
    assert ready.victim.twin is not ready.victim.model
