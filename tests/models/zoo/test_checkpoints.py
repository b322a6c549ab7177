"""Checkpoints that another package's loader reads are recorded, compared, and never executed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from exitbench.models.tensor_file import WeightsError
from exitbench.models.zoo.checkpoints import RECORD, guarded_loads, recorded


class Harmful:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self):
        return Path.touch, (self.touched,)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "kept" / "net.pt"
    path.parent.mkdir()
    torch.save({"w": torch.ones(2)}, path)
    return path


def _load(path, *, record=True):
    with guarded_loads(path.parent, "https://example.org/net") as guard:
        loaded = torch.load(str(path), map_location=torch.device("cpu"))
    if record:
        guard.record()
    return loaded, guard.sha256[path]


def test_the_first_digest_is_recorded_and_the_file_held_to_it(checkpoint):
    assert recorded(checkpoint) is None
    loaded, digest = _load(checkpoint)
    assert torch.equal(loaded["w"], torch.ones(2)) and recorded(checkpoint) == digest
    assert _load(checkpoint)[1] == digest
    torch.save({"w": torch.zeros(2)}, checkpoint)
    with pytest.raises(WeightsError, match="is not the file that was loaded before"):
        _load(checkpoint)
    checkpoint.with_name(checkpoint.name + RECORD).unlink()
    assert _load(checkpoint)[1] != digest


def test_nothing_is_recorded_of_a_file_elsewhere_or_before_it_was_of_use(checkpoint, tmp_path):
    _load(checkpoint, record=False)
    assert recorded(checkpoint) is None
    with guarded_loads(tmp_path / "other", "") as guard:
        torch.load(checkpoint)
    guard.record()
    assert guard.sha256 and recorded(checkpoint) is None


def test_a_damaged_record_is_named(checkpoint):
    checkpoint.with_name(checkpoint.name + RECORD).write_text("{")
    with pytest.raises(WeightsError, match=r"net.pt.sha256.json cannot be read"):
        _load(checkpoint)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "settings", [{}, {"weights_only": False}, {"weights_only": False, "pickle_module": __import__("pickle")}]
)
def test_nothing_in_a_checkpoint_is_executed_whatever_the_loader_asks_for(checkpoint, tmp_path, zipped, settings):
    touched = tmp_path / "touched"
    torch.save({"w": torch.ones(2), "more": Harmful(touched)}, checkpoint, _use_new_zipfile_serialization=zipped)
    with guarded_loads(checkpoint.parent, ""), pytest.raises(WeightsError, match="nothing in a checkpoint is executed"):
        torch.load(checkpoint, **settings)
    assert not touched.exists()


def test_options_and_single_numbers_beside_the_tensors_are_no_hindrance(checkpoint):
    beside = {"args": argparse.Namespace(lr=0.1), "acc": np.float64(0.5), "loss": np.float32(2), "epoch": np.int64(3)}
    torch.save({"w": torch.ones(2), **beside}, checkpoint)
    loaded, _ = _load(checkpoint)
    assert {name: loaded[name] for name in beside} == beside


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Quota exceeded", b"\n  <HTML><head>", b"<?xml version='1.0'?><html>"])
def test_a_web_page_is_no_checkpoint_and_does_not_stay(checkpoint, page):
    checkpoint.write_bytes(page)
    with pytest.raises(WeightsError, match=r"is a web page, not a checkpoint.*https://example.org/net"):
        _load(checkpoint)
    assert not checkpoint.exists()


def test_a_file_cut_short_is_told_as_such(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(WeightsError, match="If it was cut short, delete it"):
        _load(checkpoint)


@pytest.mark.parametrize("home", [None, "/some/where"])
def test_torch_is_as_before_afterwards(checkpoint, monkeypatch, home):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    if home:
        monkeypatch.setenv("TORCH_HOME", home)
    load = torch.load
    with pytest.raises(KeyError), guarded_loads(checkpoint.parent, ""):
        assert torch.load is not load and torch.hub.get_dir() == str(checkpoint.parent / "hub")
        raise KeyError
    assert torch.load is load and os.environ.get("TORCH_HOME") == home
