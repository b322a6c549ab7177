"""The summary in the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exitbench.models.number_text import cost_text
from exitbench.models.rules.own import PREFIX
from exitbench.report.leaderboard.certificate import NOTHING
from exitbench.report.leaderboard.flags import lines, verdict
from exitbench.report.leaderboard.table import sparsity_text
from exitbench.report.plain_text import cell, line
from exitbench.scoring.between import between_of
from exitbench.scoring.evaluation import Bools, CostFigure, Evaluation, Result, accuracy
from exitbench.stats.proportions import wilson
from exitbench.store.certificate import Certificate

_NUMBER = re.compile(r"[-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|inf)")
_COLOURS = {"failure": "red", "warning": "yellow", "not checked": "yellow", "info": "dim", "ok": ""}


def summary(evaluation: Evaluation, asked_for: Collection[str]) -> RenderableType:
    """Return the figures of an evaluation: every requested attack, then the worst case over all stored attacks."""
    record = evaluation.record
    threat = record.threat.text
    title = f"{cell(record.model)} on {cell(evaluation.dataset)} test, {threat}, n = {evaluation.n}"
    table = Table(title=title, title_justify="left")
    table.add_column("attack", min_width=len("slowdown:double_kill"), overflow="fold")
    for heading in ("accuracy %", "95 % interval", "mean\nmmacs", "grads", "s"):
        table.add_column(heading, justify="right")
    table.add_row("none (clean)", *_figures(evaluation, evaluation.clean))
    shown = [attack for attack in evaluation.attacks if attack.name in asked_for]
    times_shown = Counter(attack.name for attack in shown)
    for attack in shown:
        apart = f" ({attack.method}, seed {attack.seed})" if times_shown[attack.name] > 1 else ""
        unbound = "" if attack.within.all() else f" (distance {attack.distance:.3g})"
        table.add_row(cell(attack.name + apart + unbound), *_figures(evaluation, attack))
    for each in evaluation.unfinished:
        table.add_row(cell(each.name), f"[red]{cell(each.reason)}")
    if evaluation.attacks or evaluation.unfinished:
        table.add_section()
        table.add_row(*_worst(evaluation))
    if evaluation.certificate:
        table.add_row(*_certified(evaluation.certificate))
    blocks = [_exit_table(evaluation)]
    if slowdowns := [attack for attack in shown if attack.is_slowdown]:
        blocks.append(_slowdown_table(evaluation, slowdowns))
    return Group(table, *_flags(evaluation), *blocks, *_notes(evaluation, shown))


def _worst(evaluation: Evaluation) -> list[str]:
    """Return the headline; if flagged, it has a mark as well as a colour."""
    kind = verdict(evaluation)
    mark = {"failure": " !", "warning": " !", "not checked": " ?"}.get(kind, "")
    figures = _shares(evaluation.worst) if evaluation.attacked else ["-"]
    return [f"[bold {_COLOURS[kind]}]{text}" for text in (f"worst case{mark}", *figures)]


def _certified(certificate: Certificate) -> list[str]:
    if not certificate.proven.right:
        return ["certified", NOTHING]
    low, high = wilson(len(certificate.proven.right), certificate.n)
    share, interval = f"{100 * certificate.accuracy():.2f}", f"{100 * low:.1f} - {100 * high:.1f}"
    return ["certified", share, interval, f"<= {cost_text(certificate.cost())}"]


def _flags(evaluation: Evaluation) -> list[Text]:
    found = []
    for each in lines(evaluation):
        word = "" if each.kind in ("not checked", "info") else f"{each.kind}: "
        found.append(line(f"{each.sign} {word}{each.label}: {each.message}", _COLOURS[each.kind]))
    return found


def _figures(evaluation: Evaluation, result: Result) -> list[str]:
    cost = cost_text(evaluation.mean_cost(result))
    return [*_shares(evaluation.robust(result)), cost, f"{result.backwards:.0f}", _seconds(result.seconds)]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _shares(correct: Bools) -> tuple[str, str]:
    share, low, high = accuracy(correct)
    return f"{100 * share:.2f}", f"{100 * low:.1f} - {100 * high:.1f}"


def _exit_table(evaluation: Evaluation) -> Table:
    """Return the table of exits: samples leaving, cost, and accuracy, clean and under the strongest attack."""
    strongest = evaluation.strongest()
    table = Table(box=None, pad_edge=False)
    table.add_column("exit", no_wrap=True)
    for k in range(1, evaluation.record.n_exits + 1):
        table.add_column(str(k), justify="right")
    table.add_column("mean", justify="right")
    situations = [evaluation.clean] if strongest is None else [evaluation.clean, strongest]
    for result in situations:
        table.add_row(f"[bold]{cell('clean' if result is evaluation.clean else result.name)}")
        table.add_row("  taken", *map(str, evaluation.exit_counts(result)))
        table.add_row("  right %", *(f"{100 * value:.1f}" for value in result.exit_accuracy))
    table.add_row("[bold]cost")
    for cost in get_args(CostFigure):
        if (cost == "mmacs_dense" and not evaluation.sparsity) or (cost == "mflops_paper" and not evaluation.record.mflops_paper):
            continue
        means = " -> ".join(cost_text(evaluation.mean_cost(result, cost)) for result in situations)
        table.add_row(f"  {cost}", *(cost_text(value, 1) for value in evaluation.costs(cost)), means)
    return table


def _slowdown_table(evaluation: Evaluation, slowdowns: Sequence[Result]) -> Table:
    """Return the table of slowdown attacks: their effect on the cost, and samples that stay right."""
    table = Table(box=None, pad_edge=False)
    table.add_column("slowdown", no_wrap=True)
    for heading in ("mmacs", "ratio", "savings lost %", "efficacy", "accuracy %"):
        table.add_column(heading, justify="right")
    before = evaluation.slowed(evaluation.clean)
    for result in slowdowns:
        after = evaluation.slowed(result)
        erased = "-" if after.savings_erased is None else f"{100 * after.savings_erased:.1f}"
        efficacy = " -> ".join("-" if found.efficacy is None else f"{found.efficacy:.3f}" for found in (before, after))
        share, _, _ = accuracy(evaluation.robust(result))
        name = cell(result.name.partition(":")[2])
        cost = cost_text(evaluation.mean_cost(result))
        table.add_row(f"  {name}", cost, f"{after.ratio:.2f}", erased, efficacy, f"{100 * share:.1f}")
    return table


def _notes(evaluation: Evaluation, shown: list[Result]) -> list[Text]:
    record = evaluation.record
    notes = []
    if hidden := [attack.name for attack in evaluation.attacks if attack not in shown]:
        notes.append(f"the worst case is over {len(evaluation.attacks)} attacks; not in the table: {', '.join(hidden)}")
    elif evaluation.attacks:
        those = f"these {len(evaluation.attacks)} attacks" if len(evaluation.attacks) > 1 else "this attack"
        notes.append(f"the worst case is over {those}, per sample")
    notes.append("mmacs: millions of multiply-accumulates; grads, s: gradients and seconds; all per sample, in the mean")
    if any(attack.is_slowdown for attack in shown):
        notes.append("savings lost: share of what early exits save that the attack takes away; efficacy: 1 saves most, 0 nothing")
    if any(not attack.within.all() for attack in shown):
        notes.append("images outside the ball are reported with their distance; they do not count in the worst case")
    if evaluation.attacks:
        share, _, _ = accuracy(evaluation.any_exit_robust)
        notes.append(f"on {100 * share:.2f} % every exit stays right under all stored attacks; new attacks may lower this")
    if (between := between_of(evaluation)) is not None:
        notes.append(str(between))
    if evaluation.unfinished:
        notes.append("some attacks are unfinished: the worst case may still fall")
    if evaluation.sparsity:
        notes.append(f"sparse: {sparsity_text(evaluation)}")
    notes.append(record.note or f"{evaluation.dataset}: {evaluation.dataset_summary}")
    notes.append(f"policy {_short(record.policy)}, calibration {record.calibration or 'none, thresholds given by hand'}")
    notes.append(f"seeds {_seeds(evaluation)}, weights {record.training} {record.weights[:12]}, data {record.data[:12]}")
    notes.append(f"computed with {evaluation.computed_with()}")
    if search := evaluation.search.on and evaluation.search:
        images = sum(evaluation.n for attack in evaluation.attacks if attack.search.on)
        notes.append(
            f"searched on {' and '.join(sorted(search.on))}; the plain model, which decides, disagreed on {search.disagreements} "
            f"of {images} images and was attacked itself on {search.again} of them"
        )
    return [line(note, "dim") for note in notes]


def _seeds(evaluation: Evaluation) -> str:
    return ", ".join(map(str, sorted({result.seed for result in (evaluation.clean, *evaluation.attacks)})))


def _short(policy: str) -> str:
    """Return the policy with four digits per threshold; files have all digits."""
    if policy.startswith(PREFIX):
        return policy
    kind, _, rest = policy.partition(":")
    return f"{kind} {_NUMBER.sub(lambda found: f'{float(found[0]):.4g}', rest).replace(',', ' ').replace(':', ', ')}"
