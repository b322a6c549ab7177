"""Certifies and re-scores candidates with the plain model, and attacks it itself where only the search model is broken."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.clean import Clean
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.user_code import contained
from exitbench.runner.certify import certify
from exitbench.runner.generate import network_for
from exitbench.runner.passes import Passes, counted
from exitbench.target.target import Target


@dataclass(frozen=True, eq=False)
class Rescored:
    """Candidates with their scores under the plain model.

    Attributes:
        x_adv: Candidates ``(B, C, H, W)``.
        logits: Logits ``(K, B, classes)`` of the plain fp32 model.
        distances: Distances ``(B,)`` from the clean images.
        differs: ``(B,)`` bool, whether search model and plain model disagreed on the candidate found on the search model.
        rerun: ``(B,)`` bool, whether the sample was then attacked again on the plain model.
        passes, seconds: Cost of re-scoring, over the batch.
        undefined: ``(B,)`` bool, whether the plain model had no finite logits on the candidate, so that the clean image stands.
    """

    x_adv: Tensor
    logits: Tensor
    distances: Tensor
    differs: Tensor
    rerun: Tensor
    passes: Passes
    seconds: float
    undefined: Tensor

    def describe(self) -> dict[str, int]:
        """Return the counts, for a cell's header."""
        undefined = int(self.undefined.sum())
        counts = {"disagreements": int(self.differs.sum()), "again": int(self.rerun.sum())}
        return {**counts, "undefined": undefined} if undefined else counts

    def on_host(self) -> Rescored:
        """Return copies in the host's memory, which hold their values when the device has done what it was given so far."""
        tensors = (self.x_adv, self.logits, self.distances, self.differs, self.rerun)
        x_adv, logits, distances, differs, rerun = (each.to("cpu", non_blocking=True) for each in tensors)
        undefined = self.undefined.to("cpu", non_blocking=True)
        return Rescored(x_adv, logits, distances, differs, rerun, self.passes, self.seconds, undefined)

    @staticmethod
    def joined(parts: Sequence[Rescored]) -> Rescored:
        """Join consecutive batches."""
        if len(parts) == 1:
            return parts[0]
        return Rescored(
            torch.cat([part.x_adv for part in parts]),
            torch.cat([part.logits for part in parts], dim=1),
            torch.cat([part.distances for part in parts]),
            torch.cat([part.differs for part in parts]),
            torch.cat([part.rerun for part in parts]),
            sum((part.passes for part in parts), Passes()),
            sum(part.seconds for part in parts),
            torch.cat([part.undefined for part in parts]),
        )

    def parts(self, sizes: Sequence[int]) -> list[Rescored]:
        """Split into consecutive batches; the cost of attacking again goes to the batch of the sample."""
        rerun: list[bool] = self.rerun.tolist()
        found, start, total = [], 0, max(sum(rerun), 1)
        for size in sizes:
            rows = slice(start, start := start + size)
            before, share = sum(rerun[: rows.start]), sum(rerun[rows])
            shares = [
                (before + share) * spent // total - before * spent // total
                for spent in (self.passes.forwards, self.passes.backwards)
            ]
            found.append(
                Rescored(
                    self.x_adv[rows],
                    self.logits[:, rows],
                    self.distances[rows],
                    self.differs[rows],
                    self.rerun[rows],
                    Passes(*shares),
                    self.seconds * share / total,
                    self.undefined[rows],
                )
            )
        return found


def rescore(
    target: Target, attack: Attack, x: Tensor, y: Tensor, x_adv: Tensor, noise: Noise, threat_model: ThreatModel
) -> Rescored:
    """Certify the candidates ``x_adv`` that ``attack`` found on the search model, and score them with the plain model.

    Where the search model claims a success that the plain model does not see, the sample is attacked again on the plain
    model with its own noise: the result is that without a search model.

    Raises:
        NotCertified: If a candidate is invalid; see ``certify``.
    """
    if isinstance(attack, Clean):  # whose images are the dataset's, on the grid or not
        threat_model = replace(threat_model, grid=None)
    found = certify(target.model, x, x_adv, threat_model, bounded=attack.bounded)
    nothing = torch.zeros_like(y, dtype=torch.bool)
    x_adv = found.x_adv
    rescored = Rescored(x_adv, found.logits, found.distances, nothing, nothing, Passes(), 0.0, found.undefined)
    if target.search_model is target.model or isinstance(attack, Clean):
        return rescored
    with torch.no_grad():
        differs, unconfirmed = disagreement(attack, target.search_model(x_adv), found.logits, y, target.policy)
    rows = unconfirmed.nonzero().flatten()
    if not len(rows):
        return replace(rescored, differs=differs)
    began = time.perf_counter()
    model = network_for(attack, target.searched_again)
    with counted(model) as passes, contained():
        rerun = attack.again(model, x[rows], y[rows], noise=noise.of(rows))
    seconds = time.perf_counter() - began
    target.model.eval()
    certified = certify(target.model, x[rows], rerun, threat_model, bounded=attack.bounded)
    x_adv, logits, distances, undefined = (each.clone() for each in (x_adv, found.logits, found.distances, found.undefined))
    x_adv[rows], logits[:, rows], distances[rows] = certified.x_adv, certified.logits, certified.distances
    undefined[rows] = certified.undefined
    return Rescored(x_adv, logits, distances, differs, unconfirmed, passes, seconds, undefined)


def disagreement(attack: Attack, search_model: Tensor, plain: Tensor, y: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Return where the two models disagree on the goal of the attack, and where only the search model reaches it, ``(B,)`` each.

    The goal is that the deployed rule is wrong; for an attack on the cost it is the exit taken and the class predicted there.

    Args:
        attack: The attack.
        search_model, plain: Logits ``(K, B, classes)`` of the candidates under each model.
        y: Labels ``(B,)``.
        policy: The deployed rule.
    """
    (searched, exits), (rescored, judged_exits) = deployed_logits(search_model, policy), deployed_logits(plain, policy)
    classes, judged_classes = searched.argmax(-1), rescored.argmax(-1)
    if attack.goal == "cost":
        differs = (classes != judged_classes) | (exits != judged_exits)
        return differs, differs
    claimed, wrong = classes != y, judged_classes != y
    return claimed != wrong, claimed & ~wrong
