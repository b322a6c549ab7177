"""Resolves the arguments of ``exitbench.evaluate``: network, dataset and attacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from exitbench.api.names import separated
from exitbench.data.in_memory import arrays_of, register_in_memory
from exitbench.errors import UserError, as_user_errors
from exitbench.models.early_exit import EarlyExitNet
from exitbench.target.in_memory import InMemoryNetwork
from exitbench.target.networks import Network, named_network


@dataclass(frozen=True)
class Samples:
    """A dataset by name, and the requested number of its samples; None for the default."""

    name: str
    n: int | None


def attack_names(attacks: str | Iterable[str]) -> list[str]:
    """Return the names in ``attacks``, a text separated by commas or several texts.

    Raises:
        UserError: none.
    """
    texts = [attacks] if isinstance(attacks, str) else list(attacks)
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"attacks are given by name, not as {texts!r}; see `exitbench list attacks`")
    return [name for text in texts for name in separated(text)]


def network_given(model: str | nn.Module, name: str | None, device: str) -> tuple[Network, str]:
    """Return the network that ``model`` is or names, and the device that it is to be evaluated on.

    Raises:
        UserError: no such network, or a module in training mode or on another device.
    """
    with as_user_errors():
        if isinstance(model, str):
            return named_network(model), device
        network = InMemoryNetwork(model, name)
    if device not in ("auto", network.device.type):
        raise UserError(
            f"{network.name} is on {network.device}, and device={device!r} was asked for; move it there with net.to({device!r}), "
            "or leave device out"
        )
    return network, network.device.type


def dataset_named(dataset: Any, calibration: Any, network: Network, n: int | None) -> Samples:
    """Return the dataset by name; images in memory are registered under one.

    Raises:
        UserError: images or labels that cannot be used.
    """
    if isinstance(dataset, str):
        if calibration is not None:
            raise UserError(f"calibration images go with a dataset in memory; {dataset} has held-out images of its own")
        return Samples(dataset, n)
    images, labels = arrays_of(dataset, "dataset", n)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    if network.card is not None and shape != network.card.input_shape:
        takes = "x".join(map(str, network.card.input_shape))
        raise UserError(f"the images are {'x'.join(map(str, shape))}, {network.name} takes {takes}")
    with as_user_errors():
        n_classes = _classes(network.build(shape), images[:2])
    name = register_in_memory((images, labels), n_classes=n_classes, calibration=calibration)
    return Samples(name, len(images))


@torch.no_grad()
def _classes(model: EarlyExitNet, images: np.ndarray[Any, Any]) -> int:
    """Return the number of classes of a network."""
    x = torch.tensor(images)
    x = x.float().div(255) if x.dtype == torch.uint8 else x
    return int(model(x.to(next(model.parameters()).device)).shape[-1])
