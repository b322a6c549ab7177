"""Loads the network that claims are about, by the digest of its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from exitbench.data.download import DataUnavailable
from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InputError
from exitbench.models.fingerprint import is_of
from exitbench.store.identity import Identity
from exitbench.target.networks import Network, Shape, stored_network
from exitbench.target.registered_weights import registered_weights


def load_subject(
    subject: Identity, shape: Shape, weights: Path | None, device: str, network: Network | None = None
) -> tuple[EarlyExitNet, str]:
    """Return the plain fp32 model of claims, ready to score, and the digest of its weights.

    Args:
        subject: What the claims are about: it names the model and the digest of its weights.
        shape: Shape ``(C, H, W)`` of their images.
        weights: A file of tensors; None for the registered weights with that digest.
        device: ``auto``, ``cpu`` or ``cuda``.
        network: The network of the claims; None for the registered or published one of that name. No code named by the claims
            is executed.

    Raises:
        UserError: If the model is unknown, its weights are missing or cannot be loaded, there is no such device, or the claims
            are about images of another shape.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    torch.backends.cudnn.allow_tf32 = False  # decisions are made in fp32
    dataset = subject.dataset
    try:
        network = network or stored_network(subject.model)
        if shape != (takes := _shape(network, dataset, shape)):
            raise UserError(f"the claims are about images {shape}, {network.name} takes {takes}")
        if weights is None and network.card is not None:
            weights = registered_weights(network.name, subject.weights)
        loaded = network.load(dataset, shape, None, weights)
    except UserError:
        raise
    except InputError as error:
        raise UserError(f"{error}{_hint(subject.model)}") from error
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    claimed = str(subject.weights)
    own = loaded.fingerprint is not None and is_of(loaded.weights, claimed)  # what it computes is checked image by image
    return loaded.model.to("cuda" if on_gpu else "cpu"), claimed if own else loaded.weights


def _shape(network: Network, dataset: str, shape: Shape) -> Shape:
    """Return the shape of images that a network takes; ``shape`` where only the dataset says it, and that is not at hand."""
    try:
        return network.input_shape(dataset)
    except DataUnavailable:
        return shape


def _hint(model: str) -> str:
    """Return a hint for a name with a dot, which is that of a file and a factory: registered names have none."""
    if "." not in model:
        return ""
    return (
        f"; if {model} is a network of your own, name what makes it: --model path/to/file.py:factory (which is executed), or "
        "timm:NAME"
    )
