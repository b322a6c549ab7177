"""Connects to a Ray cluster, or says what to do, and computes how many shards it can run at once."""

from __future__ import annotations

import importlib
import logging
import os
import re
import secrets
import socket
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from exitbench.errors import UserError

_TIMEOUT_S = 5.0
_OBJECT_STORE = 256_000_000
_OLDEST = (2, 52)
"""The first version whose clusters can demand a token; to those before it, whoever reaches a port can run any code."""

_GUARDED = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""Have Ray bind to 127.0.0.1 alone (named after the systems on which it does so by default) and demand a token.

Both are read when Ray is imported, and never again.
"""

INSTALL = f"{sys.executable} -m pip install 'ray>=2.52'"


@dataclass(frozen=True)
class Resources:
    """The resources of one shard, in Ray's units; shards may share a GPU by fractions.

    Raises:
        UserError: If there are none, or Ray does not accept the numbers.
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
        """Torch threads in each worker: one per core, so that workers do not compete."""
        return max(1, int(self.cpus))

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return "cuda" if self.gpus else "cpu"

    def fitting(self, machine: dict[str, float]) -> int:
        """Return the number of shards that a machine with these resources can run at once."""
        exit_constraints = {"CPU": self.cpus, "GPU": self.gpus}
        # Three thirds of a GPU do not add up to 1 in floating point.
        return min(int(machine.get(name, 0.0) / need + 1e-9) for name, need in exit_constraints.items() if need)


def connect(address: str | None, *, verbose: bool = False) -> ModuleType:
    """Connect Ray to the cluster at ``address``, else to that at RAY_ADDRESS, else to a new local one.

    A local one listens on 127.0.0.1 alone, and demands a token that is made for it and kept nowhere.

    Returns:
        The module ``ray``.

    Raises:
        UserError: If Ray is not installed or too old, no cluster can be reached, or a local one would listen elsewhere.
    """
    address, local = _place(address)
    guard_local_ray(address)
    ray = _ray()
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    if local:
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    else:
        _reach(str(address))
        options["address"] = address
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, str(error).splitlines()[0]) from error
    if local:
        _refuse_other_interfaces(ray)
    return ray


def guard_local_ray(address: str | None) -> None:
    """Set the environment of a local Ray, before anything imports Ray; for a cluster that is there, nothing.

    Raises:
        UserError: If Ray was imported before: it would listen on every interface, and take work from anybody.
    """
    ray, (_, local) = sys.modules.get("ray"), _place(address)
    if not local or (ray is not None and ray.is_initialized()):
        return
    if ray is not None and any(os.environ.get(name) != value for name, value in _GUARDED.items()):
        said = " ".join(f"{name}={value}" for name, value in _GUARDED.items())
        raise UserError(
            "a local Ray would listen on every interface of this machine without a token, for other code has imported Ray before "
            f"this; set {said} in the environment, or start a cluster of your own and name it by --address"
        )
    os.environ |= _GUARDED
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _place(address: str | None) -> tuple[str | None, bool]:
    """Return the address, or that of the environment, and whether a local Ray is to be started."""
    address = address or os.environ.get("RAY_ADDRESS")
    return address, address in (None, "", "local")


def _refuse_other_interfaces(ray: ModuleType) -> None:
    """Stop a local Ray that other machines can reach, should a version of Ray no longer heed ``_GUARDED``."""
    if addresses := {node["NodeManagerAddress"] for node in ray.nodes()} - {"127.0.0.1"}:
        ray.shutdown()
        raise UserError(
            f"a local Ray would listen on {', '.join(sorted(addresses))}, not on 127.0.0.1 alone, and was stopped; "
            "start a cluster of your own and name it by --address"
        )


def slots(ray: ModuleType, resources: Resources) -> int:
    """Return the number of shards that the cluster can run at once."""
    return sum(resources.fitting(node["Resources"]) for node in ray.nodes() if node["Alive"])


def _ray() -> ModuleType:
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise UserError(f"--engine ray takes the package Ray, which is not installed: {INSTALL}") from error
    numbers = tuple(int(number) for number in re.findall("[0-9]+", ray.__version__)[:2])
    if numbers < _OLDEST:
        raise UserError(
            f"Ray {ray.__version__} has no tokens, so that whoever reaches one of its ports can run any code (docs/cluster.md); "
            f"take a newer one: {INSTALL}"
        )
    return ray


def _reach(address: str) -> None:
    """Check that the address can be reached, as Ray itself would try for minutes.

    Raises:
        UserError: If there is no answer.
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
        if not host or not (port.isascii() and port.isdigit()):
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
