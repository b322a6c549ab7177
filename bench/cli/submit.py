"""``bench submit``: an evaluation in one file that anybody verifies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import data_option, results_option
from exitbench.cli.say import say

if TYPE_CHECKING:
    from exitbench.api.submit import Packed


@click.command("submit", short_help="Pack an evaluation into one file for a board")
@click.option(
    "--model",
    help="The network; your own as path/to/file.py:factory, which is executed and packed. [default: the only one]",
)
@click.option("--training", help="Name of the weights. [default: the only ones]")
@click.option("--run", help="Only one run's attacks: its record's file or id. [default: all runs]")
@click.option(
    "--weights",
    type=NamedPath(dir_okay=False, exists=True),
    help="The file of weights that was evaluated. [default: registered weights, or the factory's own]",
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    help='What is not measured, as --field paper="Title"; may be repeated (docs/submissions.md).',
)
@click.option("--output", required=True, type=NamedPath(dir_okay=False), help="The file to write, .zip.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@data_option
@results_option
def command(
    model: str | None,
    training: str | None,
    run: str | None,
    weights: Path | None,
    fields: tuple[str, ...],
    output: Path,
    force: bool,
    data: Path,
    results: Path,
) -> None:
    """Pack an evaluation into one file: figures, counterexamples, weights, rule, and where they come from.

    `exitbench verify FILE` checks it on any machine with exitbench. It is also checked before it is written. An evaluation
    with failed trust checks or missing attacks is packed, and says so. docs/submissions.md tells how it gets on a board.
    """
    from exitbench.api.submit import given_fields, submit
    from exitbench.cli.outputs import reason, write_output
    from exitbench.errors import UserError

    if output.exists() and not force:
        raise UserError(f"{output} exists; choose another name, or --force to write over it")
    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    packed = submit(results, data, model=model, training=training, run=run, weights=weights, given=given_fields(fields))
    try:
        write_output(output, packed.content)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {reason(error)}") from error
    say(*_lines(output, packed))


def _lines(output: Path, packed: Packed) -> list[str]:
    """Return what is in the file, and what is to be known of it."""
    import hashlib

    from exitbench.analysis.compare.find import describe
    from exitbench.scoring.ranking import flags_text, worst_status

    evaluation = packed.evaluation
    worst, clean = int(evaluation.worst.sum()), int(evaluation.clean.correct.sum())
    status, flags = worst_status(evaluation), flags_text(evaluation)
    held = "its weights" if packed.holds_weights else "no weights: they are registered, or made by the code"
    lines = [
        f"wrote {output}: {describe(evaluation)}, {len(packed.content) / 1e6:.1f} MB",
        f"SHA-256 {hashlib.sha256(packed.content).hexdigest()}",
        f"right on {clean} clean images, worst case {worst} of {evaluation.n}; {packed.counterexamples} counterexamples, {held}",
    ]
    lines += [f"your code is in it: {', '.join(packed.code)}"] if packed.code else []
    lines += [f"not to be compared with others yet: {status}"] if status != "ok" else []
    lines += [f"trust checks: {flags}"] if flags != "none" else []
    named = " --model CODE:FACTORY, which is executed" if packed.code else ""
    return [*lines, f"verified here, trust checks apart; all of it is checked by: exitbench verify {output}{named}"]
