"""``bench certify``: what no attack can break."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exitbench.cli.option_types import Whole
from exitbench.cli.options import data_option, device_option, number, results_option, with_network

if TYPE_CHECKING:
    from exitbench.store.certificate import Certificate


@click.command("certify", short_help="Prove a lower bound of the robust accuracy")
@with_network
@click.option("--n", type=Whole(), help="Number of images, the first of the test split. [default: 64 on a CPU, 1000 on a GPU]")
@click.option(
    "--norm", type=click.Choice(["Linf", "L2"]), default="Linf", show_default=True, help="Norm of the ball; only Linf has bounds."
)
@click.option(
    "--eps", callback=number, help="Radius for pixels in [0, 1], as 0.3 or 8/255. [default: the dataset's usual radius]"
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="Kinds of bounds: ibp, crown_ibp, crown. Each is tried on what cheaper ones left open. [default: ibp,crown_ibp]",
)
@click.option(
    "--neurons",
    type=Whole(0),
    default=256,
    show_default=True,
    help="Largest layer, in values, that crown bounds by backward substitution.",
)
@device_option
@data_option
@results_option
def command(methods: tuple[str, ...], neurons: int, results: Path, **asked: Any) -> None:
    """Prove for how many images no attack can succeed, and the most that an attack can make them cost.

    Both hold for every attack, known or not, on the plain fp32 network under its deployed rule. The certificate is stored and
    shown on the leaderboard, beside the worst case of `run` with the same network, rule, data and threat model. It covers the
    whole ball, and so every grid in it: evaluations with --grid show it, too.
    """
    from exitbench.api.certify import DEFAULT_METHODS, certificate_of, method_names
    from exitbench.cli.console import terminal
    from exitbench.cli.progress_lines import working
    from exitbench.errors import UserError
    from exitbench.report.leaderboard.certificate import summary
    from exitbench.report.plain_text import line
    from exitbench.report.write import rewrite_reports
    from exitbench.runner.prepare import Request, prepare
    from exitbench.scoring.between import between_of
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
        evaluations, written = rewrite_reports(store, results)
    except OSError as error:
        raise UserError(f"{error.filename or results} cannot be written: {error.strerror}") from error
    console = terminal()
    console.print(summary(found))
    for each in evaluations:
        if each.certificate == found and (between := between_of(each)) is not None:
            console.print(line(str(between), "dim"))
    console.print(f"written: {', '.join(map(str, written))}", style="dim", markup=False, highlight=False, soft_wrap=True)
