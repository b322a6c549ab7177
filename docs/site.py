"""Hooks of the documentation site (mkdocs.yml): pages and files from outside docs/, and the package under its import name."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "results/published/README.md": "published.md",
}
"""Pages of the site that are kept elsewhere in the repository."""
SOURCES = {page: source for source, page in PAGES.items()}
PACKAGES = {"exitbench": "bench", "exitbench/models": "models", "exitbench/attacks": "attacks"}
LINK = re.compile(r"(\]\()([^)#\s:]+)(?=[)#])")


@event_priority(100)
def on_config(config: Any) -> None:
    """Lay out links under the names that are imported, for mkdocstrings, which reads sources and imports nothing."""
    tree = Path(tempfile.mkdtemp(prefix="exitbench-api-"))
    for name, folder in PACKAGES.items():
        (tree / name).mkdir()
        for path in (ROOT / folder).iterdir():
            if path.name != "__pycache__":
                (tree / name / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [str(tree)]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and every file outside docs/ that some page links to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    linked = {path for file in files.documentation_pages() for path in _linked(file.src_uri) if _is_asset(path)}
    for path in sorted(linked):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page's text with the links that leave its folder in the repository as links of the site."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target = _site_path(_absolute(here, match[2]))
        return match[0] if target is None else match[1] + relpath(target, PurePosixPath(here).parent)

    return LINK.sub(moved, markdown)


def _source(page: str) -> str:
    """Return where a page of the site is kept, relative to the repository."""
    return SOURCES.get(page, f"docs/{page}")


def _absolute(page: str, link: str) -> str:
    """Return what a link of a page means, relative to the repository."""
    return normpath((PurePosixPath(_source(page)).parent / link).as_posix())


def _linked(page: str) -> set[str]:
    return {_absolute(page, match[2]) for match in LINK.finditer((ROOT / _source(page)).read_text(encoding="utf-8"))}


def _is_asset(path: str) -> bool:
    return not path.startswith(("docs/", "../")) and path not in PAGES and (ROOT / path).is_file()


def _site_path(path: str) -> str | None:
    """Return where the site has a file of the repository; None if it is not on it."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if _is_asset(path) else None
