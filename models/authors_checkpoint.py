"""Reads the checkpoint that the authors of "Triple Wins" released into the registered RDI-ResNets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.state_dict import StateError, TensorFault, fill
from exitbench.models.tensor_file import read_checkpoint
from exitbench.models.weights import WeightsError, file_sha256

RELEASED_SHA256 = "f1c76b0f65ce23f5ecea647e3d8fa9688dc9bb3507cdc3b86942c94fe9e823b8"
"""Digest of the released RDI-ResNet38 checkpoint (max-average defence, iteration 60,000)."""

# The names in our blocks of what the released code calls conv1, bn1, conv2, bn2 and downsample.
_IN_BLOCK = {"conv1": "body.0", "bn1": "body.1", "conv2": "body.3", "bn2": "body.4", "downsample": "shortcut"}


def import_checkpoint(path: Path, model: MultiExitNet) -> str:
    """Load the authors' ``.pth.tar`` into an RDI-ResNet, in place, and return the file's SHA-256 (hex).

    The file is unpickled with ``weights_only=True``: nothing in it is executed.

    Raises:
        WeightsError: If the file is missing, is unreadable, has no ``state_dict``, or belongs to another architecture.
    """
    if not path.is_file():
        raise WeightsError(f"checkpoint {path} is missing")
    loaded = read_checkpoint(path)
    state = loaded.get("state_dict") if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no 'state_dict' of tensors")
    try:
        fill(model, _renamed(state, model))
    except TensorFault as error:
        raise WeightsError(f"{path}: {error}") from error
    except StateError as error:
        raise WeightsError(f"{path} holds the weights of another architecture: {error}") from error
    return file_sha256(path)


def _renamed(state: Mapping[str, Tensor], model: MultiExitNet) -> dict[str, Tensor]:
    """Translate the released names, such as ``module.group0_layer3.conv1.weight``, into ours; unknown names stay as they are."""
    stage_of_block = {name: s for s, stage in enumerate(model.stages) for name, _ in stage.named_children()}
    renamed = {}
    for name, tensor in state.items():
        renamed[_our_name(name.removeprefix("module."), stage_of_block, model.n_exits)] = tensor
    return renamed


def _our_name(name: str, stage_of_block: Mapping[str, int], n_exits: int) -> str:
    if stem := re.fullmatch(r"(conv|bn)1\.(.+)", name):
        return f"stages.0.stem.{0 if stem[1] == 'conv' else 1}.{stem[2]}"
    if block := re.fullmatch(r"group(\d+)_layer(\d+)\.(\w+)\.(.+)", name):
        ours = f"group{block[1]}_block{block[2]}"
        if ours in stage_of_block:
            return f"stages.{stage_of_block[ours]}.{ours}.{_IN_BLOCK.get(block[3], block[3])}.{block[4]}"
    if branch := re.fullmatch(r"branch_layer(\d+)\.(.+)", name):
        inside = branch[2]
        if in_block := re.fullmatch(r"(\d+)\.(\w+)\.(.+)", inside):
            inside = f"{in_block[1]}.{_IN_BLOCK.get(in_block[2], in_block[2])}.{in_block[3]}"
        return f"heads.{int(branch[1]) - 1}.{inside}"
    if final := re.fullmatch(r"fc\.(.+)", name):
        return f"heads.{n_exits - 1}.2.{final[1]}"
    return name
