"""``bench certify``: what no attack can break."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exitbench.cli.option_types import NamedPath, Whole
from exitbench.cli.options import data_option, number, results_option, with_normalisation

if TYPE_CHECKING:
    from exitbench.store.certificate import Certificate


@click.command("certify")
@click.option(
    "--model",
    required=True,
    help="See `bench list models`; one of your own: path/to/file.py:factory, package.module:factory, 'file.py:factory(n=3)'.",
)
@click.option("--dataset", default="auto", show_default=True, help="As in `bench run`.")
@click.option("--training", help="Which of the model's weights.")
@click.option("--weights", type=NamedPath(dir_okay=False), help="A weight file instead of registered weights.")
@click.option("--policy", help="The deployed exit rule, as in `bench run` [the weights' own].")
@with_normalisation
@click.option("--n", type=Whole(), help="Samples, the first n of the test split [64 on a CPU, 1000 on a GPU].")
@click.option("--norm", type=click.Choice(["Linf", "L2"]), default="Linf", show_default=True, help="Only Linf has bounds.")
@click.option("--eps", callback=number, help="Radius, as 0.3 or 8/255 [the dataset's].")
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="Kinds of bounds, each tried on what cheaper ones left open: ibp, crown_ibp, crown [ibp,crown_ibp].",
)
@click.option("--neurons", type=Whole(0), default=256, show_default=True, help="Largest layer that crown bounds anew.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@data_option
@results_option
def command(methods: tuple[str, ...], neurons: int, results: Path, **asked: Any) -> None:
    """Prove for how many samples no image of the ball is classified wrongly, and the most that any image can be made to cost.

    Both hold for every attack, known or not: of the plain fp32 network under its deployed rule. The certificate goes into the
    store and onto the leaderboard, beside the worst case of `bench run` with the same network, rule, data and threat model.
    """
    from exitbench.api.certify import DEFAULT_METHODS, certificate_of, method_names
    from exitbench.cli.console import terminal
    from exitbench.cli.progress_lines import working
    from exitbench.errors import UserError
    from exitbench.report.leaderboard.certificate import summary
    from exitbench.report.write import rewrite_reports
    from exitbench.runner.prepare import Request, prepare
    from exitbench.store.store import Store

    names = method_names(methods or DEFAULT_METHODS)
    store = Store(results / "store")
    prepared = prepare(Request.of(asked))
    errors = terminal(stderr=True)
    if prepared.note:
        errors.print(prepared.note, style="yellow", markup=False, highlight=False)
    with working(errors, f"bounding {prepared.target.name}"):
        found: Certificate = certificate_of(prepared, names, neurons)
    try:
        store.write_certificate(found)
        _, written = rewrite_reports(store, results)
    except OSError as error:
        raise UserError(f"{error.filename or results} cannot be written: {error.strerror}") from error
    console = terminal()
    console.print(summary(found))
    console.print(f"written: {', '.join(map(str, written))}", style="dim", markup=False, highlight=False, soft_wrap=True)
