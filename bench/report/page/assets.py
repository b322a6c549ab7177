"""The scripts and styles that the page carries inside: the table library, whole, and the page's own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from exitbench.models.own_code import IncompleteInstallation


@dataclass(frozen=True)
class LibraryFile:
    """A file of somebody else's library, as published on npm.

    Attributes:
        name: of the file, here as in the package.
        package, version: that it is taken from.
        sha256: its digest.
    """

    name: str
    package: str
    version: str
    sha256: str


LIBRARY = (
    LibraryFile("jquery.min.js", "jquery", "4.0.0", "39a546ea9ad97f8bfaf5d3e0e8f8556adb415e470e59007ada9759dce472adaa"),
    LibraryFile(
        "dataTables.min.js", "datatables.net", "2.3.8", "14003b703de0e0019277baff32ce03a0b8a1aba6a97c86bb4b67d430336085de"
    ),
    LibraryFile(
        "dataTables.buttons.min.js",
        "datatables.net-buttons",
        "3.2.6",
        "243f85216f9bed6b10492ed6f4ee60b6a451fddc4850d818eb5a240e4a241b32",
    ),
    LibraryFile(
        "buttons.html5.min.js",
        "datatables.net-buttons",
        "3.2.6",
        "8a4bc1b894c183fdf2289fb42135978df647ff274832151da832867c8cb58f1f",
    ),
)
"""DataTables with its buttons, and jQuery, which they need, in the order in which they are run."""


@cache
def library() -> tuple[str, ...]:
    """Return the scripts of the table library, which define ``window.DataTable``."""
    return tuple(in_script(own(file.name)) for file in LIBRARY)


def in_script(code: str) -> str:
    r"""The same code, safe between ``<script>`` tags: its strings and expressions write ``<`` of a tag as ``\x3C``."""
    return re.sub(r"<(?=!--|/?script)", r"\\x3C", code, flags=re.IGNORECASE)


START = (
    'document.documentElement.classList.add("js", "waiting");'
    'addEventListener("error", () => document.documentElement.classList.remove("waiting"));'
)
"""Run before the page is laid out: hides the table until it is what it will be, unless the scripts fail."""


def content_policy(scripts: Iterable[str]) -> str:
    """What the browser is told to allow: these very scripts, inline styles, and nothing from anywhere.

    So neither a name that slipped through unescaped nor the library can run a script or make a request.
    """
    sources = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts if script]
    allowed = ("default-src 'none'", f"script-src {' '.join(sources)}", "style-src 'unsafe-inline'", "img-src data:")
    return "; ".join((*allowed, "base-uri 'none'", "form-action 'none'"))


@cache
def own(name: str) -> str:
    """Return the text of a file of the templates' folder: ``page.js``, ``page.css``, ``licences.txt``, a template.

    Raises:
        IncompleteInstallation: there is no such file.
    """
    file = files("exitbench.report") / "templates" / name
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise IncompleteInstallation(file) from error
