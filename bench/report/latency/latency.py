"""Measured latency: a table, and multiply-accumulates against milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exitbench.models.whole_file import write_whole
from exitbench.report.csv_file import to_csv
from exitbench.report.style import legend_below, network_style, styled, to_bytes, two_panels, unmathematical
from exitbench.store.csv_text import digest_text
from exitbench.timing.latency import BATCH, Latency

Quartiles = tuple[float, float, float]

COLUMNS = {
    "model": "as on the leaderboard",
    "training": "name of its weights, as on the leaderboard",
    "weights": "first 12 digits of their digest",
    "dataset": "dataset whose images were timed",
    "policy": "the deployed exit rule",
    "exit": "number of the exit, from 1; 'deployed' is the whole network under its rule, on clean test images",
    "mmacs": "10^6 multiply-accumulates up to that exit, heads on the way included; empty for 'deployed'",
    "ptflops": "the same by ptflops (aten); empty where it gave no figure",
    "ms_1": "median milliseconds that one image takes to leave there; empty for exits of a network that runs whole for each",
    "ms_1_low": "lower quartile of `ms_1`",
    "ms_1_high": "upper quartile of `ms_1`",
    "ms_128": f"median milliseconds per image of a batch of {BATCH}",
    "ms_128_low": "lower quartile of `ms_128`",
    "ms_128_high": "upper quartile of `ms_128`",
    "stops": "whether what follows the exit was left out; networks that are not cut into stages run whole",
    "machine": "processor, as its maker calls it",
    "device": "cpu or cuda",
    "threads": "number of torch's threads",
    "torch": "version of torch",
    "rounds": "how many times everything was timed, in turn",
}
"""Every column of ``latency.csv`` and what it means."""


def latency_table(measured: Sequence[Latency]) -> pd.DataFrame:
    """Return the table: one row for each exit of each measurement, and one for the deployed network."""
    rows = []
    for latency in measured:
        about = {name: getattr(latency, name) for name in ("model", "training", "dataset", "policy", "machine", "device")}
        about |= {name: getattr(latency, name) for name in ("threads", "torch", "rounds", "stops")}
        about["weights"] = digest_text(latency.weights)
        exits = [*map(str, range(1, len(latency.mmacs) + 1)), "deployed"]
        costs = [*zip(latency.mmacs, latency.ptflops, strict=True), (None, None)]
        times = zip((*latency.one, latency.deployed_one), (*latency.many, latency.deployed_many), strict=True)
        for name, (mmacs, ptflops), (one, many) in zip(exits, costs, times, strict=True):
            row = {**about, "exit": name, "mmacs": mmacs, "ptflops": ptflops}
            if latency.stops or name == "deployed":
                row |= dict(zip(("ms_1_low", "ms_1", "ms_1_high"), one, strict=True))
                row |= dict(zip(("ms_128_low", "ms_128", "ms_128_high"), many, strict=True))
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


@styled
def draw_latency(measured: Sequence[Latency]) -> Figure:
    """Draw milliseconds against mmacs for every exit: one image at a time on the left, an image of a large batch on the right."""
    labels = [f"{each.model} ({each.training}), {each.dataset}" for each in measured]
    machines = sorted({unmathematical(_machine(each)) for each in measured})
    figure, left, right = two_panels(4.1, labels)
    for i, (latency, label) in enumerate(zip(measured, labels, strict=True)):
        told = label if len(machines) == 1 else f"{label}, {unmathematical(_machine(latency))}"
        _series(left, latency, latency.one, latency.deployed_one, i, told)
        _series(right, latency, latency.many, latency.deployed_many, i, told)
    for axes, title in ((left, "one image at a time"), (right, f"an image of a batch of {BATCH}")):
        axes.set_title(f"{title}, medians and quartiles")
        axes.set_xlabel("cost up to the exit (mmacs)")
        axes.set_ylabel("milliseconds per image")
        axes.set_xscale("log")
        axes.set_yscale("log")
    handles, names = left.get_legend_handles_labels()
    legend_below(figure, handles, names)
    figure.suptitle(f"Multiply-accumulates against time: {'; '.join(machines) if len(machines) == 1 else 'several machines'}")
    return figure


def _series(axes: Axes, latency: Latency, exits: Sequence[Quartiles], deployed: Quartiles, i: int, label: str) -> None:
    """Draw the exits of a network; one that runs whole for each of them has one time, at the cost of all of it."""
    colour, marker = network_style(i)
    costs, times = (latency.mmacs, exits) if latency.stops else (latency.mmacs[-1:], [deployed])
    low, median, high = np.array(times).T
    look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "-"}
    axes.errorbar(costs, median, yerr=[median - low, high - median], label=label if latency.stops else f"{label}, whole", **look)


def _machine(latency: Latency) -> str:
    return f"{latency.where}, torch {latency.torch}"


def write_latency(measured: Sequence[Latency], results: Path) -> list[Path]:
    """Write ``latency.csv``, ``plots/latency.png`` and ``.svg`` into ``results``, and return the files written."""
    figure = draw_latency(measured)
    files = {
        results / "latency.csv": to_csv(latency_table(measured)).encode(),
        results / "plots" / "latency.png": to_bytes(figure, "png"),
        results / "plots" / "latency.svg": to_bytes(figure, "svg"),
    }
    for path, content in files.items():
        write_whole(path, content)
    return list(files)
