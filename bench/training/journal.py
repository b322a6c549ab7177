"""The journal of a training run, kept beside its weights: recipe, seed, versions, every epoch, and the training curve."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from exitbench.models.weights import JOURNAL
from exitbench.models.whole_file import write_whole
from exitbench.report.palette import TINTS
from exitbench.training.curve_style import legend_below, styled, to_png
from exitbench.training.loop import EpochRecord, Trainer
from exitbench.training.recipe import Recipe

CURVE = ".run.png"


def versions() -> dict[str, str | None]:
    """Return the versions that the weights depend on.

    ``commit`` is that of this project, with ``-dirty`` if files are changed since, or None outside a checkout.
    """
    packages = {package: version(package) for package in ("torch", "numpy")}
    return {"commit": _commit(), "python": platform.python_version(), **packages}


def _commit() -> str | None:
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, check=True, text=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


def conditions(trainer: Trainer) -> dict[str, Any]:
    """Return what a training was run with: machine, batch size, learning rate, and images per second of its updates."""
    machine, recipe = trainer.machine, trainer.recipe
    timed = [1 / record.images_per_second for record in trainer.history if record.images_per_second]
    on_gpu = machine.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(machine.device) if on_gpu else machine.device.type,
        "precision": machine.precision,
        "compiled": machine.compiled,
        "graphs": trainer.replay.used,
        "batch_size": recipe.batch_size,
        "peak_lr": recipe.peak_lr,
        "images_per_second": round(len(timed) / sum(timed)) if timed else None,
    }


def write_journal(folder: Path, trainer: Trainer, command: str) -> tuple[Path, Path]:
    """Write ``<name>.run.json`` and ``.run.png`` of a training run into ``folder``, and return their paths.

    Raises:
        OSError: If the folder cannot be written.
    """
    recipe, history = trainer.recipe, trainer.history
    content = {
        "recipe": recipe.summary(),
        "seed": trainer.seed,
        "command": command,
        "machine": conditions(trainer),
        "versions": versions(),
        "history": [_rounded(record) for record in history],
    }
    journal, curve = folder / f"{recipe.name}{JOURNAL}", folder / f"{recipe.name}{CURVE}"
    write_whole(journal, (json.dumps(content, indent=1) + "\n").encode())
    write_whole(curve, _drawn(recipe, history))
    return journal, curve


def _rounded(record: EpochRecord) -> dict[str, float]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in asdict(record).items()}


@styled
def _drawn(recipe: Recipe, history: Sequence[EpochRecord]) -> bytes:
    """Draw a PNG of accuracy by epoch, on training and on held-out images, with the start of each phase and every collapse."""
    epochs = [record.epoch for record in history]
    harder = " or ".join(dict.fromkeys(phase.harder for phase in recipe.phases))
    curves = (
        ("clean, training", [record.clean_accuracy for record in history], TINTS["clean"], ":"),
        (f"{harder}, training", [record.attacked_accuracy for record in history], TINTS["attacked"], ":"),
        ("clean, held out", [record.held_out_clean for record in history], TINTS["clean"], "-"),
        ("PGD-10, held out", [record.held_out_pgd for record in history], TINTS["attacked"], "-"),
    )
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, values, colour, style in curves:
        # On training images an accuracy is 0 exactly where no such images were trained on.
        shown = [100 * value or (float("nan") if "training" in label else 0.0) for value in values]
        axes.plot(epochs, shown, style, color=colour, label=label, marker="." if len(epochs) < 30 else None)
    for start in {recipe.phase_start(epoch - 1) for epoch in epochs} - {0}:
        axes.axvline(start + 0.5, color="0.8", linewidth=0.8, zorder=0)
    earlier = [0, *(record.collapses for record in history)]
    for record, before in zip(history, earlier, strict=False):
        if record.collapses > before:
            axes.annotate("collapsed, restored", (record.epoch, 0), rotation=90, fontsize=6, ha="center", va="bottom")
    axes.set(xlabel="epoch", ylabel="accuracy of the last exit, %", ylim=(0, 100), title=recipe.name)
    legend_below(figure, *axes.get_legend_handles_labels())
    return to_png(figure)
