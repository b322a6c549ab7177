"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click


def separated(text: str) -> list[str]:
    """The names in ``text`` separated by commas; a comma in parentheses is part of a name."""
    names, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            names.append("")
        else:
            names[-1] += character
    return [name.strip() for name in names if name.strip()]


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="EXITBENCH_DATA",
    default=Path.home() / ".local" / "share" / "exitbench" / "data",
    help="Data directory (or set EXITBENCH_DATA) [~/.local/share/exitbench/data].",
)

results_option = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of the store, the leaderboards and the plots.",
)
