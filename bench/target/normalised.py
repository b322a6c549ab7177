"""A network with a normalisation of its images in front, which was given beside it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue
from exitbench.models.fingerprint import fingerprint
from exitbench.models.normalisation import Normalisation
from exitbench.models.spec import digest
from exitbench.target.networks import Loaded, Network, Shape


class NormalisedNetwork(Network):
    """A network whose images are normalised first; with another normalisation it is another network.

    Args:
        inner: The network.
        normalisation: That of its images.
        averaged: Whether images of another number of channels than the normalisation's are normalised by its averages.

    Raises:
        InvalidValue: If the network holds its own normalisation.
    """

    def __init__(self, inner: Network, normalisation: Normalisation, *, averaged: bool = False) -> None:
        if not inner.takes_normalisation:
            raise InvalidValue(
                f"{inner.name} holds its own normalisation: --mean and --std are for networks given by reference or in memory, "
                "and for timm's"
            )
        self.inner, self.normalisation, self.averaged = inner, normalisation, averaged
        self.name, self.card, self.dataset, self.norm = inner.name, inner.card, inner.dataset, inner.norm

    def input_shape(self, dataset: str) -> Shape:
        return self.inner.input_shape(dataset)

    def build(self, shape: Shape) -> EarlyExitNet:
        return self.inner.build(shape).preceded_by(self._for(shape).layer(shape[0])).eval()

    def load(self, dataset: str, shape: Shape, training: str | None, weights: Path | None) -> Loaded:
        normalisation = self._for(shape)
        layer = normalisation.layer(shape[0])
        loaded = self.inner.load(dataset, shape, training, weights)
        model = loaded.model.preceded_by(layer).eval().requires_grad_(False)
        unused = None if loaded.unused is None else loaded.unused.preceded_by(copy.deepcopy(layer)).eval().requires_grad_(False)
        return replace(
            loaded,
            model=model,
            weights=digest({"network": loaded.weights, "mean": normalisation.mean, "std": normalisation.std}),
            source=f"{loaded.source}; {normalisation}",
            note="; ".join(filter(None, (f"images are normalised: {normalisation}", loaded.note))),
            fingerprint=fingerprint(model, shape),
            unused=unused,
        )

    def _for(self, shape: Shape) -> Normalisation:
        return self.normalisation.over(shape[0]) if self.averaged else self.normalisation


def normalised(network: Network, mean: Sequence[float] | None, std: Sequence[float] | None) -> Network:
    """Return a network with images normalised by one mean and standard deviation per channel; itself without them.

    They take the place of a normalisation that timm says.

    Raises:
        InvalidValue: If only one is given, they are no normalisation, or the network holds its own.
    """
    found = Normalisation.given(mean, std)
    if found is None:
        return network
    return NormalisedNetwork(network.inner if isinstance(network, NormalisedNetwork) else network, found)
