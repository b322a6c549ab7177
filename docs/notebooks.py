"""Hook of the documentation site: executed notebooks in docs/gallery/ become pages, with the outputs that are stored in them."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parent


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook, and a file for each picture in it."""
    for path in sorted((DOCS / "gallery").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        pictures: list[bytes] = []
        text = "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell, path.stem, pictures))
        note = f"*This page is a notebook: [download it]({path.name}).*"
        files.append(File.generated(config, f"gallery/{path.stem}.md", content=f"{text}\n\n{note}\n"))
        for i, picture in enumerate(pictures):
            files.append(File.generated(config, f"gallery/{path.stem}-{i}.png", content=picture))
    return files


def _parts(cell: dict[str, Any], name: str, pictures: list[bytes]) -> Iterator[str]:
    """Yield a cell as Markdown; its pictures are added to ``pictures`` and linked by their number."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
    elif cell["cell_type"] == "code" and source.strip():
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                yield _fenced("".join(output["text"]))
            elif "data" in output:
                yield _shown(output["data"], name, pictures)


def _shown(data: dict[str, Any], name: str, pictures: list[bytes]) -> str:
    if "image/png" in data:
        pictures.append(b64decode("".join(data["image/png"])))
        return f"![output]({name}-{len(pictures) - 1}.png)"
    for kind in ("text/markdown", "text/html"):
        if kind in data:
            return "".join(data[kind])
    return _fenced("".join(data.get("text/plain", "")))


def _fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
