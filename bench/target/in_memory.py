"""A network that is in memory, evaluated as one that has a name."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from exitbench.data.cards import dataset_card
from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.fingerprint import fingerprint
from exitbench.models.foreign import ForeignModelError, ForeignNet
from exitbench.models.network_identity import network_digest, structure_digest
from exitbench.models.plain_net import initialise, lazy_tensors, without_compilation
from exitbench.models.safe_name import safe_name
from exitbench.models.unused import unused_copy
from exitbench.models.user_code import contained
from exitbench.models.weights import load_weights
from exitbench.target.networks import Loaded, Network, Shape, declared_shape, note_on, tried

IN_MEMORY = "in memory, "
"""How the source of a network begins that was handed over in memory; the name of its class follows."""


class InMemoryNetwork(Network):
    """A ``torch.nn.Module`` that was handed over in memory; it is copied, and itself left as it is.

    Args:
        net: in evaluation mode, all of its tensors on one device.
        name: what reports call it; None for the name of its class.

    Raises:
        ForeignModelError: it is no module, is in training mode, its tensors are on several devices or on ``meta``, or it
            cannot be copied.
    """

    takes_normalisation = True

    def __init__(self, net: nn.Module, name: str | None = None) -> None:
        if not isinstance(net, nn.Module):
            raise ForeignModelError(f"the model is {type(net).__name__}; give a name, a reference, or a torch.nn.Module")
        self.name = safe_name(name or type(getattr(net, "_orig_mod", net)).__name__)
        if training := [part or "the network itself" for part, module in net.named_modules() if module.training]:
            raise ForeignModelError(f"{self.name} is in training mode ({training[0]}); call net.eval() first")
        devices = {tensor.device for tensor in (*net.parameters(), *net.buffers())}
        if len(devices) != 1 or torch.device("meta") in devices:
            where = ", ".join(sorted(map(str, devices))) or "none: it has no parameters"
            raise ForeignModelError(f"{self.name} must have all of its tensors on one device, they are on: {where}")
        self.device = devices.pop()
        try:
            with contained():
                self._net, self._was_compiled = without_compilation(copy.deepcopy(net))
        except Exception as error:
            raise ForeignModelError(f"{self.name} cannot be copied ({first_line(error)}); detach what it keeps") from error
        self._structure = None if lazy_tensors(self._net) else structure_digest(self._net)

    def input_shape(self, dataset: str) -> Shape:
        return declared_shape(self._net, self.name) or dataset_card(dataset).input_shape

    def build(self, shape: Shape) -> EarlyExitNet:
        initialise(self._net, shape)
        return tried(self._net, shape) if isinstance(self._net, EarlyExitNet) else ForeignNet(self._net, shape)

    def load(self, dataset: str, shape: Shape, training: str | None, weights: Path | None) -> Loaded:
        if training is not None:
            raise UserError(f"training={training!r}: registered weights are of registered models; load them into the network")
        initialise(self._net, shape)
        if weights is not None:
            load_weights(self._net, weights)
        model = self.build(shape).requires_grad_(False)
        unused = unused_copy(model)
        source = f"{IN_MEMORY}{type(self._net).__module__}.{type(self._net).__qualname__}"
        note = note_on(model, was_compiled=self._was_compiled)
        label = "memory" if weights is None else safe_name(weights.stem)
        digest = network_digest(self._structure or structure_digest(self._net), self._net)
        return Loaded(model, label, digest, source, note=note, fingerprint=fingerprint(model, shape), unused=unused)
