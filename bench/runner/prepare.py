"""Resolves a request to dataset, weights, policy and settings, and checks all of them before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from exitbench.attacks.regions import Norm, ThreatModel
from exitbench.attacks.settings import KNOBS, AttackSettings, settings_for
from exitbench.data.cards import dataset_card, dataset_names
from exitbench.data.download import DataUnavailable
from exitbench.data.load import load_split
from exitbench.data.references import FORMS, dataset_given, is_dataset_reference
from exitbench.data.split import Samples, Split
from exitbench.errors import UserError, as_user_errors
from exitbench.models.cost import measure_costs
from exitbench.models.exits_agree import check_exits
from exitbench.models.policies import Policy
from exitbench.models.policy_text import parse_policy
from exitbench.models.rules.fit import check_decisions
from exitbench.models.weights import WeightsError, find_weights
from exitbench.runner.exit_rule import check_rule_text, deployed_policy, is_handed_over, last_exit_alone
from exitbench.runner.meant import check_clean, check_length, check_thresholds
from exitbench.runner.off_grid import off_grid_note
from exitbench.store.cell import SLICE
from exitbench.target.networks import Loaded, Network, named_network
from exitbench.target.normalised import normalised
from exitbench.target.target import Target, check_model

DEFAULT_N = {"cpu": 64, "cuda": 1000}
EMBEDDED = "digits"

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Request:
    """The user's request, before defaults are filled in.

    Attributes:
        model: registered name, what a package publishes (``exitbench.models.zoo``), or where its factory stands
            (``exitbench.models.factory``).
        data: data directory.
        dataset: name, where it is (``exitbench.data.references``), or ``auto``: the model's own if its weights and data can be
            had, else ``digits``.
        training: which weights; None for the first known.
        weights: a file of tensors instead of registered weights, or for what a factory makes.
        policy: see ``exitbench.models.policy_text``, or calibrated as ``entropy@equal``, ``patience@mmacs=60``, or a rule of
            one's own as ``file.py:make``; None for the weights' own.
        calibration: digest of what set the thresholds written in ``policy``; None when typed in.
        n: samples; None for the default of the device.
        norm, eps, grid: threat model; eps None for the dataset's, grid None for images of any pixel values.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: of the search: ``auto``, ``fp32`` (the plain model) or ``bf16``; verdicts are the plain model's in any case.
        mean, std: of each channel, to normalise images with in front of the network; None where it does so itself.
        knobs: settings of the attacks by name (``exitbench.attacks.settings.KNOBS``); what is left out or None is the
            dataset's, or the default.
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
    grid: int | None = None
    device: str = "auto"
    calibration: str | None = None
    precision: Precision = "auto"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict, hash=False)  # workers keep what they prepared by the request

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Request:
        """Return the request of a flat mapping, such as a command's options, in which knobs stand beside everything else."""
        knobs = {name: value for name, value in values.items() if name in KNOBS}
        rest = {name: value for name, value in values.items() if name not in KNOBS}
        channels = {name: tuple(rest[name]) for name in ("mean", "std") if rest.get(name) is not None}
        return cls(knobs=knobs, **{**rest, **channels})


@dataclass(frozen=True)
class Prepared:
    """A resolved request.

    Attributes:
        target: The target of the attacks.
        split: The test split.
        n: Number of samples, the first of the split.
        settings: Settings of the gradient attacks, threat model included.
        note: One line on a choice made for the user; None if there was none.
        asked: model, file of weights, exit rule and the user's dataset as they were asked for, so that it can be told again.
        precision: of the search, as asked for.
    """

    target: Target
    split: Split
    n: int
    settings: AttackSettings
    note: str | None
    asked: Mapping[str, Any] = field(default_factory=dict)
    precision: Precision = "auto"

    @property
    def samples(self) -> Samples:
        """What the target is evaluated on."""
        return Samples(self.split, self.n)


def prepare(request: Request, network: Network | None = None) -> Prepared:
    """Load and check everything that a request needs.

    Args:
        request: The request.
        network: The network itself, if ``request.model`` does not name one.

    Raises:
        UserError: If the request cannot be fulfilled; the message says what to do.
    """
    with as_user_errors():
        network = normalised(network or named_network(request.model), request.mean, request.std)
        check_rule_text(request.policy)
        device = _device(request.device)
        dataset, split, note = _dataset(request, network)
        settings = _settings(request, dataset)
        for what, length in (("eps", settings.region.eps), ("step size", settings.step_size)):
            check_length(what, length, settings.region.norm, math.prod(split.shape))
        n = _n(request, split, device)
        off_grid = off_grid_note(Samples(split, n).slices(SLICE), settings.region)
        loaded = network.load(_weights_for(network, dataset), split.shape, request.training, request.weights)
        model = loaded.model
        samples = Samples(split, n)
        first = next(samples.slices(SLICE))
        check_exits(model, first.x)
        logits = check_model(model, first.x, first.y, split.n_classes, dataset)
        n_classes = logits.shape[-1]
        policy = deployed_policy(request.policy, loaded, dataset, split.shape, request.data, request.calibration)
        check_thresholds(policy)
        check_decisions(policy, logits.cpu())
        guess = check_clean(model, samples.slices(SLICE), split.n_classes, policy, dataset)
        costs = measure_costs(model, split.shape)
    where = (loaded.training, loaded.weights, loaded.source)
    target = Target(
        network.name,
        model.placed(device),
        *where,
        policy,
        costs,
        n_classes=n_classes,
        fingerprint=loaded.fingerprint,
        unused=loaded.unused,
        grid=settings.region.grid,
    )
    assumed = _assumed(request, dataset, loaded, settings.region.eps)
    notes = (guess, note, costs.notes, loaded.note, _other_norm(network, request.norm), off_grid, assumed)
    note = "; ".join(filter(None, notes)) or None
    return Prepared(target, split, n, settings, note, _asked(request, loaded, policy), request.precision)


def _weights_for(network: Network, dataset: str) -> str:
    """Return the dataset whose weights are meant: the user's images are attacked with those for the network's own dataset."""
    return network.dataset if is_handed_over(dataset) and network.dataset is not None else dataset


def _assumed(request: Request, dataset: str, loaded: Loaded, eps: float) -> str | None:
    """Return what was assumed about the user's images."""
    if not is_handed_over(dataset):
        return None
    found = [f"no eps was given: {eps:.4g} is assumed"] if request.eps is None else []
    if last_exit_alone(request.policy, loaded, dataset) and loaded.model.n_exits > 1:
        found.append("no exit rule and no calibration images were given: the last exit alone is evaluated")
    return "; ".join(found) or None


def _other_norm(network: Network, norm: Norm) -> str | None:
    if network.norm in (None, norm):
        return None
    return f"{network.name} was trained for {network.norm} and is attacked in {norm} (see --norm)"


def _asked(request: Request, loaded: Loaded, policy: Policy) -> dict[str, Any]:
    """What names the target; no exit rule where the one given is the weights' own."""
    own = loaded.policy
    is_own = own is not None and policy == parse_policy(own[0], loaded.model.n_exits, own[1])
    weights = str(request.weights) if request.weights is not None else None
    dataset = request.dataset if is_dataset_reference(request.dataset) else None
    return {
        **{"model": request.model, "weights": weights, "policy": None if is_own else request.policy},
        **{"mean": request.mean, "std": request.std, "dataset": dataset},
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu")
    if name == "cuda":
        # Convolutions default to TF32 on a GPU; decisions must be made in fp32.
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def _dataset(request: Request, network: Network) -> tuple[str, Split, str | None]:
    """Return the dataset's name, its test split, and, if ``auto`` fell back on another dataset, the reason."""
    if request.dataset != "auto":
        given = dataset_given(request.dataset)
        return given, _test_split(given, network, request), None
    card = network.card
    if card is None and network.dataset is not None:
        return network.dataset, _test_split(network.dataset, network, request), None
    if card is None:
        raise UserError(
            f"{request.model} has no dataset of its own; name one with --dataset ({', '.join([*dataset_names(), *FORMS])})"
        )
    try:
        if request.weights is None:
            find_weights(card.name, card.dataset, request.training)
        return card.dataset, _test_split(card.dataset, network, request), None
    except WeightsError:
        reason = f"there are no {card.dataset} weights of {card.name}" + (f" ({request.training})" if request.training else "")
    except DataUnavailable as error:
        if not any(weights.dataset == EMBEDDED and request.training in (None, weights.training) for weights in card.weights()):
            raise
        reason = str(error)
    note = f"evaluated on {EMBEDDED}, the embedded stand-in for {card.dataset}: {reason}"
    return EMBEDDED, _test_split(EMBEDDED, network, request), note


def _test_split(dataset: str, network: Network, request: Request) -> Split:
    return load_split(dataset, "test", network.input_shape(dataset), request.data)


def _settings(request: Request, dataset: str) -> AttackSettings:
    card = dataset_card(dataset)
    threat_model = ThreatModel(request.norm, card.eps[request.norm] if request.eps is None else request.eps, request.grid)
    return settings_for(threat_model, request.knobs, card)


def _n(request: Request, split: Split, device: torch.device) -> int:
    n = min(DEFAULT_N[device.type], len(split)) if request.n is None else request.n
    if not 1 <= n <= len(split):
        raise UserError(
            f"n = {n} is outside 1..{len(split)}: {split.dataset} {split.name} ({split.source}) has {len(split)} samples"
        )
    return n
