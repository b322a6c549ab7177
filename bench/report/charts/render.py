"""Draws charts without a browser, by vl-convert: Vega, and resvg for PNG and PDF."""

from __future__ import annotations

import io
from typing import Literal

from exitbench.report.charts.spec import Spec

Kind = Literal["png", "svg", "pdf"]
KINDS: tuple[Kind, ...] = ("png", "svg", "pdf")


def svg_of(spec: Spec) -> str:
    """Return a figure as the text of an SVG file, the same every time, from a whole Vega specification; letters stay letters."""
    import vl_convert

    return vl_convert.vega_to_svg(spec)


def png_of(svg: str, scale: float = 1.5) -> bytes:
    """Return a figure as a PNG file, the same every time, with ``scale`` pixels for each CSS pixel of its SVG."""
    import vl_convert

    return _without_alpha(vl_convert.svg_to_png(svg, scale=scale))


def pdf_of(spec: Spec) -> bytes:
    """Return a figure as a PDF file from a whole Vega specification; letters stay letters, and a unit is a point."""
    import vl_convert

    return vl_convert.vega_to_pdf(spec)


def _without_alpha(png: bytes) -> bytes:
    """Return the same picture in a third of the bytes: its ground is opaque."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "png", optimize=True)
    return buffer.getvalue()
