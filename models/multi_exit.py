"""Networks that are cut at their exits: a sequence of stages, with one head behind each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.features import detached, joined_rows, take_rows
from exitbench.models.folded import folded
from exitbench.models.gate_scores import ScoredHead
from exitbench.models.policies import Policy
from exitbench.models.preceded import Preceded
from exitbench.models.user_code import forwarded


class MultiExitNet(EarlyExitNet):
    """A backbone cut into stages, with a classifier head behind each stage.

    Exit ``k`` (0-based here, 1-based in everything a user sees) is head ``k`` applied to the
    features of stage ``k``. The last head is the final classifier, so a plain network is the
    case of one stage and one head (RDI-Nets: Hu, Chen, Wang & Wang, "Triple Wins", ICLR 2020, section 3).
    Stages behind the last exit asked for are not run.

    Args:
        stages: The backbone's stages, in order. A stage maps the features of the one before it, the first the images; features
            are a tensor, or a tuple, list or dict of tensors with the batch as first dimension.
        heads: One classifier per stage; head ``k`` maps the features of stage ``k`` to logits ``(B, classes)``.

    Raises:
        ValueError: If there are no stages, or not as many heads as stages.
    """

    stops = True

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        if not stages or len(stages) != len(heads):
            raise ValueError(f"need one head per stage: {len(stages)} stages, {len(heads)} heads")
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(heads)
        self.has_gate_scores = self.has_gate_scores or (
            len(heads) > 1 and all(isinstance(head, ScoredHead) for head in heads[:-1])
        )

    @property
    def n_exits(self) -> int:
        return len(self.stages)

    @property
    def entry(self) -> nn.Module:
        return self.stages[0]

    def exits(self, x: Tensor) -> Iterator[Tensor]:
        features = x.clone()  # a stage may write into what it is given
        for stage, head in zip(self.stages, self.heads, strict=True):
            with forwarded(training=self.training):
                features = stage(features)
                logits = head(features)
            yield logits

    def leaving_graph(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Compute the logits of all exits as ``EarlyExitNet`` does; images leave the graph behind the last exit they need."""
        if type(self).exits is not MultiExitNet.exits:  # a subclass may run its stages differently
            return super().leaving_graph(x, counts)
        features, others = x.clone(), None  # images whose gradient is needed, and those behind their last exit
        recorded, found = len(x), []
        for stage, head, count in zip(self.stages, self.heads, counts, strict=True):
            if count < recorded:
                left = detached(take_rows(features, slice(count, recorded)))
                others = left if others is None else joined_rows(left, others)
                features, recorded = take_rows(features, slice(count)), count
            logits = []
            with forwarded(training=self.training):
                if recorded:
                    features = stage(features)
                    logits.append(head(features))
                if others is not None:
                    with torch.no_grad():
                        others = stage(others)
                        logits.append(head(others))
            found.append(logits[0] if len(logits) == 1 else torch.cat(logits))
        return torch.stack(found)

    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        if type(self) is not MultiExitNet:  # a subclass may run its stages differently
            return Preceded(first, self)
        return MultiExitNet([nn.Sequential(first, self.stages[0]), *self.stages[1:]], list(self.heads))

    def deployed(self, x: Tensor, policy: Policy) -> Tensor:
        """Return the prediction ``(B, classes)`` of ``policy``, as logits; later stages are run only for inputs still in."""
        features = x.clone()
        waiting = torch.arange(len(x), device=x.device)
        seen: list[Tensor] = []
        left: list[Tensor] = []
        rows: list[Tensor] = []
        last = self.n_exits - 1
        for k, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            with forwarded(training=self.training):
                features = stage(features)
                seen.append(head(features))
            so_far = torch.stack(seen)
            leaves = policy.leaves(so_far) if k < last else torch.ones_like(waiting, dtype=torch.bool)
            left.append(policy.predicted(so_far)[leaves])
            rows.append(waiting[leaves])
            features, waiting = take_rows(features, ~leaves), waiting[~leaves]
            seen = [logits[~leaves] for logits in seen]
            if not len(waiting):
                break
        order = torch.argsort(torch.cat(rows))
        return torch.cat(left)[order]

    def search_model(self) -> MultiExitNet:
        """Return a copy with batch normalisation folded into the convolutions."""
        return folded(self)

    def placed(self, device: torch.device) -> Self:
        # Channels last is about a quarter faster on current processors; weights and arithmetic are the same.
        return self.to(device).to(memory_format=torch.channels_last)


def without_branches(net: MultiExitNet) -> MultiExitNet:
    """Return the backbone of ``net`` as a network with one exit: all stages in sequence, and the final head."""
    return MultiExitNet([nn.Sequential(*net.stages)], [net.heads[-1]])
