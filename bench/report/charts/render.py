"""Draws charts without a browser, by vl-convert: Vega, and resvg for PNG and PDF."""

from __future__ import annotations

import io
from typing import Literal

from exitbench.report.charts.spec import Spec

Kind = Literal["png", "svg", "pdf"]
KINDS: tuple[Kind, ...] = ("png", "svg", "pdf")


def to_bytes(spec: Spec, kind: Kind, scale: float = 1.5) -> bytes:
    """Return a figure as the bytes of a file; PNG and SVG are the same every time.

    Args:
        spec: A Vega specification, whole.
        kind: Format of the file. Letters of a PDF and an SVG stay letters; a unit is a point of a PDF.
        scale: Pixels of a PNG for each CSS pixel.
    """
    import vl_convert

    if kind == "svg":
        return vl_convert.vega_to_svg(spec).encode()
    if kind == "png":
        return _without_alpha(vl_convert.vega_to_png(spec, scale=scale))
    return vl_convert.vega_to_pdf(spec)


def _without_alpha(png: bytes) -> bytes:
    """Return the same picture in a third of the bytes: its ground is opaque."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "png", optimize=True)
    return buffer.getvalue()
