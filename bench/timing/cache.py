"""Timings of candidates on this machine, remembered between runs in a file of the user's cache."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.spec import digest
from exitbench.models.user_folders import cache_folder
from exitbench.models.whole_file import write_whole

_log = logging.getLogger(__name__)

SCHEMA = 1
"""Bumped when what is kept in the cache changes its meaning."""


@dataclass(frozen=True)
class Timing:
    """Of one candidate: images per second, forward and input gradient of all exits, and the seconds until it ran first.

    A candidate that cannot be used has a rate of 0.
    """

    rate: float
    setup: float


def key_of(model: EarlyExitNet, shape: tuple[int, int, int], device: torch.device) -> str:
    """What timings depend on: machine, versions, architecture and the images' shape."""
    layers = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in model.state_dict().items()]
    return digest(
        {
            "schema": SCHEMA,
            "machine": machine(device),
            "torch": torch.__version__,
            "modules": [type(module).__name__ for module in model.modules()],
            "layers": layers,
            "shape": list(shape),
        }
    )


def machine(device: torch.device) -> dict[str, Any]:
    """What of a machine decides how fast it is."""
    cpu = next((line.split(":", 1)[1].strip() for line in _cpu_info() if line.startswith("model name")), platform.machine())
    found = {"cpu": cpu, "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def _cpu_info() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def cache_file() -> Path:
    """Return the user's cache of timings."""
    return cache_folder() / "engine.json"


def read_cache(path: Path) -> dict[str, dict[str, Timing]]:
    """Timings by key; a file that is absent, damaged or of another schema holds none, and is measured again."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["schema"] != SCHEMA:
            return {}
        return {
            key: {name: Timing(float(rate), float(setup)) for name, (rate, setup) in each.items()}
            for key, each in kept["timings"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_cache(path: Path, key: str, timings: Mapping[str, Timing]) -> None:
    """Remember timings beside those of other keys; a cache that cannot be written is done without."""
    kept = {**read_cache(path), key: timings}
    told = {name: {form: [t.rate, t.setup] for form, t in each.items()} for name, each in kept.items()}
    try:
        write_whole(path, json.dumps({"schema": SCHEMA, "timings": told}, indent=1, sort_keys=True).encode())
    except OSError as error:
        _log.info("timings are not remembered: %s", error)
