"""The trained network among pyautoattack's examples: an undefended CIFAR-10 baseline that needs no download."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from exitbench.models.error_text import first_line
from exitbench.models.errors import UnknownName
from exitbench.models.foreign import ForeignModelError
from exitbench.models.weights import load_weights
from exitbench.models.zoo.published import Published, WithWeights

NAME = "resnet18"
SHA256 = "399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7"
"""Digest of ``examples/model_test.pt`` in pyautoattack 0.2.0."""


@dataclass(frozen=True)
class Example(Published):
    """The ResNet-18 of ``examples/resnet.py`` with the weights in ``examples/model_test.pt``, trained on clean images alone."""

    def build(self) -> nn.Module:
        path = _examples() / "resnet.py"
        spec = importlib.util.spec_from_file_location("_pyautoattack_example_resnet", path)
        try:
            module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type] # a missing file raises below
            spec.loader.exec_module(module)  # type: ignore[union-attr]
            net = module.ResNet18()
        except Exception as error:
            raise ForeignModelError(f"{path} does not make the network it should ({first_line(error)})") from error
        if not isinstance(net, nn.Module):
            raise ForeignModelError(f"{path} made {type(net).__name__}, not a network")
        return net.eval()

    def load(self) -> WithWeights:
        net, path = self.build(), _examples() / "model_test.pt"
        found = load_weights(net, path, SHA256)
        version = importlib.metadata.version("pyautoattack")
        return WithWeights(net, f"examples/{path.name} of pyautoattack {version}, SHA-256 {found}")


def find_example(name: str) -> Example:
    """Return the example network called ``name``.

    Raises:
        UnknownName: If ``name`` is not ``resnet18``, the only one.
    """
    if name != NAME:
        raise UnknownName("network of pyautoattack", name, [NAME])
    return Example(f"pyautoattack:{NAME}", "cifar10", None, "undefended")


def _examples() -> Path:
    spec = importlib.util.find_spec("pyautoattack")
    if spec is None or spec.origin is None:
        raise ForeignModelError("the package pyautoattack is not installed: `pip install 'pyautoattack>=0.2,<0.3'`")
    return Path(spec.origin).parent / "examples"
