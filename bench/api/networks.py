"""Loads a network with its weights: ``exitbench.load_network``."""

from __future__ import annotations

from pathlib import Path

from exitbench.errors import as_user_errors
from exitbench.models.early_exit import EarlyExitNet
from exitbench.target.networks import named_network


def load_network(
    model: str, *, dataset: str | None = None, training: str | None = None, weights: str | Path | None = None
) -> EarlyExitNet:
    """Load the network that ``exitbench run`` evaluates under the same names.

    Args:
        model: A registered name, a published network such as ``robustbench:Wong2020Fast``, or a factory of your own as
            ``file.py:make``, whose code is executed.
        dataset: Dataset that the weights are for; the network's own by default.
        training: Which registered weights, such as ``max_average_fast``; the first known by default.
        weights: File of tensors, in place of registered weights.

    Returns:
        The network in evaluation mode, with frozen parameters, on the CPU. It maps images ``(B, C, H, W)`` in [0, 1] to the
        logits of its exits, ``(exits, B, classes)``.

    Raises:
        UserError: If there is no such network, or no such weights of it.
    """
    with as_user_errors():
        network = named_network(model)
        chosen = dataset or network.dataset or "cifar10"
        shape = network.input_shape(chosen)
        return network.load(chosen, shape, training, None if weights is None else Path(weights)).model
