"""Finds Ray and the cluster, or says what to do; how many shards it can work on at once."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from exitbench.errors import UserError

_TIMEOUT_S = 5.0
_OBJECT_STORE = 256_000_000
INSTALL = f"{sys.executable} -m pip install 'ray>=2.40'"


@dataclass(frozen=True)
class Resources:
    """What one shard takes of a machine, in Ray's units; fractions of a GPU share it.

    Raises:
        UserError: none at all, or numbers that Ray does not take.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 0 or self.gpus < 0 or not self.cpus + self.gpus:
            raise UserError(f"a shard cannot run on {self.cpus:g} CPUs and {self.gpus:g} GPUs; see --ray-cpus, --ray-gpus")
        if self.gpus > 1:
            raise UserError(f"--ray-gpus {self.gpus:g}: a shard uses one GPU at most; give a fraction to share it")

    @property
    def threads(self) -> int:
        """Of torch in each worker: as many as it has cores, so that workers do not fight."""
        return max(1, int(self.cpus))

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return "cuda" if self.gpus else "cpu"

    def fitting(self, machine: dict[str, float]) -> int:
        """Shards that a machine with these resources can work on at once."""
        exit_constraints = {"CPU": self.cpus, "GPU": self.gpus}
        # Thirds of a GPU are not quite thirds in binary.
        return min(int(machine.get(name, 0.0) / need + 1e-9) for name, need in exit_constraints.items() if need)


def connect(address: str | None, *, verbose: bool = False) -> ModuleType:
    """Ray, connected to the cluster at ``address``; without one, to RAY_ADDRESS's or a new local one.

    Raises:
        UserError: Ray is not installed, or no cluster can be reached.
    """
    ray = _ray()
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "", "local"):
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    else:
        _reach(address)
        options["address"] = address
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, str(error).splitlines()[0]) from error
    return ray


def slots(ray: ModuleType, resources: Resources) -> int:
    """Shards that the cluster can work on at once."""
    return sum(resources.fitting(node["Resources"]) for node in ray.nodes() if node["Alive"])


def _ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(f"--engine ray takes the package Ray, which is not installed: {INSTALL}") from error


def _reach(address: str) -> None:
    """Knock at the address first: Ray itself would try for minutes.

    Raises:
        UserError: nobody answers.
    """
    if address == "auto":
        return
    if "://" in address:
        raise UserError(
            f"--address {address}: give host:port as `ray start` prints it, or auto; to start it from outside the cluster, "
            "hand the command to `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdigit():
            raise OSError("the form is host:port, as 10.0.0.1:6379")
        socket.create_connection((host, int(port)), _TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str | None, why: str) -> UserError:
    where = f"there is no Ray cluster at {address}" if address else "a local Ray could not be started"
    return UserError(
        f"{where} ({why}); start one with `ray start --head` and name it by --address host:port, by --address auto on one of its "
        "machines, or leave --address out for a local one"
    )
