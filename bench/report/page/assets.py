"""The scripts and styles that the page carries inside: the table library, and the page's own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from exitbench.models.own_code import IncompleteInstallation

_EXPORT = re.compile(r"\bexport\s*\{([^}]*)\}\s*;?")
_DEFAULT = re.compile(r"([\w$]+)\s+as\s+default\b")


class NoTableLibrary(RuntimeError):
    """The installed package ``itables`` has no bundle of DataTables of the form that the page can carry."""


@cache
def data_tables() -> str:
    """DataTables with its buttons (MIT), from the package ``itables``, as a script that defines ``window.DataTable``.

    The bundle is a module. A page opened from a file cannot import one, so its exports are taken by name instead.

    Raises:
        NoTableLibrary: another bundle than expected.
    """
    bundle = (files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    exports = list(_EXPORT.finditer(bundle))
    default = _DEFAULT.search(exports[-1].group(1)) if exports else None
    if default is None:
        raise NoTableLibrary("itables' bundle of DataTables has no default export; install the version in constraints.txt")
    start, end = exports[-1].span()
    body = f"{bundle[:start]}window.DataTable={default.group(1)};{bundle[end:]}"
    return in_script(f'(()=>{{"use strict";{body}\n}})();')


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
