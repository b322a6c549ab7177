"""The target: a network with its weights, its exit policy and its measured costs, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from exitbench.attacks.deployment import Deployment
from exitbench.errors import UserError
from exitbench.models.cost import ExitCosts
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.fingerprint import Fingerprint
from exitbench.models.graphed import graphed
from exitbench.models.on_grid import on_grid
from exitbench.models.outputs import are_probabilities
from exitbench.models.policies import Policy
from exitbench.models.search_model import FOLDED, PLAIN, SearchConfig, build_search_model, search_configs


@dataclass(frozen=True)
class Target:
    """The target of an evaluation.

    Attributes:
        name: Name in reports: the registered name, or that of file and factory.
        model: The network in evaluation mode, on its device, with frozen parameters.
        training: Short name of the weights.
        weights: Digest of the weights; for a network of the user's own, of code and tensors.
        source: Where the weights come from.
        policy: The deployed exit rule.
        costs: Cost of each exit.
        search_config: Configuration of the search model; a network without one in this configuration is searched on itself.
        n_classes: number of classes; None where it was not looked at.
        fingerprint: what it computes on fixed noise; None for a registered network, whose weights determine it.
        unused: A copy of ``model`` from before the first image, on the CPU; None if there is none.
        grid: Steps of pixel values of the threat model's images, which networks for searches and checks round to; None for any.
    """

    name: str
    model: EarlyExitNet
    training: str
    weights: str
    source: str
    policy: Policy
    costs: ExitCosts
    search_config: SearchConfig = FOLDED
    n_classes: int | None = None
    fingerprint: Fingerprint | None = None
    unused: EarlyExitNet | None = None
    grid: int | None = None

    @property
    def deployment(self) -> Deployment:
        """What the makers of attacks are told of it."""
        return Deployment(self.model.n_exits, self.policy, tuple(self.costs.mmacs), self.n_classes)

    def on_grid(self, grid: int | None) -> Target:
        """Return this target for a threat model with this grid: itself, if it is for that."""
        return self if self.grid == grid else replace(self, grid=grid)

    @cached_property
    def search_model(self) -> EarlyExitNet:
        """The network that attacks search on: the same function, faster. Verdicts are always those of ``model``."""
        return build_search_model(self.model, self.used_config)

    @cached_property
    def searched(self) -> EarlyExitNet:
        """The search model as attacks get it: behind the grid's rounding; on a GPU, its passes are recorded and replayed."""
        return self.searched_again if self.search_model is self.model else graphed(on_grid(self.search_model, self.grid))

    @cached_property
    def searched_again(self) -> EarlyExitNet:
        """The plain model as attacks get it, likewise, where those on the search model do not hold. It decides nothing."""
        return graphed(self.checked)

    @cached_property
    def checked(self) -> EarlyExitNet:
        """The plain model as the trust checks get it: behind the grid's rounding, if there is a grid."""
        return on_grid(self.model, self.grid)

    @property
    def used_config(self) -> SearchConfig:
        """The configuration that the search model is built with."""
        return self.search_config if self.search_config in search_configs(self.model) else PLAIN


@torch.no_grad()
def check_model(model: EarlyExitNet, x: Tensor, y: Tensor, n_classes: int | None = None, dataset: str = "the dataset") -> Tensor:
    """Run a batch, refuse a model whose outputs are not logits of the right shape, and return them, ``(K, B, classes)``.

    Args:
        n_classes: of the dataset, where it is known.
        dataset: what messages call it.

    Raises:
        UserError: it raises, wrong shape, NaN or infinite values, probabilities, other classes than the dataset's.
    """
    try:
        logits = model(x)
    except Exception as error:
        raise UserError(f"the model fails on images of {dataset} ({first_line(error)})") from error
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != (model.n_exits, len(x)):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"the model returns {shape}; expected logits of shape ({model.n_exits} exits, {len(x)}, classes)")
    if not torch.isfinite(logits).all():
        raise UserError("the model returns NaN or infinite values on clean images; its weights may be damaged")
    if n_classes is not None and logits.shape[-1] != n_classes:
        raise UserError(f"the model has {logits.shape[-1]} classes, {dataset} has {n_classes}")
    if int(y.max()) >= logits.shape[-1]:
        raise UserError(f"the model has {logits.shape[-1]} classes, {dataset} has labels up to {int(y.max())}")
    probabilities = are_probabilities(logits)
    if probabilities.any():
        exits = ", ".join(str(k + 1) for k in probabilities.nonzero().flatten().tolist())
        raise UserError(f"the model returns probabilities at exit {exits}; it must return logits (remove its softmax)")
    return logits
