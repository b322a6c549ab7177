"""Writes image folders, Hugging Face shards and networks for the tests of users' datasets."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NET = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, classes, channels=3):
        super().__init__()
        self.early, self.late = nn.Linear(channels * 16, classes), nn.Linear(channels * 16, classes)

    def forward(self, x):
        small = F.adaptive_avg_pool2d(x, 4).flatten(1)
        return [self.early(small), self.late(small * 2 - 1)]


def three():
    return Net(3)


def two():
    return Net(2)


def grey():
    net = Net(3, channels=1)
    net.input_shape = (1, 20, 20)
    return net
"""
"""A tiny network with two exits, for images of any size."""


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """Return an image with structure at a scale that survives resizing."""
    noise = np.random.RandomState(seed).randint(0, 256, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)


def write_folder(root: Path, counts: dict[str, dict[str, int]], **options: int) -> Path:
    """Write ``counts[part][class]`` images each; the part "" is the folder itself."""
    seed = 0
    for part, classes in counts.items():
        for name, n in classes.items():
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                seed += 1
                picture(seed, **options).save(root / part / name / f"{i:04}.{'png' if i % 2 else 'jpg'}")
    return root


def coded(image: Image.Image, form: str = "PNG") -> bytes:
    """Return an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def write_shard(
    path: Path,
    images: list[bytes | None],
    labels: list[int] | pa.Array,
    classes: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    group: int = 4,
) -> Path:
    """Write a shard as the library ``datasets`` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = pa.array(
        [{"bytes": each, "path": f"{i}.png"} for i, each in enumerate(images)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    labels = labels if isinstance(labels, pa.Array) else pa.array(labels, pa.int64())
    table = pa.table({columns[0]: struct, columns[1]: labels})
    if classes is not None:
        label = {"names": classes, "_type": "ClassLabel"}
        features = {columns[0]: {"_type": "Image"}, columns[1]: label}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)
    return path
