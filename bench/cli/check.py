"""``bench check``: the regression gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from exitbench.api.names import separated
from exitbench.cli.evaluation import evaluation_options, unwritable
from exitbench.cli.gate_reports import ReportFiles
from exitbench.cli.interrupts import INTERRUPTED
from exitbench.cli.option_types import Finite, NamedPath
from exitbench.cli.say import say

if TYPE_CHECKING:
    from exitbench.analysis.regression.snapshot import Snapshot
    from exitbench.scoring.evaluation import Evaluation

PASSED, FAILED = 0, 1


@click.command("check", short_help="Fail if a network got worse than its baseline")
@evaluation_options
@click.option(
    "--baseline", type=NamedPath(dir_okay=False), help="The baseline's file. [default: that of the network in baselines/]"
)
@click.option("--update", is_flag=True, help="Write the baseline anew, and say what changed.")
@click.option("--preset", type=click.Choice(["quick"]), help="quick is --attack average,adaptive --n 128 --budget 100.")
@click.option(
    "--level",
    type=Finite(0.001, 0.2),
    default=0.05,
    show_default=True,
    help="Probability of any false alarm, over all rows together.",
)
@click.option(
    "--tolerance",
    type=Finite(min=0),
    default=0.05,
    show_default=True,
    help="Share by which the mean cost may rise, clean and under attack.",
)
@click.option("--markdown", type=NamedPath(dir_okay=False), help="Write the result as Markdown.")
@click.option("--junit", type=NamedPath(dir_okay=False), help="Write the result as JUnit XML.")
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
    """Compare a network with its committed baseline, image by image, and fail if it got worse.

    Make the first baseline with --update --preset quick, or with attacks of your choice. It holds the settings of the
    evaluation: data, threat model, attacks and exit rule. Later options must agree with it; --policy own uses the rule of
    the new weights. Everything is computed anew, stored results are not used. Exit codes: 0 passed; 1 it got worse, or a
    trust check failed; 2 nothing could be compared.
    """
    if options["attacks"]:
        options["attacks"] = [name for text in options["attacks"] for name in separated(text)]
    given = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    asked = {**_preset(preset), **{name: options[name] for name in given}}
    reports = ReportFiles(markdown, junit)
    reports.refuse_clashes({"--baseline": baseline, "--weights": options["weights"]})
    with reports.pending():
        found = _measured(asked, options, baseline, results, update=update)
        code = _update(found) if found.before is None or update else _judge(found, level, tolerance, reports)
    raise click.exceptions.Exit(code)


def _preset(name: str | None) -> Mapping[str, Any]:
    from exitbench.analysis.regression.request import PRESETS

    return PRESETS.get(name or "", {})


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured, beside the baseline ``before`` of the file ``path``, and how it differs from what was asked then."""

    path: Path | None
    before: Snapshot | None
    now: Snapshot
    evaluation: Evaluation
    differences: Sequence[str]


def _measured(
    asked: Mapping[str, Any], options: Mapping[str, Any], baseline: Path | None, results: Path, *, update: bool
) -> _Measured:
    """Evaluate what the baseline and the options say, all of it afresh: results on file may be forged."""
    from exitbench.analysis.regression.identity import differences
    from exitbench.analysis.regression.request import OWN, baseline_for, merged, settings_of
    from exitbench.analysis.regression.snapshot import measured, planned
    from exitbench.api.execution import execute_plan, plan_evaluation
    from exitbench.cli.console import terminal
    from exitbench.cli.display import TerminalDisplay
    from exitbench.errors import UserError
    from exitbench.runner.prepare import Request
    from exitbench.runner.record import record_of
    from exitbench.scoring.load import evaluation_of
    from exitbench.store.fresh import FreshStore

    path, before = baseline_for(asked, baseline, needed=not update)
    values = merged(options, asked, before)
    names, seed = values.pop("attacks"), values.pop("seed")
    display, store = TerminalDisplay(terminal(stderr=True), resumable=False), FreshStore(results / "store")
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
        raise UserError(f"{unwritable(results, error)}; nothing was judged") from error
    if execution.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    evaluation = evaluation_of([execution.record], store)
    if evaluation is None:
        raise UserError("the clean pass did not finish (see the errors above): there is nothing to judge")
    return _Measured(path, before, measured(evaluation, settings), evaluation, found)


def _update(measured: _Measured) -> int:
    """Write the baseline and print the changes; a baseline with failed trust checks is not written."""
    from exitbench.analysis.regression.baseline import default_path, to_text
    from exitbench.analysis.regression.changes import changes
    from exitbench.analysis.regression.request import BASELINES
    from exitbench.analysis.regression.snapshot import failures_of, unfinished_of
    from exitbench.cli.outputs import reason, write_output
    from exitbench.errors import UserError

    if troubles := [*unfinished_of(measured.evaluation), *failures_of(measured.evaluation)]:
        say("no baseline written, for it would never be passed:", *troubles, err=True)
        return FAILED
    path = measured.path or default_path(BASELINES, measured.now.subject)
    say(*changes(measured.before, measured.now, measured.differences))
    try:
        write_output(path, to_text(measured.now).encode())
    except OSError as error:
        raise UserError(f"the baseline {path} cannot be written: {reason(error)}") from error
    say(f"wrote {path}: commit it")
    return PASSED


def _judge(measured: _Measured, level: float, tolerance: float, reports: ReportFiles) -> int:
    """Compare, write all requested outputs, and return the exit code."""
    from exitbench.analysis.regression.judge import judge
    from exitbench.analysis.regression.snapshot import failures_of, unfinished_of
    from exitbench.cli.console import terminal
    from exitbench.report.regression.terminal import summary
    from exitbench.report.regression.text import GateReport

    before, now, evaluation = measured.before, measured.now, measured.evaluation
    if before is None:
        raise ValueError("there is no baseline to compare with")
    judgement = judge(
        before, now, failures=failures_of(evaluation), unfinished=unfinished_of(evaluation), level=level, tolerance=tolerance
    )
    report = GateReport(judgement, before, now, str(measured.path))
    terminal().print(summary(report))
    written = reports.judged(report)
    return PASSED if written and judgement.outcome != "fail" else FAILED
