"""``bench export``: counterexamples in one file that anybody can verify."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import data_option, results_option


@click.command("export")
@click.option("--counterexamples", is_flag=True, required=True, help="Export the counterexamples.")
@click.option("--model", help="Only this model's [all].")
@click.option("--run", "what", help="Only one run's: its record's file or id [all runs in the results folder].")
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The file to write, .npz.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@data_option
@results_option
def command(counterexamples: bool, model: str | None, what: str | None, output: Path, force: bool, **folders: Path) -> None:
    """Write every counterexample with its clean image and all that is claimed of it to one file.

    Whoever has exitbench and the weights checks it with `bench verify FILE`.
    """
    from bench.errors import UserError
    from bench.proof.export_file import to_bytes
    from bench.proof.sources import claims_in_results
    from models.factory import reported_name
    from models.whole_file import write_whole

    if output.exists() and not force:
        raise UserError(f"{output} exists; choose another name, or --force to write over it")
    results, data = folders["results"], folders["data"]
    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    name = reported_name(model) if model else None
    evaluations = list(claims_in_results(what or str(results), results, data, name))
    if not evaluations:
        raise UserError(f"{results} holds no finished clean pass; finish an evaluation first")
    if flaws := [flaw for claims in evaluations for flaw in claims.flaws]:
        raise UserError(f"the store contradicts itself ({flaws[0]}); see `bench verify {what or results}`")
    content = to_bytes(evaluations)
    try:
        write_whole(output, content)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from error
    images = sum(len(claims.row) for claims in evaluations)
    click.echo(
        f"wrote {output}: {images} counterexamples of {len(evaluations)} evaluations, {len(content) / 1e6:.1f} MB\n"
        f"check it with: python -m bench verify {output}"
    )
