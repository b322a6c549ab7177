"""Every attack of ours, registered by name in the order of listings; each imports what it is made of when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exitbench.attacks.registry import build, register_attack, register_group

if TYPE_CHECKING:
    from exitbench.attacks.autoattack import Variant
    from exitbench.attacks.base import Attack
    from exitbench.attacks.deployment import Deployment
    from exitbench.attacks.pgd import Start
    from exitbench.attacks.settings import AttackSettings
    from exitbench.attacks.slowdown import Mode

register_group("single", "single:k for every exit k", lambda n_exits: [f"single:{k}" for k in range(1, n_exits + 1)], in_all=True)


@register_attack("single:k", "raise the loss of exit k")
def _single(_deployment: Deployment, settings: AttackSettings, k: int) -> Attack:
    from exitbench.attacks.objectives import Only

    return settings.ascend(Only(k))


@register_attack("average", "raise the mean loss over the exits", in_all=True, same_on_one_exit=True)
def _average(_deployment: Deployment, settings: AttackSettings) -> Attack:
    from exitbench.attacks.objectives import Mean

    return settings.ascend(Mean())


@register_attack("max", "raise the largest loss over the exits", in_all=True, same_on_one_exit=True)
def _max(_deployment: Deployment, settings: AttackSettings) -> Attack:
    from exitbench.attacks.objectives import Max

    return settings.ascend(Max())


def _singles(deployment: Deployment, settings: AttackSettings) -> list[Attack]:
    return [_single(deployment, settings, k) for k in range(1, deployment.n_exits + 1)]


@register_attack(
    "max_average",
    "of single:1 to single:K, keep the image with the highest mean loss",
    in_all=True,
    same_on_one_exit=True,
)
def _max_average(deployment: Deployment, settings: AttackSettings) -> Attack:
    from exitbench.attacks.objectives import Mean

    return settings.select(_singles(deployment, settings), by=Mean())


@register_attack(
    "average_max",
    "raise the mean loss from 1 + K starts (random, each single:k), keep the image with the highest maximum loss",
    in_all=True,
    same_on_one_exit=True,
)
def _average_max(deployment: Deployment, settings: AttackSettings) -> Attack:
    from exitbench.attacks.objectives import Max, Mean

    starts: list[Start | Attack] = ["random", *_singles(deployment, settings)]
    return settings.select([settings.ascend(Mean(), start) for start in starts], by=Max())


@register_attack(
    "adaptive",
    "the adaptive attack on the deployed rule: breaks each image at any exit that it can make it take",
    in_all=True,
    aliases=("policy",),
)
def _adaptive(deployment: Deployment, settings: AttackSettings) -> Attack:
    from exitbench.attacks.adaptive import Adaptive
    from exitbench.attacks.one_exit import AdaptiveAtOneExit
    from exitbench.models.policies import FixedExit

    if isinstance(deployment.policy, FixedExit):
        return AdaptiveAtOneExit(settings.region, deployment.policy, settings.budget)
    return Adaptive(settings.region, deployment.policy, settings.budget)


register_group(
    "slowdown",
    "slowdown:free, slowdown:keep_label and slowdown:double_kill",
    lambda _: ["slowdown:free", "slowdown:keep_label", "slowdown:double_kill"],
    in_all=True,
)


def _slowdown(deployment: Deployment, settings: AttackSettings, mode: Mode) -> Attack:
    from exitbench.attacks.slowdown import Slowdown

    return Slowdown(settings.region, deployment.policy, deployment.costs, mode)


@register_attack("slowdown:free", "raise the cost of the exit taken; the prediction may become anything", goal="cost")
def _slowdown_free(deployment: Deployment, settings: AttackSettings) -> Attack:
    return _slowdown(deployment, settings, "free")


@register_attack("slowdown:keep_label", "the same, while the deployed prediction stays that of the clean image", goal="cost")
def _slowdown_keep_label(deployment: Deployment, settings: AttackSettings) -> Attack:
    return _slowdown(deployment, settings, "keep_label")


@register_attack("slowdown:double_kill", "the same, and the deployed prediction must be wrong as well", goal="cost")
def _slowdown_double_kill(deployment: Deployment, settings: AttackSettings) -> Attack:
    return _slowdown(deployment, settings, "double_kill")


@register_attack("autoattack", "AutoAttack (standard) on the deployed rule", in_all=True)
def _autoattack(deployment: Deployment, settings: AttackSettings) -> Attack:
    from exitbench.attacks.autoattack import AutoAttack

    return AutoAttack(settings.region, deployment.policy, _variant(deployment))


def _variant(deployment: Deployment) -> Variant:
    """Return the variant of AutoAttack that the network has classes for."""
    from exitbench.attacks.autoattack import LEAST_CLASSES

    return "standard" if deployment.n_classes is None or deployment.n_classes >= LEAST_CLASSES else "few-classes"


@register_attack("autoattack:k", "AutoAttack (standard) on exit k")
def _autoattack_at(deployment: Deployment, settings: AttackSettings, k: int) -> Attack:
    from exitbench.attacks.autoattack import AutoAttack

    return AutoAttack(settings.region, k, _variant(deployment))


register_group(
    "autoattack:each", "autoattack:k for every exit k", lambda n_exits: [f"autoattack:{k}" for k in range(1, n_exits + 1)]
)


@register_attack(
    "cascade",
    "the worst case alone: attacks in turn, each on the images that survived those before; also called worst",
    aliases=("worst",),
)
def _cascade(deployment: Deployment, settings: AttackSettings) -> Attack:
    """The attacks of ``all`` on the error that the network has classes for, selections apart: adaptive first, AutoAttack last."""
    from exitbench.attacks.best_of import BestOf
    from exitbench.attacks.cascade import Cascade
    from exitbench.attacks.presets import expand, matrix

    breaking = [name for name in matrix(deployment.n_exits, "error") if name not in ("adaptive", "autoattack")]
    built, _ = expand(["adaptive", *breaking], deployment, settings)
    apart = [attack.attacks if isinstance(attack, BestOf) else (attack,) for attack in built.values()]
    last = build("autoattack", deployment, settings)
    return Cascade((*dict.fromkeys(each for attacks in apart for each in attacks), last), deployment.policy)


@register_attack(
    "torchattacks:NAME", "any attack of the package torchattacks on the deployed rule, as PGDL2 or PGD(steps=40,alpha=0.01)"
)
def _torchattacks(deployment: Deployment, settings: AttackSettings, name: str) -> Attack:
    from exitbench.attacks.torchattack import torch_attack

    return torch_attack(settings.region, deployment.policy, name)
