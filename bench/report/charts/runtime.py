"""The script that draws charts in the page: Vega as vl-convert carries it, with the interpreter that needs no ``eval``."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cache
from importlib.metadata import version

from exitbench.models.user_folders import cache_folder
from exitbench.models.whole_file import write_whole
from exitbench.report.page.assets import in_script

_INTERPRETER = "2.0.0"
_ENTRY = """
import { parse, View } from "https://cdn.jsdelivr.net/npm/vega@VEGA/+esm";
import { expressionInterpreter } from "https://cdn.jsdelivr.net/npm/vega-interpreter@INTERPRETER/+esm";
window.vega = { parse, View, expressionInterpreter };
"""
"""What is bundled; the addresses are names of modules inside vl-convert, nothing is fetched."""


@cache
def runtime() -> str:
    """Return the script, which defines ``window.vega``; to bundle it takes seconds, so it is kept in the cache folder.

    A cache that is damaged, or cannot be written, is done without.
    """
    package = version("vl-convert-python")
    name = hashlib.sha256(f"{package} {_INTERPRETER} {_ENTRY}".encode()).hexdigest()[:12]
    path = cache_folder() / f"vega-{name}.js"
    with suppress(OSError, UnicodeDecodeError):
        digest, _, code = path.read_text(encoding="utf-8").partition("\n")
        if hashlib.sha256(code.encode()).hexdigest() == digest:
            return code
    code = _bundled()
    with suppress(OSError):
        write_whole(path, f"{hashlib.sha256(code.encode()).hexdigest()}\n{code}".encode())
    return code


def _bundled() -> str:
    import vl_convert

    entry = _ENTRY.replace("VEGA", vl_convert.get_vega_version()).replace("INTERPRETER", _INTERPRETER)
    return in_script(f"(() => {{\n{vl_convert.javascript_bundle(entry)}\n}})();")
