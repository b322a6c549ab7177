"""Networks of timm's as targets: with weights from a file, from timm's own cache, or, which is said, with random ones."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from exitbench.data.cards import dataset_card
from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.fingerprint import fingerprint
from exitbench.models.foreign import ForeignModelError, ForeignNet
from exitbench.models.identity import tensors_digest
from exitbench.models.safe_name import safe_name
from exitbench.models.spec import digest
from exitbench.models.weights import load_weights
from exitbench.models.zoo.published import published_name
from exitbench.models.zoo.timm_model import TimmModel
from exitbench.target.networks import Loaded, Network, Shape, note_on, tried

CACHED, RANDOM = "pretrained", "random"
"""Short names of weights that come from no file of the user's."""


class TimmNetwork(Network):
    """A network of timm's, for images that are normalised already."""

    takes_normalisation = True

    def __init__(self, model: TimmModel) -> None:
        self.model, self.name = model, published_name(model.reference)

    def input_shape(self, dataset: str) -> Shape:
        return dataset_card(dataset).input_shape

    def build(self, shape: Shape) -> EarlyExitNet:
        return self._wrapped(self.model.made(shape, pretrained=False).net, shape)

    def load(self, dataset: str, shape: Shape, training: str | None, weights: Path | None) -> Loaded:
        made = self.model.made(shape, pretrained=weights is None)
        label = CACHED if "cache" in made.source else RANDOM
        source = made.source
        if weights is not None:
            source += f", file {weights.name}, SHA-256 {load_weights(made.net, weights)}"
            label = safe_name(weights.stem)
        if training not in (None, label):
            raise UserError(f"--training {training}: the weights of {self.model.reference} are called {label}")
        identity = digest({"network": self.model.reference, "tensors": tensors_digest(made.net)})
        model = self._wrapped(made.net, shape).requires_grad_(False)
        note = "; ".join(filter(None, (made.note, note_on(model, was_compiled=False)))) or None
        return Loaded(model, label, identity, source, note=note, fingerprint=fingerprint(model, shape))

    def _wrapped(self, net: nn.Module, shape: Shape) -> EarlyExitNet:
        try:
            return tried(net, shape) if isinstance(net, EarlyExitNet) else ForeignNet(net, shape)
        except ForeignModelError as error:
            size = self.model.config.get("input_size")
            hint = ""
            if self.model.config.get("fixed_input_size") and size is not None and tuple(size) != shape:
                hint = f"; it is made for {'x'.join(map(str, size))}: give the size, as in timm:NAME(img_size={shape[-1]})"
            raise ForeignModelError(f"{self.model.reference}: {error}{hint}") from error
