"""Cuts a network of timm's at its feature stages, and puts a head behind each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from exitbench.models.error_text import first_line
from exitbench.models.errors import ForeignModelError
from exitbench.models.fingerprint import ROUNDING
from exitbench.models.multi_exit import MultiExitNet

PARTS = 4
"""Number of exits of a vision transformer: behind every quarter of its blocks."""


class PooledHead(nn.Module):
    """A linear classifier on the mean of a feature map over its places.

    Args:
        channels: Number of channels.
        n_classes: Number of classes.
        places: The dimensions of the feature map that are averaged over: ``(2, 3)`` for ``(B, C, H, W)``.
    """

    def __init__(self, channels: int, n_classes: int, places: tuple[int, int] = (2, 3)) -> None:
        super().__init__()
        self.places, self.linear = places, nn.Linear(channels, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(features.mean(self.places))
        return logits


class TokenHead(nn.Module):
    """A linear classifier on the normalised class token of ``(B, tokens, width)``, or on the mean of all tokens."""

    def __init__(self, width: int, n_classes: int, *, class_token: bool) -> None:
        super().__init__()
        self.class_token, self.norm, self.linear = class_token, nn.LayerNorm(width), nn.Linear(width, n_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        one = tokens[:, 0] if self.class_token else tokens.mean(1)
        logits: Tensor = self.linear(self.norm(one))
        return logits


class _Tokens(nn.Module):
    """What a vision transformer of timm's does before its blocks."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        net.blocks, net.norm, net.head = nn.Sequential(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.net.norm_pre(self.net.patch_drop(self.net._pos_embed(self.net.patch_embed(x))))
        return tokens


def with_exits(
    timm: ModuleType, name: str, n_classes: int, arguments: Mapping[str, Any], shape: tuple[int, int, int]
) -> MultiExitNet:
    """Return a network of timm's that is cut at its feature stages, with a head of random weights behind each.

    Args:
        timm: The package.
        name: Name of the network.
        n_classes: Number of classes of every head.
        arguments: Of ``timm.create_model``; ``out_indices`` chooses among the stages.
        shape: Shape ``(C, H, W)`` of an image.

    Raises:
        ForeignModelError: If its stages are not in a row.
    """
    transformer = timm.models.vision_transformer.VisionTransformer
    given = {key: value for key, value in arguments.items() if key != "out_indices"}
    net = timm.create_model(name, **given)
    if isinstance(net, transformer) and type(net).forward_features is transformer.forward_features:
        return _of_blocks(net, n_classes, arguments.get("out_indices"))
    try:
        body = timm.create_model(name, features_only=True, **arguments).eval()
        stages = _stages(body)
        _check(body, stages, shape)
    except Exception as error:
        raise ForeignModelError(f"timm's {name} cannot be cut at its feature stages ({first_line(error)})") from error
    fmt = str(getattr(getattr(body, "output_fmt", None), "value", "NCHW"))
    places = (1, 2) if fmt == "NHWC" else (2, 3)
    return MultiExitNet(stages, [PooledHead(channels, n_classes, places) for channels in body.feature_info.channels()])


def _of_blocks(net: Any, n_classes: int, after: Sequence[int] | None) -> MultiExitNet:
    """Return a vision transformer with heads behind the blocks with these indices, or behind every quarter of them."""
    blocks = list(net.blocks)
    parts = min(PARTS, len(blocks))
    ends = [i + 1 for i in after] if after is not None else [len(blocks) * (k + 1) // parts for k in range(parts)]
    if ends != sorted(set(ends)) or not ends or not 1 <= ends[0] <= ends[-1] <= len(blocks):
        raise ForeignModelError(f"out_indices {after} do not rise within the {len(blocks)} blocks 0..{len(blocks) - 1}")
    width, class_token = net.embed_dim, net.cls_token is not None
    first = _Tokens(net)
    stages = []
    for start, end in zip([0, *ends], ends, strict=False):
        stages.append(nn.Sequential(*([] if start else [first]), *blocks[start:end]))
    return MultiExitNet(stages, [TokenHead(width, n_classes, class_token=class_token) for _ in stages])


def _stages(body: Any) -> list[nn.Module]:
    """Return the stages that a feature extractor consists of, each from behind the feature before."""
    units: list[tuple[str, nn.Module]] = []
    for name, module in body.named_children():
        inside = module.named_children() if name == "blocks" else ()
        units += [(f"{name}.{inner}", each) for inner, each in inside] or [(name, module)]
    names = [name for name, _ in units]
    stages: list[nn.Module] = []
    start = 0
    for wanted in body.feature_info.module_name():
        known = [name for name in (wanted, wanted.replace(".", "_")) if name in names]
        if not known:
            raise ValueError(f"its {wanted} is no part of a row")
        at = names.index(known[0]) + 1
        at += at < len(names) and names[at - 1] == "bn1" and names[at] == "act1"  # an activation belongs to what it activates
        stages.append(nn.Sequential(*(module for _, module in units[start:at])))
        start = at
    return stages


@torch.no_grad()
def _check(body: nn.Module, stages: Sequence[nn.Module], shape: tuple[int, int, int]) -> None:
    """Refuse stages that compute something else, one after another, than the extractor that they were cut from."""
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    wanted, features = body(x.clone()), x
    for stage, feature in zip(stages, wanted, strict=True):
        features = stage(features)
        if features.shape != feature.shape or not torch.allclose(features, feature, ROUNDING, ROUNDING):
            raise ValueError("its stages do not follow one another")
