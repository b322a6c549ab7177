"""Measures the suite and hand-written loops on the same images: seconds, gradients, and samples left robust."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.autoattack import AutoAttack
from exitbench.attacks.base import Attack
from exitbench.attacks.cascade import Cascade
from exitbench.attacks.noise import Noise
from exitbench.attacks.presets import expand
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import deployed_logits
from exitbench.models.policy_text import policy_text
from exitbench.perf.counts import per_gradient, search_speed
from exitbench.perf.naive import autoattack_images, pgd_images
from exitbench.perf.profile import profile
from exitbench.runner.passes import counted
from exitbench.runner.prepare import Prepared
from exitbench.runner.rescore import rescore
from exitbench.runner.search_backend import SearchBackend
from exitbench.timing.cache import machine
from exitbench.timing.timing import forward_and_gradient, in_turn, seconds

MATRIX = 1024
"""Rows and columns of the matrices whose product gives the ceiling on throughput."""

SHORT_BUDGETS = (10, 50)
"""Gradients per image of the first runs of the adaptive attack in a race."""

PACKAGES = ("exitbench", "torchattacks", "pyautoattack")
"""Packages whose versions are kept with a measurement."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Spent:
    """The state of a method after a step: what is left robust, and what it has cost so far.

    Attributes:
        step: Name of the last step.
        robust: Number of samples that are right on the clean image and on every image so far, under the deployed rule of the
            plain model.
        seconds: Processor time (wall-clock time on a GPU), re-scoring included.
        forwards, backwards: Passes per sample, summed over the samples, without re-scoring.
    """

    step: str
    robust: int
    seconds: float
    forwards: int
    backwards: int


def throughput(prepared: Prepared, batch: int) -> dict[str, Any]:
    """Measure images per second of a forward pass and input gradient on both models, and the ceiling by matrix products.

    The ceiling of each model is the product of matrices in its own precision.
    """
    model, search_model = prepared.target.model, prepared.target.search_model
    device = next(model.parameters()).device
    x = torch.rand(batch, *prepared.split.shape, generator=torch.Generator().manual_seed(0)).to(device)
    a = torch.rand(MATRIX, MATRIX, device=device)
    used = a.bfloat16() if prepared.target.used_config.precision == "bf16" else a
    steps: dict[str, Callable[[], float]] = {
        "plain": lambda: seconds(lambda: forward_and_gradient(model, x), device)[0],
        "twin": lambda: seconds(lambda: forward_and_gradient(search_model, x), device)[0],
        "matrix": lambda: seconds(lambda: torch.mm(a, a), device)[0],
        "matrix of search": lambda: seconds(lambda: torch.mm(used, used), device)[0],
    }
    for step in steps.values():
        step()
    took = {name: statistics.median(each) for name, each in in_turn(steps, rounds=7).items()}
    ceiling, ceiling_of_search = (2 * MATRIX**3 / took[name] for name in ("matrix", "matrix of search"))
    flops = 4e6 * prepared.target.costs.mmacs[-1]  # 2 operations in the forward pass, 2 in the gradient
    return {
        "batch": batch,
        "plain": batch / took["plain"],
        "twin": batch / took["twin"],
        "ratio": took["plain"] / took["twin"],
        "matrix_gflops": ceiling / 1e9,
        "matrix_gflops_of_search": ceiling_of_search / 1e9,
        "plain_of_ceiling": flops * batch / took["plain"] / ceiling,
        "twin_of_ceiling": flops * batch / took["twin"] / ceiling_of_search,
    }


class Race:
    """A comparison of methods on the same samples.

    Args:
        prepared: The evaluation to compare on.
        seed: Seed of the noise.

    Attributes:
        right: ``(B,)`` bool, whether the deployed rule is right on each clean image.
    """

    def __init__(self, prepared: Prepared, seed: int = 0) -> None:
        target, batch = prepared.target, prepared.split.batch(0, prepared.n)
        self.prepared, self.target, self.seed = prepared, target, seed
        self.device = next(target.model.parameters()).device
        self.x, self.y = batch.x.to(self.device), batch.y.to(self.device)
        self.noise = Noise(seed, batch.indices)
        self.right = self._right(self.x)

    @torch.no_grad()
    def _right(self, x_adv: Tensor) -> Tensor:
        return deployed_logits(self.target.model(x_adv), self.target.policy)[0].argmax(-1) == self.y

    def plain_pgd(self) -> list[Spent]:
        """Run torchattacks' PGD on every exit of the plain model."""
        return self._followed(pgd_images(self.target.model, self.x, self.y, self.prepared.settings))

    def plain_autoattack(self) -> list[Spent]:
        """Run AutoAttack on every exit of the plain model and on its deployed rule."""
        settings, target = self.prepared.settings, self.target
        return self._followed(autoattack_images(target.model, self.x, self.y, settings.region, target.policy))

    def _followed(self, images: Iterable[tuple[str, Tensor]]) -> list[Spent]:
        found: list[Spent] = []
        robust, spent = self.right.clone(), 0.0
        pairs: Iterator[tuple[str, Tensor]] = iter(images)
        with counted(self.target.model) as passes:
            while True:
                took, pair = seconds(lambda: next(pairs, None), self.device)
                if pair is None:
                    return found
                forwards, backwards = passes.forwards, passes.backwards
                judging, right = seconds(lambda image=pair[1]: self._right(image), self.device)  # type: ignore[misc]
                passes.forwards = forwards
                robust &= right
                spent += took + judging
                found.append(Spent(pair[0], int(robust.sum()), spent, forwards, backwards))

    def suite(self, goal: int) -> list[Spent]:
        """Run the attacks of ``worst`` in turn on the survivors, on the search model, until at most ``goal`` are robust."""
        target, settings = self.target, self.prepared.settings
        found, spent, forwards, backwards = [], 0.0, 0, 0
        rows = self.right.nonzero().flatten()
        for name, attack in named_attacks(self.prepared).items():
            if not len(rows):
                break
            x, y, noise = self.x[rows], self.y[rows], self.noise.of(rows)

            def stage(attack: Attack = attack, x: Tensor = x, y: Tensor = y, noise: Noise = noise) -> Any:
                with counted(target.searched) as passes:
                    x_adv = attack(target.searched, x, y, noise=noise)
                return rescore(target, attack, x, y, x_adv, noise, settings.region), passes

            took, (rescored, passes) = seconds(stage, self.device)
            spent += took
            forwards += passes.forwards + rescored.passes.forwards
            backwards += passes.backwards + rescored.passes.backwards
            broken = deployed_logits(rescored.logits, target.policy)[0].argmax(-1) != y
            rows = rows[~broken]
            found.append(Spent(name, len(rows), spent, forwards, backwards))
            if len(rows) <= goal:
                break
        return found

    def autoattack(self, net: EarlyExitNet) -> Spent:
        """Run AutoAttack on the deployed rule for all samples, with ``net`` as the search model."""
        attack = AutoAttack(self.prepared.settings.region, self.target.policy)
        with counted(net) as passes:
            took, x_adv = seconds(lambda: attack(net, self.x, self.y, noise=self.noise), self.device)
        judging, right = seconds(lambda: self._right(x_adv), self.device)
        return Spent("deployed", int((self.right & right).sum()), took + judging, passes.forwards, passes.backwards)


def named_attacks(prepared: Prepared) -> dict[str, Attack]:
    """Return the attacks that ``worst`` runs in turn, by name; an attack without a name is called by its type and position.

    The adaptive attack is run with small budgets first, each time from the beginning and at its full cost, so that the time at
    which an accuracy is reached is known more finely.
    """
    target, settings = prepared.target, prepared.settings
    built, _ = expand(["worst", "all"], target.deployment, settings)
    cascade = built.pop("cascade")
    names = {attack: name for name, attack in built.items()}
    attacks = cascade.attacks if isinstance(cascade, Cascade) else (cascade,)
    found = {names.get(attack, f"{type(attack).__name__} {i}"): attack for i, attack in enumerate(attacks, start=1)}
    short = {f"adaptive, {budget} gradients": Adaptive(settings.region, target.policy, budget) for budget in SHORT_BUDGETS}
    return {**short, **found}


def reached(course: Iterable[Spent], goal: int) -> Spent | None:
    """Return the first point at which at most ``goal`` samples are robust, or None if there is none."""
    return next((spent for spent in course if spent.robust <= goal), None)


def measure(
    prepared: Prepared, backend: SearchBackend, tell: Tell, *, autoattack: bool = True, batch: int = 32
) -> dict[str, Any]:
    """Take all measurements, the quick ones first, and return them as plain data for JSON.

    Args:
        prepared: The evaluation to measure.
        backend: The search backend in use.
        tell: Called with a short text before each measurement.
        autoattack: Whether to run AutoAttack on every view, which takes by far the longest.
        batch: Number of images in the batch for throughput.
    """
    began = time.process_time()
    tell("throughput")
    found: dict[str, Any] = {**describe(prepared), "searched_on": str(backend.config), "throughput": throughput(prepared, batch)}
    race = Race(prepared)
    found["clean"] = int(race.right.sum())
    courses: dict[str, list[Spent]] = {}
    if prepared.settings.region.norm == "Linf":
        tell("torchattacks PGD on every exit")
        courses["pgd"] = race.plain_pgd()
    if autoattack:
        tell("AutoAttack on every exit and on the deployed rule")
        courses["autoattack"] = race.plain_autoattack()
        tell("AutoAttack on the deployed rule, on the plain model and on the search model")
        plain, search_model = race.autoattack(race.target.model), race.autoattack(race.target.search_model)
        found["autoattack_deployed"] = {"plain": vars(plain), "twin": vars(search_model)}
        courses["autoattack_deployed"] = [plain]
    tell("the suite")
    goal = min((course[-1].robust for course in courses.values()), default=0)
    suite = race.suite(goal)
    found["suite"] = [vars(spent) for spent in suite]
    tell("a profile")
    found["profile"] = profile(prepared, race.x, race.y, race.noise)
    tell("launches and waits")
    found["per_gradient"] = per_gradient(prepared, race.x, race.y, race.noise)
    found["search"] = search_speed(prepared, race.x, race.y, race.noise)
    found["against"] = {name: compared(course, suite) for name, course in courses.items()}
    found["processor_seconds"] = time.process_time() - began
    return found


def describe(prepared: Prepared) -> dict[str, Any]:
    """Return what is measured, on which machine and with which versions."""
    target, split, threat_model = prepared.target, prepared.split, prepared.settings.region
    return {
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "model": target.name,
        "training": target.training,
        "weights": target.weights,
        "policy": policy_text(target.policy),
        "dataset": split.dataset,
        "n": prepared.n,
        "norm": threat_model.norm,
        "eps": threat_model.eps,
        "steps": prepared.settings.steps,
        "machine": machine(next(target.model.parameters()).device),
        "versions": {
            "torch": torch.__version__,
            **{name: version(name) for name in ("exitbench", "torchattacks", "pyautoattack")},
        },
    }


def compared(course: list[Spent], suite: list[Spent]) -> dict[str, Any]:
    """Compare a hand-written loop with the suite's first point at or below its robust accuracy.

    Returns:
        ``course``: All points of the loop.
        ``first``: The first point with the loop's final robust accuracy.
        ``suite``: The suite's first point that is as low; None if it is not reached.
        ``ratios``: Cost of the whole loop over that of the suite.
        ``ratios_first``: Cost of the loop up to ``first``, which is not known beforehand, over that of the suite.
    """
    last = course[-1]
    first, point = reached(course, last.robust) or last, reached(suite, last.robust)
    return {
        "course": [vars(spent) for spent in course],
        "first": vars(first),
        "suite": point and vars(point),
        "ratios": point and _ratios(last, point),
        "ratios_first": point and _ratios(first, point),
    }


def _ratios(by_hand: Spent, suite: Spent) -> dict[str, float]:
    return {
        "seconds": by_hand.seconds / max(suite.seconds, 1e-9),
        "gradients": by_hand.backwards / max(suite.backwards, 1),
    }
