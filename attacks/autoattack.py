"""AutoAttack (Croce & Hein, ICML 2020) by the package ``pyautoattack``, as an attack of exitbench."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as package_version
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from exitbench.attacks.base import Attack
from exitbench.attacks.lockstep import run_batched
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.side_by_side import set_side_by_side
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy
from exitbench.models.views import DeployedView, ExitView

_log = logging.getLogger(__name__)


Variant = Literal["standard", "few-classes"]

LEAST_CLASSES = 4
"""Fewest classes for the standard variant: the targeted DLR loss divides by a difference of four logits."""

FEW_CLASSES = ("apgd-ce", "fab", "square")
"""The package's attacks that need neither the DLR loss nor target classes."""


@dataclass(frozen=True)
class AutoAttack(Attack):
    """AutoAttack on one view of the network: the deployed rule, or one exit.

    Attributes:
        region: Linf or L2 ball.
        target: The policy whose deployed view is attacked, or a 1-based exit.
        variant: ``standard`` (APGD-CE, APGD-T, FAB-T, Square), the AutoAttack of leaderboards; ``few-classes`` for networks of
            two or three, on which the targeted DLR loss of APGD-T is undefined: APGD-CE, FAB and Square, untargeted, with the
            five restarts that the package gives them by default.

    Raises:
        ValueError: When the standard variant is run on a model of fewer than 4 classes.
    """

    gathers: ClassVar[bool] = True

    region: ThreatModel
    target: Policy | int
    variant: Variant = "standard"

    @property
    def least_classes(self) -> int:
        return LEAST_CLASSES if self.variant == "standard" else 2

    @property
    def summary(self) -> str:
        return self.variant if self.variant == "standard" else f"{self.variant}: {', '.join(FEW_CLASSES)}"

    @property
    def expected_gradients(self) -> float:
        return 1500.0

    @property
    def implementation(self) -> str:
        return implementation()

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        view = DeployedView(model, self.target) if isinstance(self.target, Policy) else ExitView(model, self.target)
        batches = noise.batches()
        runs = [partial(self._run, x=x[rows], y=y[rows], noise=noise.of(rows)) for rows in batches]
        with _contained():  # around all runs: each restores what another may have changed
            found = run_batched(view, runs) if len(runs) > 1 else [run(view) for run in runs]
        x_adv = x.clone()
        for rows, images in zip(batches, found, strict=True):
            x_adv[rows] = images
        return x_adv

    def _run(self, view: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        return run_autoattack(view, x, y, self.region, seed=noise.integer("autoattack"), variant=self.variant)


def implementation() -> str:
    """Return the package and version that the numbers come from."""
    return f"pyautoattack {package_version('pyautoattack')}"


def run_autoattack(view: nn.Module, x: Tensor, y: Tensor, region: ThreatModel, *, seed: int, variant: str) -> Tensor:
    """Run the package on a classifier ``(B, C, H, W) -> (B, classes)`` and return the adversarial images.

    Images that it does not break are returned clean. The package's global effects (torch's random state, the trace function, the
    counters of its check for dynamic defences) are undone.

    Args:
        view: The classifier, in evaluation mode.
        x: Clean images ``(B, C, H, W)`` in [0, 1].
        y: Labels ``(B,)``.
        region: Linf or L2 ball.
        seed: Seed of the package's random numbers.
        variant: The package's ``version``, such as ``standard``.

    Raises:
        ValueError: If the model has fewer than 4 classes.
    """
    from pyautoattack import AutoAttack as Package

    with torch.no_grad():
        n_classes = view(x[:1]).shape[-1]
    few = variant == "few-classes"
    if n_classes < LEAST_CLASSES and not few:
        raise ValueError(f"AutoAttack needs at least 4 classes for its targeted DLR loss, the model has {n_classes}")
    with _contained():
        version, attacks = ("custom", list(FEW_CLASSES)) if few else (variant, None)
        eps = region.radius(x)
        package = Package(view, norm=region.norm, eps=eps, version=version, attacks=attacks, seed=seed, device=x.device)
        # The package uses nine targets whatever the number of classes.
        package.apgd_targeted.n_target_classes = min(9, n_classes - 1)
        package.fab.n_target_classes = min(9, n_classes - 1)
        set_side_by_side(package)
        # Contiguous: the package calls ``view`` on tensors in the images' layout, and some datasets are stored channels last.
        x_adv, _ = package.run_standard_evaluation(x.contiguous(), y, batch_size=max(1, len(x)))
    _log.debug("%s finished on %d images", implementation(), len(x))
    return torch.as_tensor(x_adv).detach()


@contextmanager
def _contained() -> Iterator[None]:
    """Restore the global state that the package changes."""
    from pyautoattack import checks

    counters = dict(checks.funcs)
    trace = sys.gettrace()
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        try:
            checks.funcs.update(dict.fromkeys(checks.funcs, 0))
            yield
        finally:
            checks.funcs.clear()
            checks.funcs.update(counters)
            sys.settrace(trace)
