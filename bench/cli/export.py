"""``bench export``: what is in a results folder as one file, to verify, to hand on, or to print."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import data_option, results_option
from exitbench.cli.say import say

if TYPE_CHECKING:
    from exitbench.scoring.evaluation import Evaluation
    from exitbench.store.run_record import RunRecord

COUNTEREXAMPLES, FIGURES, ROBUSTBENCH = "counterexamples", "figures", "robustbench"
LATEX, MARKDOWN, BIBTEX, CSV = "latex", "markdown", "bibtex", "csv"
TABLES = (LATEX, MARKDOWN, BIBTEX, CSV)
_GOES_WITH = {
    "training": (FIGURES, ROBUSTBENCH, *TABLES),
    "fields": (ROBUSTBENCH,),
    "board": TABLES,
    "columns": (LATEX, MARKDOWN),
    "labels": (LATEX, MARKDOWN),
    "caption": (LATEX, MARKDOWN),
    "markup": (LATEX, MARKDOWN),
    "latex_label": (LATEX,),
}
"""Options that only some formats take."""


@click.command("export", short_help="Write tables, counterexamples or figures to a file")
@click.option(
    "--format",
    "form",
    type=click.Choice([COUNTEREXAMPLES, FIGURES, ROBUSTBENCH, *TABLES]),
    help="What to write, as listed above.",
)
@click.option("--counterexamples", is_flag=True, help="The same as --format counterexamples.")
@click.option("--model", "models", multiple=True, help="Only this network; with tables, may be repeated. [default: all]")
@click.option("--training", help="Only these weights; not with counterexamples.")
@click.option("--run", "what", help="Only one run, by its record's file or id. [default: all runs]")
@click.option(
    "--field",
    "fields",
    multiple=True,
    help='With robustbench: a field that is not measured, as --field venue="ICLR 2020"; may be repeated.',
)
@click.option("--board", help="With tables: only this leaderboard, as cifar10-Linf-8_255. [default: all]")
@click.option(
    "--columns", help="With latex and markdown: the columns, as network,cost,clean,adaptive,worst; attacks have theirs."
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    help="A network's name in the table, as MODEL=NAME or MODEL:TRAINING=NAME; may be repeated.",
)
@click.option("--caption", help="The text above the table. [default: what was measured]")
@click.option("--latex-label", help="The label for \\ref. [default: tab: and the leaderboard's name]")
@click.option("--markup", is_flag=True, help="--caption and --label are LaTeX or Markdown already, and not escaped.")
@click.option("--output", required=True, type=NamedPath(dir_okay=False), help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@data_option
@results_option
def command(form: str | None, counterexamples: bool, output: Path, force: bool, **options: Any) -> None:
    """Write stored results to one file: to share them, or for a paper.

    \b
    counterexamples  all of them with their clean images, and the claims about them:
                     `exitbench verify FILE` checks it (.npz)
    figures          all that reports and sweeps need, without images:
                     `exitbench merge FILE` reads it (.tar.xz)
    robustbench      one evaluation in the fields of RobustBench (.json)
    latex, markdown  each leaderboard as a table for a paper (.tex, .md)
    bibtex           what to cite with them (.bib)
    csv              the leaderboards with one number in a cell (.csv)
    """
    from exitbench.cli.outputs import reason, write_output
    from exitbench.errors import UserError
    from exitbench.models.factory import reported_name

    what = COUNTEREXAMPLES if counterexamples else form
    if what is None or (counterexamples and form not in (None, COUNTEREXAMPLES)):
        raise UserError(f"say what to export: --counterexamples, or --format {', '.join([FIGURES, ROBUSTBENCH, *TABLES])}")
    for name, formats in _GOES_WITH.items():
        if options[name] not in (None, False, ()) and what not in formats:
            option = {"fields": "field", "labels": "label"}.get(name, name.replace("_", "-"))
            raise UserError(f"--{option} goes with --format {' or '.join(formats)}")
    if what not in TABLES and len(options["models"]) > 1:
        raise UserError(f"--model is given once with --format {what}; tables take several")
    if output.exists() and not force:
        raise UserError(f"{output} exists; choose another name, or --force to write over it")
    results = options["results"]
    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    options["models"] = [reported_name(each) for each in options["models"]]
    options["model"] = options["models"][0] if options["models"] else None
    content, said = _makers()[what](output, **options)
    try:
        write_output(output, content)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {reason(error)}") from error
    say(*said)


def _makers() -> dict[str, Callable[..., tuple[bytes, list[str]]]]:
    from exitbench.cli import export_tables

    return {
        COUNTEREXAMPLES: _counterexamples,
        FIGURES: _figures,
        ROBUSTBENCH: _robustbench,
        LATEX: export_tables.latex,
        MARKDOWN: export_tables.markdown,
        BIBTEX: export_tables.bibtex,
        CSV: export_tables.csv,
    }


def _counterexamples(
    output: Path, model: str | None, what: str | None, results: Path, data: Path, **_options: Any
) -> tuple[bytes, list[str]]:
    """Return the file of counterexamples, and what to say."""
    from exitbench.errors import UserError
    from exitbench.verify.export_file import to_bytes
    from exitbench.verify.sources import claims_in_results

    evaluations = list(claims_in_results(what or str(results), results, data, model))
    if not evaluations:
        raise UserError(f"{results} holds no finished clean pass; finish an evaluation first")
    if flaws := [flaw for claims in evaluations for flaw in claims.flaws]:
        raise UserError(f"the store contradicts itself ({flaws[0]}); see `exitbench verify {what or results}`")
    content = to_bytes(evaluations)
    images = sum(len(claims.row) for claims in evaluations)
    return content, [
        f"wrote {output}: {images} counterexamples of {len(evaluations)} evaluations, {len(content) / 1e6:.1f} MB",
        f"check it with: python -m bench verify {output}",
    ]


def _figures(
    output: Path, model: str | None, training: str | None, what: str | None, results: Path, **_options: Any
) -> tuple[bytes, list[str]]:
    """Return the archive, and what to say."""
    from exitbench.errors import UserError
    from exitbench.store.archive import figures
    from exitbench.store.store import Store
    from exitbench.verify.results import find_results

    runs = find_results(what or str(results), results, model)
    records = [record for group in runs.records for record in group if training in (None, record.training)]
    if not records:
        raise UserError(f"{results} holds no run of {model or 'any model'} with training {training}")
    content = figures(Store(runs.store), records)
    return content, [
        f"wrote {output}: {len(records)} run{'s' * (len(records) > 1)}, {len(content) / 1e6:.1f} MB",
        f"make reports of it with: python -m bench merge {output} --results FOLDER",
    ]


def _robustbench(
    output: Path, model: str | None, training: str | None, what: str | None, fields: Sequence[str], results: Path, **_options: Any
) -> tuple[bytes, list[str]]:
    """Return one evaluation in RobustBench's fields, and what to say."""
    import json

    from exitbench.analysis.robustbench.entry_json import given_fields, robustbench_entry

    given = given_fields(fields)
    evaluation = _one_evaluation(model, training, what, results)
    entry = robustbench_entry(evaluation, given)
    lines = [f"wrote {output}: {evaluation.record.model} ({evaluation.record.training})"]
    if left := [name for name, value in entry.items() if value is None]:
        lines.append(f"null, because they were neither given nor measured: {', '.join(left)}")
    lines += _caveats(evaluation.record, entry)
    return f"{json.dumps(entry, indent=2)}\n".encode(), lines


def _caveats(record: RunRecord, entry: Mapping[str, Any]) -> list[str]:
    """Return the reasons why an entry does not qualify for RobustBench's leaderboards."""
    from exitbench.data.cards import dataset_card

    found = []
    if entry["autoattack_acc"] is None:
        found.append("RobustBench ranks by AutoAttack: run `--attack autoattack`, too")
    if record.dataset != "cifar10":
        found.append(f"RobustBench has no leaderboard of {record.dataset}")
    elif record.n < (n := dataset_card(record.dataset).n_test):
        found.append(f"RobustBench evaluates all {n:,} test images, this is of the first {record.n:,}")
    return found


def _one_evaluation(model: str | None, training: str | None, what: str | None, results: Path) -> Evaluation:
    """Return the only evaluation that matches.

    Raises:
        UserError: If there is none, or there are several.
    """
    from exitbench.analysis.compare.find import describe
    from exitbench.errors import UserError
    from exitbench.scoring.load import evaluation_of
    from exitbench.store.store import Store
    from exitbench.verify.results import find_results

    runs = find_results(what or str(results), results, model)
    found = [evaluation_of(records, Store(runs.store)) for records in runs.records if training in (None, records[0].training)]
    evaluations = [each for each in found if each is not None]
    if not evaluations:
        raise UserError(f"{results} holds no finished clean pass of what is asked for; finish an evaluation first")
    if len(evaluations) > 1:
        which = "; ".join(map(describe, evaluations))
        raise UserError(
            f"an entry is of one evaluation, these are {len(evaluations)}: {which}. Choose by --model, --training or --run"
        )
    return evaluations[0]
