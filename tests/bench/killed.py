"""Kills runs of the toy evaluation at random moments, resumes them, and says whether each ended as the unbroken one.

A program of its own: it forks, which torch bears only as long as it has no threads.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from tests.bench.evaluated import evaluate

NAMES = ("single", "max_average")


def results(root: Path) -> list[object]:
    """What a store's evaluation comes to, to the last number."""
    (evaluation,) = evaluations(Store(root))
    each = (evaluation.clean, *evaluation.attacks)
    found = [[result.name, result.correct.tolist(), result.exits.tolist(), result.forwards, result.backwards] for result in each]
    return [found, [left.name for left in evaluation.unfinished]]


def forked(root: Path) -> int:
    """A process that works on the evaluation; its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        evaluate(root, NAMES, ahead=3)  # as on a GPU, where cells are written beside the work
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child must never return into the parent's code
        os._exit(1)


def main(folder: Path, kills: int, together: int) -> None:
    """Print, as JSON: how many kills hit a run, how many runs resumed as they should, and how many pairs ended well."""
    torch.set_num_threads(1)
    evaluate(folder / "first", NAMES)  # imports what is needed late, once for all
    began = time.monotonic()
    evaluate(folder / "whole", NAMES)
    lasts = time.monotonic() - began
    whole = results(folder / "whole")
    moments = random.Random(0)  # noqa: S311 - not for cryptography
    hit = resumed = 0
    for i in range(kills):
        root = folder / str(i)
        pid = forked(root)
        time.sleep(moments.uniform(0, lasts))
        os.kill(pid, signal.SIGKILL)
        hit += os.waitpid(pid, 0)[1] == signal.SIGKILL
        _, status = os.waitpid(forked(root), 0)
        resumed += status == 0 and results(root) == whole
    well = 0
    for i in range(together):
        root = folder / f"together {i}"
        ended = [os.waitpid(pid, 0)[1] for pid in (forked(root), forked(root))]
        well += ended == [0, 0] and results(root) == whole
    print(json.dumps({"hit": hit, "resumed": resumed, "together": well}))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
