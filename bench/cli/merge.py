"""``bench merge``: stores of several machines become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import results_option
from exitbench.cli.say import say

if TYPE_CHECKING:
    from exitbench.store.inspection import Inspected
    from exitbench.store.merged import Merged

JOINED, CONFLICTS = 0, 1
_SHOWN = 12


@click.command("merge", short_help="Join the results of several folders or machines")
@click.argument("stores", nargs=-1, required=True, metavar="STORE...", type=NamedPath(exists=True))
@click.option(
    "--prefer",
    type=NamedPath(exists=True),
    help="Where results contradict each other, take those of this folder or file. [default: take neither]",
)
@results_option
def command(stores: tuple[Path, ...], prefer: Path | None, results: Path) -> None:
    """Join results into the folder of --results, and write its reports.

    Each STORE is a results folder, a file of `export --format figures`, or one of `submit`. Where two hold different results
    for the same work, both are named and neither is taken; what --results held before stays. Everything is checked before
    anything is copied. A damaged file in a folder is named and left out; an archive with one is refused as a whole. Only
    --results is written.
    Exit codes: 0 joined; 1 joined except for conflicts; 2 bad input.
    """
    from contextlib import ExitStack

    from exitbench.store.archive import unpacked_and_inspected
    from exitbench.verify.submission import as_store
    from exitbench.verify.submission_file import is_submission

    with ExitStack() as opened:
        files = [place for place in stores if place.is_file()]
        submissions = [place for place in files if is_submission(place)]
        archives = [place for place in files if place not in submissions]
        found = {place.resolve(): opened.enter_context(unpacked_and_inspected(place)) for place in archives}
        roots = {place.resolve(): opened.enter_context(as_store(place)) for place in submissions}
        roots |= {place: inspected.root for place, inspected in found.items()}
        named = {root: place for place, root in roots.items()}
        merged = _merged(stores, prefer, results, roots, found.values())
    _show(merged, named)
    raise click.exceptions.Exit(CONFLICTS if merged.conflicts else JOINED)


def _merged(
    stores: Sequence[Path], prefer: Path | None, results: Path, files: Mapping[Path, Path], looked_at: Iterable[Inspected]
) -> Merged:
    """Merge the stores; ``files`` are the roots of unpacked archives, ``looked_at`` is what some of them hold."""
    from exitbench.errors import UserError
    from exitbench.report.write import rewrite_reports
    from exitbench.store.merge import merge, store_root
    from exitbench.store.store import Store

    def root_of(place: Path) -> Path:
        return files.get(place.resolve()) or store_root(place)

    sources = [root_of(place) for place in stores]
    wanted = None if prefer is None else root_of(prefer)
    target = Store(results / "store").root
    if any(source.resolve() == target.resolve() for source in sources):
        raise UserError(f"{results} is merged into itself; name it with --results alone")
    if wanted is not None:
        known = {place.resolve(): place for place in (target, *sources)}
        if wanted.resolve() not in known:
            raise UserError(f"--prefer {prefer} is none of the stores that are merged")
        wanted = known[wanted.resolve()]
    try:
        merged = merge(target, sources, wanted, looked_at)
        rewrite_reports(Store(target), results)
    except OSError as error:
        raise UserError(
            f"{error.filename or results} cannot be written: {error.strerror}; what is merged stays: give the same command again"
        ) from error
    return merged


def _show(merged: Merged, named: Mapping[Path, Path]) -> None:
    """Print the result; ``named`` has the user's names of unpacked archives."""
    copied = ", ".join(f"{n} {kind if n == 1 or kind.endswith('s') else kind + 's'}" for kind, n in merged.copied.items())
    say(f"taken over: {copied or 'nothing'}; {merged.same} were there already, with the same verdicts")
    for path in merged.damaged:
        say(f"damaged, left out: {path}", err=True)
    for conflict in merged.conflicts:
        samples = ", ".join(map(str, conflict.samples[:_SHOWN]))
        more = f" and {len(conflict.samples) - _SHOWN} more" if len(conflict.samples) > _SHOWN else ""
        which = f", samples {samples}{more}" if samples else ""
        kept = f"kept that of {named.get(conflict.taken, conflict.taken)}" if conflict.taken else "took neither"
        where = " and ".join(str(named.get(place, place)) for place in conflict.places)
        what = f"{conflict.what} {conflict.key[:12]} ({conflict.about}{which})"
        say(f"CONFLICT {what} differs between {where}: {kept}", err=True)
    if merged.conflicts:
        say(f"{len(merged.conflicts)} conflicts; settle them with --prefer STORE, or compute the cells again", err=True)
