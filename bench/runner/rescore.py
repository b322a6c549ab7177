"""The judge of a batch: certifies candidates with the plain model, and attacks again on it what only the twin thinks broken."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.clean import Clean
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import Ball
from exitbench.attacks.slowdown import Slowdown
from exitbench.models.policies import Policy, deployed_logits
from exitbench.runner.certify import certify
from exitbench.runner.passes import Passes, counted
from exitbench.target.target import Victim


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates as they are judged.

    Attributes:
        x_adv: ``(B, C, H, W)``.
        logits: ``(K, B, classes)`` of the plain fp32 model.
        distances: ``(B,)``.
        differs: ``(B,)`` twin and judge disagreed on what the search on the twin found.
        again: ``(B,)`` of these, the sample was attacked again, on the plain model.
        passes, seconds: that this took, over the batch.
    """

    x_adv: Tensor
    logits: Tensor
    distances: Tensor
    differs: Tensor
    again: Tensor
    passes: Passes
    seconds: float

    def told(self) -> dict[str, int]:
        """The counts, for a cell's header."""
        return {"disagreements": int(self.differs.sum()), "again": int(self.again.sum())}

    @staticmethod
    def joined(parts: Sequence[Judged]) -> Judged:
        """Consecutive batches as one."""
        if len(parts) == 1:
            return parts[0]
        return Judged(
            torch.cat([part.x_adv for part in parts]),
            torch.cat([part.logits for part in parts], dim=1),
            torch.cat([part.distances for part in parts]),
            torch.cat([part.differs for part in parts]),
            torch.cat([part.again for part in parts]),
            sum((part.passes for part in parts), Passes()),
            sum(part.seconds for part in parts),
        )

    def parts(self, sizes: Sequence[int]) -> list[Judged]:
        """Cut into consecutive batches; what was attacked again is paid for where it was."""
        found, start, total = [], 0, max(int(self.again.sum()), 1)
        for size in sizes:
            rows = slice(start, start := start + size)
            before, share = int(self.again[: rows.start].sum()), int(self.again[rows].sum())
            shares = [
                (before + share) * spent // total - before * spent // total
                for spent in (self.passes.forwards, self.passes.backwards)
            ]
            found.append(
                Judged(
                    self.x_adv[rows],
                    self.logits[:, rows],
                    self.distances[rows],
                    self.differs[rows],
                    self.again[rows],
                    Passes(*shares),
                    self.seconds * share / total,
                )
            )
        return found


def judge(victim: Victim, attack: Attack, x: Tensor, y: Tensor, x_adv: Tensor, noise: Noise, ball: Ball) -> Judged:
    """Certify the candidates ``x_adv`` that ``attack`` found on the twin, and score them with the plain model.

    Where the twin claims a success that the plain model does not see, the sample is attacked again on the plain model with
    its own noise: it ends as it would have without a twin.

    Raises:
        NotCertified: see ``certify``.
    """
    found = certify(victim.model, x, x_adv, ball, bounded=attack.bounded)
    nothing = torch.zeros_like(y, dtype=torch.bool)
    judged = Judged(x_adv, found.logits, found.distances, nothing, nothing, Passes(), 0.0)
    if victim.twin is victim.model or isinstance(attack, Clean):
        return judged
    with torch.no_grad():
        differs, unconfirmed = disagreement(attack, victim.twin(x_adv), found.logits, y, victim.policy)
    rows = unconfirmed.nonzero().flatten()
    if not len(rows):
        return Judged(x_adv, found.logits, found.distances, differs, nothing, Passes(), 0.0)
    began = time.perf_counter()
    with counted(victim.model) as passes:
        again = attack(victim.model, x[rows], y[rows], noise=noise.of(rows))
    seconds = time.perf_counter() - began
    victim.model.eval()
    certified = certify(victim.model, x[rows], again, ball, bounded=attack.bounded)
    x_adv, logits, distances = x_adv.clone(), found.logits.clone(), found.distances.clone()
    x_adv[rows], logits[:, rows], distances[rows] = again, certified.logits, certified.distances
    return Judged(x_adv, logits, distances, differs, unconfirmed, passes, seconds)


def disagreement(attack: Attack, twin: Tensor, plain: Tensor, y: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Where twin and judge disagree on what the attack is after, and where the twin then claims a success, ``(B,)`` each.

    That is whether the deployed rule is wrong; for an attack on the cost it is the exit taken and the class predicted there.

    Args:
        twin, plain: logits ``(K, B, classes)`` of the candidates.
    """
    (searched, exits), (judged, judged_exits) = deployed_logits(twin, policy), deployed_logits(plain, policy)
    classes, judged_classes = searched.argmax(-1), judged.argmax(-1)
    if isinstance(attack, Slowdown):
        differs = (classes != judged_classes) | (exits != judged_exits)
        return differs, differs
    claimed, wrong = classes != y, judged_classes != y
    return claimed != wrong, claimed & ~wrong
