"""A cache of the timings of search models on this machine, in a file of the user's cache directory."""

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
"""Version of the file's format; it is raised when the meaning of its content changes."""


@dataclass(frozen=True)
class Timing:
    """The timing of a search model.

    Attributes:
        rate: Images per second of a forward pass and input gradient through all exits; 0 if the model cannot be used.
        setup: Seconds until it first ran.
    """

    rate: float
    setup: float


def key_of(model: EarlyExitNet, shape: tuple[int, int, int], device: torch.device) -> str:
    """Return the digest of all that timings depend on: machine, versions, architecture and the shape of the images."""
    layers = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in model.state_dict().items()]
    return digest(
        {
            "schema": SCHEMA,
            "machine": machine(device),
            "torch": torch.__version__,
            "modules": [type(module).__name__ for module in model.modules()],
            "layers": layers,
            "shape": list(shape),
            **({"passes": "recorded"} if device.type == "cuda" else {}),
        }
    )


def machine(device: torch.device) -> dict[str, Any]:
    """Return the properties of this machine that determine its speed: processor, instruction set, threads, GPU."""
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
    """Read timings by key; a file that is missing, damaged or of another schema counts as empty."""
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
    """Add timings to the cache; if it cannot be written, they are only logged as not stored."""
    kept = {**read_cache(path), key: timings}
    content = {name: {form: [t.rate, t.setup] for form, t in each.items()} for name, each in kept.items()}
    try:
        write_whole(path, json.dumps({"schema": SCHEMA, "timings": content}, indent=1, sort_keys=True).encode())
    except OSError as error:
        _log.info("timings are not stored: %s", error)
