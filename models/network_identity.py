"""What tells one network of the user's own from another: its factory, structure, attributes, code and tensors."""

from __future__ import annotations

from torch import nn

from exitbench.models.factory import Factory
from exitbench.models.identity import source_digest, tensors_digest
from exitbench.models.spec import digest
from exitbench.models.value_identity import Describer, plain_module


def structure_digest(net: nn.Module, factory: Factory | None = None) -> str:
    """Return a SHA-256 (hex) over all that a network computes with, parameters and buffers excepted.

    It covers the classes of all submodules with their code, their plain attributes, settings and hooks, the global values that
    the code reads, and for a factory its name and the source files that it builds on. What code reads from elsewhere while it
    runs (files, the environment) is not covered; for that there is ``exitbench.models.fingerprint``. Where it is in doubt, two
    equal networks get two digests, and results are computed again.

    Args:
        net: as it was made or handed over: before its first forward, which may leave traces in it.
        factory: that made it; None for one that was handed over in memory.
    """
    described: dict[str, object] = {"structure": Describer().module(net)}
    if factory is not None:
        function = f"{plain_module(getattr(factory.make, '__module__', None))}.{getattr(factory.make, '__qualname__', '')}"
        described |= {
            "factory": [factory.called, function, Describer().text(factory.make)],
            "source": source_digest(net, factory.module),
        }
    return digest(described)


def network_digest(structure: str, net: nn.Module) -> str:
    """Return the SHA-256 (hex) that two networks share only if they compute the same, as far as can be told from what they are.

    Args:
        structure: see ``structure_digest``.
        net: with its weights.
    """
    return digest({"structure": structure, "tensors": tensors_digest(net)})
