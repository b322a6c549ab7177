"""Runs side by side what does not depend on one another in AutoAttack: its target classes, and the queries of Square.

The package goes from target class to target class and from query to query with the images that are left, often one or two, which
a network computes at a fraction of its speed. Here several targets or queries go through the network as one batch, each as if
those before it had changed nothing; where one did, those after it are done again. The images are the package's, and passes that
turn out not to be needed are not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from exitbench.attacks.lockstep import run_batched
from exitbench.attacks.square_queries import WIDTH, square
from exitbench.models.spare_passes import spared


def set_side_by_side(package: Any) -> None:
    """Have a ``pyautoattack.AutoAttack`` in Linf or L2 run its target classes, and in Linf its queries, side by side."""
    package.apgd_targeted.perturb = partial(apgd_targeted, package.apgd_targeted)
    package.fab.perturb = partial(fab, package.fab)
    if package.norm == "Linf":
        package.square.perturb = partial(square, package.square)


class _Tried(NamedTuple):
    """The images ``(B, C, H, W)`` of a run, which of them fool ``(B,)``, and its passes per image."""

    images: Tensor
    fools: Tensor
    forwards: int
    backwards: int


Run = Callable[[nn.Module], _Tried]


def apgd_targeted(attack: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return what ``APGDAttack_targeted.perturb`` does: the images that fool, and clean ones where none was found.

    Every target has a random start, whose numbers depend on how many images are left. Where a target fools one, the targets
    after it are run again.
    """
    attack.init_hyperparam(x)
    x_adv, right = x.clone(), _predicted(attack.model, x) == y
    torch.manual_seed(attack.seed)
    targets = list(range(2, attack.n_target_classes + 2))
    while targets and right.any():
        rows = right.nonzero().flatten()
        ahead = targets[: _width(rows)]
        states = _states(attack, x[rows], len(ahead))
        runs = [partial(_apgd_run, attack, x[rows], y[rows], *each) for each in zip(ahead, states, strict=False)]
        tried = _together(attack.model, runs)
        needed = next((i + 1 for i, each in enumerate(tried) if each.fools.any()), len(tried))
        _take(x_adv, right, rows, tried[needed - 1])
        _spare(tried[needed:], len(rows))
        torch.set_rng_state(states[needed])
        targets = targets[needed:]
    return x_adv


def fab(attack: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return what ``FABAttack.perturb`` does. Targets draw no numbers, so that each image's are its own."""
    if not attack.targeted or attack.n_restarts > 1:
        return torch.as_tensor(type(attack).perturb(attack, x, y))
    x_adv, right = x.clone(), _predicted(attack.predict, x) == y
    targets = list(range(2, attack.n_target_classes + 2))
    while targets and right.any():
        rows = right.nonzero().flatten()
        ahead, targets = targets[: _width(rows)], targets[_width(rows) :]
        for each in _together(attack.predict, [partial(_fab_run, attack, x[rows], y[rows], target) for target in ahead]):
            _spare([each], int((~right[rows]).sum()))
            _take(x_adv, right, rows, each)
    return x_adv


def _apgd_run(attack: Any, x: Tensor, y: Tensor, target: int, state: Tensor, view: nn.Module) -> _Tried:
    own = copy.copy(attack)
    own.model = meter = _Meter(view)
    torch.set_rng_state(state)
    own.y_target = own.model(x).sort(dim=1)[1][:, -target]
    _, right, _, x_adv = own.attack_single_run(x.clone(), y.clone())
    return _Tried(x_adv, right == 0, meter.forwards, meter.backwards)


def _fab_run(attack: Any, x: Tensor, y: Tensor, target: int, view: nn.Module) -> _Tried:
    own = copy.copy(attack)
    own.predict = meter = _Meter(view)
    own.target_class = target
    x_adv = own.attack_single_run(x.clone(), y.clone(), use_rand_start=False, is_targeted=True)
    wrong = _predicted(meter, x_adv) != y
    change = (x - x_adv).abs() if own.norm == "Linf" else (x - x_adv) ** 2
    length = change.flatten(1).amax(1) if own.norm == "Linf" else change.flatten(1).sum(-1).sqrt()
    return _Tried(x_adv, wrong & ~(length > own.eps), meter.forwards, meter.backwards)


class _Meter(nn.Module):
    """A network that counts its forward and backward passes, in batches."""

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view, self.forwards, self.backwards = view, 0, 0
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        logits: Tensor = self.view(x)
        if torch.is_grad_enabled() and logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, _gradient: Tensor) -> None:
        self.backwards += 1


def _together(view: nn.Module, runs: Sequence[Run]) -> list[_Tried]:
    return run_batched(view, runs) if len(runs) > 1 else [run(view) for run in runs]


def _width(rows: Tensor) -> int:
    """Return the number of targets to run side by side on these images."""
    return max(1, WIDTH.get(rows.device.type, 1) // len(rows))


def _states(attack: Any, x: Tensor, n: int) -> list[Tensor]:
    """Return torch's random states before each of ``n`` random starts of the images ``x``, and after the last."""
    draw = torch.rand if attack.norm == "Linf" else torch.randn
    states = [torch.get_rng_state()]
    for _ in range(n):
        draw(x.shape)
        states.append(torch.get_rng_state())
    return states


def _predicted(view: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = view(x)
    return logits.max(1)[1]


def _take(x_adv: Tensor, right: Tensor, rows: Tensor, tried: _Tried) -> None:
    """Keep the images that are the first to fool, in place; ``rows`` are those of the images tried."""
    new = right[rows] & tried.fools
    x_adv[rows[new]] = tried.images[new]
    right[rows[new]] = False


def _spare(tried: Sequence[_Tried], n: int) -> None:
    """Leave the passes of ``n`` images in each of these runs out of the count."""
    for each in tried:
        spared(n * each.forwards, n * each.backwards)
