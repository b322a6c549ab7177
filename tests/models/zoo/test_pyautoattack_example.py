"""The network that ships with pyautoattack has the expected digest and is not robust."""

from __future__ import annotations

import runpy

import pytest
import torch

from exitbench.data.load import load_split
from exitbench.models.tensor_file import WeightsError
from exitbench.models.zoo import pyautoattack_example as example
from exitbench.models.zoo.find import find_published


@pytest.fixture(scope="module")
def loaded():
    return find_published("pyautoattack:resnet18").load()


def test_it_is_the_examples_own_network_with_its_weights(loaded):
    folder = example._examples()
    theirs = runpy.run_path(str(folder / "resnet.py"))["ResNet18"]()
    theirs.load_state_dict(torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.net(x), theirs.eval()(x))
    assert example.SHA256 in loaded.source


def test_other_weights_in_its_place_are_refused(monkeypatch):
    monkeypatch.setattr(example, "SHA256", "0" * 64)
    with pytest.raises(WeightsError, match="not the registered file"):
        find_published("pyautoattack:resnet18").load()


def test_it_is_right_on_real_images(loaded, cifar10_dir):
    """All of the first 32; 954 of the 1,017 lossless images, 93.8 %."""
    batch = load_split("cifar10", "test", (3, 32, 32), cifar10_dir, download=False).batch(0, 32)
    with torch.no_grad():
        right = int((loaded.net(batch.x).argmax(-1) == batch.y).sum())
    assert right >= 31
