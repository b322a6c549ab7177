"""``--dataset file.py:function``: what a function of the user's own may return, and users' images through the commands."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from exitbench.data.cards import dataset_card, find_dataset
from exitbench.data.load import load_split
from exitbench.data.references import dataset_given
from exitbench.errors import UserError
from exitbench.models.errors import InputError
from exitbench.report.page.command import commands
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from tests.bench.user_images import NET, coded, picture, write_folder, write_shard
from tests.processes import run as elsewhere
from tests.toys import ROOT

DATA = """
import numpy as np
import torch
from torch.utils.data import Dataset

import sizes


def images(n, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, 3, sizes.SIDE, sizes.SIDE)).astype(np.uint8)


def pair():
    return images(12), np.arange(12) % 3


class Items(Dataset):
    classes = ["ant", "bee", "cat"]

    def __init__(self, n, seed=0):
        self.n, self.seed, self.read = n, seed, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        import late  # noqa: F401 - found where the file is, also when an item is read

        self.read.append(i)
        return torch.from_numpy(images(self.n, self.seed)[i]).float() / 255, i % 3


def items():
    return Items(12)


def parts():
    return {"test": Items(12), "train": Items(40, 1)}


def held_out():
    return {"test": pair(), "calibration": (images(6, 2), np.arange(6) % 3), "classes": 3}


class Augmented(Items):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return (image + torch.rand_like(image)) / 2, label


def augmented():
    return Augmented(8)
"""


@pytest.fixture
def own(tmp_path):
    """A folder with a user's files."""
    (tmp_path / "data.py").write_text(DATA)
    (tmp_path / "sizes.py").write_text("SIDE = 16\n")
    (tmp_path / "late.py").write_text("")
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def load(own, function, split="test"):
    name = dataset_given(f"{own}/data.py:{function}")
    return load_split(name, split, dataset_card(name).input_shape, own)


class TestForms:
    def test_pairs_and_datasets_are_read(self, own):
        pair, items = load(own, "pair"), load(own, "items")
        assert pair.labels.tolist() == items.labels.tolist() == [0, 1, 2] * 4
        assert (pair.n_classes, items.n_classes) == (None, 3)
        assert pair.batch(0, 12).input_hashes() == items.batch(0, 12).input_hashes()

    def test_calibration_images_are_given_or_held_out_of_train(self, own):
        assert len(load(own, "held_out", "calibration")) == 6
        held_out, train = load(own, "parts", "calibration"), load(own, "parts", "train")
        assert (len(held_out), len(train)) == (8, 32)
        assert not set(held_out.input_hashes()) & set(train.input_hashes())
        with pytest.raises(UserError, match=r"data.py:pair returns no calibration images \(it returns: test\)"):
            load(own, "pair", "calibration")

    def test_the_name_is_that_of_the_content(self, own):
        name = dataset_given(f"{own}/data.py:pair")
        assert name.startswith("data.pair-") and dataset_given(f"{own}/data.py:pair") == name
        (own / "data.py").write_text(DATA.replace("np.arange(12) % 3", "(np.arange(12) + 1) % 3"))
        other = dataset_given(f"{own}/data.py:pair")
        (own / "data.py").write_text(DATA.replace("(n, seed=0)", "(n, seed=5)"))
        assert len({name, other, dataset_given(f"{own}/data.py:pair")}) == 3

    def test_items_are_read_when_they_are_needed(self, own):
        split = load(own, "items")
        samples = split.images.read.__self__.samples
        assert samples.read == list(range(12)), "once, for labels and digests"
        split.batch(3, 5)
        assert samples.read[12:] == [3, 4]

    def test_items_that_change_are_noticed(self, own):
        split = load(own, "augmented")
        with pytest.raises(UserError, match=r"image 2 of data\.py:augmented test is another one each time"):
            split.batch(2, 4)


BAD = {
    "nothing": ("return None", "data.py:bad test is NoneType; give"),
    "a name": ("return 'cifar10'", "data.py:bad test is 'cifar10'; give"),
    "a loader": ("return torch.utils.data.DataLoader(Items(4))", "test is a DataLoader"),
    "an error": ("raise RuntimeError('no disk')", "data.py:bad failed in line .*: RuntimeError: no disk"),
    "no test images": ("return {'train': pair()}", r"returns no test images \(it returns: train\)"),
    "other names": ("return {'test': pair(), 'extra': pair()}", "returns extra; known are test, calibration, train and classes"),
    "classes that are none": ("return {'test': pair(), 'classes': 'ant'}", "classes must be their names, or how many"),
    "labels beyond the classes": (
        "return {'test': pair(), 'classes': 2}",
        r"labels must be 0\.\.1, found 0\.\.2",
    ),
    "labels below 0": ("x, y = pair(); return x, y - 1", "labels must be at least 0, found -1"),
    "labels that are no numbers": ("x, y = pair(); return x, y / 1", "labels are torch.float64"),
    "other lengths": ("x, y = pair(); return x, y[:5]", "there are 12 images and 5 labels"),
    "no images": ("x, y = pair(); return x[:0], y[:0]", "N > 0"),
    "normalised images": ("x, y = pair(); return x / 127.5 - 1, y", r"images must lie in \[0, 1\], these go from -1"),
    "images without labels": ("return [image for image in pair()[0]]", "is a list of 12; give"),
    "several shapes": (
        "return type('Odd', (Items,), {'__getitem__': lambda self, i: (torch.zeros(3, 4 + i, 4), 0)})(4)",
        "have several shapes",
    ),
    "several types": (
        "Odd = type('Odd', (Items,), {'__getitem__': lambda self, i: (torch.zeros(3, 4, 4, dtype=torch.uint8 if i > 35 else None)"
        ", 0)}); return Odd(70)",
        "are of several kinds|expected Tensor as element|are torch",
    ),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_said(own, body, message):
    (own / "data.py").write_text(f"{DATA}\n\ndef bad():\n    {body}\n")
    with pytest.raises(InputError, match=message):
        load(own, "bad")


RUN = ("--model", "net.py:three", "--attack", "average", "--steps", "2", "--budget", "10")


def rows_of(folder):
    (board,) = (folder / "results" / "leaderboards").glob("*.csv")
    with board.open(newline="") as file:
        return board.name, list(csv.DictReader(file))


@pytest.fixture
def places(own):
    """Users' images in each form, by the name of the form."""
    write_folder(own / "birds", {"train": dict.fromkeys("abc", 5), "test": dict.fromkeys("abc", 3)})
    for part, seeds in (("test", range(9)), ("train", range(9, 24))):
        images = [coded(picture(seed)) for seed in seeds]
        write_shard(own / "pets" / f"{part}.parquet", images, [seed % 3 for seed in seeds], list("abc"))
    return {"imagefolder": "imagefolder:birds,size=20", "hf": "hf:pets,size=20", "function": "data.py:parts"}


@pytest.mark.parametrize("form", ["imagefolder", "hf", "function"])
def test_every_form_goes_through_all_commands(places, own, bench, form):
    given = places[form]
    code, out, err = bench("run", *RUN, "--dataset", given, "--n", "9")
    assert code == 0, err
    assert "no eps was given" in out + err
    board, rows = rows_of(own)
    assert rows[0]["n"] == "9" and rows[0]["policy"].startswith("entropy:") and rows[0]["calibration"]
    record = json.loads(next((own / "results" / "store" / "runs").glob("*.json")).read_text())
    assert record["asked"]["dataset"] == given and record["dataset"] in board

    code, out, err = bench("plan", *RUN, "--dataset", given, "--n", "9")
    assert code == 0 and "nothing left to do" in out + err, out + err
    code, out, err = bench("verify", "results", "--model", "net.py:three", "--dataset", given)
    assert code == 0 and "0 mismatches" in out, err
    code, out, err = bench("sweep", "--model", "net.py:three", "--dataset", given, "--points", "3")
    assert code == 0, err
    code, out, err = bench("cost", "net.py:three", "--dataset", given, "--policy", "entropy@equal")
    assert code == 0 and "held-out training images" in out, err
    code, out, err = bench("check", *RUN, "--dataset", given, "--n", "9", "--update")
    assert code == 0, err
    code, out, err = bench("check", "--model", "net.py:three", "--dataset", given)
    assert code == 0, err
    told = [command for found in evaluations(Store(own / "results" / "store")) for command in commands(found)]
    assert told and all(f"--dataset {given} " in command for command in told)


COMMAND = "import sys; sys.argv[0] = 'exitbench'\nfrom exitbench.cli.main import main\nmain()"


def of_its_own(folder, *arguments, code):
    """Run code in a Python that holds nothing else."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is freed, is given back
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


@pytest.mark.parametrize("form", ["imagefolder", "hf", "function"])
def test_workers_find_the_images_from_any_folder(places, own, monkeypatch, form):
    monkeypatch.chdir(own)
    name = dataset_given(places[form])
    reference = find_dataset(name).reference
    monkeypatch.chdir("/")
    assert reference and dataset_given(reference) == name


def test_claims_about_somebody_elses_images_are_checked_without_them(places, own, bench):
    assert bench("run", *RUN, "--dataset", places["imagefolder"], "--n", "9")[0] == 0
    assert bench("check", *RUN, "--dataset", places["imagefolder"], "--n", "9", "--update")[0] == 0
    assert bench("export", "--counterexamples", "--output", "claims.npz")[0] == 0
    verify = ("verify", "claims.npz", "--model", "net.py:three")
    done = elsewhere(*verify, cwd=own)
    assert done.returncode == 0 and "is not at hand" in done.stdout and "0 mismatches" in done.stdout, done.stderr
    done = elsewhere(*verify, "--dataset", places["imagefolder"], cwd=own)
    assert done.returncode == 0 and "is not at hand" not in done.stdout and "0 mismatches" in done.stdout, done.stderr
    for command in (("verify", "results"), ("check",)):  # neither records nor baselines name code that would be executed
        done = elsewhere(*command, "--model", "net.py:three", cwd=own)
        assert done.returncode == 2 and "say where they are with --dataset" in done.stderr, done.stderr


def test_images_without_training_images_are_evaluated_at_the_last_exit(own, bench):
    write_folder(own / "birds", {"": dict.fromkeys("abc", 3)})
    code, out, err = bench("run", *RUN, "--dataset", "imagefolder:birds,size=20", "--n", "9")
    assert code == 0 and "the last exit alone is evaluated" in out + err, out + err
    code, out, err = bench("run", *RUN, "--dataset", "imagefolder:birds,size=20", "--n", "9", "--policy", "entropy@equal")
    assert code == 2 and "has no calibration images" in err, err


def test_the_example_of_the_page_works(own, bench):
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (own / "example.py").write_text(example)
    code, _, err = bench("run", *RUN, "--dataset", "example.py:make_dataset", "--n", "20")
    assert code == 0 and rows_of(own)[1][0]["policy"].startswith("entropy:"), err


def test_the_forms_are_listed(bench):
    listed = bench("list", "datasets")[1]
    for row in ("cifar100 8/255 0.5 10000", "svhn 8/255 0.5 26032", "fashion_mnist 0.1 1.5 10000"):
        assert row in listed
    for form in ("imagefolder:PATH 4/255 3 -", "hf:PATH 4/255 3 -", "file.py:function 8/255 0.5 -"):
        assert form in listed


def test_images_of_the_users_own_are_attacked_from_python(own, monkeypatch):
    import exitbench

    monkeypatch.chdir(own)
    found = exitbench.evaluate("net.py:three", dataset="data.py:held_out", attacks="average", steps=1, n=6, progress=False)
    assert found.n == 6


SHADE = """
import torch
from torch import nn


class Shade(nn.Module):
    def __init__(self):
        super().__init__()
        shades = torch.tensor([0.2, 0.5, 0.8])
        self.nearest = nn.Linear(3, 3)
        with torch.no_grad():
            self.nearest.weight.copy_(shades[:, None].expand(3, 3) * 20)
            self.nearest.bias.copy_(-30 * shades**2)

    def forward(self, x):
        logits = self.nearest(x.mean((2, 3)))
        return [logits, logits * 2]


def make():
    return Shade()
"""

PEAK = """
import resource
from exitbench.api import execution
execution.ensure_probe = lambda *_: None
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
PEAK = COMMAND.replace("main()", PEAK)


def test_images_of_224_pixels_take_the_memory_of_a_few_slices(own):
    """An evaluation of 160 of 384 images takes hardly more than one of 128 of 128; the others are 38 MB as bytes, more as floats.

    The trust checks are left out, which take a minute on images of this size, one slice at a time.
    """
    (own / "shade.py").write_text(SHADE)
    run = ["run", "--model", "shade.py:make", "--attack", "single:1", "--steps", "1", "--eps", "1/255", "--policy", "exit:2"]
    run += ["--device", "cpu", "--precision", "fp32"]
    peaks = []
    for folder, held, n in (("few", 128, 128), ("many", 384, 160)):
        write_shades(own / folder, held)
        done = of_its_own(own, *run, "--dataset", f"imagefolder:{folder},size=224", "--n", n, code=PEAK)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.rpartition("peak ")[2]))
    assert peaks[1] - peaks[0] < 15_000, peaks  # kB


def write_shades(folder, n):
    """Write ``n`` images of three shades that are a little larger than 224 pixels."""
    for i in range(n):
        name, shade = (("dark", 51), ("grey", 128), ("light", 204))[i % 3]
        (folder / "test" / name).mkdir(parents=True, exist_ok=True)
        pixels = np.full((230, 240, 3), shade, np.uint8)
        pixels[i % 200] = i % 250
        Image.fromarray(pixels).save(folder / "test" / name / f"{i}.png", compress_level=1)
