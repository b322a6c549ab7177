"""Stored results in Python: ``exitbench.load_results``, ``compare``, ``sweep`` and ``write_reports``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from exitbench.analysis.compare import pairs
from exitbench.analysis.compare.find import find_pair
from exitbench.analysis.sweep.choose import Wanted, choose
from exitbench.analysis.sweep.curve import Curve, one_exit
from exitbench.analysis.sweep.curve import sweep as swept
from exitbench.analysis.sweep.pool import pool_of
from exitbench.analysis.sweep.thresholds import held_out
from exitbench.api.evaluation import Evaluation
from exitbench.errors import UserError
from exitbench.models.factory import reported_name
from exitbench.models.user_folders import data_folder
from exitbench.report import write
from exitbench.report.compare.table import comparison_table, comparison_title
from exitbench.report.evaluation.tables import markdown
from exitbench.report.lock import reports_locked
from exitbench.report.sweep.table import sweep_table
from exitbench.scoring import evaluation as scoring
from exitbench.scoring.load import evaluations
from exitbench.store.archive import unpacked
from exitbench.store.store import Store
from exitbench.target.networks import own_network

if TYPE_CHECKING:
    from exitbench.attacks.regions import Norm
    from exitbench.report.charts.drawing import Drawing


def load_results(path: str | Path) -> list[Evaluation]:
    """Return every evaluation in a results folder, a store, or an archive of figures, in the order of the store.

    Args:
        path: A folder of results of ``exitbench run`` or ``exitbench.evaluate``, or a ``.tar.xz`` file of
            ``exitbench export --format figures``.

    Raises:
        UserError: If there is no such folder or file, or it holds no results.
    """
    path = Path(path)
    with _root(path) as root:
        found = evaluations(Store(root))
    if not found:
        raise UserError(f"{path} holds no finished evaluation; run one into it, with `exitbench run` or exitbench.evaluate")
    return [Evaluation(each, path if path.is_dir() else None) for each in found]


def _root(path: Path) -> AbstractContextManager[Path]:
    """Return the root of the store at or in ``path``."""
    if path.is_file():
        return unpacked(path)
    for root in (path / "store", path):
        if (root / "runs").is_dir():
            return nullcontext(root)
    raise UserError(f"{path} {'holds no results' if path.is_dir() else 'does not exist'}; name a results folder, or an archive")


def write_reports(results: str | Path) -> list[Path]:
    """Write leaderboards, plots and the page of a results folder, from its store alone, and return the files written.

    Raises:
        UserError: the folder holds no results.
    """
    with reports_locked(Path(results)) if Path(results).is_dir() else nullcontext():
        return write.write_reports([each.scored for each in load_results(results)], Path(results))


class Comparison:
    """A paired comparison of two evaluations, B against A; ``exitbench.compare`` returns it."""

    def __init__(self, found: pairs.Comparison) -> None:
        self.found = found

    @property
    def table(self) -> pd.DataFrame:
        """One row per attack of both: accuracies, difference B - A with a paired 95 % interval, McNemar's p, mean costs."""
        return comparison_table(self.found)

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        return markdown(self.table.round(4).astype(str))

    def plot(self) -> Drawing:
        """Return a figure of the differences with their intervals; a notebook shows it, ``save`` writes it."""
        from exitbench.report.compare.plot import draw_comparison

        return draw_comparison(self.found)

    def __repr__(self) -> str:
        return f"{comparison_title(self.found)}\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        from html import escape

        table = self.table.to_html(index=False, border=0)
        return f"<div><p><strong>{escape(comparison_title(self.found))}</strong></p>{table}</div>"


def compare(a: Evaluation | str, b: Evaluation | str, *, results: str | Path = "results") -> Comparison:
    """Compare two evaluations of the same samples under the same threat model, sample by sample.

    Args:
        a: An evaluation, or the name of a model in ``results``: ``model`` or ``model:training``, or a run's id.
        b: The evaluation to compare with ``a``; differences are B - A.
        results: Folder in which names are looked up.

    Raises:
        UserError: If the evaluations do not share samples and threat model, or a name matches none or several.
    """
    if isinstance(a, Evaluation) and isinstance(b, Evaluation):
        return Comparison(pairs.compare(a.scored, b.scored))
    if isinstance(a, Evaluation) or isinstance(b, Evaluation):
        raise UserError("compare takes two evaluations or two names, not one of each")
    return Comparison(pairs.compare(*find_pair(a, b, Path(results))))


class Sweep:
    """Curves of mean cost against accuracy; ``exitbench.sweep`` returns them."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = tuple(curves)

    @property
    def table(self) -> pd.DataFrame:
        """One row per network and exit rule; the columns are those of ``sweeps/*.csv``."""
        return sweep_table(self.curves)

    def plot(self) -> Drawing:
        """Return a figure of clean and worst-case accuracy against mean cost; a notebook shows it, ``save`` writes it."""
        from exitbench.report.charts.figures import sweep_figure
        from exitbench.report.charts.looks import looks_of

        looks = looks_of(evaluation for curve in self.curves for evaluation in curve.pool.evaluations)
        return sweep_figure(self.curves, looks, "Exit rules under stored attacks")

    def __repr__(self) -> str:
        columns = ["model", "training", "rule", "point", "mmacs", "clean", "worst", "status"]
        return self.table[columns].to_string(index=False)


def sweep(
    results: str | Path = "results",
    *,
    models: Sequence[str] = (),
    dataset: str | None = None,
    training: str | None = None,
    norm: Norm | None = None,
    eps: float | None = None,
    grid: int | None = None,
    n: int | None = None,
    points: int = 19,
    weights: str | Path | None = None,
    data: str | Path | None = None,
) -> Sweep:
    """Score stored attacks under a whole family of exit policies, from the first exit alone to the last.

    No attack is run: only deployed policies were attacked, and under others the worst case is an upper bound. Thresholds are set
    on held-out training images; the network's logits on these are computed once and stored.

    Args:
        results: Folder of results.
        models: Models to sweep, by name or reference (whose code is executed); empty for all.
        dataset: Only evaluations on this dataset; None for all.
        training: Only these weights; None for all.
        norm: Only this norm; None for both.
        eps: Only this radius; None for all.
        grid: Only evaluations on images with so many steps of pixel values; None for all.
        n: Number of samples; None for the most that each network was evaluated on.
        points: Number of target costs between the first exit and the last.
        weights: A file of tensors; None for the registered weights of the stored digest.
        data: Folder of the datasets; None for ``EXITBENCH_DATA`` or its default.

    Raises:
        UserError: If no stored evaluation matches, or held-out images or weights are not available.
    """
    store = stored_in(Path(results))
    wanted = Wanted(tuple(map(reported_name, models)), dataset, training, norm, eps, n, grid)
    file = None if weights is None else Path(weights)
    return Sweep(
        curves_of(evaluations(store), store, wanted, models, points, file, data_folder() if data is None else Path(data))
    )


def stored_in(results: Path) -> Store:
    """Return the store of a results folder.

    Raises:
        UserError: there is none.
    """
    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    return Store(results / "store")


def curves_of(
    found: Sequence[scoring.Evaluation],
    store: Store,
    wanted: Wanted,
    models: Iterable[str],
    points: int,
    weights: Path | None,
    data: Path,
    showing: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> list[Curve]:
    """Return the curves of the evaluations in ``found`` that are ``wanted``; see ``sweep``.

    Args:
        showing: Returns a context that shows a line of text while it lasts.
    """
    networks = {network.name: network for name in models if (network := own_network(name))}
    curves: list[Curve] = []
    for group in choose(found, wanted):
        pool = pool_of(group, store)
        if len(pool.mmacs) == 1:
            curves.append(one_exit(pool))
            continue
        model = pool.record.model
        with showing(f"setting thresholds of {model}"):
            curves += swept(pool, held_out(pool.record, store, data, weights, networks.get(model)), points)
    return curves
