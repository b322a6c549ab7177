"""Augmentation and resizing of training images."""

from dataclasses import replace

import torch

from exitbench.data.digits import load_digits
from exitbench.training.draws import CounterDraws
from exitbench.training.images import Images, augmented, resized


def draws(n):
    return CounterDraws(0, torch.arange(n))


def test_crops_are_windows_of_the_padded_image_and_mirrors_are_mirrors():
    image = torch.arange(64.0).view(1, 1, 8, 8).expand(200, 1, 8, 8).contiguous() / 64
    out = augmented(image, draws(200), 2, flip=True)
    padded = torch.nn.functional.pad(image[:1], [2] * 4, mode="reflect")[0, 0]
    windows = torch.stack([padded[top : top + 8, left : left + 8] for top in range(5) for left in range(5)])
    candidates = torch.cat([windows, windows.flip(-1)])
    found = (out == candidates[:, None].movedim(0, 1)).flatten(2).all(-1)
    assert found.any(1).all()
    assert found.any(0).sum() > 40  # of 50


def test_nothing_is_changed_when_nothing_is_asked_for():
    image = torch.rand(4, 3, 8, 8)
    assert torch.equal(augmented(image, draws(4), 0, flip=False), image)
    assert torch.equal(resized(image, None), image) and torch.equal(resized(image, 8), image)


def test_halving_takes_means_and_keeps_constants():
    assert torch.allclose(resized(torch.full((2, 3, 32, 32), 0.3), 16), torch.tensor(0.3))
    ramp = torch.arange(32.0).view(1, 1, 1, 32).expand(1, 1, 32, 32) / 32
    inner = resized(ramp, 16)[0, 0, 8, 2:-2]
    assert torch.allclose(inner, (torch.arange(16) * 2 + 0.5)[2:-2] / 32, atol=1e-6)


def test_bytes_become_numbers_from_0_to_1():
    split = load_digits("train", (1, 28, 28))
    as_bytes = replace(split, images=(split.images * 255).round().astype("uint8"))
    x, y = Images(as_bytes, torch.device("cpu")).batch(torch.tensor([3, 1]))
    assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
    assert torch.allclose(x, Images(split, torch.device("cpu")).batch(torch.tensor([3, 1]))[0], atol=1 / 500)
    assert y.tolist() == split.labels[[3, 1]].tolist()
