"""``bench check``: the regression gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from exitbench.api.names import separated
from exitbench.cli.evaluation import evaluation_options, unwritable
from exitbench.cli.interrupts import INTERRUPTED
from exitbench.cli.option_types import NamedPath, Real
from exitbench.cli.say import say

if TYPE_CHECKING:
    from exitbench.analysis.regression.snapshot import Snapshot
    from exitbench.scoring.evaluation import Evaluation

PASSED, FAILED = 0, 1


@click.command("check")
@evaluation_options
@click.option("--baseline", type=NamedPath(dir_okay=False), help="The baseline's file [the model's in baselines/].")
@click.option("--update", is_flag=True, help="Write the baseline instead of comparing with it, and say what changed.")
@click.option("--preset", type=click.Choice(["quick"]), help="quick: --attack average,adaptive --n 128 --budget 100.")
@click.option(
    "--level",
    type=Real(0.001, 0.2),
    default=0.05,
    show_default=True,
    help="Chance of any false alarm, over all rows together.",
)
@click.option(
    "--tolerance",
    type=Real(min=0),
    default=0.05,
    show_default=True,
    help="Share by which mean mmacs may rise, clean and under attack.",
)
@click.option("--markdown", type=NamedPath(dir_okay=False), help="Write the judgement as Markdown.")
@click.option("--junit", type=NamedPath(dir_okay=False), help="Write the judgement as JUnit XML.")
@click.pass_context
def command(
    context: click.Context,
    /,
    baseline: Path | None,
    update: bool,
    preset: str | None,
    level: float,
    tolerance: float,
    markdown: Path | None,
    junit: Path | None,
    results: Path,
    **options: Any,
) -> None:
    """Compare a model with its committed baseline, sample by sample.

    The baseline has the settings of the evaluation: data, threat model, attacks and policy; --policy own uses the policy of the
    new weights. Other options must agree with it. Create the first baseline with --update --preset quick, or with attacks of your
    choice. Exit codes: 0 passed; 1 a regression, or results that trust checks flag as failed; 2 no comparison.
    """
    from exitbench.analysis.regression.identity import differences
    from exitbench.analysis.regression.request import OWN, PRESETS, baseline_for, merged, settings_of
    from exitbench.analysis.regression.snapshot import measured, planned
    from exitbench.api.execution import execute_plan, plan_evaluation
    from exitbench.cli.console import terminal
    from exitbench.cli.display import TerminalDisplay
    from exitbench.cli.outputs import refuse_clashes
    from exitbench.errors import UserError
    from exitbench.runner.prepare import Request
    from exitbench.runner.record import record_of
    from exitbench.scoring.load import evaluation_of
    from exitbench.store.store import Store

    if options["attacks"]:
        options["attacks"] = [name for text in options["attacks"] for name in separated(text)]
    given = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    asked = {**PRESETS.get(preset or "", {}), **{name: options[name] for name in given}}
    path, before = baseline_for(asked, baseline, needed=not update)
    outputs = {"--markdown": markdown, "--junit": junit}
    refuse_clashes(outputs, {"the baseline": path, "--baseline": baseline, "--weights": options["weights"]})
    values = merged(options, asked, before)
    names, seed = values.pop("attacks"), values.pop("seed")
    display, store = TerminalDisplay(terminal(stderr=True)), Store(results / "store")
    prepared, plan = plan_evaluation(Request.of(values), names, seed, store, display)
    settings = settings_of(values, names, prepared)
    own = asked.get("policy") == OWN and not update
    found: list[str] = []
    if before is not None:
        found = differences(before, planned(record_of(prepared, plan, seed), settings), own_policy=own)
    if found and not update:
        raise UserError(
            f"this is not what {path} measured, and not compared with it: {'; '.join(found)}. Leave out what differs, name "
            "another baseline with --baseline, or write this one again with --update"
        )
    try:
        execution = execute_plan(prepared, plan, seed, store, display)
    except OSError as error:
        raise UserError(unwritable(results, error)) from error
    if execution.interrupted:
        raise SystemExit(INTERRUPTED)
    evaluation = evaluation_of([execution.record], store)
    if evaluation is None:
        raise UserError("the clean pass did not finish (see the errors above): there is nothing to judge")
    now = measured(evaluation, settings)
    if before is None or update:
        raise SystemExit(_update(path, before, now, evaluation, found))
    raise SystemExit(_judge(path, before, now, evaluation, level, tolerance, markdown, junit))


def _update(path: Path | None, before: Snapshot | None, now: Snapshot, evaluation: Evaluation, found: Sequence[str]) -> int:
    """Write the baseline and print the changes; a baseline with failed trust checks is not written."""
    from exitbench.analysis.regression.baseline import default_path, to_text
    from exitbench.analysis.regression.changes import changes
    from exitbench.analysis.regression.request import BASELINES
    from exitbench.analysis.regression.snapshot import failures_of, unfinished_of
    from exitbench.cli.outputs import reason, write_output
    from exitbench.errors import UserError

    if troubles := [*unfinished_of(evaluation), *failures_of(evaluation)]:
        say("no baseline written, for it would never be passed:", *troubles, err=True)
        return FAILED
    path = path or default_path(BASELINES, now.subject)
    say(*changes(before, now, found))
    try:
        write_output(path, to_text(now).encode())
    except OSError as error:
        raise UserError(f"the baseline {path} cannot be written: {reason(error)}") from error
    say(f"wrote {path}: commit it")
    return PASSED


def _judge(
    path: Path | None,
    before: Snapshot,
    now: Snapshot,
    evaluation: Evaluation,
    level: float,
    tolerance: float,
    markdown: Path | None,
    junit: Path | None,
) -> int:
    """Compare, write all requested outputs, and return the exit code."""
    from exitbench.analysis.regression.judge import judge
    from exitbench.analysis.regression.snapshot import failures_of, unfinished_of
    from exitbench.cli.console import terminal
    from exitbench.cli.judgement_files import write_judgement
    from exitbench.report.regression.junit import to_junit
    from exitbench.report.regression.markdown import to_markdown
    from exitbench.report.regression.terminal import summary
    from exitbench.report.regression.text import GateReport

    judgement = judge(
        before, now, failures=failures_of(evaluation), unfinished=unfinished_of(evaluation), level=level, tolerance=tolerance
    )
    report = GateReport(judgement, before, now, str(path))
    terminal().print(summary(report))
    written = write_judgement({markdown: to_markdown(report).encode(), junit: to_junit(report)}, to_markdown(report))
    return PASSED if written and judgement.outcome != "fail" else FAILED
