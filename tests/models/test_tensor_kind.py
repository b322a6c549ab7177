"""Tensors of a checkpoint are taken with the values that they say, or refused by name."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from exitbench.models.tensor_file import WeightsError
from exitbench.models.weights import load_weights
from exitbench.models.zoo.checkpoints import guarded_loads

warnings.filterwarnings("ignore", category=UserWarning)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = (torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.complex64)
WITHOUT_VALUES = {
    "quantised": lambda x: torch.quantize_per_tensor(x.float(), 0.5, 0, torch.qint8),
    "quantised by channel": lambda x: torch.quantize_per_channel(
        x.float(), torch.ones(len(x)), torch.zeros(len(x)), 0, torch.qint8
    ),
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.exit = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("index", torch.arange(4))
        self.register_buffer("mask", torch.tensor([True, False]))


def state():
    return {name: torch.ones_like(value) for name, value in Net().state_dict().items()}


def loaded(tensors, path):
    torch.save(tensors, path)
    net = Net()
    load_weights(net, path)
    return net.state_dict()


NAMES = tuple(state())
IN_FLOATS = tuple(name for name, value in state().items() if value.is_floating_point())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from((*FLOATS, *OTHERS)), max_size=3),
    st.sampled_from([0, 1]),
)
def test_a_tensor_is_loaded_with_its_values_or_refused_by_name(tmp_path, kinds, value):
    tensors = state() | {name: torch.full_like(state()[name], value).to(kind) for name, kind in kinds.items()}
    refused = [name for name, kind in kinds.items() if kind not in FLOATS and name in IN_FLOATS]
    refused += [name for name, kind in kinds.items() if kind is torch.complex64 and name not in IN_FLOATS]
    try:
        found = loaded(tensors, tmp_path / "w.pt")
    except WeightsError as error:
        assert any(f"the tensor {name!r} is" in str(error) for name in refused), error
    else:
        assert not refused
        assert all((found[name].double() == tensors[name].double()).all() for name in NAMES)


@pytest.mark.parametrize("kind", WITHOUT_VALUES)
def test_a_tensor_without_plain_values_is_named(kind, tmp_path):
    tensors = state()
    tensors["exit.weight"] = WITHOUT_VALUES[kind](tensors["exit.weight"])
    with pytest.raises(WeightsError, match=rf"w\.pt: the tensor 'exit\.weight' is (a )?{kind.split()[0]}"):
        loaded(tensors, tmp_path / "w.pt")
    with guarded_loads(tmp_path, "") as _, pytest.raises(WeightsError, match=r"the tensor 'exit\.weight'"):
        torch.load(tmp_path / "w.pt")


def test_the_name_is_that_of_the_file(tmp_path):
    wrapped = {f"module.{name}": value for name, value in state().items()}
    wrapped["module.exit.bias"] = torch.tensor([True, False])
    with pytest.raises(WeightsError, match=r"'module\.exit\.bias' is bool where the network has float32"):
        loaded(wrapped, tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "value"), [("index", torch.full((4,), 0.5)), ("mask", torch.tensor([2, 0])), ("index", torch.full((4,), 1e30))]
)
def test_values_that_the_network_s_type_does_not_hold_are_refused(name, value, tmp_path):
    with pytest.raises(WeightsError, match=f"the tensor '{name}' is .* does not hold"):
        loaded(state() | {name: value}, tmp_path / "w.pt")
