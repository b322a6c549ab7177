"""Views of an exit, or of the deployed rule, as an ordinary classifier ``(B, C, H, W) -> (B, classes)`` for other libraries."""

from __future__ import annotations

from torch import Tensor, nn

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy, deployed_logits


class ExitView(nn.Module):
    """A classifier that returns the logits of exit ``k`` (1-based); in a network cut into stages, later stages are not run.

    Raises:
        ValueError: If the network has no exit ``k``.
    """

    def __init__(self, model: EarlyExitNet, k: int) -> None:
        super().__init__()
        if not 1 <= k <= model.n_exits:
            raise ValueError(f"exit {k} is outside 1..{model.n_exits}")
        self.model = model
        self.k = k
        self.training = model.training  # libraries restore a view's mode: it must be its network's

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(_row_by_row(x), upto=self.k - 1)
        return logits[-1]


class DeployedView(nn.Module):
    """A classifier that returns the logits of the exit that the policy takes, as deployed.

    In a network cut into stages, inputs that have left are not computed further. On a GPU all of them are: asking at every exit
    which inputs have left would synchronise the device each time, and libraries call this view thousands of times on few images.

    Gradients flow through the exit taken alone, as an attacker of the deployed system would see it.

    Raises:
        ValueError: If the policy is for another number of exits.
    """

    def __init__(self, model: EarlyExitNet, policy: Policy) -> None:
        super().__init__()
        policy.check(model.n_exits)
        self.model = model
        self.policy = policy
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        x = _row_by_row(x)
        if x.device.type == "cuda":
            return deployed_logits(self.model(x), self.policy)[0]
        return self.model.deployed(x, self.policy)


def _row_by_row(x: Tensor) -> Tensor:
    """Return ``x`` such that its gradient is contiguous in any layout of the network: libraries call ``view`` on it."""
    return x.flatten(1).view_as(x)
