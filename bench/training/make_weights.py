"""From a recipe to a weight file with its card: train, calibrate the policy, measure, save."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from attacks.noise import Noise
from attacks.objectives import CE, Mean, Objective
from attacks.pgd import PGD
from bench.calibrate import calibrated_policy
from bench.data.load import load_split
from bench.data.split import Split
from bench.training.loop import EpochRecord, Trainer
from bench.training.recipe import Recipe
from models.multi_exit import MultiExitNet
from models.policies import Policy, deployed_logits
from models.policy_text import policy_text
from models.registry import model_card
from models.spec import describe
from models.weights import WeightsCard, round_to_half, save_weights


def make_weights(
    recipe: Recipe, seed: int, data: Path, out: Path, command: str, on_epoch: Callable[[EpochRecord], None]
) -> tuple[WeightsCard, Path]:
    """Train ``recipe`` and write ``<recipe.name>.safetensors`` and its card into ``out``.

    The run is resumed from ``<recipe.name>.resume`` in ``out`` if that exists; the file goes when the weights are
    saved. The card's numbers are measured on the calibration split; the test split is not touched.

    Raises:
        UserError: data that cannot be had, a resume file of another recipe or seed, a diverging loss.
    """
    card = model_card(recipe.model)
    torch.manual_seed(seed)
    model = card.build()
    train = load_split(recipe.dataset, "train", card.input_shape, data)
    calibration = load_split(recipe.dataset, "calibration", card.input_shape, data)
    trainer = Trainer(model, recipe, train, seed, out / f"{recipe.name}.resume")
    for record in trainer.epochs():
        on_epoch(record)
    model = model.to(memory_format=torch.contiguous_format).eval()
    round_to_half(model)  # before anything is measured: the figures are those of the stored weights
    policy = calibrated_policy(model, calibration)
    saved = save_weights(
        model,
        out,
        WeightsCard(
            model=recipe.model,
            dataset=recipe.dataset,
            training=recipe.defence,
            sha256="",
            source=command,
            policy=policy_text(policy),
            calibration=getattr(policy, "calibration", None),
            details={
                "recipe": describe(recipe),
                "seed": seed,
                "on_calibration_split": _measure(model, policy, calibration, recipe),
                "history": [asdict(record) for record in trainer.history],
                "versions": {"python": platform.python_version(), "torch": torch.__version__},
            },
        ),
    )
    trainer.resume_file.unlink(missing_ok=True)
    return saved


def _measure(model: MultiExitNet, policy: Policy, split: Split, recipe: Recipe) -> dict[str, float | int]:
    """Clean and PGD-20 average accuracy of the deployed rule; a sanity figure, not a robustness claim."""
    batch = split.batch(0, len(split))
    model.requires_grad_(False)
    pgd = PGD(Objective(CE(), Mean()), recipe.ball, steps=20, step_size=recipe.ball.eps / 4)
    x_adv = pgd(model, batch.x, batch.y, noise=Noise(0, batch.indices))
    figures: dict[str, float | int] = {"n": len(split)}
    for name, x in (("clean", batch.x), ("pgd20_average", x_adv)):
        with torch.no_grad():
            logits, _ = deployed_logits(model(x), policy)
        figures[name] = float((logits.argmax(-1) == batch.y).float().mean())
    return figures
