"""A network with a normalisation of its images in front, which was given beside it."""

from __future__ import annotations

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

    Raises:
        InvalidValue: If the network holds its own normalisation.
    """

    def __init__(self, inner: Network, normalisation: Normalisation) -> None:
        if not inner.takes_normalisation:
            raise InvalidValue(
                f"{inner.name} holds its own normalisation: --mean and --std are for networks given by reference or in memory, "
                "and for timm's"
            )
        self.inner, self.normalisation = inner, normalisation
        self.name, self.card, self.dataset, self.norm = inner.name, inner.card, inner.dataset, inner.norm

    def input_shape(self, dataset: str) -> Shape:
        return self.inner.input_shape(dataset)

    def build(self, shape: Shape) -> EarlyExitNet:
        return self.inner.build(shape).preceded_by(self.normalisation.layer(shape[0])).eval()

    def load(self, dataset: str, shape: Shape, training: str | None, weights: Path | None) -> Loaded:
        layer = self.normalisation.layer(shape[0])
        loaded = self.inner.load(dataset, shape, training, weights)
        model = loaded.model.preceded_by(layer).eval().requires_grad_(False)
        return replace(
            loaded,
            model=model,
            weights=digest({"network": loaded.weights, "mean": self.normalisation.mean, "std": self.normalisation.std}),
            source=f"{loaded.source}; {self.normalisation}",
            note="; ".join(filter(None, (f"images are normalised: {self.normalisation}", loaded.note))),
            fingerprint=fingerprint(model, shape),
        )


def normalised(network: Network, mean: Sequence[float] | None, std: Sequence[float] | None) -> Network:
    """Return a network with images normalised by one mean and standard deviation per channel; itself without them.

    Raises:
        InvalidValue: If only one is given, they are no normalisation, or the network holds its own.
    """
    found = Normalisation.given(mean, std)
    return network if found is None else NormalisedNetwork(network, found)
