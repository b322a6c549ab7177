"""Decodes image files to pixels of one shape, by the field's usual evaluation: shorter side resized, then the centre cropped."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from exitbench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000
"""Width times height of an image; the largest of ImageNet has 25 million."""

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"})
"""Of the files that are taken for images, as in torchvision's ``ImageFolder``."""

_MODES = {1: "L", 3: "RGB"}
_OF_8_BITS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"})

Shape = tuple[int, int, int]


def usual_resize(size: int) -> int:
    """Return the length that shorter sides are resized to before a crop of ``size``: 256 for 224, and in proportion."""
    return size * 8 // 7


def check_shape(shape: Shape, what: str) -> None:
    """Refuse images that are neither grey nor in colour.

    Raises:
        UserError: If ``shape`` ``(C, H, W)`` has other than 1 or 3 channels; ``what`` names the dataset.
    """
    if shape[0] not in _MODES:
        raise UserError(f"{what} has images of 3 channels, or 1 in grey; the model takes {'x'.join(map(str, shape))}")


def decoded(source: Path | bytes, shape: Shape, resize: int | None, where: str) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image as ``(C, H, W)``.

    An image of ``H x W`` keeps its pixels. Any other is resized, bilinearly and with antialiasing, until it covers ``H x W``
    times ``resize`` over the shorter of the two, and the centre is cropped: of square images what torchvision's
    ``Resize(resize)`` and ``CenterCrop(size)`` give. Transparency and orientation tags are ignored, as there.

    Args:
        source: A file, or its content.
        shape: ``(C, H, W)``, with 1 channel for grey or 3 for colour.
        resize: Length of the shorter side before the crop; None for ``usual_resize``.
        where: Names the image in messages.

    Raises:
        UserError: If it cannot be decoded, is too large, or has more than 8 bits per channel.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of images that are far too large, which are refused
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                refusal = _refusal(image)
                if refusal is None:
                    return _fitted(image.convert(_MODES[shape[0]]), shape, resize)
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError and more
        raise UserError(f"{where} cannot be decoded ({error})") from error
    raise UserError(f"{where} {refusal}")


def _refusal(image: Image) -> str | None:
    """Return why an image is not taken, from its header; None if it is."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        return f"has {width}x{height} pixels; at most {MOST_PIXELS:,} are decoded"
    if image.mode not in _OF_8_BITS:
        return (
            f"has pixels of the kind {image.mode!r}, not of 8 bits per channel; convert it, since how to scale them is not known"
        )
    return None


def _fitted(image: Image, shape: Shape, resize: int | None) -> npt.NDArray[np.uint8]:
    from PIL import Image

    channels, height, width = shape
    if image.size != (width, height):
        image = image.resize(_covering(image.size, (width, height), resize), Image.Resampling.BILINEAR)
        left, top = (round((side - wanted) / 2) for side, wanted in zip(image.size, (width, height), strict=True))
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _covering(size: tuple[int, int], wanted: tuple[int, int], resize: int | None) -> tuple[int, int]:
    """Return the size of an image, in its own proportions, that covers ``wanted`` with the margin of ``resize``."""
    shorter = min(wanted)
    around = usual_resize(shorter) if resize is None else resize
    targets = [side * around // shorter for side in wanted]
    fixed = 0 if targets[0] * size[1] >= targets[1] * size[0] else 1
    other = int(targets[fixed] * size[1 - fixed] / size[fixed])
    scaled = (targets[0], other) if fixed == 0 else (other, targets[1])
    return max(scaled[0], wanted[0]), max(scaled[1], wanted[1])
