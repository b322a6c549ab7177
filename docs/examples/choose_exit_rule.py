"""Choose an exit rule on held-out training images, by what the adaptive attack leaves at one mean cost.

python docs/examples/choose_exit_rule.py msdnet max_average_fast 30
"""

import sys
from collections.abc import Sequence

import pandas as pd

import exitbench
from exitbench.data.cards import dataset_card
from exitbench.data.load import load_split
from exitbench.models.registry import model_card
from exitbench.models.user_folders import data_folder
from exitbench.models.weights import find_weights

RULES = ("entropy", "confidence", "margin", "patience", "vote", "ensemble")
ATTACKED = 128


def chosen(
    model: str,
    training: str,
    mmacs: float,
    *,
    dataset: str = "",
    rules: Sequence[str] = RULES,
    attacked: int = ATTACKED,
    **settings: object,
) -> pd.DataFrame:
    """Return a row for each rule: the first held-out images are attacked, the others set its thresholds.

    Args:
        model, training: Names of the network and its weights.
        mmacs: Mean cost, in millions of multiply-accumulates, that each rule is set to.
        dataset: Name of the dataset; by default that of the network's paper.
        rules: Names of the rules to choose from.
        attacked: Number of images to attack.
        settings: Further arguments of ``exitbench.evaluate``.
    """
    card = model_card(model)
    dataset = dataset or card.dataset
    _, weights = find_weights(model, dataset, training)
    held_out = load_split(dataset, "calibration", card.input_shape, data_folder())
    test, rest = (
        (held_out.images[part], held_out.labels[part]) for part in (slice(attacked), slice(attacked, len(held_out.labels)))
    )
    rows = []
    for rule in rules:
        try:
            found = exitbench.evaluate(
                model,
                weights=weights,
                dataset=test,
                calibration=rest,
                policy=f"{rule}@mmacs={mmacs:g}",
                eps=dataset_card(dataset).eps["Linf"],
                attacks="adaptive",
                progress=False,
                **settings,
            )
        except exitbench.UserError as error:  # this network cannot be deployed under this rule, or not at this cost
            print(f"{rule}: {error}")
            continue
        rows.append({"rule": rule, "clean": found.clean.value, "mmacs": found.mean_mmacs, "adaptive": found.worst_case.value})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows).sort_values("adaptive", ascending=False)


if __name__ == "__main__":
    print(chosen(sys.argv[1], sys.argv[2], float(sys.argv[3])).to_string(index=False))
