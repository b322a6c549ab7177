"""``bench export``: counterexamples to verify, figures to make reports from, or an entry in RobustBench's fields."""

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


@click.command("export", short_help="Write counterexamples, figures or an entry to a file")
@click.option(
    "--format",
    "form",
    type=click.Choice([COUNTEREXAMPLES, FIGURES, ROBUSTBENCH]),
    help="What to write: the images that broke something, all numbers without images, or an entry for RobustBench.",
)
@click.option("--counterexamples", is_flag=True, help="The same as --format counterexamples.")
@click.option("--model", help="Only this network. [default: all]")
@click.option("--training", help="Only these weights, with figures and robustbench.")
@click.option("--run", "what", help="Only one run, by its record's file or id. [default: all runs]")
@click.option(
    "--field",
    "fields",
    multiple=True,
    help='With robustbench: a field that is not measured, as --field venue="ICLR 2020"; may be repeated.',
)
@click.option("--output", required=True, type=NamedPath(dir_okay=False), help="The file to write: .npz, .tar.xz or .json.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@data_option
@results_option
def command(form: str | None, counterexamples: bool, output: Path, force: bool, **options: Any) -> None:
    """Write stored results to one file, to share them.

    counterexamples: every image that broke something, with its clean image and what is claimed of it. `verify FILE` checks
    it on any machine that has the weights.

    figures: all numbers that reports and sweeps need, without images. `merge FILE` reads it.

    robustbench: one evaluation as JSON, in the fields of RobustBench's model_info files.
    """
    from exitbench.cli.outputs import reason, write_output
    from exitbench.errors import UserError
    from exitbench.models.factory import reported_name

    what = COUNTEREXAMPLES if counterexamples else form
    if what is None or (counterexamples and form not in (None, COUNTEREXAMPLES)):
        raise UserError("say what to export: --counterexamples, --format figures or --format robustbench")
    if what == COUNTEREXAMPLES and options["training"]:
        raise UserError("--training goes with --format figures or robustbench")
    if what != ROBUSTBENCH and options["fields"]:
        raise UserError("--field goes with --format robustbench")
    if output.exists() and not force:
        raise UserError(f"{output} exists; choose another name, or --force to write over it")
    results = options["results"]
    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    options["model"] = reported_name(options["model"]) if options["model"] else None
    makers: dict[str, Callable[..., tuple[bytes, list[str]]]]
    makers = {COUNTEREXAMPLES: _counterexamples, FIGURES: _figures, ROBUSTBENCH: _robustbench}
    content, said = makers[what](output, **options)
    try:
        write_output(output, content)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {reason(error)}") from error
    say(*said)


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
        raise UserError(f"the store contradicts itself ({flaws[0]}); see `bench verify {what or results}`")
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
