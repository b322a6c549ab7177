"""Any exit, or the deployed rule, as an ordinary classifier ``(B,C,H,W) -> (B,classes)`` for other libraries."""

from __future__ import annotations

from torch import Tensor, nn

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy, deployed_logits


class ExitView(nn.Module):
    """Exit ``k`` (1-based) of a multi-exit net; stages behind it are not run where the net is cut into stages."""

    def __init__(self, model: EarlyExitNet, k: int) -> None:
        super().__init__()
        if not 1 <= k <= model.n_exits:
            raise ValueError(f"exit {k} is outside 1..{model.n_exits}")
        self.model = model
        self.k = k
        self.training = model.training  # libraries that put a view back into its mode must find its network's

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(_row_by_row(x), upto=self.k - 1)
        return logits[-1]


class DeployedView(nn.Module):
    """The logits at the exit that the policy takes, as deployed: where the net is cut into stages, inputs that have left are
    not computed further. On a GPU all are: to ask at every exit who has left makes the device wait each time, and libraries
    call this view thousands of times on a few images.

    Gradients flow through the exit taken alone, as an attacker of the deployed system would see it.
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
    """``x``, with a gradient that is laid out row after row whatever layout the network computes in: libraries ``view`` it."""
    return x.flatten(1).view_as(x)
