"""Any file that ``load_state_dict`` accepts loads, with wrappers before its names or without, wherever in the file it stands."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from exitbench.models.state_dict import UNDER, StateError, fill
from exitbench.models.weights import WeightsError, load_weights

WRAPPERS = ("module", "_orig_mod", "net", "model")


class Around(nn.Module):
    """A module that has another as the attribute ``name``."""

    def __init__(self, name, inner):
        super().__init__()
        self.add_module(name, inner)


def network(seed, wrappers=()):
    torch.manual_seed(seed)
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2), head=nn.Linear(2, 2)))
    for name in reversed(wrappers):
        net = Around(name, net)
    return net


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


some_wrappers = st.lists(st.sampled_from(WRAPPERS), max_size=4)


@settings(max_examples=60, deadline=None)
@given(some_wrappers, some_wrappers, st.booleans())
def test_wrappers_before_the_names_of_the_file_or_the_network_do_not_matter(in_file, in_network, is_safetensors):
    theirs, ours = network(1, in_file), network(2, in_network)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        (save_file if is_safetensors else torch.save)(dict(theirs.state_dict()), path)
        load_weights(ours, path)
    assert same(ours, theirs)


@given(st.lists(st.sampled_from(["module", "_orig_mod"]), max_size=3), st.sampled_from(["conv", "bn", "head"]))
@settings(deadline=None)
def test_a_part_that_was_compiled_or_parallel_when_it_was_saved_loads(inside, part):
    theirs, ours = network(1), network(2)
    state = {}
    for name, tensor in theirs.state_dict().items():
        owner, _, rest = name.partition(".")
        state[".".join([owner, *(inside if owner == part else ()), rest])] = tensor
    fill(ours, state)
    assert same(ours, theirs)


def test_names_are_tried_as_they_are_first():
    """Both readings of the names are possible; the plain one is right."""
    net = Around("module", nn.Linear(2, 2))
    theirs = Around("module", nn.Linear(2, 2))
    fill(net, theirs.state_dict())
    assert same(net, theirs)
    two = nn.ModuleDict({"net": nn.Linear(2, 2), "model": nn.Linear(2, 2)})
    other = nn.ModuleDict({"net": nn.Linear(2, 2), "model": nn.Linear(2, 2)})
    fill(two, other.state_dict())
    assert same(two, other)


def test_what_load_state_dict_fills_in_itself_is_accepted():
    """Files written before torch 0.4.1 have no ``num_batches_tracked``."""
    theirs, ours = network(1), network(2)
    plain = {name: tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    network(3).load_state_dict(plain)
    fill(ours, {f"module.{name}": tensor for name, tensor in plain.items()})
    assert same(ours, theirs)


class Counted(nn.Linear):
    """A layer with a state that is no tensor, and a version that its files are converted by."""

    _version = 7

    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        self.calls = state["calls"]

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        self.version = local_metadata.get("version")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


@pytest.mark.parametrize("wrappers", [(), ("module",), ("model", "_orig_mod")])
def test_extra_states_and_versions_of_modules_reach_them(wrappers, tmp_path):
    net = nn.Sequential(Counted(2, 2))
    for name in reversed(wrappers):
        net = Around(name, net)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "w.pt")
    ours = nn.Sequential(Counted(2, 2))
    load_weights(ours, tmp_path / "w.pt")
    assert (ours[0].calls, ours[0].version) == (3, 7)


BESIDE = {
    "nothing": {},
    "numbers of NumPy": {"best": np.float64(0.5), "epoch": np.int64(3), "history": np.ones(3), "name": np.str_("run")},
    "options": {"args": argparse.Namespace(lr=0.1, where=Path("runs") / "one"), "epoch": 3},
    "an optimiser": {"optimizer": torch.optim.Adam(network(1).parameters()).state_dict()},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("under", [*UNDER, "model/state_dict", "ema/module", "state_dict/model/net"])
@pytest.mark.parametrize("legacy", [False, True])
def test_it_is_found_where_training_scripts_put_it(under, beside, legacy, tmp_path):
    theirs, ours = network(1, ("module",)), network(2)
    content = theirs.state_dict()
    for key in reversed(under.split("/")):
        content = {key: content}
    torch.save(BESIDE[beside] | content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    load_weights(ours, tmp_path / "w.pt")
    assert same(ours, theirs)


def test_of_several_the_first_that_fits_is_taken_and_the_others_are_named(tmp_path, caplog):
    model, ema, ours = network(1), network(2), network(3)
    torch.save(
        {"model_ema": ema.state_dict(), "model": model.state_dict(), "net": nn.Linear(1, 1).state_dict()}, tmp_path / "w.pt"
    )
    load_weights(ours, tmp_path / "w.pt")
    assert same(ours, model)
    assert "the weights under 'model' are used, not those under 'net', 'model_ema'" in caplog.text
    torch.save({"model": nn.Linear(1, 1).state_dict(), "model_ema": ema.state_dict()}, tmp_path / "w.pt")
    load_weights(ours, tmp_path / "w.pt")
    assert same(ours, ema)


def test_what_does_not_fit_leaves_the_network_as_it_was_and_names_both_sides(tmp_path):
    ours, before = network(1), network(1)
    wrong = dict(network(2).state_dict())
    wrong["tail.weight"] = wrong.pop("head.weight")
    with pytest.raises(StateError, match=r"^missing head\.weight; unexpected tail\.weight$"):
        fill(ours, {f"module.{name}": tensor for name, tensor in wrong.items()})
    assert same(ours, before)
    wrong = dict(network(2).state_dict()) | {"head.bias": torch.zeros(3)}
    with pytest.raises(StateError, match=r"^other shapes: head\.bias \(3,\) instead of \(2,\)$"):
        fill(ours, wrong)
    assert same(ours, before)


def refused(content, tmp_path):
    path = tmp_path / "w.pt"
    content(path)
    with pytest.raises(WeightsError) as error:
        load_weights(network(1), path)
    return str(error.value)


def test_files_of_other_kinds_say_what_they_are(tmp_path):
    scripted = refused(lambda path: torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)).save(str(path)), tmp_path)
    assert "is a TorchScript archive" in scripted and "torch.jit.load(file).state_dict()" in scripted
    lightning = {"pytorch-lightning_version": "2.5", "state_dict": Around("backbone", network(1)).state_dict()}
    said = refused(lambda path: torch.save(lightning, path), tmp_path)
    assert (
        "checkpoint of PyTorch Lightning" in said and "missing conv.weight" in said and "unexpected backbone.conv.weight" in said
    )
    assert "'epoch', 'weights'" in refused(lambda path: torch.save({"epoch": 3, "weights": [1]}, path), tmp_path)


def test_a_type_that_is_not_harmless_is_named(tmp_path):
    said = refused(
        lambda path: torch.save({"state_dict": {}, "args": UNDER, "net": Around("net", nn.Linear(1, 1))}, path), tmp_path
    )
    assert "of the type tests.models.test_state_dict.Around" in said and "nothing in a weights file is executed" in said


def test_a_lightning_file_loads_where_only_wrappers_stand_before_its_names(tmp_path):
    theirs, ours = network(1, ("model", "_orig_mod")), network(2)
    torch.save(
        {"pytorch-lightning_version": "2.5", "state_dict": theirs.state_dict(), "hyper_parameters": {}}, tmp_path / "w.ckpt"
    )
    load_weights(ours, tmp_path / "w.ckpt")
    assert same(ours, theirs)
