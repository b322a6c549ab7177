"""Training images on the device, stored in their original type and served as augmented float batches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from exitbench.data.split import Split
from exitbench.training.draws import Draws


class Images:
    """The images and labels of a split on one device.

    Args:
        split: The split, with uint8 or float images.
        device: The device of the images and of the batches.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        self.pixels = torch.tensor(split.images[:], device=device)
        self.labels = torch.tensor(split.labels, device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return float images ``(B, C, H, W)`` in [0, 1] and labels ``(B,)`` of ``rows`` ``(B,)``."""
        rows = rows.to(self.labels.device)
        pixels = self.pixels[rows]
        x = pixels.float().div(255) if pixels.dtype == torch.uint8 else pixels
        return x.contiguous(memory_format=torch.channels_last), self.labels[rows]


def augmented(x: Tensor, draws: Draws, crop_padding: int, flip: bool) -> Tensor:
    """Return images ``(B, C, H, W)`` padded by reflection, cropped at random, and mirrored with probability 1/2."""
    n, channels, height, width = x.shape
    if crop_padding:
        padded = F.pad(x, [crop_padding] * 4, mode="reflect")
        top, left = draws.offsets(2 * crop_padding + 1)[..., None]
        rows = (top + torch.arange(height, device=x.device))[:, None, :, None]
        columns = (left + torch.arange(width, device=x.device))[:, None, None, :]
        image = torch.arange(n, device=x.device)[:, None, None, None]
        channel = torch.arange(channels, device=x.device)[None, :, None, None]
        x = padded[image, channel, rows, columns]
    if flip:
        x = torch.where(draws.mirrored()[:, None, None, None], x.flip(-1), x)
    return x.contiguous(memory_format=torch.channels_last)


def resized(x: Tensor, size: int | None) -> Tensor:
    """Shrink images ``(B, C, H, W)`` to ``size`` pixels a side with antialiasing; None leaves them as they are."""
    if size is None or size == x.shape[-1]:
        return x
    small = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.clamp(0, 1).contiguous(memory_format=torch.channels_last)
