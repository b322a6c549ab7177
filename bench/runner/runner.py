"""Executes the missing cells of a plan: attack, certify, store."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.clean import Clean
from exitbench.attacks.regions import ThreatModel
from exitbench.models.errors import ChangedOutputs
from exitbench.models.spec import describe
from exitbench.runner.batching import queue_done
from exitbench.runner.cell_writer import CellWriter, Outcome
from exitbench.runner.generate import Generated, Work, generate, noise_of
from exitbench.runner.oom import in_halves, out_of_memory
from exitbench.runner.plan import Plan, PlannedCell, Slice
from exitbench.runner.rescore import Rescored, rescore
from exitbench.runner.together import generate_alike
from exitbench.store.cell import Cell
from exitbench.store.store import Cells
from exitbench.target.target import Target

_log = logging.getLogger(__name__)

Works = dict[Slice, Work]
Keys = dict[tuple[Slice, Attack], str]


@dataclass(frozen=True)
class Started:
    """A planned cell has been started."""

    cell: PlannedCell


class Runner:
    """A runner that executes a plan against a target: attacks use its search model; the plain model decides.

    Args:
        target: The target.
        threat_model: The threat model that every candidate is certified against.
        seed: Seed of the evaluation.
        dataset: Name of the dataset, for the headers of cells.
        store: The store of cells.
        stack: Number of slices to run as one batch; halved whenever they do not fit in the device's memory.
        gathered: The same for attacks that gain by larger batches on any device (``Attack.gathers``), if that is more.
        ahead: Number of cells that may be left to write while others are computed; a killed run loses them as well.
    """

    def __init__(
        self,
        target: Target,
        threat_model: ThreatModel,
        seed: int,
        dataset: str,
        store: Cells,
        stack: int = 1,
        gathered: int = 1,
        ahead: int = 0,
    ) -> None:
        self.target, self.threat_model = target.on_grid(threat_model.grid), threat_model
        self.seed, self.dataset, self.store = seed, dataset, store
        self.stack, self.gathered, self.ahead = stack, max(stack, gathered), ahead

    def run(self, plan: Plan, on_start: Callable[[PlannedCell], None], on_outcome: Callable[[Outcome], None]) -> None:
        """Run every missing cell in order, and report starts and outcomes.

        An attack that raises, or whose candidates cannot be certified, leaves an error and no cell; so do selections that need
        it. An interrupt, a full disk, or a network that changes is raised to the caller; finished cells are kept.

        Raises:
            ChangedOutputs: If the network returns another number of exits than at first.
        """
        for step in self.steps(plan):
            if isinstance(step, Outcome):
                on_outcome(step)
            else:
                on_start(step.cell)

    def steps(self, plan: Plan) -> Iterator[Started | Outcome]:
        """Run as ``run`` does, and yield starts and outcomes one by one."""
        with CellWriter(self.store) as writer:
            try:
                yield from self._steps(plan, writer)
            except (Exception, KeyboardInterrupt):
                yield from writer.finished(0)
                raise
            yield from writer.finished(0)

    def _steps(self, plan: Plan, writer: CellWriter) -> Iterator[Started | Outcome]:
        device = next(self.target.model.parameters()).device
        for cells in stacks(plan.cells, lambda: self.gathered):
            works: dict[Slice, Work] = {}
            keys = {(cell.slice, cell.attack): cell.key for cell in cells}
            groups = _by_attack(cells)
            to_come = [group[0].attack for group in groups if not any(cell.done for cell in group)]
            for together in groups:
                missing = [cell for cell in together if not cell.done]
                for cell in missing:
                    if cell.slice not in works:
                        works[cell.slice] = Work.on(cell.slice, device)
                    yield Started(cell)
                size = self.gathered if together[0].attack.gathers else self.stack
                for start in range(0, len(missing), size):
                    some = [works[cell.slice] for cell in missing[start : start + size]]
                    generate_alike(together[0].attack, to_come, self.target.searched, some, self.seed)
                    yield from self._run(missing[start : start + size], works, keys, writer)

    def _run(self, cells: Sequence[PlannedCell], works: Works, keys: Keys, writer: CellWriter) -> Iterator[Outcome]:
        """Run the cells of one attack, as one batch if possible."""
        attack = cells[0].attack
        try:
            if isinstance(attack, BestOf):  # of cells that are written before it
                of_slice = [[keys[cell.slice, child] for child in attack.attacks] for cell in cells]
                found = [partial(self._select, cell, attack, own) for cell, own in zip(cells, of_slice, strict=True)]
            else:
                found = self._attack(cells, [works[cell.slice] for cell in cells])
        except ChangedOutputs:
            raise
        except Exception as error:  # noqa: BLE001 - an attack may be the user's code: whatever it raises is its result
            if len(cells) == 1:
                writer.fail(cells[0], error)
                yield from writer.finished(self.ahead)
                return
            hungry = out_of_memory(error)
            _log.info("%s on %d slices at once failed", cells[0].name, len(cells), exc_info=error)
        else:
            for planned, make in zip(cells, found, strict=True):
                writer.put(planned, make)
                yield from writer.finished(self.ahead)
            return
        # Outside of the handler, so that the error no longer keeps the tensors alive that did not fit.
        part = len(cells) // 2 if hungry else 1
        if hungry:
            self.stack, self.gathered = min(self.stack, part), part
        for start in range(0, len(cells), part):
            yield from self._run(cells[start : start + part], works, keys, writer)

    def _attack(self, cells: Sequence[PlannedCell], works: Sequence[Work]) -> list[partial[Cell]]:
        """Attack slices as one batch, and return what makes their cells when their results have been copied from the device."""
        attack, search_model = cells[0].attack, self.target.search_model
        generate(attack, self.target.searched, works, self.seed)
        generated = [work.generated[attack] for work in works]
        images = [generated.x_adv for generated in generated]
        x_adv = images[0] if len(images) == 1 else torch.cat(images)
        x, y = torch.cat([work.x for work in works]), torch.cat([work.y for work in works])
        noise = noise_of(works, self.seed)
        for net in (self.target.model, search_model):  # whatever mode the attack left them in
            net.eval()

        whole = slice(0, len(y))

        def rescored_rows(rows: slice) -> Rescored:
            if rows == whole:  # unchanged, so that certification rejects an invalid result
                return rescore(self.target, attack, x, y, x_adv, noise, self.threat_model)
            own_noise = noise.of(torch.arange(rows.start, rows.stop))
            return rescore(self.target, attack, x[rows], y[rows], x_adv[rows], own_noise, self.threat_model)

        rescored = Rescored.joined(in_halves(rescored_rows, whole) if len(works) == 1 else [rescored_rows(whole)])
        sizes = [len(work.y) for work in works]
        parts = [part.on_host() for part in rescored.parts(sizes)]
        labels = [work.y.to("cpu", non_blocking=True) for work in works]
        make = partial(self._cell, queue_done(x.device))
        return [partial(make, *of_cell) for of_cell in zip(cells, labels, generated, parts, strict=True)]

    def _cell(
        self, wait: Callable[[], None], planned: PlannedCell, labels: Tensor, generated: Generated, rescored: Rescored
    ) -> Cell:
        wait()
        logits = rescored.logits
        broken = (logits.argmax(-1) != labels).any(0).nonzero().flatten()
        kept = broken[:0] if isinstance(planned.attack, Clean) else broken
        passes = generated.passes + rescored.passes
        hashes = b"".join(bytes.fromhex(text) for text in planned.slice.inputs)
        return Cell(
            key=planned.key,
            header=self._header(planned, generated.seconds + rescored.seconds, rescored, generated.batches),
            indices=np.array(planned.slice.indices, dtype=np.int64),
            labels=labels.numpy(),
            inputs=np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 32),
            logits=logits.numpy(),
            distances=rescored.distances.numpy(),
            passes=np.array([passes.forwards, passes.backwards], dtype=np.int64),
            broken_rows=kept.numpy(),
            counterexamples=rescored.x_adv[kept].numpy(),
        )

    def _select(self, planned: PlannedCell, selection: BestOf, children: Sequence[str]) -> Cell:
        """Derive a selection from its children's stored logits: no pass through the model at all."""
        found = [cell for cell in map(self.store.read, children) if cell is not None]
        if len(found) < len(children):
            raise RuntimeError("an attack that it selects from did not finish")
        if any(cell.lacks_images for cell in found):
            raise RuntimeError("an attack that it selects from came without its images, for its figures alone")
        labels = torch.from_numpy(found[0].labels)
        choice = selection.choose([torch.from_numpy(cell.logits) for cell in found], labels)
        seconds = sum(cell.header["provenance"]["seconds"] for cell in found)
        return select_cells(planned.key, self._header(planned, seconds), found, choice.numpy())

    def _header(self, planned: PlannedCell, seconds: float, rescored: Rescored | None = None, batches: int = 1) -> dict[str, Any]:
        provenance: dict[str, Any] = {
            "seconds": round(seconds, 3),
            "device": str(next(self.target.model.parameters()).device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if planned.attack.implementation is not None:
            provenance["implementation"] = planned.attack.implementation
        if batches > 1:
            provenance["batches"] = batches
        if rescored is not None and not isinstance(planned.attack, Clean):
            provenance["search"] = {"on": str(self.target.used_config), **rescored.describe()}
        return {
            "model": self.target.name,
            "weights": self.target.weights,
            "dataset": self.dataset,
            "attack": describe(planned.attack),
            "seed": self.seed,
            "provenance": provenance,
        }


def stacks(cells: Sequence[PlannedCell], size: Callable[[], int]) -> Iterator[list[PlannedCell]]:
    """Yield the cells of ``size()`` slices at a time, in order; ``size`` is called for each batch."""
    parts = list(dict.fromkeys(cell.slice for cell in cells))
    begin, first = 0, 0
    while first < len(parts):
        last = min(first + max(1, size()), len(parts)) - 1
        end = begin
        while end < len(cells) and cells[end].slice.start <= parts[last].start:
            end += 1
        yield list(cells[begin:end])
        begin, first = end, last + 1


def _by_attack(cells: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
    """Group cells by attack, in order."""
    found: dict[Attack, list[PlannedCell]] = {}
    for cell in cells:
        found.setdefault(cell.attack, []).append(cell)
    return list(found.values())


def select_cells(key: str, header: dict[str, Any], cells: Sequence[Cell], choice: np.ndarray[Any, np.dtype[np.int64]]) -> Cell:
    """Return the cell whose row ``b`` is that of ``cells[choice[b]]``, for every ``b``."""
    first = cells[0]
    rows = range(len(choice))
    images = [dict(zip(cell.broken_rows.tolist(), cell.counterexamples, strict=True)) for cell in cells]
    broken = [row for row in rows if row in images[choice[row]]]
    shape = (0, *first.counterexamples.shape[1:])
    return Cell(
        key=key,
        header=header,
        indices=first.indices,
        labels=first.labels,
        inputs=first.inputs,
        logits=np.stack([cells[choice[row]].logits[:, row] for row in rows], axis=1),
        distances=np.array([cells[choice[row]].distances[row] for row in rows], dtype=np.float32),
        passes=np.sum([cell.passes for cell in cells], axis=0),
        broken_rows=np.array(broken, dtype=np.int64),
        counterexamples=np.stack([images[choice[row]][row] for row in broken]) if broken else np.empty(shape, np.float32),
    )
