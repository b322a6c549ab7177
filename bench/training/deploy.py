"""Sets the exit rule that weights are deployed with, by their recipe, and measures it on held-out images."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from msgspec.structs import replace

from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.data.load import load_split
from exitbench.data.split import Split
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.policy_text import parse_policy, policy_text
from exitbench.models.weights import JOURNAL, WEIGHTS_CARD, WeightsCard, find_weights, load_weights
from exitbench.models.whole_file import write_whole
from exitbench.target.calibrate import calibrated_policy
from exitbench.training.fits import check_fit
from exitbench.training.publish import copy_companions
from exitbench.training.recipe import Recipe

MEASURED = 1000
"""Largest number of held-out images that the card's figures are measured on."""


def deployed(model: MultiExitNet, calibration: Split, recipe: Recipe) -> tuple[Policy, dict[str, float | int]]:
    """Return the recipe's rule, set on the calibration split where it has no thresholds, and its accuracy there.

    The accuracies, clean and under PGD-20 on the mean loss of the exits, are a sanity figure, not a robustness claim.

    Args:
        model: The trained network, in evaluation mode.
        calibration: Held-out training images.
        recipe: The recipe that the network was trained by.
    """
    kind, at, method = recipe.rule.partition("@")
    policy = calibrated_policy(model, calibration, kind, method) if at else parse_policy(recipe.rule, model.n_exits)
    return policy, _measure(model, policy, calibration, recipe)


def deploy_again(recipe: Recipe, data: Path, out: Path) -> tuple[WeightsCard, Path]:
    """Set the rule of a recipe for weights that are there, and write them with their new card into ``out``.

    The weights stay as they are. Figures on the card that were measured under another rule are left out.

    Args:
        recipe: The recipe, whose ``rule`` may have changed since the training.
        data: Data directory.
        out: Folder to write into; it may be the one that the weights are in.

    Returns:
        The card and the path of the weights.

    Raises:
        WeightsError: If there are no weights of this recipe's name.
        UserError: If the rule does not fit the network, or the data cannot be obtained.
    """
    network = check_fit(recipe)
    card, path = find_weights(recipe.model, recipe.dataset, recipe.training)
    model = network.build().eval()
    load_weights(model, path, card.sha256)
    policy, figures = deployed(model, load_split(recipe.dataset, "calibration", network.input_shape, data), recipe)
    rule = {name: value for name, value in recipe.summary().items() if name == "rule"}
    trained = {name: value for name, value in card.details.get("recipe", {}).items() if name != "rule"}
    details = {**card.details, "recipe": {**trained, **rule}, "on_calibration_split": figures}
    if policy_text(policy) != card.policy:
        details.pop("measured", None)
    written = replace(card, policy=policy_text(policy), calibration=getattr(policy, "calibration", None), details=details)
    target = out / f"{card.stem}.safetensors"
    if target.resolve() != path.resolve():
        write_whole(target, path.read_bytes())
        copy_companions(card, path, out)
    set_journal_rule(out / f"{card.stem}{JOURNAL}", rule)
    write_whole(target.with_suffix(".json"), WEIGHTS_CARD.text(written))
    return written, target


def set_journal_rule(journal: Path, rule: dict[str, str]) -> None:
    """Set the rule of the recipe in the journal of a training, if there is one, so that the journal trains what was deployed."""
    if not journal.is_file():
        return
    content = json.loads(journal.read_bytes())
    content["recipe"] = {name: value for name, value in content["recipe"].items() if name != "rule"} | rule
    write_whole(journal, (json.dumps(content, indent=1) + "\n").encode())


def _measure(model: MultiExitNet, policy: Policy, split: Split, recipe: Recipe) -> dict[str, float | int]:
    model.requires_grad_(False)
    device = next(model.parameters()).device
    pgd = PGD(Objective(CE(), Mean()), recipe.ball, steps=20, step_size=recipe.ball.eps / 4)
    n = min(MEASURED, len(split))
    together = 100 if device.type == "cpu" else n
    right = {"clean": 0, "pgd20_average": 0}
    for start in range(0, n, together):
        batch = split.batch(start, min(start + together, n))
        clean, y = batch.x.to(device), batch.y.to(device)
        x_adv = pgd(model, clean, y, noise=Noise(0, batch.indices))
        for name, x in (("clean", clean), ("pgd20_average", x_adv)):
            with torch.no_grad():
                logits, _ = deployed_logits(model(x), policy)
            right[name] += int((logits.argmax(-1) == y).sum())
    return {"n": n, **{name: count / n for name, count in right.items()}}
