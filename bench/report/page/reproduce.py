"""How a reader makes a row again: the commands, where they work, and how to load the network in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exitbench.data.in_memory import is_in_memory
from exitbench.models.factory import is_reference
from exitbench.models.reference import without_call
from exitbench.report.page.command import commands
from exitbench.scoring.evaluation import Evaluation
from exitbench.store.run_record import RunRecord
from exitbench.target.in_memory import IN_MEMORY


@dataclass(frozen=True)
class Reproduction:
    """How to make a row again.

    Attributes:
        commands: One for each setting and seed.
        where: In which folder they work, as a sentence.
        snippet: Python that loads the network; empty for a network that was only ever in memory.
    """

    commands: Sequence[str]
    where: str
    snippet: str


def reproduction(evaluation: Evaluation) -> Reproduction:
    """Return how to make an evaluation again."""
    record = evaluation.record
    return Reproduction(commands(evaluation), _where(record), _snippet(record))


def _where(record: RunRecord) -> str:
    if record.source.startswith(IN_MEMORY):
        return "In a Python session in which `net` is the network" + _and_images(record) + "."
    if is_in_memory(record.dataset):
        return "In a Python session in which `images` and `labels` are the samples."
    files = _own_files(record)
    if not files:
        return "In any folder, with exitbench installed and the dataset at hand (--data says where it is)."
    listed = " and ".join(files)
    return f"In the folder from which {listed} can be reached: the one in which the row was made, or a copy of it."


def _and_images(record: RunRecord) -> str:
    return ", `images` and `labels` are the samples" if is_in_memory(record.dataset) else ""


def _own_files(record: RunRecord) -> list[str]:
    """Return the reader's own files that the command names."""
    requested = record.requested
    if requested is None:
        return []
    network = without_call(requested.model)[0].partition(":")[0] if is_reference(requested.model) else None
    return [name for name in (network, requested.weights, requested.dataset) if name is not None]


def _snippet(record: RunRecord) -> str:
    if record.source.startswith(IN_MEMORY):
        return ""
    requested = record.requested
    model = requested.model if requested else record.model
    arguments = [repr(model)]
    dataset = (requested and requested.dataset) or record.dataset
    if not is_in_memory(record.dataset):
        arguments.append(f"dataset={dataset!r}")
    if requested is not None and requested.weights is not None:
        arguments.append(f"weights={requested.weights!r}")
    elif model == record.model:
        arguments.append(f"training={record.training!r}")
    call = f"net = exitbench.load_network({', '.join(arguments)})"
    return f"import exitbench\n\n{call}\nlogits = net(images)  # (exits, batch, classes)"
