"""The network that claims are about, found by the digest of its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.errors import UserError
from bench.proof.claims import Claims
from models.early_exit import EarlyExitNet
from models.registry import UnknownName, model_card
from models.weights import WeightsError, known_weights, load_weights


def load_subject(claims: Claims, weights: Path | None, device: str) -> tuple[EarlyExitNet, str]:
    """The plain fp32 model of the claims, ready to score, and the digest of the weights in it.

    Args:
        claims: whose ``subject`` names the model and the digest of its weights.
        weights: a safetensors file; None to look for registered weights of that digest.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: unknown model, no weights of that digest, weights that cannot be loaded, no such device, or claims about
            images that the model does not take.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    torch.backends.cudnn.allow_tf32 = False  # the judge's arithmetic is fp32
    try:
        card = model_card(claims.subject["model"])
        shape = claims.clean_images.shape[1:]
        if shape != card.input_shape:
            raise UserError(f"the claims are about images {shape}, {card.name} takes {card.input_shape}")
        model = card.build()
        if weights is None:
            weights = _registered(card.name, claims.subject["weights"])
        digest = load_weights(model, weights)
    except (UnknownName, WeightsError) as error:
        raise UserError(str(error)) from error
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return model.eval().requires_grad_(False).to("cuda" if on_gpu else "cpu"), digest


def _registered(model: str, sha256: str) -> Path:
    known = known_weights(model)
    for card, path in known:
        if card.sha256 == sha256:
            return path
    have = ", ".join(f"{card.dataset} ({card.training}) {card.sha256[:12]}" for card, _ in known) or "none at all"
    raise UserError(
        f"no weights of {model} with SHA-256 {sha256[:12]}... are registered here; there are: {have}. "
        "Name the file with --weights, or its folder with EXITBENCH_WEIGHTS"
    )
