"""The options of `bench run` that choose where an evaluation is executed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from exitbench.cli.option_types import Real, Whole

if TYPE_CHECKING:
    from rich.console import Console

    from exitbench.api.execution import Engine
    from exitbench.runner.plan import Plan
    from exitbench.runner.pool.runner import PoolRunner
    from exitbench.runner.prepare import Prepared, Request
    from exitbench.runner.ray.driver import RayRunner
    from exitbench.store.store import Store

SHARD = {"cpu": 32, "cuda": 512}
"""Samples per shard: on a CPU a single slice, on a GPU enough to fill it."""

WHERE = ("engine", "workers", "address", "ray_cpus", "ray_gpus", "shard")
"""Names of these options, which do not affect results."""

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="local: on this machine; ray: on a Ray cluster, driven from this machine (docs/cluster.md).",
    ),
    click.option(
        "--workers",
        type=Whole(min=1),
        help="Without ray: processes that attack at once on a CPU. [default: 2 for a minute of work or more, else 1]",
    ),
    click.option(
        "--address",
        help="With ray: address of the cluster, host:port or auto. [default: RAY_ADDRESS, else a new Ray on this machine]",
    ),
    click.option("--ray-cpus", type=Real(), help="With ray: CPU cores for each worker. [default: 1]"),
    click.option(
        "--ray-gpus", type=Real(), help="With ray: GPUs for each worker; 0.25 lets four share one. [default: 0, on CPUs]"
    ),
    click.option(
        "--shard",
        type=Whole(min=1),
        help="With ray: images that a worker takes at a time, a multiple of 32. [default: 32, on GPUs 512]",
    ),
)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add these options to a command; see ``chosen_engine``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def before_imports(asked: dict[str, Any]) -> None:
    """Guard a local Ray, where one is asked for, before the user's code may import Ray.

    Raises:
        UserError: If Ray was imported already.
    """
    if asked["engine"] == "ray":
        from exitbench.runner.ray.connect import guard_local_ray

        guard_local_ray(asked["address"])


def chosen_engine(
    asked: dict[str, Any], request: Request, prepared: Prepared, plan: Plan, seed: int, store: Store, console: Console
) -> Engine | None:
    """Connect to the cluster, and return what builds the engine of a prepared evaluation; None for this process alone.

    Args:
        asked: Values of the options, by name.
        request: The request.
        prepared: The resolved request.
        plan: Its plan.
        seed: Seed of the evaluation.
        store: The store of cells.
        console: The console to print to.

    Raises:
        UserError: If options do not belong to the engine, Ray is not installed, or there is no cluster.
    """
    from exitbench.api.execution import Engine
    from exitbench.errors import UserError

    if asked["engine"] != "ray":
        if odd := [name for name in WHERE[2:] if asked[name] is not None]:
            raise UserError(f"--{odd[0].replace('_', '-')} goes with --engine ray")
        return pool_engine(prepared, plan, seed, store, console, asked["workers"])
    if asked["workers"] is not None:
        raise UserError("--workers goes with --engine local; shards of Ray are as many as the cluster has cores for")

    from exitbench.cli.interrupts import signals_kept
    from exitbench.runner.ray.connect import Resources, connect, slots
    from exitbench.store.cell import SLICE

    resources = Resources(1.0 if asked["ray_cpus"] is None else asked["ray_cpus"], asked["ray_gpus"] or 0.0)
    samples = asked["shard"] or SHARD[resources.device]
    with signals_kept():
        ray = connect(asked["address"])
    machines = sum(bool(node["Alive"]) for node in ray.nodes())
    at_once = slots(ray, resources)
    console.print(f"ray: {at_once} shards of {samples} samples at once, on machines: {machines}", highlight=False)

    def build(prepared: Prepared) -> RayRunner:
        from exitbench.runner.ray.driver import RayRunner
        from exitbench.runner.ray.job import job_of

        job = job_of(request, prepared, seed, resources.threads, resources.device)
        return RayRunner(ray, job, store, resources, -(-samples // SLICE), partial(_tell, console))

    return Engine(build)


def pool_engine(
    prepared: Prepared, plan: Plan, seed: int, store: Store, console: Console, workers: int | None = None
) -> Engine | None:
    """Return what builds the engine that attacks in several processes of this machine; None where one process is to do it.

    Args:
        prepared: The resolved request.
        plan: Its plan.
        seed: Seed of the evaluation.
        store: The store of cells.
        console: The console to print to.
        workers: The number of processes that was asked for; None where it was not.
    """
    import torch

    from exitbench.api.execution import Engine
    from exitbench.runner.pool.size import pool_size

    processes = pool_size(prepared, plan, workers)
    if processes < 2:
        return None
    threads = max(1, torch.get_num_threads() // processes)
    console.print(f"attacks run in {processes} processes; torch's threads in each: {threads}", highlight=False)

    def build(prepared: Prepared) -> PoolRunner:
        from exitbench.runner.pool.job import job_of
        from exitbench.runner.pool.runner import PoolRunner

        return PoolRunner(job_of(prepared, seed, threads), store, processes, partial(_tell, console))

    return Engine(build, threads)


def _tell(console: Console, what: str) -> None:
    console.print(what, style="yellow", markup=False, highlight=False)
