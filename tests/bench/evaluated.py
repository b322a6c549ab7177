"""A toy evaluation, from plan to verdicts, in memory and milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.data.split import Split
from exitbench.models.cost import measure_costs
from exitbench.models.policies import EntropyPolicy, Policy
from exitbench.runner.cell_writer import Outcome
from exitbench.runner.plan import Plan, make_plan
from exitbench.runner.prepare import Prepared
from exitbench.runner.record import write_record
from exitbench.runner.runner import Runner
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from exitbench.target.target import Target
from tests.toys import small_convolutional

FORMS = ("single", "average", "max", "max_average", "average_max")
NET = small_convolutional(3)
SETTINGS = AttackSettings(ThreatModel("Linf", 0.15), steps=3, step_size=0.06)


def toy_policy() -> Policy:
    """Thresholds that send the toy's inputs to every exit."""
    from exitbench.models.calibration import equal_share

    split = toy_split()
    return equal_share(NET(split.batch(0, len(split)).x))


def toy_split(n: int = 70) -> Split:
    """Noise that the toy classifies, with one label in five wrong."""
    generator = np.random.RandomState(0)
    images = generator.rand(n, 1, 4, 4).astype(np.float32)
    labels = NET(torch.from_numpy(images))[-1].argmax(-1).numpy()
    labels[::5] = (labels[::5] + 1) % 5
    return Split("digits", "test", images, labels, 5, "toy")


def prepared(policy: Policy | None = None, n: int = 70, name: str = "toy") -> Prepared:
    policy = policy or EntropyPolicy((1.45, 1.45))
    costs = measure_costs(NET, (1, 4, 4))
    target = Target(name, NET, "none", "0" * 64, "a test", policy, costs)
    return Prepared(target, toy_split(), n, SETTINGS, None)


def plan_of(ready: Prepared, store: Store, names: Sequence[str] = FORMS, seed: int = 0) -> Plan:
    return make_plan(ready.target, ready.samples, ready.settings, names, seed=seed, store=store)


def evaluate(
    folder: Path, names: Sequence[str] = FORMS, ready: Prepared | None = None, seed: int = 0, ahead: int = 0
) -> tuple[list[Outcome], Store]:
    """Run the missing cells of an evaluation of the toy and tell what became of each."""
    ready = ready or prepared()
    store = Store(folder)
    plan = plan_of(ready, store, names, seed)
    write_record(ready, plan, seed, store)
    outcomes: list[Outcome] = []
    runner = Runner(ready.target, ready.settings.region, seed, ready.split.dataset, store, ahead=ahead)
    runner.run(plan, lambda _: None, outcomes.append)
    return outcomes, store


def only_evaluation(store: Store) -> Evaluation:
    (evaluation,) = evaluations(store)
    return evaluation
