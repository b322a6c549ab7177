"""Submissions: what is packed, what verify makes of a changed one, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from exitbench.errors import UserError
from exitbench.store.archive import figures
from exitbench.store.store import Store
from exitbench.verify import export_file, submission_file
from exitbench.verify.submission_file import FIGURES, IMAGES, MANIFEST, SUBMISSION, WEIGHTS, is_submission, opened
from tests.bench.trained import trained

NET = """
from torch import nn

from parts import head, stage


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([stage(1), stage(16), stage(16)])
        self.heads = nn.ModuleList([head() for _ in range(3)])

    def forward(self, x):
        found = []
        for one, exit_ in zip(self.stages, self.heads):
            x = one(x)
            found.append(exit_(x))
        return found


def make():
    return Net()
"""
PARTS = """
from torch import nn


def stage(channels):
    return nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU())


def head():
    return nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
"""
RUN = ("--dataset", "digits", "--policy", "entropy@equal", "--attack", "average", "--n", 12, "--steps", 2, "--eps", 0.15)


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    """The folder of whoever submits: a network of two files, its weights, and one evaluation of it."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "net.py").write_text(NET)
    (folder / "parts.py").write_text(PARTS)
    torch.save(trained()[0].state_dict(), folder / "net.pt")
    return folder


def run(bench, author, *arguments):
    return bench(*arguments, "--results", author / "results")


@pytest.fixture
def packed(author, bench):
    """The file, made by the first test that needs it."""
    path = author / "net.zip"
    model = ("--model", f"{author / 'net.py'}:make", "--weights", author / "net.pt")
    if not path.exists():
        code, _, err = run(bench, author, "run", *model, *RUN)
        assert code == 0, err
        code, out, err = run(bench, author, "submit", *model, "--output", path)
        assert code == 0 and "counterexamples, its weights" in out and "code/net.py, code/parts.py" in out, err
        (author / "code").mkdir()
        for name, content in members(path).items():
            if name.startswith("code/"):
                (author / name).write_bytes(content)
    return path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, target, says=None, **changed):
    """The file with other members, whose digests are made anew: anybody can."""
    found = members(path)
    manifest = SUBMISSION.read_text(found.pop(MANIFEST), path)
    found |= {{"images": IMAGES, "weights": WEIGHTS, "figures": FIGURES}[name]: content for name, content in changed.items()}
    target.write_bytes(submission_file.to_bytes(msgspec.structs.replace(manifest, **says or {}), found))
    return target


def verified(bench, author, path, *more):
    return bench("verify", path, "--model", f"{author / 'code' / 'net.py'}:make", "--no-probe", *more)


def with_claims(path, change):
    """The counterexamples after a change of their arrays."""
    (claims,) = export_file.from_bytes(members(path)[IMAGES], "test")
    change(claims)
    return export_file.to_bytes([claims])


def test_the_same_evaluation_is_the_same_bytes(packed, author, bench):
    model = ("--model", f"{author / 'net.py'}:make", "--weights", author / "net.pt")
    code, out, err = run(bench, author, "submit", *model, "--output", "again.zip")
    assert code == 0 and hashlib.sha256(packed.read_bytes()).hexdigest() in out, err
    assert Path("again.zip").read_bytes() == packed.read_bytes()
    assert run(bench, author, "submit", *model, "--output", "again.zip")[0] == 2, "an existing file is kept"


def test_it_holds_without_the_dataset_and_the_trust_checks_are_taken_again(packed, author, bench, tmp_path):
    code, out, err = bench("verify", packed, "--model", f"{author / 'code' / 'net.py'}:make", "--data", tmp_path / "nothing")
    assert code == 0 and "0 mismatches" in out and "its author says: nothing" in out, err


def test_somebodys_code_is_not_run_unless_it_is_named(packed, author, bench):
    code, _, err = bench("verify", packed)
    assert code == 2 and "read code/net.py, code/parts.py" in err and "--model submission/code/net.py:make" in err


def test_a_changed_image_or_logit_is_named_by_its_sample(packed, author, bench, tmp_path):
    (claims,) = export_file.from_bytes(members(packed)[IMAGES], "test")
    sample = claims.indices[claims.row[0]]

    def far(each):
        each.images[0] = 1 - each.images[0]

    def better(each):
        each.logits[:, 0] = 0
        each.logits[:, 0, each.labels[each.row[0]]] = 9

    def recognised(each):
        each.clean_logits[0, 3] += 1

    for change, where in (
        (far, f"average (cell {claims.sources[claims.source[0]].key[:12]}), sample {sample}"),
        (better, f"sample {sample}"),
        (recognised, "clean, sample 3"),
    ):
        path = rewritten(packed, tmp_path / "changed.zip", images=with_claims(packed, change))
        code, _, err = verified(bench, author, path)
        assert code == 1 and where in err, err


def test_figures_that_are_better_than_the_images_are_named(packed, author, bench, tmp_path):
    code, _, err = verified(bench, author, rewritten(packed, tmp_path / "better.zip", {"reported": {"none": 12, "worst": 12}}))
    assert code == 1 and "MISMATCH reported worst: reported 12 of 12" in err

    store = Store(tmp_path / "store")
    shutil.copytree(author / "results" / "store", store.root, dirs_exist_ok=True)
    (key,) = (key for record in store.runs() for attack in record.attacks if attack.name == "average" for key in attack.keys)
    cell = store.read(key)
    row = int(cell.broken_rows[0])
    cell.logits[:, row] = 0
    cell.logits[:, row, cell.labels[row]] = 9
    (store.root / "cells" / key[:2] / f"{key}.npz").write_bytes(cell.to_bytes())
    path = rewritten(packed, tmp_path / "robust.zip", figures=figures(store, list(store.runs())))
    code, _, err = verified(bench, author, path)
    assert code == 1 and f"average (cell {key[:12]}), sample {cell.indices[row]}" in err, err


def test_other_weights_are_told_from_those_evaluated(packed, author, bench, tmp_path):
    tensors = load_file(unpack(packed, tmp_path) / WEIGHTS)
    tensors["heads.2.2.bias"] += 0.01
    path = rewritten(packed, tmp_path / "other.zip", weights=save(tensors))
    code, _, err = verified(bench, author, path)
    assert code == 1 and "MISMATCH weights: claimed SHA-256" in err

    torch.save(tensors, tmp_path / "other.pt")
    model = ("--model", f"{author / 'net.py'}:make")
    code, _, err = run(bench, author, "submit", *model, "--weights", tmp_path / "other.pt", "--output", "x.zip")
    assert code == 2 and "other.pt is not what was evaluated" in err and not Path("x.zip").exists()
    code, _, err = run(bench, author, "submit", *model, "--output", "x.zip")
    assert code == 2 and f"name it, --weights {author / 'net.pt'}" in err
    code, _, err = run(bench, author, "submit", "--output", "x.zip")
    assert code == 2 and "a network of your own: name what makes it" in err


def unpack(path, folder):
    for name, content in members(path).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_member_that_was_exchanged_and_a_file_that_was_damaged_are_told(packed, author, bench, tmp_path):
    found = members(packed)
    code_name = "code/parts.py"
    path = tmp_path / "exchanged.zip"
    zipped(path, {**found, code_name: found[code_name] + b"\n"})
    code, _, err = verified(bench, author, path)
    assert code == 1 and f"MISMATCH the file: {code_name} is another file than {MANIFEST} names" in err
    code, _, err = bench("merge", path, "--results", tmp_path / "board")
    assert code == 2 and "nothing of it is taken" in err

    raw = bytearray(packed.read_bytes())
    raw[raw.index(found[IMAGES][:40]) + 30] ^= 1
    for content in (bytes(raw), bytes(raw[: len(raw) // 2])):
        path.write_bytes(content)
        assert is_submission(path)
        code, _, err = verified(bench, author, path)
        assert code == 2 and "is not a whole submission" in err


def zipped(path, content, packing=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, each in content.items():
            archive.writestr(name, each)


def refusal(path):
    with pytest.raises(UserError) as raised, opened(path):
        pass
    return str(raised.value)


def test_what_has_no_place_in_a_submission_is_refused_before_it_is_written(packed, tmp_path, monkeypatch):
    found = members(packed)
    path = tmp_path / "odd.zip"
    for name in ("../out.py", "/out.py", "code/../out.py", "code/a.so", "setup.py", "code/.py", "code//a.py"):
        zipped(path, {**found, name: b"x"})
        assert "has no place in a submission" in refusal(path)
    zipped(path, found, zipfile.ZIP_DEFLATED)
    assert "packed or encrypted" in refusal(path)
    for missing in (MANIFEST, FIGURES, IMAGES):
        zipped(path, {name: content for name, content in found.items() if name != missing})
        assert f"it lacks {missing}" in refusal(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for name, content in [*found.items(), (MANIFEST, b"{}")]:
            archive.writestr(name, content)
    assert f"it holds {MANIFEST} twice" in refusal(path)
    monkeypatch.setitem(submission_file._MOST, WEIGHTS, 10)
    assert "a submission holds at most 10 of it" in refusal(packed)


def test_a_manifest_is_read_strictly(packed, tmp_path):
    said = json.loads(members(packed)[MANIFEST])
    path = tmp_path / "odd.zip"
    for change, why in (
        ({"schema": 99}, "newer exitbench"),
        ({"more": 1}, "more"),
        ({"files": {"a": "b"}}, "SHA-256"),
        ({"network": "x"}, "network"),
    ):
        zipped(path, {**members(packed), MANIFEST: json.dumps({**said, **change}).encode()})
        assert why in refusal(path)


def test_without_images_or_with_those_of_something_else_nothing_is_verified(packed, author, bench, tmp_path):
    (claims,) = export_file.from_bytes(members(packed)[IMAGES], "test")
    none = np.zeros(0, dtype=np.int64)
    empty = msgspec_replace(claims, none)
    code, _, err = verified(bench, author, rewritten(packed, tmp_path / "empty.zip", images=export_file.to_bytes([empty])))
    assert code == 2 and "came without their counterexamples" in err
    code, _, err = bench("merge", tmp_path / "empty.zip", "--results", tmp_path / "board")
    assert code == 2 and "lacks counterexamples" in err
    twice = export_file.to_bytes([claims, claims])
    code, _, err = verified(bench, author, rewritten(packed, tmp_path / "twice.zip", images=twice))
    assert code == 2 and "holds 2 evaluations; a submission is of one" in err
    shutil.copytree(author / "results", tmp_path / "figures")
    bench("export", "--format", "figures", "--output", tmp_path / "f.tar.xz", "--results", tmp_path / "figures")
    bench("merge", tmp_path / "f.tar.xz", "--results", tmp_path / "taken")
    model = ("--model", f"{author / 'net.py'}:make", "--weights", author / "net.pt")
    code, _, err = bench("submit", *model, "--output", "x.zip", "--results", tmp_path / "taken")
    assert code == 2 and "came without their counterexamples" in err


def msgspec_replace(claims, none):
    """Claims without a counterexample."""
    from dataclasses import replace

    arrays = {name: getattr(claims, name)[:0] for name in ("source", "row", "images", "exits", "predictions", "broken")}
    return replace(claims, **arrays, logits=claims.logits[:, none])


def test_what_cannot_be_compared_by_others_is_not_packed(packed, author, bench, tmp_path):
    model = ("--model", f"{author / 'net.py'}:make", "--weights", author / "net.pt")
    asked = ("submit", *model, "--output", "x.zip", "--results")
    assert "there is no store in" in bench(*asked, tmp_path / "empty")[2]
    code, _, err = run(bench, author, "submit", *model, "--training", "other", "--output", "x.zip")
    assert code == 2 and "no finished evaluation of what is asked for" in err
    for text in ("paper", "colour=red", "paper=", "paper=a\nb"):
        code, _, err = run(bench, author, "submit", *model, "--field", text, "--output", "x.zip")
        assert code == 2 and "the form is NAME=VALUE" in err
    results, clean = tmp_path / "more", tmp_path / "clean"
    for folder in (results, clean):
        shutil.copytree(author / "results", folder)
    again = [8 if each == 12 else each for each in RUN]
    assert bench("run", *model, *again, "--results", results)[0] == 0
    code, _, err = bench(*asked, results)
    assert code == 2 and "these are 2" in err and "--model, --training or --run" in err
    for path in (clean / "store" / "cells").glob("*/*.npz"):
        cell = Store(clean / "store").read(path.stem)
        if cell.header["attack"]["type"] != "Clean":
            path.unlink()
    code, _, err = bench(*asked, clean)
    assert code == 2 and "no finished attack" in err


def test_a_registered_network_is_named_by_its_digest_or_brings_its_weights(bench):
    from exitbench.models.weights import SHIPPED

    asked = ("--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "average", "--n", 4, "--steps", 1)
    assert bench("run", *asked, "--results", "shipped")[0] == 0
    code, out, err = bench("submit", "--output", "shipped.zip", "--results", "shipped")
    assert code == 0 and "no weights: they are registered" in out, err
    assert WEIGHTS not in members(Path("shipped.zip"))
    code, out, err = bench("verify", "shipped.zip", "--no-probe")
    assert code == 0 and "0 mismatches" in out, err

    tensors = {name: tensor.float() for name, tensor in load_file(SHIPPED / "rdi_smallcnn-digits-average.safetensors").items()}
    Path("mine.safetensors").write_bytes(save(tensors))
    torch.save(tensors, "mine.pt")
    assert bench("run", *asked, "--weights", "mine.safetensors", "--policy", "exit:2", "--results", "mine")[0] == 0
    code, _, err = bench("submit", "--output", "pt.zip", "--weights", "mine.pt", "--results", "mine")
    assert code == 2 and "registered networks are submitted with safetensors" in err
    code, out, err = bench("submit", "--output", "mine.zip", "--weights", "mine.safetensors", "--results", "mine")
    assert code == 0 and "its weights" in out, err
    Path("mine.safetensors").unlink()
    code, out, err = bench("verify", "mine.zip", "--no-probe")
    assert code == 0 and "0 mismatches" in out, err
