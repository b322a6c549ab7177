"""The entries to cite, as BibTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from importlib.metadata import version

from exitbench.models.citations import Citation

EXITBENCH = "exitbench"
"""Key of our own entry."""

TITLE = "exitbench: the robustness benchmark for networks that exit early"
AUTHOR = "The exitbench authors"

_VENUE = {"inproceedings": "booktitle", "article": "journal", "techreport": "institution"}
_ACCENTS = {
    "\u0301": "'",
    "\u0300": "`",
    "\u0308": '"',
    "\u0302": "^",
    "\u0303": "~",
    "\u030c": "v",
    "\u0327": "c",
    "\u0328": "k",
}
_LETTERS = {"ł": r"{\l}", "Ł": r"{\L}", "ø": r"{\o}", "Ø": r"{\O}", "ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}"}


def own_entry() -> str:
    """Return the entry of exitbench itself, of the version that is installed; the same facts as in CITATION.cff."""
    fields = {
        "author": f"{{{AUTHOR}}}",
        "title": f"{{{TITLE}}}",
        "note": f"Version {version('exitbench')}, MIT licence",
    }
    return _entry("misc", EXITBENCH, fields)


def entry(key: str, paper: Citation) -> str:
    """Return the entry of a paper in ASCII; its title keeps its capitals."""
    fields = {
        "author": " and ".join(_in_ascii(_family_first(name)) for name in paper.authors),
        "title": f"{{{_in_ascii(paper.title)}}}",
        _VENUE.get(paper.kind, "howpublished"): paper.venue,
        "year": str(paper.year),
        "doi": paper.doi,
        "url": paper.url,
    }
    return _entry(paper.kind, key, fields)


def to_bibtex(found: Sequence[tuple[str, Citation]], missing: Sequence[str]) -> str:
    """Return a file of entries: our own, those ``found``, and a comment for everything that has none."""
    notes = [f"% no entry is known for {one}; cite its authors" for one in missing]
    entries = [own_entry(), *(entry(key, paper) for key, paper in found)]
    return "\n".join([*entries, *(["\n".join(notes) + "\n"] if notes else [])])


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    width = max(map(len, fields))
    lines = [f"  {name:<{width}} = {{{value}}},\n" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n{''.join(lines)}}}\n"


def _family_first(name: str) -> str:
    """Return ``Family, Given``; a family name of several words is in braces."""
    found = re.fullmatch(r"(.+?) ({[^}]+}|[^ {}]+)", name)
    return f"{found[2]}, {found[1]}" if found else name


def _in_ascii(text: str) -> str:
    """Return a text with accents as LaTeX writes them."""
    found: list[str] = []
    for character in unicodedata.normalize("NFD", text):
        if character in _ACCENTS:
            found[-1] = rf"{{\{_ACCENTS[character]}{{{found[-1]}}}}}"
        else:
            found.append(_LETTERS.get(character, character))
    return "".join(found)
