"""``bench verify`` and ``bench export``, end to end on shipped weights."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from exitbench.models.spec import digest
from exitbench.models.weights import find_weights, known_weights
from exitbench.store.store import Store
from exitbench.verify.export_file import from_bytes, to_bytes
from tests.bench.records import changed, record_of
from tests.processes import run
from tests.toys import ROOT

RUN = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single:1,single:3", "--n", "40", "--steps", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the results of a small run, and its counterexamples exported."""
    folder = tmp_path_factory.mktemp("made")
    export = ["export", "--counterexamples", "--output", folder / "theirs.npz"]
    for arguments in (RUN, export):
        assert run(*arguments, "--results", folder / "results", cwd=ROOT).returncode == 0
    return folder


def test_a_results_folder_is_verified_and_left_as_it_is_but_for_a_note_of_it(made, bench):
    before = {path: path.read_bytes() for path in (made / "results").rglob("*") if path.is_file()}
    code, out, err = bench("verify", made / "results")
    assert code == 0, err
    assert re.search(r"(\d+) counterexamples checked \(2 attacks\), 0 mismatches, [\d.]+ s", out)
    assert "compared with the reported clean accuracy and worst case" in out
    after = {path: path.read_bytes() for path in (made / "results").rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} == {"verified"}


def test_an_exported_file_and_one_run_are_verified_to_the_same_figures(made, bench):
    (record,) = (made / "results" / "store" / "runs").glob("*.json")
    whole = bench("verify", made / "results", "--no-probe")[1]
    for arguments in ([made / "theirs.npz"], [record], [record.stem[:10], "--results", made / "results"]):
        code, out, err = bench("verify", *arguments, "--no-probe")
        assert code == 0, err
        assert re.search(r"verified: .*? of 40", out)[0] == re.search(r"verified: .*? of 40", whole)[0]


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        ours = name.startswith("exitbench.attacks.") and name.rpartition(".")[2] not in ("settings", "knobs", "regions")
        if ours or name.partition(".")[0] in ("torchattacks", "pyautoattack"):
            raise ImportError(f"{{name}} is an attack's code")
sys.meta_path.insert(0, Blocked())
from exitbench.cli.main import main
for what in {places!r}:
    sys.argv = ["bench", "verify", what, "--no-probe"]
    try:
        main()
    except SystemExit as left:
        assert not left.code, (what, left.code)
"""


def test_it_takes_no_attack_s_code(made):
    code = BLOCKED.format(places=[str(made / what) for what in ("results", "theirs.npz")])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0 mismatches") == 2


def tampered(made, tmp_path, **changes):
    """The exported file with entries of its arrays changed: ``name=(at, value)``."""
    (claims,) = from_bytes((made / "theirs.npz").read_bytes(), "theirs")
    for name, (at, value) in changes.items():
        getattr(claims, name)[at] = value
    path = tmp_path / "tampered.npz"
    path.write_bytes(to_bytes([claims]))
    return path


TAMPERED = {
    "a pixel outside the ball": ({"images": ((0, 0, 14, 14), 0.5), "clean_images": ((0, 0, 14, 14), 0.0)}, "MISMATCH"),
    "a NaN pixel": ({"images": ((0, 0, 0, 0), np.nan)}, "1 pixels are NaN or infinite"),
    "a flipped label": ({"labels": (0, 9)}, "its clean image and label hash to"),
    "tampered logits": ({"logits": ((0, 0, 0), 50.0)}, "claimed logits are off by"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_file_ends_in_exit_code_1_and_says_what(made, tmp_path, bench, case):
    changes, message = TAMPERED[case]
    code, out, err = bench("verify", tampered(made, tmp_path, **changes))
    assert code == 1
    assert "NOT VERIFIED" in out and "MISMATCH" in err and message in err
    assert re.search(r"[1-9]\d* mismatches", out)


def test_a_pixel_outside_the_ball_is_named_with_its_attack_cell_and_sample(made, tmp_path, bench):
    (claims,) = from_bytes((made / "theirs.npz").read_bytes(), "theirs")
    value = 0.5 if claims.clean_images[claims.row[0], 0, 0, 0] < 0.2 else 0.0
    code, _, err = bench("verify", tampered(made, tmp_path, images=((0, 0, 0, 0), value)))
    assert code == 1
    assert f"MISMATCH {claims.where(0)}: claimed within Linf 0.23 of the clean image, found at 0.5" in err


def test_many_mismatches_are_counted_and_not_all_shown(made, tmp_path, bench):
    code, _, err = bench("verify", tampered(made, tmp_path, clean_logits=(..., 3.0)))
    assert code == 1 and err.count("MISMATCH") == 20 and "more mismatches" in err


def test_a_leaderboard_that_reports_another_worst_case_is_found(made, tmp_path, bench):
    shutil.copytree(made / "results", tmp_path / "results")
    (board,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    text = board.read_text()
    (row,) = [line for line in text.splitlines() if ",worst," in line]
    share = re.search(r",(0\.\d{6}),", row)[1]
    board.write_text(text.replace(row, row.replace(share, f"{float(share) + 1 / 40:.6f}", 1)))
    code, _, err = bench("verify", tmp_path / "results")
    assert code == 1 and "MISMATCH reported worst" in err


def test_other_weights_than_claimed(made, tmp_path, bench):
    _, shipped = find_weights("rdi_smallcnn", "digits")
    code, _, err = bench("verify", made / "theirs.npz", "--weights", shipped)
    assert code == 0, err
    other = tmp_path / "other.safetensors"
    shutil.copy(another_digest(shipped, tmp_path), other)
    code, _, err = bench("verify", made / "theirs.npz", "--weights", other)
    assert code == 1 and "MISMATCH weights: claimed SHA-256" in err


def another_digest(path, folder):
    """The same architecture with one weight changed."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1
    save_file(tensors, folder / "changed.safetensors")
    return folder / "changed.safetensors"


def relabelled(made, tmp_path, **subject):
    """The exported file about something else."""
    (claims,) = from_bytes((made / "theirs.npz").read_bytes(), "theirs")
    path = tmp_path / "relabelled.npz"
    path.write_bytes(to_bytes([replace(claims, subject=changed(claims.subject, **subject))]))
    return path


FOREIGN = {
    "an unknown model": ({"model": "rdi_smalcnn"}, "did you mean 'rdi_smallcnn'"),
    "unknown weights": ({"weights": "f" * 64}, "no weights of rdi_smallcnn with SHA-256 ffffffffffff"),
    "a model of other images": (
        {"model": "rdi_resnet38"},
        "the claims are about images (1, 28, 28), rdi_resnet38 takes (3, 32, 32)",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_claims_that_cannot_be_checked_end_in_exit_code_2(made, tmp_path, bench, case):
    subject, message = FOREIGN[case]
    code, _, err = bench("verify", relabelled(made, tmp_path, **subject))
    assert code == 2 and message in err


def test_weights_are_called_what_the_registry_calls_them(made, tmp_path, bench):
    cards = [card for card, _ in known_weights("rdi_smallcnn")]
    (own,) = {
        card.training for card in cards if card.sha256 == from_bytes((made / "theirs.npz").read_bytes(), "")[0].subject.weights
    }
    others = {card.training for card in cards} - {own}
    for name in (*sorted(others), "the_best"):
        code, _, err = bench("verify", relabelled(made, tmp_path, training=name))
        assert code == 1 and f"MISMATCH training: claimed to be {name}" in err
    code, out, _ = bench("verify", made / "theirs.npz")
    assert code == 0 and "is its author's" not in out


def test_easy_images_passed_off_as_the_dataset_are_found(made, tmp_path, bench):
    """A consistent file, hashes and digest included, about samples in another order."""
    (claims,) = from_bytes((made / "theirs.npz").read_bytes(), "theirs")
    turned = {name: getattr(claims, name)[::-1].copy() for name in ("labels", "inputs", "clean_images")}
    data = digest([row.tobytes().hex() for row in turned["inputs"]])
    turned |= {"clean_logits": claims.clean_logits[:, ::-1].copy(), "row": 39 - claims.row}
    path = tmp_path / "turned.npz"
    path.write_bytes(to_bytes([replace(claims, subject=changed(claims.subject, data=data), **turned)]))
    code, out, err = bench("verify", path)
    assert code == 1 and "MISMATCH sample 0: it is not sample 0 of digits test (scikit-learn)" in err
    assert " 40 mismatches" in out
    elsewhere = changed(claims.subject, data=data, dataset="mnist")
    path.write_bytes(to_bytes([replace(claims, subject=elsewhere, **turned)]))
    code, out, err = bench("verify", path, "--data", tmp_path / "no-data")
    assert code == 0 and "mnist is not at hand: that these are its test images is not checked" in out


def test_files_that_are_missing_or_damaged_end_in_exit_code_2(made, tmp_path, bench):
    code, _, err = bench("verify", tmp_path / "nowhere.npz")
    assert code == 2 and "is no file and no folder" in err
    (tmp_path / "short.npz").write_bytes((made / "theirs.npz").read_bytes()[:3000])
    code, _, err = bench("verify", tmp_path / "short.npz")
    assert code == 2 and "is not a whole file of exported counterexamples" in err
    code, _, err = bench("verify", made / "theirs.npz", "--model", "resnet38")
    assert code == 2 and "holds nothing to verify of model 'resnet38'" in err


def test_a_dataset_that_is_not_at_hand_is_said_with_the_way_out(tmp_path, bench, monkeypatch):
    """The record of a run on CIFAR-10, without CIFAR-10."""
    from exitbench.data import cifar10
    from exitbench.data.download import DataUnavailable

    def unreachable(*_arguments, **_options):
        raise DataUnavailable("no network here")

    monkeypatch.setattr(cifar10, "fetch", unreachable)
    Store(tmp_path / "results" / "store").write_run(record_of(model="rdi_resnet38", dataset="cifar10"))
    code, _, err = bench("verify", tmp_path / "results", "--data", tmp_path / "no-data")
    assert code == 2 and "--data" in err and "exitbench export --counterexamples" in err


def test_an_export_does_not_write_over_what_is_there(made, tmp_path, bench):
    export = ["export", "--counterexamples", "--results", made / "results", "--output", tmp_path / "a" / "file.npz"]
    code, out, err = bench(*export)
    assert code == 0, err
    assert "check it with: python -m bench verify" in out
    content = (tmp_path / "a" / "file.npz").read_bytes()
    assert content == (made / "theirs.npz").read_bytes()
    code, _, err = bench(*export)
    assert code == 2 and "--force" in err
    (tmp_path / "a" / "file.npz").write_bytes(b"old")
    assert bench(*export, "--force")[0] == 0
    assert (tmp_path / "a" / "file.npz").read_bytes() == content
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file.npz"]


def test_an_export_that_cannot_be_made_is_one_clear_message(made, tmp_path, bench):
    (tmp_path / "file").write_text("in the way")
    for arguments, message in (
        (["--results", tmp_path / "nowhere", "--output", tmp_path / "a.npz"], "there is no store in"),
        (["--results", made / "results", "--output", tmp_path / "file" / "a.npz"], "cannot be written"),
        (["--results", made / "results", "--output", tmp_path / "a.npz", "--model", "resnet38"], "of model 'resnet38'"),
    ):
        code, _, err = bench("export", "--counterexamples", *arguments)
        assert code == 2 and message in err
    assert bench("export", "--output", tmp_path / "a.npz")[0] == 2


@pytest.mark.parametrize("record", [{"attacks": []}, {"attacks": [{"name": "average"}], "model": "x"}, {"model": "x"}, []])
def test_a_record_that_is_none_is_a_message(tmp_path, bench, record):
    runs = tmp_path / "store" / "runs"
    runs.mkdir(parents=True)
    (runs / "a.json").write_text(json.dumps({"schema": 1, **record} if isinstance(record, dict) else record))
    code, _, err = bench("verify", tmp_path)
    assert code == 2 and "a.json cannot be read" in err
