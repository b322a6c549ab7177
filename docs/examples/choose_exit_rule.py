"""Choose an exit rule on held-out training images, by what the adaptive attack leaves at one mean cost.

python docs/examples/choose_exit_rule.py msdnet max_average_fast 30.8

``bf16`` behind the cost is quicker where the processor has it.
"""

import sys
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.data.cards import dataset_card
from exitbench.data.load import load_split
from exitbench.models.calibration import target_cost
from exitbench.models.cost import measure_costs
from exitbench.models.errors import InvalidValue
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import deployed_logits
from exitbench.models.registry import model_card
from exitbench.models.search_model import Precision, SearchConfig, build_search_model
from exitbench.models.user_folders import data_folder
from exitbench.models.weights import find_weights, load_weights
from exitbench.target.calibrate import all_logits

RULES = ("entropy", "confidence", "margin", "patience", "vote", "ensemble")
ATTACKED = 128
TOLERANCE = 1.05
BUDGET = 130
"""Gradients per image: enough to rank rules, not to evaluate one."""


def chosen(
    model: str,
    training: str,
    mmacs: float,
    *,
    dataset: str = "",
    rules: Sequence[str] = RULES,
    attacked: int = ATTACKED,
    budget: int = BUDGET,
    precision: Precision = "fp32",
) -> pd.DataFrame:
    """Return a row for each rule, the best first: some held-out images are attacked, the others set its thresholds.

    The best is the most robust of those that cost at most ``TOLERANCE`` times ``mmacs``, and of equals the most
    accurate on clean images.

    Args:
        model, training: Names of the network and its weights.
        mmacs: Mean cost, in millions of multiply-accumulates, that each rule is set to.
        dataset: Name of the dataset; by default that of the network's paper.
        rules: Names of the rules to choose from.
        attacked: Number of images to attack, the first.
        budget: Largest number of gradients per image.
        precision: Precision of the search, ``fp32`` or ``bf16``; verdicts are those of the network itself.
    """
    card = model_card(model)
    weights, path = find_weights(model, dataset or card.dataset, training)
    net = card.build()
    load_weights(net, path, weights.sha256)
    net.eval().requires_grad_(False)
    held_out = load_split(weights.dataset, "calibration", card.input_shape, data_folder())
    logits, costs = all_logits(net, held_out), measure_costs(net, card.input_shape).mmacs
    batch = held_out.batch(0, attacked)
    x, y = batch.x, batch.y
    ball = ThreatModel("Linf", dataset_card(weights.dataset).eps["Linf"])
    rows = []
    for rule in rules:
        try:
            policy = target_cost(logits[:, attacked:], costs, mmacs, rule)
        except InvalidValue as error:  # the network cannot be deployed under this rule, or not at this cost
            print(f"{rule}: {error}")
            continue
        clean, exits = deployed_logits(logits[:, :attacked], policy)
        found = [
            still_right(net, Adaptive(ball, policy, budget), x[part], y[part], Noise(0, tuple(part.tolist())), precision)
            for part in torch.arange(attacked).split(32)
        ]
        shares = {"clean": share(clean.argmax(-1) == y), "mmacs": sum(costs[k] for k in exits) / attacked}
        rows.append({"rule": rule, **shares, "adaptive": share(torch.cat(found))})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table["dear"] = table["mmacs"] > TOLERANCE * mmacs
    return table.sort_values(["dear", "adaptive", "clean"], ascending=[True, False, False])


def still_right(net: MultiExitNet, attack: Adaptive, x: Tensor, y: Tensor, noise: Noise, precision: Precision) -> Tensor:
    """Return which images ``(B,)`` the deployed network still gets right: attacked on a faster one first, then on itself."""
    for searched in (build_search_model(net, SearchConfig(precision=precision)), net):
        x_adv = attack(searched, x, y, noise=noise)
        wrong, claimed = (deployed_logits(each(x_adv), attack.policy)[0].argmax(-1) != y for each in (net, searched))
        if not (claimed & ~wrong).any():
            break
    return ~wrong


def share(which: Tensor) -> float:
    return float(which.float().mean())


if __name__ == "__main__":
    name, training, cost, *precision = sys.argv[1:]
    print(chosen(name, training, float(cost), **dict(zip(["precision"], precision, strict=False))).to_string(index=False))
