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

from exitbench.models.weights import JOURNAL
from exitbench.models.whole_file import write_whole
from exitbench.report.charts.lite import drawing
from exitbench.report.palette import TINTS
from exitbench.training.loop import EpochRecord, Trainer
from exitbench.training.recipe import Recipe

CURVE = ".run.png"

_SUBTITLE = "accuracy of the last exit, %"
_PHASE = {"type": "rule", "color": "#cccccc", "strokeWidth": 0.8}
_COLLAPSE = {"type": "text", "text": "collapsed, restored", "angle": 270, "align": "left", "fontSize": 8}
_NAMES = ["clean, training", "attacked, training", "clean, held out", "PGD-10, held out"]
_DASHES = {"domain": _NAMES, "range": [[2, 2], [2, 2], [1, 0], [1, 0]]}
_TINTS = {"domain": _NAMES, "range": [TINTS["clean"], TINTS["attacked"]] * 2}
_LINES = {
    "color": {"field": "curve", "type": "nominal", "scale": _TINTS},
    "strokeDash": {"field": "curve", "type": "nominal", "scale": _DASHES},
}


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


def _drawn(recipe: Recipe, history: Sequence[EpochRecord]) -> bytes:
    """Draw a PNG of accuracy by epoch, on training and on held-out images, with the start of each phase and every collapse."""
    starts = {recipe.phase_start(record.epoch - 1) for record in history} - {0}
    spec = {
        "title": {"text": recipe.name, "subtitle": _SUBTITLE},
        "width": 420,
        "height": 260,
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", "title": "epoch", "axis": {"tickMinStep": 1}},
            "y": {"field": "accuracy", "type": "quantitative", "scale": {"domain": [0, 100]}, "title": None},
        },
        "layer": [
            {"data": {"values": [{"epoch": start + 0.5} for start in starts]}, "mark": _PHASE, "encoding": {"y": None}},
            {"data": {"values": _curves(history)}, "mark": {"type": "line", "point": len(history) < 30}, "encoding": _LINES},
            {"data": {"values": _collapses(history)}, "mark": _COLLAPSE, "encoding": {"y": {"datum": 0}}},
        ],
    }
    return drawing(spec).to_bytes("png")


def _curves(history: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """Return a row for each epoch and curve; on training images an accuracy is 0 exactly where no such images were trained on."""
    return [
        {"epoch": record.epoch, "curve": name, "accuracy": 100 * value}
        for record in history
        for name, value in (
            ("clean, training", record.clean_accuracy or None),
            ("attacked, training", record.attacked_accuracy or None),
            ("clean, held out", record.held_out_clean),
            ("PGD-10, held out", record.held_out_pgd),
        )
        if value is not None
    ]


def _collapses(history: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    earlier = [0, *(record.collapses for record in history)]
    return [{"epoch": record.epoch} for record, before in zip(history, earlier, strict=False) if record.collapses > before]
