"""Makes a weight file with its card from a recipe: train, calibrate the policy, measure, save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.data.load import load_split
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.policy_text import policy_text
from exitbench.models.weights import WeightsCard, WeightsError, find_weights, load_weights, round_to_half, save_weights
from exitbench.target.calibrate import calibrated_policy
from exitbench.training.fits import check_fit
from exitbench.training.journal import versions, write_journal
from exitbench.training.loop import EpochRecord, Trainer
from exitbench.training.machine import pick_machine
from exitbench.training.recipe import Recipe

MEASURED = 1000
"""Largest number of held-out images that the card's figures are measured on."""


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
    device: str = "auto",
    precision: str = "auto",
    compiled: bool | None = None,
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
        device, precision, compiled: See ``pick_machine``.

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
    machine = pick_machine(model, card.input_shape, device, precision, compiled)
    trainer = Trainer(model, recipe, train, calibration, seed, out / f"{recipe.name}.resume", machine, on_step)
    on_start(trainer)
    for record in trainer.epochs():
        on_epoch(record)
        write_journal(out, recipe, seed, command, machine, trainer.history)
    write_journal(out, recipe, seed, command, machine, trainer.history)
    trained, model = model.state_dict(), card.build().eval()  # a fresh model, not compiled, in the usual layout
    model.load_state_dict(trained)
    round_to_half(model)  # before measuring: the figures are those of the stored weights
    policy = calibrated_policy(model, calibration)
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
                "on_calibration_split": _measure(model, policy, calibration, recipe),
                "versions": versions(),
            },
        ),
    )
    trainer.resume_file.unlink(missing_ok=True)
    return saved


def _start_from(model: MultiExitNet, recipe: Recipe, training: str) -> None:
    try:
        card, path = find_weights(recipe.model, recipe.dataset, training)
        load_weights(model, path, card.sha256)
    except WeightsError as error:
        raise UserError(f"recipe {recipe.name} starts from the weights of the training {training!r}: {error}") from error


def _measure(model: MultiExitNet, policy: Policy, split: Split, recipe: Recipe) -> dict[str, float | int]:
    """Measure clean and PGD-20 ``average`` accuracy of the deployed rule: a sanity figure, not a robustness claim."""
    model.requires_grad_(False)
    pgd = PGD(Objective(CE(), Mean()), recipe.ball, steps=20, step_size=recipe.ball.eps / 4)
    n = min(MEASURED, len(split))
    right = {"clean": 0, "pgd20_average": 0}
    for start in range(0, n, 100):
        batch = split.batch(start, min(start + 100, n))
        x_adv = pgd(model, batch.x, batch.y, noise=Noise(0, batch.indices))
        for name, x in (("clean", batch.x), ("pgd20_average", x_adv)):
            with torch.no_grad():
                logits, _ = deployed_logits(model(x), policy)
            right[name] += int((logits.argmax(-1) == batch.y).sum())
    return {"n": n, **{name: count / n for name, count in right.items()}}
