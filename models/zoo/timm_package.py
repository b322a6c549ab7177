"""Imports timm, which is optional, and finds the weights that it has downloaded before; nothing is downloaded here."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from exitbench.models.error_text import first_line
from exitbench.models.errors import ForeignModelError
from exitbench.models.zoo.surroundings import some_home

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of a checkpoint in a repository of the Hugging Face hub, the first that is there counts."""


def timm_package() -> ModuleType:
    """Return the package timm.

    Raises:
        ForeignModelError: If it is not installed, or cannot be imported.
    """
    if importlib.util.find_spec("timm") is None:
        raise ForeignModelError(
            "the package timm is not installed: `pip install timm`, or in a clone of exitbench "
            "`pip install -c constraints.txt -e '.[timm]'`"
        )
    try:
        with warnings.catch_warnings(), some_home():
            warnings.simplefilter("ignore")  # about names that have moved
            return importlib.import_module("timm")
    except Exception as error:
        raise ForeignModelError(f"timm cannot be imported ({first_line(error)}); what it requires is missing") from error


def check_name(timm: ModuleType, name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        ForeignModelError: If there is no such architecture; the message has the near misses.
    """
    if ":" in name or not timm.is_model(name):
        known = timm.list_models()
        near = difflib.get_close_matches(name.partition(".")[0], known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ForeignModelError(f"timm {timm.__version__} has no network {name!r} among its {len(known)}{hint}")


def cached_weights(config: Mapping[str, Any]) -> Path | None:
    """Return the checkpoint of a network that timm has downloaded before; None without one.

    Args:
        config: The network's ``pretrained_cfg``, with its architecture and tag.
    """
    hub = str(config.get("hf_hub_id") or "")
    if hub.endswith("/"):
        hub += ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    if hub:
        found = importlib.import_module("huggingface_hub").try_to_load_from_cache
        for file in filter(None, (config.get("hf_hub_filename"), *FILES)):
            if isinstance(path := found(hub, file), str):
                return Path(path)
    url = str(config.get("url") or "")
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return path if url and path.is_file() else None
