"""What identifies an evaluation: which network, which samples, which threat model, and which deployed rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from exitbench.models.field_types import Count, Grid, Key, Line, Name, Radius, Rule, SafeName
from exitbench.models.number_text import eps_text
from exitbench.models.stored import Stored
from exitbench.store.csv_text import digest_text

Norm = Literal["Linf", "L2"]


class Network(NamedTuple):
    """Which network: its name, which weights of it, and their digest."""

    model: str
    training: str
    weights: str


class Samples(NamedTuple):
    """Which samples: the dataset, the digest of the images and labels, and how many."""

    dataset: str
    data: str
    n: int


class Threat(NamedTuple):
    """The threat model: norm and radius of the ball, for pixels in [0, 1], and the steps of the images' grid, if there is one."""

    norm: Norm
    eps: float
    grid: int | None = None

    @property
    def text(self) -> str:
        """The threat model as people read it: ``Linf 8/255``, or ``Linf 8/255, grid 255``."""
        return f"{self.norm} {eps_text(self.eps)}{'' if self.grid is None else f', grid {self.grid}'}"


class Deployed(NamedTuple):
    """A network with its exit rule, on the images of a dataset."""

    model: str
    weights: str
    dataset: str
    policy: str


class Setting(NamedTuple):
    """All that identifies an evaluation but its exit rule: evaluations that share it share their images."""

    network: Network
    samples: Samples
    threat: Threat


class Identity(Stored, frozen=True, kw_only=True):
    """What identifies an evaluation, as it is stored.

    Attributes:
        model: name of the network, as reported.
        training: which weights of it.
        weights: their digest.
        dataset: its name; always the test split.
        data: digest of the images and labels.
        n: number of samples, the first of the split.
        norm, eps: the threat model.
        grid: steps of the pixel values of the images that count; None for any values.
        policy: the deployed exit rule, as text.
        calibration: digest of the data and procedure that set its thresholds; None where they were given by hand.
    """

    model: Name
    training: Name
    weights: Key
    dataset: SafeName
    data: Key
    n: Count
    norm: Norm
    eps: Radius
    grid: Grid | None = None
    policy: Rule
    calibration: Line | None

    @property
    def network(self) -> Network:
        """Which network."""
        return Network(self.model, self.training, self.weights)

    @property
    def samples(self) -> Samples:
        """Which samples."""
        return Samples(self.dataset, self.data, self.n)

    @property
    def threat(self) -> Threat:
        """The threat model."""
        return Threat(self.norm, self.eps, self.grid)

    @property
    def deployed(self) -> Deployed:
        """The network under its rule."""
        return Deployed(self.model, self.weights, self.dataset, self.policy)

    @property
    def setting(self) -> Setting:
        """Everything but the rule."""
        return Setting(self.network, self.samples, self.threat)

    def columns(self) -> dict[str, str]:
        """The columns of tables on file that identify an evaluation, as they are written there; ``grid`` where there is one."""
        return {
            "model": self.model,
            "training": self.training,
            "weights": digest_text(self.weights),
            "policy": self.policy,
            "calibration": digest_text(self.calibration, len(self.calibration or "")),
            "dataset": self.dataset,
            "data": digest_text(self.data),
            "norm": self.norm,
            "eps": eps_text(self.eps),
            **({} if self.grid is None else {"grid": str(self.grid)}),
            "n": str(self.n),
        }
