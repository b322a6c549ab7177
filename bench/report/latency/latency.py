"""Writes measured latency: a table, and multiply-accumulates against milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from exitbench.models.whole_file import write_whole
from exitbench.report.charts.looks import Looks
from exitbench.report.csv_file import to_csv
from exitbench.report.latency.plot import draw_latency
from exitbench.store.csv_text import digest_text
from exitbench.timing.latency import BATCH, Latency

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


def write_latency(measured: Sequence[Latency], results: Path, looks: Looks) -> list[Path]:
    """Write ``latency.csv``, ``plots/latency.png`` and ``.svg`` into ``results``, and return the files written.

    Args:
        measured: All measurements of a store.
        results: Folder to write into.
        looks: Of their networks.
    """
    figure = draw_latency(measured, looks)
    files = {
        results / "latency.csv": to_csv(latency_table(measured)).encode(),
        results / "plots" / "latency.png": figure.to_bytes("png"),
        results / "plots" / "latency.svg": figure.to_bytes("svg"),
    }
    for path, content in files.items():
        write_whole(path, content)
    return list(files)
