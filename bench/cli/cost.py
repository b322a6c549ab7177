"""``bench cost``: what each exit costs, with ptflops as the second opinion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import data_option, with_normalisation

if TYPE_CHECKING:
    from exitbench.target.networks import Network


@click.command("cost", short_help="Measure the cost of each exit")
@click.argument("model")
@click.option("--dataset", help="Dataset whose images your own network takes, as in `run`.")
@click.option(
    "--weights",
    type=NamedPath(dir_okay=False),
    help="With --policy: a safetensors file or PyTorch state dict. [default: the registered weights]",
)
@click.option("--policy", help="Also show the mean cost under this exit rule, on held-out training images; as in `run`.")
@with_normalisation
@data_option
def command(
    model: str,
    dataset: str | None,
    weights: Path | None,
    policy: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    data: Path,
) -> None:
    """Measure the cost of each exit of MODEL, and compare the total with ptflops.

    MODEL is a name of `list models`, robustbench:NAME, timm:NAME, or the function that makes your own network:
    path/to/file.py:factory, package.module:factory, with arguments 'file.py:factory(n=3)'.
    """
    from rich.table import Table

    from exitbench.cli.console import terminal
    from exitbench.data.references import dataset_given
    from exitbench.errors import UserError, as_user_errors
    from exitbench.models.cost import measure_costs
    from exitbench.target.networks import named_network
    from exitbench.target.normalised import normalised
    from exitbench.timing.ptflops_check import ptflops_mmacs

    if weights is not None and policy is None:
        raise UserError("--weights go with --policy: what an exit costs does not depend on them")
    with as_user_errors():
        network = normalised(named_network(model), mean, std)
        images = dataset_given(dataset) if dataset is not None else _own_dataset(network)
        net = network.build(network.input_shape(images))
        costs = measure_costs(net, network.input_shape(images))
        under = _under(network, images, weights, policy, data) if policy is not None else None
    places = ".2f" if costs.mmacs[0] >= 1 else ".3g"
    table = Table(box=None, pad_edge=False)
    columns = [costs.mmacs] if costs.mflops_paper is None else [costs.mmacs, costs.mflops_paper]
    for heading in ("exit", "mmacs", "mflops_paper")[: len(columns) + 1]:
        table.add_column(heading, justify="right")
    for k, figures in enumerate(zip(*columns, strict=True), start=1):
        table.add_row(str(k), *(f"{figure:{places}}" for figure in figures))
    console = terminal()
    console.print(table)
    if costs.notes:
        console.print(costs.notes, markup=False, highlight=False)
    try:
        second = f"{ptflops_mmacs(net, network.input_shape(images)):{places}} by ptflops"
    except UserError as error:  # the figures stand without a second opinion
        second = str(error)
    console.print(f"all exits: {costs.mmacs[-1]:{places}} mmacs counted, {second}")
    if under:
        console.print(under, markup=False, highlight=False, soft_wrap=True)


def _own_dataset(network: Network) -> str:
    from exitbench.data.cards import dataset_names
    from exitbench.data.references import FORMS
    from exitbench.errors import UserError

    if network.dataset is None:
        raise UserError(f"say whose images {network.name} takes: --dataset ({', '.join([*dataset_names(), *FORMS])})")
    return network.dataset


def _under(network: Network, dataset: str, weights: Path | None, policy: str, data: Path) -> str:
    """Return the mean cost of the network under ``policy``, in one line."""
    from exitbench.data.load import load_split
    from exitbench.models.cost import measure_costs
    from exitbench.models.policy_text import policy_text
    from exitbench.models.rules.fit import check_decisions
    from exitbench.runner.exit_rule import deployed_policy
    from exitbench.target.calibrate import all_logits

    shape = network.input_shape(dataset)
    loaded = network.load(dataset, shape, None, weights)
    rule = deployed_policy(policy, loaded, dataset, shape, data)
    split = load_split(dataset, "calibration", shape, data)
    logits = all_logits(loaded.model, split)
    check_decisions(rule, logits[:, :32])
    exits = rule(logits).tolist()
    costs = measure_costs(loaded.model, shape).mmacs
    counts = " ".join(str(exits.count(k)) for k in range(loaded.model.n_exits))
    mean = sum(costs[k] for k in exits) / len(exits)
    held_out = f"{len(split)} held-out training images of {dataset}"
    return f"{policy_text(rule)}: {mean:.3g} mmacs on {held_out}, leaving at each exit: {counts}"
