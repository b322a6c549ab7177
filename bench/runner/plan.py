"""The plan of an evaluation: all of its cells, done or missing, known before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.clean import Clean
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.presets import Skipped, expand
from exitbench.attacks.settings import AttackSettings
from exitbench.data.split import Batch, Samples
from exitbench.store.cell import SLICE, cell_key
from exitbench.store.run_record import CLEAN
from exitbench.store.store import Store
from exitbench.target.target import Target


class Images(Protocol):
    """Where the images of a slice come from."""

    def batch(self, start: int, stop: int) -> Batch:
        """Return the samples ``start..stop - 1``."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A range of consecutive samples of a split; images are loaded on demand, so that a plan holds only their hashes.

    Attributes:
        images: Where its images come from, such as a split.
        start, stop: The samples are ``start..stop - 1``.
        inputs: SHA-256 (hex) of each sample's pixels and label.
    """

    images: Images
    start: int
    stop: int
    inputs: tuple[str, ...]

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def indices(self) -> tuple[int, ...]:
        """Index of each sample in the split."""
        return tuple(range(self.start, self.stop))

    def batch(self) -> Batch:
        """Load the samples."""
        return self.images.batch(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A planned cell.

    Attributes:
        name: Name of the attack in reports.
        attack: The resolved attack.
        key: Content address of the cell.
        slice: The samples.
        done: Whether the cell is in the store already.
        component: Whether the attack is only there as a component of a selection, not requested by name.
    """

    name: str
    attack: Attack
    key: str
    slice: Slice
    done: bool
    component: bool

    @property
    def text(self) -> str:
        """Name of the cell, for displays and logs."""
        return f"{self.name} on {self.slice.start}-{self.slice.stop - 1}"

    @property
    def work(self) -> float:
        """Expected gradients, for the progress display."""
        return len(self.slice) * self.attack.expected_gradients


@dataclass(frozen=True)
class Plan:
    """All cells of an evaluation in the order in which they run: slice by slice, with an attack's children before it."""

    cells: tuple[PlannedCell, ...]
    skipped: tuple[Skipped, ...]

    @property
    def missing(self) -> list[PlannedCell]:
        """The cells that are not done."""
        return [cell for cell in self.cells if not cell.done]

    def states(self) -> dict[str, tuple[int, int]]:
        """Return the number of done cells and of all cells of each attack, by name."""
        done = Counter(cell.name for cell in self.cells if cell.done)
        return {name: (done[name], total) for name, total in Counter(cell.name for cell in self.cells).items()}


def make_plan(
    target: Target, samples: Samples, settings: AttackSettings, names: Iterable[str], *, seed: int, store: Store
) -> Plan:
    """Resolve attack names for a target over samples, and look up what is done.

    Args:
        target: what is evaluated.
        samples: what it is evaluated on.
        settings: how the attacks are run, threat model included.
        names: of attacks (``exitbench.attacks.presets``).
        seed: of the attacks' noise.
        store: where finished cells are looked for.

    Raises:
        InputError: see ``exitbench.attacks.presets.expand``.
    """
    wanted, skipped = expand(names, target.deployment, settings)
    attacks = with_components({CLEAN: Clean(), **wanted}, target.deployment, settings)
    cells = []
    for batch in samples.slices(SLICE):
        part = Slice(samples.split, batch.indices[0], batch.indices[-1] + 1, tuple(batch.input_hashes()))
        for name, attack in attacks.items():
            key = cell_key(target.weights, part.inputs, attack, seed)
            cells.append(PlannedCell(name, attack, key, part, store.has(key), name not in (CLEAN, *wanted)))
    return Plan(tuple(cells), tuple(skipped))


def with_components(wanted: dict[str, Attack], deployment: Deployment, settings: AttackSettings) -> dict[str, Attack]:
    """Return ``wanted`` with the components of every selection before it, as attacks themselves.

    A component with a name (``single:3``) keeps it; any other is named after its selection, as ``average_max[4]``. Components
    count in the worst case like any attack.
    """
    elementary, _ = expand(["single", "average", "max"], deployment, settings)
    known = {attack: name for name, attack in [*wanted.items(), *elementary.items()]}
    named: dict[str, Attack] = {}
    for name, attack in wanted.items():
        if isinstance(attack, BestOf):
            for i, child in enumerate(attack.attacks, start=1):
                if child not in named.values():
                    named[known.get(child, f"{name}[{i}]")] = child
        if attack not in named.values():
            named[name] = attack
    return named
