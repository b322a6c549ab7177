"""Runs the notebooks of docs/gallery without Jupyter, and writes their outputs: ``python -m tests.notebooks``."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.toys import ROOT

GALLERY = ROOT / "docs" / "gallery"
Notebook = dict[str, Any]


def executed(notebook: Notebook) -> Iterator[list[dict[str, Any]]]:
    """Run the code cells one after the other, and yield the outputs of each, as a notebook of format 4.5 has them."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(cells, start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = _run("".join(cell["source"]), names, f"cell {count}")
        outputs: list[dict[str, Any]] = []
        if printed.getvalue():
            outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())})
        if value is not None:
            outputs.append({"data": _shown(value), "execution_count": count, "metadata": {}, "output_type": "execute_result"})
        yield outputs


def _run(source: str, names: dict[str, Any], where: str) -> Any:
    """Run a cell and return the value of its last line, where that is an expression without a semicolon."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)  # noqa: S102 - our own notebooks
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), where, "eval"), names)  # noqa: S307
    return None if source.rstrip().endswith(";") else value


def _shown(value: Any) -> dict[str, Any]:
    """Return what a notebook shows of a value: text, HTML of what has one, and figures as PNG."""
    shown: dict[str, Any] = {"text/plain": _lines(repr(value))}
    if (png := getattr(value, "_repr_png_", None)) is not None:
        return {"image/png": base64.b64encode(png()).decode(), "text/plain": ["<Figure>"]}
    if (html := getattr(value, "_repr_html_", None)) is not None and (text := html()):
        shown["text/html"] = _lines(text)
    return shown


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def written(path: Path) -> None:
    """Run a notebook and write its outputs into it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, (cell, outputs) in enumerate(zip(cells, executed(notebook), strict=True), start=1):
        cell |= {"outputs": outputs, "execution_count": count}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each in sys.argv[1:] or sorted(GALLERY.glob("*.ipynb")):
        written(Path(each))
