"""Choose the thresholds of an exit rule on held-out training images, by what interval bounds certify within two costs.

python docs/examples/choose_certified_rule.py rdi_smallcnn certified_rule_fast 7.46 8.96

The costs are the mean of the clean images and the mean that no attack can exceed, in millions of multiply-accumulates without
those by zero weights. A file behind them gets the table as CSV.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from exitbench.bounds.certify import ball
from exitbench.bounds.gates import ExitBounds
from exitbench.bounds.network import interval_bounds, margin_bounds
from exitbench.bounds.rules import certain
from exitbench.bounds.trace import traced
from exitbench.data.cards import dataset_card
from exitbench.data.load import load_split
from exitbench.models.cost import ExitCosts, measure_costs
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import deployed_logits
from exitbench.models.policy_text import kind_of, parse_policy
from exitbench.models.registry import model_card
from exitbench.models.user_folders import data_folder
from exitbench.models.weights import find_weights, load_weights

LEVELS = {
    "margin": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98),
    "confidence": (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98),
    "entropy": (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
}
TEMPERATURES = (0.5, 1.0)


def chosen(
    model: str,
    training: str,
    mmacs: float,
    certified_mmacs: float,
    *,
    dataset: str = "",
    n: int = 2000,
    levels: Mapping[str, Sequence[float]] = LEVELS,
) -> pd.DataFrame:
    """Return a row for each exit alone, and for the best thresholds of each rule within both costs; the last is free of them.

    The best certifies most images, and of equals costs least.

    Args:
        model, training: Names of the network and its weights.
        mmacs: Largest mean cost of clean images, in millions of multiply-accumulates.
        certified_mmacs: Largest mean cost that any attack may cause.
        dataset: Name of the dataset; by default that of the network's paper.
        n: Number of held-out images, the first.
        levels: Thresholds to try at each exit, by the name of the rule.
    """
    card = model_card(model)
    weights, path = find_weights(model, dataset or card.dataset, training)
    net = card.build()
    load_weights(net, path, weights.sha256)
    net.eval().requires_grad_(False)
    batch = load_split(weights.dataset, "calibration", card.input_shape, data_folder()).batch(0, n)
    logits, bounds = bounded(net, batch.x, batch.y, dataset_card(weights.dataset).eps["Linf"], card.input_shape)
    costs = measure_costs(net, card.input_shape)
    single = [f"exit:{k + 1}" for k in range(net.n_exits)]
    table = pd.DataFrame([figures(rule, logits, batch.y, bounds, costs) for rule in (*single, *rules(net.n_exits, levels))])
    alone = table.iloc[: len(single)]
    tried = table.iloc[len(single) :].sort_values(["certified", "mmacs"], ascending=[False, True])
    within = tried[(tried["mmacs"] <= mmacs) & (tried["certified_mmacs"] <= certified_mmacs)]
    best = within.groupby(within["rule"].map(kind_of), sort=False).head(1)
    return pd.concat([alone, best, tried.head(1)])


def bounded(
    net: MultiExitNet, x: Tensor, y: Tensor, eps: float, input_shape: tuple[int, int, int]
) -> tuple[Tensor, list[ExitBounds]]:
    """Return the logits ``(K, N, classes)`` of images ``(N, C, H, W)``, and the interval bounds of each exit in their balls."""
    network = traced(net, input_shape)
    parts: list[list[ExitBounds]] = []
    found = []
    with torch.no_grad():
        for some, labels in zip(x.split(100), y.split(100), strict=True):
            found.append(net(some))
            features = interval_bounds(network, ball(some, eps))
            parts.append([])
            for k, named in enumerate(found[-1].argmax(-1)):
                label, lead = (margin_bounds(features, k, classes, through=False) for classes in (labels, named))
                magnitude = features.of(network.exits[k]).magnitude.amax(1)
                parts[-1].append(ExitBounds(labels, label, named, lead, magnitude))
    names = list(vars(parts[0][0]))
    together = [
        {name: torch.cat([getattr(part, name) for part in exits]) for name in names} for exits in zip(*parts, strict=True)
    ]
    return torch.cat(found, dim=1), [ExitBounds(**values) for values in together]


def rules(n_exits: int, levels: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Yield the texts of all rules to try, with temperatures and without."""
    for (kind, each), temperature in product(levels.items(), TEMPERATURES):
        behind = "" if temperature == 1 else f":temperature={','.join([str(temperature)] * n_exits)}"
        for thresholds in product(each, repeat=n_exits - 1):
            yield f"{kind}:{','.join(map(str, thresholds))}{behind}"


def figures(rule: str, logits: Tensor, y: Tensor, bounds: Sequence[ExitBounds], costs: ExitCosts) -> dict[str, str | float]:
    """Return accuracy, certified accuracy and the mean costs of a rule, also with multiplications by zero weights."""
    policy = parse_policy(rule, len(logits))
    clean, exits = deployed_logits(logits, policy)
    sure = certain(policy, bounds)
    right = clean.argmax(-1) == y
    shares = {"clean": float(right.double().mean()), "certified": float((sure.right & right).double().mean())}
    found = {}
    for name, each in (("mmacs", costs.mmacs), ("mmacs_dense", costs.mmacs_dense)):
        cost = torch.tensor(each, dtype=torch.float64)
        found |= {name: float(cost[exits].mean()), f"certified_{name}": float(cost[sure.last].mean())}
    return {"rule": rule, **shares, **found}


if __name__ == "__main__":
    name, training, clean_cost, certified_cost, *written = sys.argv[1:]
    found = chosen(name, training, float(clean_cost), float(certified_cost))
    print(found.to_string(index=False))
    for path in written:
        found.to_csv(path, index=False, float_format="%.6f")
