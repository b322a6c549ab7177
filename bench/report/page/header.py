"""The head of the page: version, date, and links to the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, version

from exitbench.models.papers import RDI


@dataclass(frozen=True)
class Header:
    """What the head of the page says beside the name.

    Attributes:
        date: As ``2026-11-27``; empty to say none. It is never taken from a clock: the same results give the same page.
        links: Addresses by name, after those that the package names itself.
    """

    date: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Version of exitbench that writes the page."""
        try:
            return version("exitbench")
        except PackageNotFoundError:
            return "unknown"

    def all_links(self) -> dict[str, str]:
        """Return every link: the package's own, the paper, those given."""
        return {**_of_the_package(), "Paper (Triple Wins)": RDI.link, **self.links}

    def citation(self) -> str:
        """Return the BibTeX entry of exitbench."""
        return (
            "@software{exitbench,\n"
            "  title = {exitbench: the robustness benchmark for networks that exit early},\n"
            "  author = {{The exitbench authors}},\n"
            f"  version = {{{self.version}}},\n"
            "}"
        )


def _of_the_package() -> dict[str, str]:
    try:
        named = metadata("exitbench").get_all("Project-URL") or []
    except PackageNotFoundError:
        return {}
    return dict(tuple(each.split(", ", 1)) for each in named if ", " in each)
