"""The usual hand-written loops: torchattacks' PGD on every exit, and AutoAttack on every view, on the plain fp32 model."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from exitbench.attacks.autoattack import run_autoattack
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy
from exitbench.models.views import DeployedView, ExitView


def pgd_images(model: EarlyExitNet, x: Tensor, y: Tensor, settings: AttackSettings) -> Iterator[tuple[str, Tensor]]:
    """Yield the images of torchattacks' PGD on each exit in turn, on all samples each time.

    Raises:
        ValueError: If the norm is not Linf, the only one of that PGD.
    """
    import torchattacks

    if settings.region.norm != "Linf":
        raise ValueError("torchattacks' PGD is for Linf")
    for k in range(1, model.n_exits + 1):
        view = ExitView(model, k).eval()
        attack = torchattacks.PGD(view, eps=settings.region.eps, alpha=settings.step_size, steps=settings.steps)
        yield f"exit {k}", attack(x.clone(), y.clone()).detach()


def autoattack_images(
    model: EarlyExitNet, x: Tensor, y: Tensor, threat_model: ThreatModel, policy: Policy
) -> Iterator[tuple[str, Tensor]]:
    """Yield the images of AutoAttack (standard) on each exit and then on the deployed rule, on all samples each time."""
    views = {f"exit {k}": ExitView(model, k) for k in range(1, model.n_exits + 1)}
    for name, view in {**views, "deployed": DeployedView(model, policy)}.items():
        yield name, run_autoattack(view.eval(), x.clone(), y.clone(), threat_model, seed=0, variant="standard")
