"""A tiny entry in RobustBench's zoo, and a server that hands out its checkpoint: no network, no big file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exitbench.models.zoo.package import robustbench_package
from exitbench.models.zoo.robustbench_entry import zoo

TINY = "Tiny2024Test"


class TinyNet(nn.Module):
    """As zoo networks are: normalises with constants that it puts on a GPU at once and does not register."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1).cuda()
        self.net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x - self.mean)
        return logits


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "module.net.2.weight": torch.randn(10, 48, generator=generator),
        "module.net.2.bias": torch.randn(10, generator=generator),
    }


def put_into_zoo(monkeypatch: pytest.MonkeyPatch, save: Callable[[str], Any] | None = None) -> list[str]:
    """Add the entry, served by ``save(path)``; returns the list of the downloads that are going to be asked for."""
    asked: list[str] = []

    def download(id: str, output: str, **_: Any) -> str:  # noqa: A002 - gdown's name
        asked.append(id)
        (save or (lambda path: torch.save({"state_dict": weights(), "epoch": 3}, path)))(output)
        return output

    with robustbench_package() as package:
        monkeypatch.setattr(package.utils.gdown, "download", download)
        monkeypatch.setitem(zoo(package, "cifar10", "Linf"), TINY, {"model": TinyNet, "gdrive_id": "tiny-id"})  # type: ignore[arg-type]
    return asked


def checkpoint_path(folder: Path) -> Path:
    return folder / "robustbench" / "cifar10" / "Linf" / f"{TINY}.pt"
