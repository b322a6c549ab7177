"""From names to things: which dataset, weights, policy and settings a request means, all checked before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from attacks.objectives import CE, DLR, Loss, Margin, TargetedDLR
from attacks.pgd import Keep
from attacks.policy_attack import BUDGET
from attacks.presets import Method, Settings
from attacks.regions import Ball, Norm
from bench.calibrate import calibrated_policy
from bench.data.cards import dataset_card
from bench.data.download import DataUnavailable
from bench.data.load import load_split
from bench.data.split import Split
from bench.errors import UserError
from bench.harness.plan import slices
from bench.harness.victim import Victim, check_model
from models.calibration import Kind
from models.cost import measure_costs
from models.multi_exit import MultiExitNet
from models.policies import Policy
from models.policy_text import parse_policy
from models.registry import ModelCard, UnknownName, model_card
from models.weights import WeightsError, find_weights, load_weights

LOSSES: dict[str, Loss | TargetedDLR] = {"ce": CE(), "margin": Margin(), "dlr": DLR(), "dlr-targeted": TargetedDLR()}
APGD_STEPS = 100
DEFAULT_N = {"cpu": 64, "cuda": 1000}
EMBEDDED = "digits"


@dataclass(frozen=True)
class Request:
    """What the user asked for, defaults not yet filled in.

    Attributes:
        model: registered name.
        data: data directory.
        dataset: name, or ``auto``: the model's own if its weights and data can be had, else ``digits``.
        training: which weights; None for the first known.
        weights: a safetensors file instead of registered weights.
        policy: see ``models.policy_text``, or ``entropy@equal``, ``confidence@mmacs=60``; None for the weights' own.
        calibration: digest of what set the thresholds written in ``policy``; None when typed in.
        n: samples; None for the default of the device.
        norm, eps: threat model; eps None for the dataset's.
        method, loss, steps, step_size, restarts, keep, gamma: of the gradient attacks; None for the dataset's, or APGD's 100.
        budget: gradients per image that ``policy`` may spend at most.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    model: str
    data: Path
    dataset: str = "auto"
    training: str | None = None
    weights: Path | None = None
    policy: str | None = None
    n: int | None = None
    norm: Norm = "Linf"
    eps: float | None = None
    method: Method = "pgd"
    loss: str = "ce"
    steps: int | None = None
    step_size: float | None = None
    restarts: int = 1
    keep: Keep = "best"
    gamma: float = 0.3
    budget: int = BUDGET
    device: str = "auto"
    calibration: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A request made good.

    Attributes:
        victim: what is attacked.
        split: test data.
        n: how many of its first samples.
        settings: of the gradient attacks, threat model included.
        note: one line on a choice made for the user; None where there was none.
        asked: model, file of weights and exit rule as they were asked for, so that the command can be told again.
    """

    victim: Victim
    split: Split
    n: int
    settings: Settings
    note: str | None
    asked: Mapping[str, str | None] = field(default_factory=dict)


def prepare(request: Request) -> Prepared:
    """Load and check everything that a request needs.

    Raises:
        UserError: for anything that the user can mend.
    """
    try:
        card = model_card(request.model)
        device = _device(request.device)
        dataset, split, note = _dataset(request, card)
        settings = _settings(request, dataset)
        n = _n(request, split, device)
        model, training, weights, source, own_policy = _weights(request, card, dataset)
        for batch in slices(split, n):
            check_model(model, batch.x, batch.y)
        policy = _policy(request, model, dataset, card, own_policy)
        costs = measure_costs(model, card.input_shape)
    except (UnknownName, WeightsError, ValueError) as error:
        raise UserError(str(error)) from error
    # The same weights and arithmetic, laid out as convolutions on today's processors prefer: about a quarter faster.
    model.to(device).to(memory_format=torch.channels_last)
    victim = Victim(card.name, model, training, weights, source, policy, costs)
    return Prepared(victim, split, n, settings, note, _asked(request, model.n_exits, policy, own_policy))


def _asked(request: Request, n_exits: int, policy: Policy, own: tuple[str, str | None] | None) -> dict[str, str | None]:
    """What names the victim; no exit rule where the one given is the weights' own."""
    is_own = own is not None and policy == parse_policy(own[0], n_exits, own[1])
    weights = str(request.weights) if request.weights is not None else None
    return {"model": request.model, "weights": weights, "policy": None if is_own else request.policy}


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    if name == "cuda":
        # Convolutions default to TF32 on a GPU; the judge must not.
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def _dataset(request: Request, card: ModelCard) -> tuple[str, Split, str | None]:
    """The dataset's name, its test split, and why it is not the model's own where ``auto`` fell back."""
    if request.dataset != "auto":
        return request.dataset, _test_split(request.dataset, card, request), None
    try:
        if request.weights is None:
            find_weights(card.name, card.dataset, request.training)
        return card.dataset, _test_split(card.dataset, card, request), None
    except WeightsError:
        reason = f"there are no {card.dataset} weights of {card.name}" + (f" ({request.training})" if request.training else "")
    except DataUnavailable as error:
        if not any(weights.dataset == EMBEDDED and request.training in (None, weights.training) for weights in card.weights()):
            raise
        reason = str(error)
    note = f"evaluated on {EMBEDDED}, the embedded stand-in for {card.dataset}: {reason}"
    return EMBEDDED, _test_split(EMBEDDED, card, request), note


def _test_split(dataset: str, card: ModelCard, request: Request) -> Split:
    return load_split(dataset, "test", card.input_shape, request.data)


def _settings(request: Request, dataset: str) -> Settings:
    card = dataset_card(dataset)
    ball = Ball(request.norm, card.eps[request.norm] if request.eps is None else request.eps)
    default = APGD_STEPS if request.method == "apgd" else card.steps
    steps = default if request.steps is None else request.steps
    if request.restarts < 1 or steps < 1:
        raise UserError(f"steps and restarts must be at least 1, got {steps} and {request.restarts}")
    step_size = ball.eps * card.step_ratio if request.step_size is None else request.step_size
    if not (math.isfinite(step_size) and step_size >= 0):
        raise UserError(f"the step size must be a finite number >= 0, got {step_size}")
    if request.budget < 1:
        raise UserError(f"the budget must be at least 1 gradient per image, got {request.budget}")
    loss = LOSSES[request.loss]
    return Settings(ball, steps, step_size, request.method, loss, request.restarts, request.keep, request.gamma, request.budget)


def _n(request: Request, split: Split, device: torch.device) -> int:
    n = min(DEFAULT_N[device.type], len(split)) if request.n is None else request.n
    if not 1 <= n <= len(split):
        raise UserError(
            f"n = {n} is outside 1..{len(split)}: {split.dataset} {split.name} ({split.source}) has {len(split)} samples"
        )
    return n


def _weights(
    request: Request, card: ModelCard, dataset: str
) -> tuple[MultiExitNet, str, str, str, tuple[str, str | None] | None]:
    """The network with weights loaded, their training, digest and source, and the policy on their card."""
    model = card.build()
    own_policy = None
    if request.weights is not None:
        digest = load_weights(model, request.weights)
        training, source = request.weights.stem, f"file {request.weights.name}"
    else:
        weights_card, path = find_weights(card.name, dataset, request.training)
        digest = load_weights(model, path, weights_card.sha256)
        training, source = weights_card.training, weights_card.source
        if weights_card.policy is not None:
            own_policy = (weights_card.policy, weights_card.calibration)
    model.eval().requires_grad_(False)
    return model, training, digest, source, own_policy


def _policy(request: Request, model: MultiExitNet, dataset: str, card: ModelCard, own: tuple[str, str | None] | None) -> Policy:
    text = request.policy
    if text is None and own is not None:
        return parse_policy(own[0], model.n_exits, own[1])
    if text is not None and "@" not in text:
        return parse_policy(text, model.n_exits, request.calibration)
    kind, _, method = (text or "entropy@equal").partition("@")
    kinds: dict[str, Kind] = {"entropy": "entropy", "confidence": "confidence"}
    if kind not in kinds:
        raise UserError(f"policy {text!r}: calibrated policies are entropy@... and confidence@...")
    calibration = load_split(dataset, "calibration", card.input_shape, request.data)
    return calibrated_policy(model, calibration, kinds[kind], method)
