"""Networks of timm's, given as ``timm:NAME`` or, with a head behind each feature stage, ``timm:NAME+exits``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from exitbench.models.error_text import first_line
from exitbench.models.errors import ForeignModelError, InputError
from exitbench.models.normalisation import Normalisation
from exitbench.models.reference import Arguments, split_call
from exitbench.models.user_code import contained
from exitbench.models.weights import file_sha256
from exitbench.models.zoo.checkpoints import guarded_loads
from exitbench.models.zoo.timm_package import cached_weights, check_name, timm_package
from exitbench.models.zoo.timm_stages import with_exits

EXITS = "+exits"
_OURS = ("pretrained", "checkpoint_path", "features_only", "pretrained_cfg", "pretrained_cfg_overlay", "scriptable", "exportable")
"""Arguments of ``timm.create_model`` that say what is decided elsewhere."""

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Made:
    """A network of timm's.

    Attributes:
        net: The network, in evaluation mode.
        source: Where its weights come from, with versions and digests.
        note: What must be said of its weights; None if nothing.
    """

    net: nn.Module
    source: str
    note: str | None


@dataclass(frozen=True)
class TimmModel:
    """An architecture of timm's, which takes images normalised as it says.

    Attributes:
        reference: On the command line, with its arguments in one form.
        name: Timm's name for it, such as ``resnet18`` or ``resnet18.a1_in1k``.
        exits: Whether it is cut at its feature stages.
        arguments: Of ``timm.create_model``, such as ``num_classes=10``.
    """

    reference: str
    name: str
    exits: bool
    arguments: Arguments

    @property
    def config(self) -> Mapping[str, Any]:
        """What timm says of the network and its weights (``pretrained_cfg``)."""
        found = timm_package().models.get_pretrained_cfg(self.name)
        return {} if found is None else dict(found.to_dict())

    @property
    def normalisation(self) -> Normalisation:
        """That of the images that timm trained it on."""
        config = self.config
        return Normalisation(tuple(config.get("mean", (0.0,) * 3)), tuple(config.get("std", (1.0,) * 3)))

    def made(self, shape: Shape, *, pretrained: bool) -> Made:
        """Build the network for images of ``shape``, from the same random state every time.

        Args:
            shape: Shape ``(C, H, W)`` of an image.
            pretrained: Whether weights from timm's cache are loaded, if there are some.

        Raises:
            ForeignModelError: If timm cannot make it with these arguments, or it cannot be cut.
            WeightsError: If the weights in the cache are damaged.
        """
        timm = timm_package()
        path = cached_weights(self.config) if pretrained else None
        _, values = self.arguments.values()
        values.setdefault("in_chans", shape[0])
        if path is not None:
            values |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
        with contained(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            net = self._built(timm, values, shape, path)
        source = f"timm {timm.__version__}, {self.reference}"
        if path is not None:
            source += f", {path.name} of timm's cache, SHA-256 {file_sha256(path)}"
        return Made(net.eval(), source, self._note(path, values) if pretrained else None)

    def _built(self, timm: ModuleType, values: dict[str, Any], shape: Shape, path: Path | None) -> nn.Module:
        try:
            with guarded_loads(path.parent if path else Path(), "the package timm"):
                if not self.exits:
                    net: nn.Module = timm.create_model(self.name, **values)
                    return net
                n_classes = int(values.pop("num_classes", self.config.get("num_classes") or 1000))
                return with_exits(timm, self.name, n_classes, values, shape)
        except InputError:
            raise
        except Exception as error:
            raise ForeignModelError(f"timm cannot make {self.reference} ({first_line(error)})") from error

    def _note(self, path: Path | None, values: Mapping[str, Any]) -> str | None:
        if path is None:
            return (
                f"the weights of {self.reference} are random: timm's cache has none, and nothing is downloaded; give a file with "
                "--weights"
            )
        if self.exits:
            return f"the heads of {self.reference} are random: train them, and give a file with --weights"
        classes, known = values.get("num_classes"), self.config.get("num_classes")
        if classes not in (None, known):
            return f"the classifier of {self.reference} is random: the weights in timm's cache are for {known} classes"
        return None


def find_timm(name: str) -> TimmModel:
    """Return the network given as ``NAME``, ``NAME+exits``, or either with arguments, such as ``NAME(num_classes=10)``.

    Raises:
        ForeignModelError: If timm is not installed or has no such network, or the arguments are none for it.
    """
    called, arguments = split_call(f"timm:{name}")
    plain = called.removeprefix("timm:")
    exits = plain.endswith(EXITS)
    architecture = plain.removesuffix(EXITS)
    check_name(timm_package(), architecture)
    by_place, by_name = arguments.values()
    if by_place:
        raise ForeignModelError(f"{called} takes arguments by name, such as {called}(num_classes=10)")
    if taken := [each for each in by_name if each in _OURS]:
        raise ForeignModelError(f"{called} takes no {taken[0]}: weights are given with --weights, stages as timm:NAME{EXITS}")
    return TimmModel(f"{called}{arguments.text}", architecture, exits, arguments)


def timm_network(reference: str, shape: Shape = (3, 224, 224)) -> nn.Module:
    """Return a network of timm's as ``--model`` takes it, to be trained: with ``+exits`` a ``MultiExitNet``.

    Args:
        reference: Such as ``timm:resnet18+exits(num_classes=10)``.
        shape: Shape ``(C, H, W)`` of an image.

    Raises:
        ForeignModelError: If it cannot be made.
    """
    return find_timm(reference.removeprefix("timm:")).made(shape, pretrained=True).net
