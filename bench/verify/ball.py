"""An independent check of the threat model: finite, in the box, in the ball, on the grid."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exitbench.verify.claims import Floats

SLACK = {"Linf": 2e-6, "L2": 2e-5}
"""Amount by which a distance in double precision may exceed eps: rounding of the attack and of the certified fp32 distance."""


def outside(image: Floats, clean: Floats, norm: str, eps: float) -> str | None:
    """Return why an image ``(C, H, W)`` is not a valid adversarial example for ``clean``, or None if it is."""
    if bad := int((~np.isfinite(image)).sum()):
        return f"{bad} pixels are NaN or infinite"
    if not (image.min() >= 0 and image.max() <= 1):
        return f"pixels {image.min():.6g} to {image.max():.6g} leave the box [0, 1]"
    found = distance(image, clean, norm)
    if not found <= eps + SLACK[norm]:
        return f"claimed within {norm} {eps:.6g} of the clean image, found at {found:.6g}"
    return None


def off_grid(image: Floats, clean: Floats, grid: int | None) -> str | None:
    """Return why an image is not one of a grid, or None if it is, or if there is none.

    Each pixel must be the float32 number nearest to a multiple of 1/``grid``. The clean image itself is allowed as well: it
    stands where a ball has no image of the grid.
    """
    if grid is None or np.array_equal(image, clean):
        return None
    nearest = (np.round(image.astype(np.float64) * grid) / grid).astype(np.float32)
    bad = int((image != nearest).sum())
    return f"{bad} pixels are no multiples of 1/{grid}" if bad else None


def distance(image: Floats, clean: Floats, norm: str) -> float:
    """Return the distance between two images in double precision."""
    delta: npt.NDArray[np.float64] = image.astype(np.float64).ravel() - clean.astype(np.float64).ravel()
    return float(np.abs(delta).max()) if norm == "Linf" else math.sqrt(float(delta @ delta))
