import gzip
import hashlib
import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from exitbench.data import download
from exitbench.data.cards import dataset_card, dataset_names
from exitbench.data.cifar10 import BATCH, CALIBRATION_PER_BATCH
from exitbench.data.download import DataUnavailable, fetch
from exitbench.data.load import load_split
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.errors import UnknownName
from tests.silent import silent_server

RGB, GREY = (3, 32, 32), (1, 28, 28)


def write_parquet(path, images, labels, coding="PNG"):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    coded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, coding)
        coded.append({"bytes": buffer.getvalue(), "path": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"img": coded, "label": pa.array(labels, pa.int64())}), path)


def noise_images(n, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, 32, 32, 3)).astype(np.uint8)


def write_mnist(root, n=4, *, zipped=True):
    raw = root / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.arange(n * 784, dtype=np.uint8).tobytes()
    files = {
        "t10k-images-idx3-ubyte": bytes((0, 0, 8, 3)) + b"".join(d.to_bytes(4, "big") for d in (n, 28, 28)) + images,
        "t10k-labels-idx1-ubyte": bytes((0, 0, 8, 1)) + n.to_bytes(4, "big") + bytes(range(n)),
    }
    for name, content in files.items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(content)) if zipped else (raw / name).write_bytes(content)
    return raw


class TestDigits:
    def test_the_splits_are_disjoint_and_complete(self, tmp_path):
        sizes = [len(load_split("digits", split, GREY, tmp_path)) for split in ("train", "calibration", "test")]
        assert sizes == [1097, 200, 500]
        hashes = [
            text
            for split in ("train", "calibration", "test")
            for text in load_split("digits", split, GREY, tmp_path).batch(0, 2000).input_hashes()
        ]
        assert len(set(hashes)) > 1780, "distinct images stay distinct"

    def test_they_are_the_same_everywhere(self, tmp_path):
        """Pinned: a change here would silently orphan every stored digits result and every shipped card."""
        batch = load_split("digits", "test", RGB, tmp_path).batch(0, 500)
        digest = hashlib.sha256("".join(batch.input_hashes()).encode()).hexdigest()
        assert digest == "f8f06033ea9bf62454c6449253ed0e2c3cbcdf1b0c90b07f862033b3ca41bcc2"

    def test_enlarging_repeats_pixels_exactly(self, tmp_path):
        rgb, grey = (load_split("digits", "test", shape, tmp_path).batch(0, 3).x for shape in (RGB, GREY))
        assert (rgb[:, :, ::4, ::4] == rgb[:, :, 3::4, 3::4]).all()
        assert (grey[:, :, 2:-2:3, 2:-2:3] == rgb[:, :1, ::4, ::4]).all()
        assert (grey[:, :, :2] == 0).all()

    def test_a_model_smaller_than_the_digits_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="smaller"):
            load_split("digits", "test", (1, 4, 4), tmp_path)


class TestMnist:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_idx_files_are_read_zipped_or_not(self, tmp_path, zipped):
        write_mnist(tmp_path, zipped=zipped)
        split = load_split("mnist", "test", GREY, tmp_path)
        assert split.labels.tolist() == [0, 1, 2, 3]
        assert split.images[0, 0, 0, :5].tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda raw: raw[:-10],
            lambda raw: raw[:30],
            lambda _: b"",
            lambda _: b"<html>",
            lambda raw: raw[:60] + bytes(8) + raw[68:],
        ],
    )
    def test_damaged_files_are_named(self, tmp_path, damage):
        path = write_mnist(tmp_path) / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UserError, match="t10k-images"):
            load_split("mnist", "test", GREY, tmp_path)

    def test_a_file_that_is_too_short_for_its_header_is_refused(self, tmp_path):
        path = write_mnist(tmp_path, zipped=False) / "t10k-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(UserError, match="truncated or damaged"):
            load_split("mnist", "test", GREY, tmp_path)

    def test_the_real_thing(self, mnist_dir):
        test, train, held_out = (load_split("mnist", split, GREY, mnist_dir) for split in ("test", "train", "calibration"))
        assert (len(test), len(train), len(held_out)) == (10_000, 58_000, 2_000)
        assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]


class TestCifar10:
    def test_lossless_and_hugging_face_files_are_read(self, tmp_path):
        images = noise_images(6)
        for folder in ("a/cifar10-lossless", "b/cifar10", "c/cifar10/plain_text"):
            write_parquet(tmp_path / folder / "test.parquet", images, range(6))
            split = load_split("cifar10", "test", RGB, tmp_path / folder[0])
            assert (split.images.transpose(0, 2, 3, 1) == images).all()
            assert split.labels.tolist() == list(range(6))

    def test_jpeg_is_no_test_data(self, tmp_path):
        write_parquet(tmp_path / "cifar10" / "test.parquet", noise_images(2), [0, 1], "JPEG")
        with pytest.raises(UserError, match="original pixels only"):
            load_split("cifar10", "test", RGB, tmp_path)

    def test_original_pixels_take_the_place_of_jpeg_ones(self, tmp_path):
        n = BATCH * 4 + 500
        labels = np.arange(n) % 10
        flat = np.zeros((n, 32, 32, 3), dtype=np.uint8)
        write_parquet(tmp_path / "cifar10-jpeg" / "train.parquet", flat, labels, "JPEG")
        per_batch = CALIBRATION_PER_BATCH + 5
        official = np.concatenate([BATCH * b + np.arange(per_batch) for b in range(5)])
        originals = noise_images(len(official))
        write_parquet(tmp_path / "cifar10-lossless" / "train.parquet", originals, labels[official])
        held_out = load_split("cifar10", "calibration", RGB, tmp_path)
        kept = official % BATCH < CALIBRATION_PER_BATCH
        assert (held_out.images.transpose(0, 2, 3, 1) == originals[kept]).all()
        assert (held_out.labels == labels[official][kept]).all()
        train = load_split("cifar10", "train", RGB, tmp_path)
        assert len(train) == n - 5 * CALIBRATION_PER_BATCH
        assert (train.images[:5].transpose(0, 2, 3, 1) == originals[~kept][:5]).all()

    def test_files_that_disagree_are_refused(self, tmp_path):
        labels = np.zeros(BATCH * 4 + 10, dtype=int)
        write_parquet(tmp_path / "cifar10-jpeg" / "train.parquet", np.zeros((len(labels), 32, 32, 3), np.uint8), labels, "JPEG")
        write_parquet(tmp_path / "cifar10-lossless" / "train.parquet", noise_images(5), [1] * 5)
        with pytest.raises(UserError, match="same images"):
            load_split("cifar10", "calibration", RGB, tmp_path)

    @pytest.mark.parametrize("content", [b"", b"PAR1 not parquet PAR1", b"<html>"])
    def test_a_damaged_file_is_named(self, tmp_path, content):
        (tmp_path / "cifar10").mkdir()
        (tmp_path / "cifar10" / "test.parquet").write_bytes(content)
        with pytest.raises(UserError, match=r"test\.parquet is not a readable"):
            load_split("cifar10", "test", RGB, tmp_path)

    def test_the_real_thing(self, cifar10_dir):
        test, held_out = (load_split("cifar10", split, RGB, cifar10_dir) for split in ("test", "calibration"))
        assert test.labels[:5].tolist() == [3, 8, 8, 0, 6]
        assert len(test) >= 1017 and len(held_out) == 2000


class TestSplit:
    def test_labels_out_of_range_are_refused(self):
        with pytest.raises(UserError, match=r"labels must be 0\.\.9, found 0\.\.10"):
            Split("x", "test", np.zeros((2, 1, 2, 2), np.uint8), np.array([0, 10]), 10, "-")

    @pytest.mark.parametrize("pixel", [np.nan, 1.5, -0.1, np.inf])
    def test_pixels_out_of_range_are_refused(self, pixel):
        with pytest.raises(UserError, match="pixels"):
            Split("x", "test", np.full((1, 1, 2, 2), pixel, np.float32), np.array([0]), 10, "-")

    def test_counts_that_do_not_agree_are_refused(self):
        with pytest.raises(UserError, match="do not fit"):
            Split("x", "test", np.zeros((3, 1, 2, 2), np.uint8), np.array([0]), 10, "-")


def test_a_dataset_of_another_shape_is_refused(tmp_path):
    with pytest.raises(UserError, match="images of 1x28x28, the model takes 3x32x32"):
        load_split("mnist", "test", RGB, tmp_path)


def test_data_that_is_nowhere_says_where_it_was_looked_for(tmp_path):
    for dataset, shape in (("cifar10", RGB), ("mnist", GREY)):
        with pytest.raises(DataUnavailable, match="looked for"):
            load_split(dataset, "test", shape, tmp_path, download=False)


def test_every_dataset_has_its_threat_models():
    for name in dataset_names():
        card = dataset_card(name)
        assert set(card.eps) == {"Linf", "L2"}
        assert card.steps >= 20
    with pytest.raises(UnknownName, match="did you mean 'cifar10'"):
        dataset_card("cifar-10")


CONTENT = b"the original file" * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()  # noqa: S324


@pytest.fixture
def server():
    """A web server on this machine that serves the file, a page in its place, or half of it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = {"/file": CONTENT, "/page": b"<!DOCTYPE html>" + b"x" * 500, "/half": CONTENT[:500]}.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(CONTENT if self.path == "/half" else body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_download_arrives_whole_from_the_first_mirror_that_has_it(server, tmp_path):
    fetch([f"{server}/gone", f"{server}/page", f"{server}/file"], MD5, tmp_path / "data" / "f.gz")
    assert (tmp_path / "data" / "f.gz").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["f.gz"]


@pytest.mark.parametrize(("path", "why"), [("page", "HTML page"), ("half", "half|MD5|Incomplete"), ("gone", "404|Not Found")])
def test_a_failed_download_leaves_nothing_behind(server, tmp_path, path, why):
    with pytest.raises(DataUnavailable, match=why):
        fetch([f"{server}/{path}"], MD5, tmp_path / "f.gz")
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_an_answer(tmp_path):
    with pytest.raises(DataUnavailable, match="could not download"):
        fetch(["http://127.0.0.1:9/x"], MD5, tmp_path / "f.gz")


def test_a_silent_server_is_given_up_and_the_file_can_be_put_there_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
    target = tmp_path / "data" / "f.gz"
    with silent_server() as address:
        with pytest.raises(DataUnavailable, match=r"timed out.*put it at ") as caught:
            fetch([f"{address}/f.gz"], MD5, target)
        assert str(caught.value).endswith(str(target)) and not list(target.parent.iterdir())
        target.write_bytes(CONTENT)
        fetch([f"{address}/f.gz"], MD5, target)
