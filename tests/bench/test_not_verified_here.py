"""Figures that came without images are marked until they are verified, and known data is told from any other."""

from unittest.mock import patch

import numpy as np
import pytest

from exitbench.data.known_inputs import are_known
from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models.weights import find_weights
from exitbench.report.leaderboard.flags import NOT_VERIFIED, lines
from exitbench.report.page.board import rows
from exitbench.report.write import boards
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from exitbench.training.publish import publish
from tests.processes import run
from tests.toys import ROOT

RUN = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single:1", "--n", "40", "--steps", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results, their figures without images, and their images."""
    folder = tmp_path_factory.mktemp("made")
    for arguments in (
        RUN,
        ["export", "--format", "figures", "--output", folder / "figures.tar.xz"],
        ["export", "--counterexamples", "--output", folder / "images.npz"],
    ):
        assert run(*arguments, "--results", folder / "results", cwd=ROOT).returncode == 0
    return folder


def only(results):
    (found,) = evaluations(Store(results / "store"))
    return found


def place(evaluation):
    (row,) = rows(boards([evaluation]))
    return row.cells["rank"].text


def test_what_came_without_images_is_marked_until_it_is_verified_with_them(made, tmp_path, bench):
    results = tmp_path / "merged"
    assert bench("merge", made / "figures.tar.xz", "--results", results)[0] == 0
    found = only(results)
    assert not found.verified and place(found) == "-"
    assert lines(found)[0].label == NOT_VERIFIED and NOT_VERIFIED in (results / "index.html").read_text()
    (board,) = (results / "leaderboards").glob("*.csv")
    assert board.read_bytes() == (made / "results" / "leaderboards" / board.name).read_bytes(), "the CSV is not changed"
    assert bench("verify", results)[0] == 2, "there is nothing to verify it by"
    code, _, err = bench("verify", results, "--images", made / "images.npz")
    assert code == 0, err
    assert only(results).verified and place(only(results)) == "1"
    assert bench("report", "--results", results)[0] == 0
    assert NOT_VERIFIED not in (results / "index.html").read_text()


def test_a_verification_is_of_exactly_what_was_verified(made, tmp_path, bench):
    results = tmp_path / "merged"
    bench("merge", made / "figures.tar.xz", "--results", results)
    bench("verify", results, "--images", made / "images.npz")
    path = next((results / "store" / "cells").glob("*/*.npz"))
    store = Store(results / "store")
    cell = store.read(path.stem)
    cell.passes[0] += 1
    store.write(cell)
    assert not only(results).verified


def with_images_of(made, results, names):
    """The figures of ``made``, with the images of some attacks."""
    ours, theirs = Store(results / "store"), Store(made / "results" / "store")
    for record in ours.runs():
        for attack in record.attacks:
            for key in attack.keys if attack.name in names else ():
                ours.write(theirs.read(key))


@pytest.fixture(scope="module")
def two_attacks(tmp_path_factory):
    """Results of a weak and a strong attack, and their figures without images."""
    folder = tmp_path_factory.mktemp("two")
    attacks = ["--attack", "single:1,single:3", "--eps", "0.2", "--steps", "6", "--n", "12"]
    run_it = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", *attacks, "--policy", "exit:3"]
    for arguments in (run_it, ["export", "--format", "figures", "--output", folder / "figures.tar.xz"]):
        done = run(*arguments, "--results", folder / "results", cwd=ROOT)
        assert done.returncode == 0, done.stderr
    whole = only(folder / "results")
    weak, strong = (set(np.flatnonzero(~attack.correct)) for attack in whole.attacks)
    assert weak < strong, "what the weak one breaks, the strong one breaks as well"
    return folder


def test_the_images_that_the_worst_case_stands_on_are_enough(two_attacks, tmp_path, bench):
    results = tmp_path / "merged"
    assert bench("merge", two_attacks / "figures.tar.xz", "--results", results)[0] == 0
    with_images_of(two_attacks, results, ["single:3"])
    assert not only(results).verified, "its clean images, too, are only somebody's word until they are scored here"
    code, out, err = bench("verify", results)
    assert code == 0 and "figures alone, their images are not at hand: single:1" in out, out + err
    found = only(results)
    assert found.verified and place(found) == "1" and found.figures_alone == ("single:1",)
    (line,) = [each for each in lines(found) if each.label == "figures alone"]
    assert line.kind == "info" and "single:1" in line.message
    for path in (results / "store" / "cells").glob("*/*.npz"):  # as in a store that was merged without any image
        path.unlink()
    assert bench("merge", two_attacks / "figures.tar.xz", "--results", results)[0] == 0
    noted = only(results)
    assert noted.verified and noted.figures_alone == ("single:1",), "the note says which images were not seen"


def test_images_of_an_attack_that_breaks_less_are_not_enough(two_attacks, tmp_path, bench):
    results = tmp_path / "merged"
    assert bench("merge", two_attacks / "figures.tar.xz", "--results", results)[0] == 0
    with_images_of(two_attacks, results, ["single:1"])
    assert not only(results).verified and place(only(results)) == "-"
    code, _, err = bench("verify", results)
    assert code == 2 and "came without their counterexamples" in err


def test_what_is_handed_on_has_all_its_images(two_attacks, tmp_path, bench):
    results = tmp_path / "merged"
    assert bench("merge", two_attacks / "figures.tar.xz", "--results", results)[0] == 0
    with_images_of(two_attacks, results, ["single:3"])
    for command in (["export", "--counterexamples"], ["submit"]):
        code, _, err = bench(*command, "--output", tmp_path / "file", "--results", results)
        assert code == 2 and "came without their counterexamples" in err


def test_weights_are_not_published_with_figures_that_are_not_verified(made, tmp_path, bench):
    bench("merge", made / "figures.tar.xz", "--results", tmp_path)
    card, path = find_weights("rdi_smallcnn", "digits")
    with patch.object(Evaluation, "complete", True), pytest.raises(UserError, match="not verified here"):
        publish(card, path, [only(tmp_path)], tmp_path / "weights")


def test_results_with_their_images_have_a_place_at_once(made):
    assert only(made / "results").verified and place(only(made / "results")) == "1"


def inputs_of(split):
    hashes = [bytes.fromhex(text) for text in split.batch(0, len(split)).input_hashes()]
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 32)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_digits_of_any_shape_and_number_are_known(shape, tmp_path):
    inputs = inputs_of(load_split("digits", "test", shape, tmp_path))
    assert all(are_known("digits", inputs[:n], shape) for n in (1, 20, 500))
    assert not are_known("digits", inputs[1:20], shape) and not are_known("cifar10", inputs[:20], shape)


@pytest.mark.parametrize(("dataset", "shape"), [("cifar10", (3, 32, 32)), ("mnist", (1, 28, 28))])
def test_the_originals_are_known(dataset, shape):
    from exitbench.data.download import DataUnavailable
    from exitbench.models.user_folders import data_folder

    try:
        split = load_split(dataset, "test", shape, data_folder(), download=False)
    except DataUnavailable as error:
        pytest.skip(str(error))
    inputs = inputs_of(split)
    assert are_known(dataset, inputs, shape) and are_known(dataset, inputs[:20], shape)
    assert not are_known(dataset, inputs[::-1], shape)


def test_black_images_called_cifar10_rank_on_a_board_of_their_own(tmp_path, bench):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "png")
    image = {"bytes": buffer.getvalue(), "path": ""}
    for split in ("test", "train"):
        path = tmp_path / "data" / "cifar10" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"img": [image] * 20, "label": [3] * 20}), path)
    (tmp_path / "own.py").write_text(
        "import torch\n\n\ndef net():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10)).eval()\n"
    )
    results = tmp_path / "results"
    run = ["run", "--model", "own.py:net", "--dataset", "cifar10", "--attack", "single:1", "--n", "20", "--steps", "1"]
    code, _, err = bench(*run, "--data", tmp_path / "data", "--results", results)
    assert code == 0, err
    (board,) = (results / "leaderboards").glob("*.csv")
    assert board.name.startswith("unknown-data-") and ",cifar10," not in board.read_text()
    assert "unknown data: said to be cifar10" in (results / "index.html").read_text()
