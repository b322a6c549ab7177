"""The search backend picks the configuration that finishes first, caches its timings, and obeys a fixed choice."""

import json

import pytest
import torch
from torch import nn

from exitbench.errors import UserError
from exitbench.models.foreign import ForeignNet
from exitbench.models.search_model import FOLDED, PLAIN, SearchConfig
from exitbench.runner import search_backend
from exitbench.runner.search_backend import SearchBackend, choose, with_search_model
from exitbench.timing.cache import Timing, cache_file, key_of, read_cache
from tests.bench.evaluated import NET, prepared

SHAPE = (1, 4, 4)
CPU = torch.device("cpu")
HALF = SearchConfig(precision="bf16")


@pytest.fixture
def clock(monkeypatch):
    """Replace the timing of configurations by a table, and count how often each is timed."""
    rates = {"plain fp32": 100.0, "folded fp32": 150.0, "folded bf16": 400.0, "folded fp32 compiled": 300.0}
    asked = []

    def measured(_model, _shape, configs):
        asked.extend(map(str, configs))
        return {str(config): Timing(rates.get(str(config), 0.0), 60.0 if config.compiled else 0.0) for config in configs}

    monkeypatch.setattr(search_backend, "_measured", measured)
    monkeypatch.setattr(search_backend, "_has_bf16", lambda _device: False)
    return asked


def test_the_quickest_is_taken_and_remembered(clock):
    first = choose(NET, SHAPE, "auto", 1000)
    assert (first.config, first.remembered) == (FOLDED, False)
    assert clock == ["plain fp32", "folded fp32"]
    again = choose(NET, SHAPE, "auto", 1000)
    assert (again.config, again.remembered, len(clock)) == (FOLDED, True, 2)
    assert "measured before: folded fp32 150, plain fp32 100" in again.text()


def test_bf16_is_a_candidate_where_the_hardware_has_it(clock, monkeypatch):
    monkeypatch.setattr(search_backend, "_has_bf16", lambda _device: True)
    assert choose(NET, SHAPE, "auto", 1000).config == HALF


def test_compiled_candidates_are_tried_only_for_work_that_pays_for_it(clock):
    assert choose(NET, SHAPE, "auto", 150 * search_backend.COMPILE_FROM_S).config == FOLDED
    assert not any("compiled" in name for name in clock)
    clock.clear()
    assert choose(NET, SHAPE, "auto", 151 * search_backend.COMPILE_FROM_S).config == SearchConfig(compiled=True)
    assert clock == ["plain fp32", "folded fp32", "folded fp32 compiled"], "those timed before as well"
    clock.clear()
    assert choose(NET, SHAPE, "auto", 151 * search_backend.COMPILE_FROM_S).remembered and not clock
    assert choose(NET, SHAPE, "auto", 10).config == FOLDED, "60 s of compiling do not pay for ten gradients"


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
    assert choose(NET, SHAPE, "auto", 1000).config == FOLDED


def test_what_timings_depend_on_tells_them_apart():
    other = ForeignNet(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), SHAPE)
    assert len({key_of(NET, SHAPE, CPU), key_of(NET, (3, 4, 4), CPU), key_of(other, SHAPE, CPU)}) == 3


def test_fp32_is_the_plain_model_and_measures_nothing(clock):
    assert choose(NET, SHAPE, "fp32", 1e9) == SearchBackend(PLAIN)
    assert choose(NET, SHAPE, "bf16", 1).config == HALF
    assert clock == []


def test_a_network_that_is_run_whole_has_no_choice(clock):
    whole = ForeignNet(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), SHAPE)
    assert choose(whole, SHAPE, "auto", 1e9) == SearchBackend(PLAIN)
    with pytest.raises(UserError, match="run whole and has no search model"):
        choose(whole, SHAPE, "bf16", 1)


def test_real_timings_are_positive_and_an_unfaithful_or_broken_candidate_is_none(monkeypatch):
    timings = search_backend._measured(NET, SHAPE, [PLAIN, FOLDED])
    assert all(timing.rate > 0 for timing in timings.values())
    build = search_backend.build_search_model
    monkeypatch.setattr(
        search_backend, "build_search_model", lambda model, config: Scaled(model) if config == FOLDED else build(model, config)
    )
    assert search_backend._measured(NET, SHAPE, [FOLDED])[str(FOLDED)] == Timing(0.0, 0.0)

    def fails(_model, _form):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(search_backend, "build_search_model", fails)
    assert search_backend._measured(NET, SHAPE, [FOLDED])[str(FOLDED)] == Timing(0.0, 0.0)


class Scaled(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return 1.2 * self.net(x)


def test_an_equipped_victim_searches_on_the_form_chosen(clock):
    ready, chosen = with_search_model(prepared(), 1000)
    assert ready.target.search_config == chosen.config == FOLDED
    assert ready.target.search_model is not ready.target.model
