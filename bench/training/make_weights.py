"""Makes a weight file with its card from a recipe: train, calibrate the policy, measure, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models.gated import without_gates
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policy_text import policy_text
from exitbench.models.weights import WeightsCard, WeightsError, find_weights, load_weights, round_to_half, save_weights
from exitbench.training.about import about
from exitbench.training.deploy import deployed
from exitbench.training.fits import check_fit
from exitbench.training.journal import conditions, versions, write_journal
from exitbench.training.loop import EpochRecord, Trainer
from exitbench.training.machine import pick_machine
from exitbench.training.recipe import Recipe
from exitbench.training.scaling import roomy, scaled

JOURNAL_EVERY = 20.0
"""Seconds between two writings of the journal and its curve, which take about as long as an epoch on a GPU."""


def make_weights(
    recipe: Recipe,
    seed: int,
    data: Path,
    out: Path,
    command: str,
    *,
    on_start: Callable[[Trainer], None] = lambda _: None,
    on_step: Callable[[float], None] = lambda _: None,
    on_epoch: Callable[[EpochRecord], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    compiled: bool | None = None,
    graphs: bool = True,
) -> tuple[WeightsCard, Path]:
    """Train ``recipe`` and write ``<recipe.name>.safetensors``, its card and the run's journal and curve into ``out``.

    The run is resumed from ``<recipe.name>.resume`` in ``out`` if that exists; the file is deleted once the weights are saved.
    The card's figures are measured on the calibration split; the test split is not touched.

    Args:
        recipe: The recipe to train by.
        seed: Seed of all random numbers.
        data: Data directory.
        out: Folder to write into.
        command: The command line, recorded on the card.
        on_start, on_step, on_epoch: Called when training begins, after every update, and after every epoch.
        tell: Called with a line where something is slower than it could be.
        batch_size: Images per update, with the learning rate scaled as in ``scaled``; by default as many as the recipe has, on a
            GPU those of ``roomy``.
        device, precision, compiled, graphs: See ``pick_machine``.

    Returns:
        The card and the path of the weights.

    Raises:
        UserError: If weights of this name exist, the recipe does not fit its model, the data cannot be obtained, the resume file
            belongs to another recipe or seed, the disk is full, or training diverges.
    """
    finished = out / f"{recipe.name}.safetensors"
    if finished.exists():
        raise UserError(f"{finished} is there already; move it away to train it again, or name another folder with --out")
    card = check_fit(recipe)
    torch.manual_seed(seed)
    model = card.build()
    if recipe.after:
        _start_from(model, recipe, recipe.after)
    train = load_split(recipe.dataset, "train", card.input_shape, data)
    calibration = load_split(recipe.dataset, "calibration", card.input_shape, data)
    machine = pick_machine(model, card.input_shape, device, precision, compiled, graphs)
    usual = roomy(recipe, len(train)) if machine.device.type == "cuda" else recipe.batch_size
    recipe = scaled(recipe, batch_size or usual)
    trainer = Trainer(model, recipe, train, calibration, seed, out / f"{recipe.name}.resume", machine, on_step, tell)
    on_start(trainer)
    written = -math.inf
    for record in trainer.epochs():
        on_epoch(record)
        if time.monotonic() - written > JOURNAL_EVERY:
            write_journal(out, trainer, command)
            written = time.monotonic()
    write_journal(out, trainer, command)
    trained, model = model.state_dict(), card.build().eval()  # a fresh model, not compiled, in the usual layout
    model.load_state_dict(trained)
    model = model.to(machine.device)
    round_to_half(model)  # before measuring: the figures are those of the stored weights
    policy, figures = deployed(model, calibration, recipe)
    saved = save_weights(
        model,
        out,
        WeightsCard(
            model=recipe.model,
            dataset=recipe.dataset,
            training=recipe.training,
            sha256="",
            source=command,
            policy=policy_text(policy),
            calibration=getattr(policy, "calibration", None),
            details={
                "recipe": recipe.summary(),
                "seed": seed,
                "trained_on": train.source,
                "trained_with": conditions(trainer),
                "on_calibration_split": figures,
                "versions": versions(),
                "about": msgspec.to_builtins(about(recipe, model)),
            },
        ),
    )
    trainer.resume_file.unlink(missing_ok=True)
    return saved


def _start_from(model: MultiExitNet, recipe: Recipe, after: str) -> None:
    name, other, training = after.rpartition(":")
    try:
        card, path = find_weights(name or recipe.model, recipe.dataset, training)
        load_weights(without_gates(model) if other else model, path, card.sha256)
    except WeightsError as error:
        raise UserError(f"recipe {recipe.name} starts from the weights of the training {after!r}: {error}") from error
