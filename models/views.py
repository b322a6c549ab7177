"""Any exit, or the deployed rule, as an ordinary classifier ``(B,C,H,W) -> (B,classes)`` for other libraries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.multi_exit import MultiExitNet
from models.policies import Policy


class ExitView(nn.Module):
    """Exit ``k`` (1-based) of a multi-exit net; stages behind it are not run."""

    def __init__(self, model: MultiExitNet, k: int) -> None:
        super().__init__()
        if not 1 <= k <= model.n_exits:
            raise ValueError(f"exit {k} is outside 1..{model.n_exits}")
        self.model = model
        self.k = k
        self.training = model.training  # libraries that put a view back into its mode must find its network's

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x, upto=self.k - 1)
        return logits[-1]


class DeployedView(nn.Module):
    """The logits at the exit that the policy takes, as deployed: inputs that have left are not computed further.

    Gradients flow through the exit taken alone, as an attacker of the deployed system would see it.
    """

    def __init__(self, model: MultiExitNet, policy: Policy) -> None:
        super().__init__()
        policy.check(model.n_exits)
        self.model = model
        self.policy = policy
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        features = x
        waiting = torch.arange(len(x), device=x.device)
        left: list[Tensor] = []
        rows: list[Tensor] = []
        last = self.model.n_exits - 1
        for k, (stage, head) in enumerate(zip(self.model.stages, self.model.heads, strict=True)):
            features = stage(features)
            logits_k = head(features)
            leaves = self.policy.leaves(logits_k, k) if k < last else torch.ones_like(waiting, dtype=torch.bool)
            left.append(logits_k[leaves])
            rows.append(waiting[leaves])
            features, waiting = features[~leaves], waiting[~leaves]
            if not len(waiting):
                break
        order = torch.argsort(torch.cat(rows))
        return torch.cat(left)[order]
