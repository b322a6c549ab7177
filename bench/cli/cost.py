"""``bench cost``: what each exit costs, with ptflops as the second opinion."""

from __future__ import annotations

import click


@click.command("cost")
@click.argument("model")
def command(model: str) -> None:
    """Measure the cost of each exit of MODEL and compare the total with ptflops."""
    from rich.console import Console
    from rich.table import Table

    from bench.errors import UserError
    from bench.ptflops_check import ptflops_mmacs
    from models.cost import measure_costs
    from models.registry import UnknownName, model_card

    try:
        card = model_card(model)
    except UnknownName as error:
        raise UserError(str(error)) from error
    net = card.build().eval()
    costs = measure_costs(net, card.input_shape)
    table = Table(box=None, pad_edge=False)
    for heading in ("exit", "mmacs", "mflops_paper"):
        table.add_column(heading, justify="right")
    for k, (mmacs, paper) in enumerate(zip(costs.mmacs, costs.mflops_paper, strict=True), start=1):
        table.add_row(str(k), f"{mmacs:.2f}", f"{paper:.2f}")
    console = Console()
    console.print(table)
    total = ptflops_mmacs(net, card.input_shape)
    console.print(f"all exits: {costs.mmacs[-1]:.2f} mmacs counted, {total:.2f} by ptflops")
