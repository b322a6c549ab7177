"""A finished figure: shown by notebooks, saved as PNG, SVG or PDF."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from exitbench.errors import UserError
from exitbench.models.whole_file import write_whole
from exitbench.report.charts.render import KINDS, Kind, pdf_of, png_of, svg_of
from exitbench.report.charts.spec import Spec


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        spec: Its Vega specification, whole.
    """

    spec: Spec = field(repr=False)

    def to_bytes(self, kind: Kind) -> bytes:
        """Return the content of a file; PNG and SVG are the same every time."""
        if kind == "pdf":
            return pdf_of(self.spec)
        return self._svg.encode() if kind == "svg" else png_of(self._svg)

    @cached_property
    def _svg(self) -> str:
        """What is drawn once for all the figure's files."""
        return svg_of(self.spec)

    def save(self, path: str | Path) -> None:
        """Write the figure to a file.

        Args:
            path: Ends in ``.png``, ``.svg`` or ``.pdf``.

        Raises:
            UserError: It ends in something else.
            OSError: It cannot be written.
        """
        path = Path(path)
        kind = next((kind for kind in KINDS if path.suffix == f".{kind}"), None)
        if kind is None:
            raise UserError(f"{path.name} is to end in {', '.join(f'.{kind}' for kind in KINDS)}")
        write_whole(path, self.to_bytes(kind))

    savefig = save

    def _repr_png_(self) -> bytes:
        return self.to_bytes("png")
