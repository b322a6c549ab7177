"""Attacks of the package ``torchattacks`` on the deployed view, given as ``torchattacks:PGD(steps=40)``."""

from __future__ import annotations

import ast
import inspect
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue, UnknownName
from exitbench.models.policies import Policy
from exitbench.models.views import DeployedView

Parameter = None | bool | int | float | str | tuple["Parameter", ...]

_RADII = ("eps", "max_epsilon")
_OURS = {"model": "--model", **dict.fromkeys(_RADII, "--eps"), "norm": "--norm", "seed": "--seed"}
"""Parameters that the evaluation sets, and the options that set them."""


_DLR, _TARGETED_DLR = 3, 4
"""Fewest classes for which these losses are defined."""


@dataclass(frozen=True)
class TorchAttack(Attack):
    """An attack class of ``torchattacks`` (Kim, arXiv:2010.01950), run on the deployed rule.

    The class gets the radius, the norm, a seed and the number of classes where it takes them; all other parameters have its own
    defaults unless given. Random state is seeded for each slice and restored. An attack in another norm than the threat model's
    leaves the ball, which the runner reports as an error.

    Attributes:
        region: Linf or L2 ball.
        policy: The policy whose deployed view is attacked.
        name: Name of the class.
        parameters: Keyword arguments, sorted by name.

    Raises:
        TypeError: When run, if the class returns anything but images.
        ValueError: When run, if the class has no untargeted mode.
    """

    region: ThreatModel
    policy: Policy
    name: str
    parameters: tuple[tuple[str, Parameter], ...] = ()

    @property
    def least_classes(self) -> int:
        return _TARGETED_DLR if self.name in ("APGDT", "AutoAttack") else _DLR if ("loss", "dlr") in self.parameters else 1

    @property
    def summary(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.parameters) or "its defaults"

    @property
    def expected_gradients(self) -> float:
        return 50.0

    @property
    def implementation(self) -> str:
        return f"torchattacks {package_version('torchattacks')}"

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        view = DeployedView(model, self.policy).eval()
        batches = noise.batches()
        if len(batches) == 1:
            return self._run(view, x, y, noise)
        x_adv = x.clone()
        for rows in batches:
            x_adv[rows] = self._run(view, x[rows], y[rows], noise.of(rows))
        return x_adv

    def _run(self, view: DeployedView, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        seed = noise.integer(f"torchattacks:{self.name}")
        with torch.no_grad():
            n_classes = view(x[:1]).shape[-1]
        given: dict[str, Any] = {**dict.fromkeys(_RADII, self.region.radius(x)), "norm": self.region.norm, "seed": seed}
        given |= {"n_classes": n_classes, **dict(self.parameters)}
        make = _classes()[self.name]
        with _contained(seed):
            attack = make(view, **{name: value for name, value in given.items() if name in _parameters(make)})
            if "default" not in attack.supported_mode:
                raise ValueError(f"torchattacks:{self.name} has no untargeted mode; it cannot be asked to break a label")
            x_adv = attack(x, y)
        if not isinstance(x_adv, Tensor):
            raise TypeError(f"torchattacks:{self.name} returned {type(x_adv).__name__}, not images")
        return x_adv.detach()


def torch_attack(region: ThreatModel, policy: Policy, text: str) -> TorchAttack:
    """Parse the attack given as ``text``: a class name, optionally with keyword arguments in parentheses.

    Raises:
        UnknownName: If there is no such attack; names are case-sensitive, and the message suggests some.
        InvalidValue: If ``text`` has another form, the class does not take a parameter, the evaluation sets it, or one lacks.
    """
    name, keywords = _parsed(text)
    classes = _classes()
    if name not in classes:
        raise UnknownName("attack", f"torchattacks:{name}", [f"torchattacks:{each}" for each in classes])
    takes = _parameters(classes[name])
    for keyword in keywords:
        if keyword in _OURS:
            raise InvalidValue(f"torchattacks:{name}: {keyword} is the evaluation's; set it with {_OURS[keyword]}")
        if keyword not in takes:
            allowed = ", ".join(each for each in takes if each not in _OURS)
            raise InvalidValue(f"torchattacks:{name} takes no parameter {keyword!r}; it takes {allowed or 'none'}")
    set_by_us = {*_OURS, "n_classes", *keywords}
    if needed := [each for each, parameter in takes.items() if parameter.default is parameter.empty and each not in set_by_us]:
        raise InvalidValue(f"torchattacks:{name} needs {', '.join(needed)}: torchattacks:{name}({needed[0]}=...)")
    return TorchAttack(region, policy, name, tuple(sorted(keywords.items())))


def _parsed(text: str) -> tuple[str, dict[str, Parameter]]:
    """Parse class name and keyword arguments, which must be literals; nothing is executed."""
    form = f"attack 'torchattacks:{text}': the form is torchattacks:PGD or torchattacks:PGD(steps=40,alpha=0.01)"
    try:
        if not text.isascii():  # Python takes letters that look alike for the same name
            raise InvalidValue("it is not in ASCII characters")
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or node.args:
            raise InvalidValue("it is no class name with keyword arguments")
        keywords: dict[str, Parameter] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise InvalidValue("keyword arguments have names")
            if keyword.arg in keywords:
                raise InvalidValue(f"{keyword.arg} is given twice")
            keywords[keyword.arg] = _value(keyword.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise InvalidValue(f"{form} ({reason})") from error
    return node.func.id, keywords


def _value(node: ast.expr) -> Parameter:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):  # 2/255, as radii are written
        above, below = ast.literal_eval(node.left), ast.literal_eval(node.right)
        if isinstance(above, (int, float)) and isinstance(below, (int, float)) and below:
            return above / below
    value = ast.literal_eval(node)
    frozen = tuple(value) if isinstance(value, list) else value
    if not _is_parameter(frozen):
        raise InvalidValue(f"{value!r} is no number, text, True, False, None or tuple of these")
    return frozen


def _is_parameter(value: object) -> bool:
    return all(map(_is_parameter, value)) if isinstance(value, tuple) else isinstance(value, (bool, int, float, str, type(None)))


def _classes() -> dict[str, Any]:
    """Return the attack classes by name, without wrappers, which are built of other attacks or train models."""
    import torchattacks

    names = set(torchattacks.__all__) - set(torchattacks.__wrapper__)
    return {name: getattr(torchattacks, name) for name in sorted(names)}


def _parameters(make: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of the class, without the model."""
    parameters = dict(inspect.signature(make).parameters)
    parameters.pop("model", None)
    return parameters


@contextmanager
def _contained(seed: int) -> Iterator[None]:
    """Seed every generator that the package may draw from, and restore them afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
