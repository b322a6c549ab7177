"""The network that claims are about, found by the digest of its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import UnknownName
from exitbench.models.fingerprint import is_of
from exitbench.models.foreign import ForeignModelError
from exitbench.models.weights import WeightsError
from exitbench.target.networks import Network, stored_network
from exitbench.target.registered_weights import registered_weights
from exitbench.verify.claims import Claims


def load_subject(claims: Claims, weights: Path | None, device: str, network: Network | None = None) -> tuple[EarlyExitNet, str]:
    """The plain fp32 model of the claims, ready to score, and the digest of the weights in it.

    Args:
        claims: whose ``subject`` names the model and the digest of its weights.
        weights: a file of tensors; None to look for registered weights of that digest.
        device: ``auto``, ``cpu`` or ``cuda``.
        network: that the claims are about; None for the registered or published one of that name. Nothing that claims name
            is executed.

    Raises:
        UserError: unknown model, no weights of that digest, weights that cannot be loaded, no such device, or claims about
            images that the model does not take.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    torch.backends.cudnn.allow_tf32 = False  # the judge's arithmetic is fp32
    dataset = claims.subject.dataset
    shape = claims.clean_images.shape[1:]
    try:
        network = network or stored_network(claims.subject.model)
        if shape != network.input_shape(dataset):
            raise UserError(f"the claims are about images {shape}, {network.name} takes {network.input_shape(dataset)}")
        if weights is None and network.card is not None:
            weights = registered_weights(network.name, claims.subject.weights)
        loaded = network.load(dataset, shape, None, weights)
    except (UnknownName, WeightsError, ForeignModelError) as error:
        raise UserError(f"{error}{_hint(claims.subject.model)}") from error
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    claimed = str(claims.subject.weights)
    own = loaded.fingerprint is not None and is_of(loaded.weights, claimed)  # what it computes is checked image by image
    return loaded.model.to("cuda" if on_gpu else "cpu"), claimed if own else loaded.weights


def _hint(model: str) -> str:
    """Registered names are Python names; one with a dot was made of a file's and a factory's."""
    if "." not in model:
        return ""
    return f"; if {model} is a network of your own, name what makes it: --model path/to/file.py:factory (which is executed)"
