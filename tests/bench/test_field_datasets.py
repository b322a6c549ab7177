"""CIFAR-100, SVHN and Fashion-MNIST in torchvision's layouts: written by the tests, damaged, and told what they must not name."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torchvision.datasets as published
from hypothesis import given, settings
from hypothesis import strategies as st

from exitbench.data import cifar100, mnist, original_files, svhn
from exitbench.data.batch_pickle import Array, read_batch
from exitbench.data.cards import dataset_card
from exitbench.data.download import DataUnavailable
from exitbench.data.load import load_split
from exitbench.errors import UserError

RGB, GREY = (3, 32, 32), (1, 28, 28)
N = {"train": 50, "test": 6}


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()  # noqa: S324


def pixels(n, shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, *shape)).astype(np.uint8)


def as_python_2(images, labels):
    """A batch as Python 2 wrote it, opcode by opcode: text is bytes, and so is the content of the array."""

    def text(raw):
        return b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + len(raw).to_bytes(4, "little") + raw

    def whole(number):
        return b"K" + bytes([number]) if number < 256 else b"J" + number.to_bytes(4, "little")

    shape = whole(images.shape[0]) + whole(images.shape[1]) + b"\x86"
    kind = b"cnumpy\ndtype\n" + text(b"u1") + whole(0) + whole(1) + b"\x87R"
    kind += b"(" + whole(3) + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + whole(0) + b"tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + whole(0) + b"\x85" + text(b"b") + b"\x87R"
    array = made + b"(" + whole(1) + shape + kind + b"\x89" + text(images.tobytes()) + b"tb"
    numbers = b"](" + b"".join(map(whole, labels)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"fine_labels") + numbers + b"u."


def batch_of(images, labels):
    return {"data": images, "fine_labels": labels, "coarse_labels": [0] * len(labels), "filenames": ["x.png"] * len(labels)}


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Writes CIFAR-100's files, the test images as Python 2 did, and takes them for the originals."""
    folder = tmp_path / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    monkeypatch.setattr(original_files, "N_CALIBRATION", 10)
    for name, n in N.items():
        images, labels = pixels(n, (3072,), n), [i % 100 for i in range(n)]
        raw = as_python_2(images, labels) if name == "test" else pickle.dumps(batch_of(images, labels), protocol=2)
        (folder / name).write_bytes(raw)
        monkeypatch.setitem(cifar100.MD5, name, md5(folder / name))
    return folder


def test_the_published_digests_and_addresses_are_torchvisions():
    theirs = published.CIFAR100
    assert (theirs.url, theirs.tgz_md5) == (cifar100.URL, cifar100.ARCHIVE_MD5)
    assert dict([*theirs.train_list, *theirs.test_list]) == cifar100.MD5
    svhns = [published.SVHN.split_list[split] for split in ("train", "test")]
    assert {name: digest for _, name, digest in svhns} == svhn.MD5
    assert [url for url, *_ in svhns] == [svhn.URL + name for name in svhn.MD5]
    for ours, its in ((mnist.MNIST, published.MNIST), (mnist.FASHION_MNIST, published.FashionMNIST)):
        assert ours.md5 == dict(its.resources) and list(ours.mirrors) == its.mirrors


def test_threat_models_are_those_of_the_field():
    for name, linf in (("cifar100", 8 / 255), ("svhn", 8 / 255), ("fashion_mnist", 0.1)):
        assert dataset_card(name).eps["Linf"] == linf


class TestCifar100:
    def test_splits_are_those_of_the_files(self, cifar, tmp_path):
        test, train, held_out = (load_split("cifar100", split, RGB, tmp_path) for split in ("test", "train", "calibration"))
        assert (len(test), len(train), len(held_out)) == (6, 40, 10)
        assert (test.images == pixels(6, (3072,), 6).reshape(-1, 3, 32, 32)).all()
        assert test.labels.tolist() == [0, 1, 2, 3, 4, 5] and test.n_classes == 100
        assert (np.concatenate([train.images, held_out.images]) == pixels(50, (3072,), 50).reshape(-1, 3, 32, 32)).all()

    def test_torchvision_reads_the_same(self, cifar, tmp_path, monkeypatch):
        monkeypatch.setattr(published.CIFAR100, "test_list", [["test", md5(cifar / "test")]])
        monkeypatch.setattr(published.CIFAR100, "train_list", [["train", md5(cifar / "train")]])
        monkeypatch.setattr(published.CIFAR100, "_load_meta", lambda self: None)
        monkeypatch.setattr(published.CIFAR100, "_check_integrity", lambda self: True)
        theirs = published.CIFAR100(str(cifar.parent), train=False)
        ours = load_split("cifar100", "test", RGB, tmp_path)
        assert (theirs.data.transpose(0, 3, 1, 2) == ours.images).all() and theirs.targets == ours.labels.tolist()

    def test_another_file_than_the_original_is_refused(self, cifar, tmp_path):
        (cifar / "test").write_bytes(b"anything")
        with pytest.raises(UserError, match="test is not the original file of CIFAR-100"):
            load_split("cifar100", "test", RGB, tmp_path)

    def test_a_download_is_unpacked_once_and_the_archive_goes(self, cifar, tmp_path, monkeypatch):
        archive = tmp_path / "made.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(cifar, "cifar-100-python")
        monkeypatch.setattr(cifar100, "ARCHIVE_MD5", md5(archive))
        monkeypatch.setattr(cifar100, "URL", "http://127.0.0.1:9/nowhere")
        fresh = tmp_path / "fresh" / "cifar100"
        fresh.mkdir(parents=True)
        archive.rename(fresh / "cifar-100-python.tar.gz")  # as put there by hand
        assert len(load_split("cifar100", "test", RGB, fresh.parent)) == 6
        assert [path.name for path in fresh.iterdir()] == ["cifar-100-python"]

    @pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 100], [0, 1, 2], [0, 1, 2, 3, 4, -1], [0, 1, 2, 3, 4, True], "abcdef"])
    def test_labels_beyond_the_classes_are_refused(self, cifar, tmp_path, monkeypatch, labels):
        (cifar / "test").write_bytes(pickle.dumps(batch_of(pixels(6, (3072,)), labels), protocol=2))
        monkeypatch.setitem(cifar100.MD5, "test", md5(cifar / "test"))
        with pytest.raises(UserError, match=r"cifar-100-python/test .*fine_labels"):
            load_split("cifar100", "test", RGB, tmp_path)


class Called:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class TestPickles:
    @pytest.mark.parametrize("protocol", range(6))
    def test_every_protocol_gives_the_array(self, tmp_path, protocol):
        images = pixels(3, (5,))
        (tmp_path / "batch").write_bytes(pickle.dumps({"data": images}, protocol=protocol))
        if protocol >= 5:
            with pytest.raises(UserError, match="_frombuffer"):
                read_batch(tmp_path / "batch")
            return
        found = read_batch(tmp_path / "batch")["data"]
        assert isinstance(found, Array) and (found.values() == images).all()

    @pytest.mark.parametrize("function", [os.system, eval, np.load, np.frombuffer, io.open, getattr, np.array])
    def test_whatever_else_is_named_is_not_run(self, tmp_path, function):
        witness = tmp_path / "witness"
        (tmp_path / "batch").write_bytes(pickle.dumps({"data": Called(function, f"touch {witness}")}, protocol=2))
        with pytest.raises(UserError, match=r"batch is not a readable batch of CIFAR .*names"):
            read_batch(tmp_path / "batch")
        assert not witness.exists()

    @pytest.mark.parametrize(
        "array",
        [np.array([object()]), np.zeros(3), np.zeros((2, 2), np.uint8, order="F"), np.zeros(2, "U3"), np.zeros(2, "u1,u1")],
    )
    def test_arrays_of_anything_but_bytes_are_refused(self, tmp_path, array):
        (tmp_path / "batch").write_bytes(pickle.dumps({"data": array}, protocol=2))
        with pytest.raises(UserError, match="not a readable batch"):
            read_batch(tmp_path / "batch")

    @settings(max_examples=150)
    @given(data=st.data())
    def test_damage_is_an_answer_or_our_error(self, data, tmp_path_factory):
        raw = bytearray(as_python_2(pixels(2, (9,)), [0, 1]))
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(raw) - 1))
            if raw[place : place + 1] not in (b"r", b"j"):  # the memo, which Python's own reader makes as large as it is told to
                raw[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte not in b"rj"))
        path = tmp_path_factory.mktemp("batch") / "batch"
        path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
        try:
            assert isinstance(read_batch(path), dict)
        except UserError as error:
            assert str(path) in str(error)


@pytest.fixture
def houses(tmp_path, monkeypatch):
    """Writes SVHN's files and takes them for the originals."""
    from scipy.io import savemat

    monkeypatch.setattr(original_files, "N_CALIBRATION", 10)
    (tmp_path / "svhn").mkdir()

    def write(split, n, **other):
        path = tmp_path / "svhn" / f"{split}_32x32.mat"
        content = {"X": pixels(n, (3, 32, 32), n).transpose(2, 3, 1, 0), "y": np.arange(n)[:, None] % 10 + 1}
        savemat(path, {**content, **other}, do_compression=True)
        monkeypatch.setitem(svhn.MD5, path.name, md5(path))
        return path

    for split, n in N.items():
        write(split, n)
    return write


class TestSvhn:
    def test_splits_are_those_of_the_files_and_label_10_is_the_digit_0(self, houses, tmp_path):
        test, train, held_out = (load_split("svhn", split, RGB, tmp_path) for split in ("test", "train", "calibration"))
        assert (len(test), len(train), len(held_out)) == (6, 40, 10)
        assert (test.images == pixels(6, (3, 32, 32), 6)).all() and test.labels.tolist() == [1, 2, 3, 4, 5, 6]
        assert train.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]

    def test_torchvision_reads_the_same(self, houses, tmp_path, monkeypatch):
        path = houses("test", 12)
        monkeypatch.setattr(published.SVHN, "split_list", {"test": ["", path.name, md5(path)]})
        theirs, ours = published.SVHN(str(path.parent), "test"), load_split("svhn", "test", RGB, tmp_path)
        assert (theirs.data == ours.images).all() and (theirs.labels == ours.labels).all()

    @pytest.mark.parametrize(
        "content", [{"y": np.arange(6)[:, None] + 6}, {"X": np.zeros((32, 32, 3, 6))}, {"X": np.zeros((28, 28, 3, 6), np.uint8)}]
    )
    def test_labels_beyond_the_classes_and_other_shapes_are_refused(self, houses, tmp_path, content):
        houses("test", 6, **content)
        with pytest.raises(UserError, match=r"labels must be 0\.\.9, found|test_32x32\.mat holds X"):
            load_split("svhn", "test", RGB, tmp_path)

    def test_another_file_is_refused_and_a_damaged_one_named(self, houses, tmp_path, monkeypatch):
        path = houses("test", 6)
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(UserError, match=r"test_32x32\.mat is not the original"):
            load_split("svhn", "test", RGB, tmp_path)
        monkeypatch.setitem(svhn.MD5, path.name, md5(path))
        with pytest.raises(UserError, match=r"test_32x32\.mat is not a readable mat file"):
            load_split("svhn", "test", RGB, tmp_path)


class TestFashionMnist:
    @pytest.mark.parametrize("folder", ["fashion_mnist/FashionMNIST/raw", "FashionMNIST/raw"])
    def test_idx_files_are_read_from_torchvisions_folders(self, tmp_path, folder):
        raw = tmp_path / folder
        raw.mkdir(parents=True)
        images = pixels(4, (28, 28))
        header = bytes((0, 0, 8, 3)) + b"".join(side.to_bytes(4, "big") for side in (4, 28, 28))
        (raw / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes((0, 0, 8, 1, 0, 0, 0, 4, 9, 8, 7, 6))))
        split = load_split("fashion_mnist", "test", GREY, tmp_path)
        assert (split.images[:, 0] == images).all() and split.labels.tolist() == [9, 8, 7, 6]
        assert split.dataset == "fashion_mnist"


@pytest.mark.parametrize(("dataset", "shape"), [("cifar100", RGB), ("svhn", RGB), ("fashion_mnist", GREY)])
def test_data_that_is_nowhere_says_where_it_was_looked_for(tmp_path, dataset, shape):
    for split in ("test", "calibration"):
        with pytest.raises(DataUnavailable, match=r"no .* in .* \(looked for "):
            load_split(dataset, split, shape, tmp_path, download=False)


def test_a_network_of_ten_classes_does_not_take_a_hundred(cifar, bench, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))\n"
    )
    run = ["run", "--model", "net.py:make", "--attack", "single", "--n", "2", "--data", tmp_path]
    code, _, err = bench(*run, "--dataset", "cifar100")
    assert code == 2 and "the model has 10 classes, cifar100 has 100" in err, err
    code, _, err = bench("run", "--model", "rdi_smallcnn", "--attack", "single", "--data", tmp_path, "--dataset", "cifar100")
    assert code == 2 and "cifar100 has images of 3x32x32, the model takes 1x28x28" in err, err
