"""``imagefolder:PATH`` and ``hf:PATH``: which images, in which order, as which pixels, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torchvision.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from exitbench.data import decode, parts, shard
from exitbench.data.cards import dataset_card
from exitbench.data.decode import decoded
from exitbench.data.load import load_split
from exitbench.data.parts import ALIASES, Parts, chosen_parts, fixed_order
from exitbench.data.references import dataset_given
from exitbench.errors import UserError
from tests.bench.user_images import NET, coded, picture, write_folder, write_shard

CLASSES = ["ant", "bee", "cat"]
SHAPE = (3, 20, 20)
COUNTS = {"train": dict.fromkeys(CLASSES, 5), "val": {"ant": 4, "bee": 3, "cat": 3}}


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "birds", COUNTS)


@pytest.fixture
def shards(tmp_path):
    root = tmp_path / "pets"
    for name, seeds in (("test-00000-of-00002", range(7)), ("test-00001-of-00002", range(7, 10)), ("train-0", range(10, 25))):
        images = [coded(picture(seed)) for seed in seeds]
        write_shard(root / "data" / f"{name}.parquet", images, [seed % 3 for seed in seeds], CLASSES)
    return root


def load(reference, split="test", shape=SHAPE, tmp_path=None):
    return load_split(dataset_given(reference), split, shape, tmp_path)


class TestPixels:
    @settings(max_examples=60)
    @given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.integers(1, 40), margin=st.integers(0, 12))
    def test_they_are_torchvisions_resize_and_centre_crop(self, width, height, size, margin):
        image = picture(width, width, height)
        theirs = v2.Compose([v2.Resize(size + margin), v2.CenterCrop(size), v2.PILToTensor()])(image).numpy()
        ours = decoded(coded(image), (3, size, size), size + margin, "it")
        if image.size == (size, size):
            theirs = np.asarray(image).transpose(2, 0, 1)
        assert (ours == theirs).all()

    @settings(max_examples=40)
    @given(
        width=st.integers(1, 60), height=st.integers(1, 60), shape=st.tuples(st.sampled_from([1, 3]), *[st.integers(1, 30)] * 2)
    )
    def test_any_image_fills_any_shape(self, width, height, shape):
        white = Image.new("RGB", (width, height), "white")
        pixels = decoded(coded(white), shape, None, "it")
        assert pixels.shape == shape and (pixels == 255).all()

    def test_the_usual_margin_is_the_fields(self):
        assert [decode.usual_resize(size) for size in (224, 299, 384)] == [256, 341, 438]

    def test_images_of_the_right_size_keep_their_pixels(self):
        image = picture(1, 20, 20)
        assert (decoded(coded(image), SHAPE, None, "it").transpose(1, 2, 0) == np.asarray(image)).all()

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
    def test_images_of_8_bits_are_taken_in_any_mode(self, mode):
        form = "TIFF" if mode == "CMYK" else "PNG"
        pixels = decoded(coded(Image.new(mode, (9, 9), 0), form), SHAPE, None, "it")
        assert (pixels == (255 if mode == "CMYK" else 0)).all()

    @pytest.mark.parametrize("mode", ["I;16", "I", "F"])
    def test_other_scales_are_refused(self, mode):
        image = Image.fromarray(np.full((9, 9), 40_000, {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
        with pytest.raises(UserError, match="it has pixels of the kind"):
            decoded(coded(image, "TIFF"), SHAPE, None, "it")

    def test_a_bomb_is_refused_from_its_header(self, monkeypatch):
        monkeypatch.setattr(decode, "MOST_PIXELS", 1000)
        with pytest.raises(UserError, match="it has 100x40 pixels; at most 1,000"):
            decoded(coded(Image.new("RGB", (100, 40))), SHAPE, None, "it")

    @settings(max_examples=80)
    @given(data=st.data())
    def test_damage_is_pixels_or_our_error(self, data):
        raw = bytearray(coded(picture(3), data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"]))))
        for _ in range(data.draw(st.integers(0, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        try:
            assert decoded(bytes(raw[: data.draw(st.integers(0, len(raw)))]), SHAPE, None, "the image").shape == SHAPE
        except UserError as error:
            assert str(error).startswith("the image")


class TestParts:
    @given(names=st.sets(st.sampled_from(["test", "validation", "train"])), n=st.integers(1, 20_000))
    def test_held_out_images_are_never_test_images(self, names, n):
        try:
            found = chosen_parts(names or {""}, None, "it")
        except UserError:
            assert names == {"train"}
            return
        assert found.test != found.held_out and found.test in (names or {""})
        held_out, train, test = (found.rows(split, n) for split in ("calibration", "train", "test"))
        assert (test.start, test.stop) == (0, n)
        if found.held_out is not None:
            assert 1 <= held_out.stop <= parts.MOST_HELD_OUT and held_out.start == 0
        if found.held_out == "train":
            assert train == slice(held_out.stop, n) and found.name_of("train") == "train"
        else:
            assert found.name_of("train") is None

    def test_a_part_is_chosen_by_any_of_its_names(self):
        for alias, part in ALIASES.items():
            assert chosen_parts({"train", "test", "validation"}, alias, "it").test == part
        with pytest.raises(UserError, match=r"it has no part 'extra' \(it has: test, train\)"):
            chosen_parts({"train", "test"}, "extra", "it")
        assert Parts("test", None).name_of("calibration") is None

    def test_the_order_is_pinned(self):
        """A change here would make every stored result of users' images another dataset's."""
        assert fixed_order(8).tolist() == [6, 2, 1, 7, 3, 0, 5, 4]


class TestFolder:
    def test_labels_are_those_of_torchvision(self, folder, tmp_path):
        theirs = torchvision.datasets.ImageFolder(folder / "val")
        split = load(f"imagefolder:{folder}", tmp_path=tmp_path)
        assert split.n_classes == 3 and len(split) == len(theirs) == 10
        order = fixed_order(10)
        for i in range(10):
            path, label = theirs.samples[order[i]]
            assert split.labels[i] == label
            assert (split.images[i : i + 1][0] == decoded(coded(Image.open(path).convert("RGB")), SHAPE, None, path)).all()

    def test_the_first_images_are_of_several_classes(self, tmp_path):
        write_folder(tmp_path / "many", {"": dict.fromkeys(CLASSES, 30)})
        labels = load(f"imagefolder:{tmp_path / 'many'}", tmp_path=tmp_path).labels
        assert set(labels[:10].tolist()) == {0, 1, 2}

    def test_calibration_images_are_held_out_of_train(self, folder, tmp_path):
        held_out, train = (load(f"imagefolder:{folder}", split, tmp_path=tmp_path) for split in ("calibration", "train"))
        assert (len(held_out), len(train)) == (3, 12)
        assert not set(held_out.input_hashes()) & set(train.input_hashes())

    def test_test_comes_before_val_and_another_part_can_be_named(self, folder, tmp_path):
        write_folder(folder, {"test": {"ant": 1, "bee": 1}})
        assert len(load(f"imagefolder:{folder}", tmp_path=tmp_path)) == 2
        assert len(load(f"imagefolder:{folder},split=val", tmp_path=tmp_path)) == 10

    def test_an_unlabelled_test_folder_is_not_the_test_split(self, folder, tmp_path):
        (folder / "test").mkdir()
        picture(0).save(folder / "test" / "0001.png")
        assert len(load(f"imagefolder:{folder}", tmp_path=tmp_path)) == 10

    def test_sizes_are_the_networks_unless_one_is_given(self, folder, tmp_path):
        assert load(f"imagefolder:{folder}", shape=(1, 16, 16), tmp_path=tmp_path).batch(0, 2).x.shape == (2, 1, 16, 16)
        given_size = dataset_given(f"imagefolder:{folder},size=16")
        assert dataset_card(given_size).input_shape == (3, 16, 16)
        with pytest.raises(UserError, match="images of 3x16x16, the model takes 3x20x20"):
            load_split(given_size, "test", SHAPE, tmp_path)
        resized = [load(f"imagefolder:{folder},resize={size}", tmp_path=tmp_path).images[:1] for size in (20, 30)]
        assert (resized[0] != resized[1]).any()

    def test_the_name_says_what_was_read(self, folder, tmp_path):
        name = dataset_given(f"imagefolder:{folder}")
        assert name.startswith("imagefolder-birds-")
        assert dataset_given(f"imagefolder:{folder.parent}/birds/") == name
        changed = [dataset_given(f"imagefolder:{folder}{option}") for option in (",size=20", ",resize=24", ",split=train")]
        picture(99).save(folder / "val" / "ant" / "0000.jpg")
        changed.append(dataset_given(f"imagefolder:{folder}"))
        (folder / "val" / "ant" / "0000.jpg").rename(folder / "val" / "bee" / "0009.jpg")
        changed.append(dataset_given(f"imagefolder:{folder}"))
        assert len({name, *changed}) == 6

    def test_a_held_out_image_of_the_same_size_is_another_dataset(self, tmp_path):
        """Calibration logits are kept under the name."""
        names = set()
        for seed in (1, 2):
            for part in ("train", "test"):
                for label in CLASSES:
                    path = tmp_path / "birds" / part / label / "a.bmp"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture(seed if part == "train" else 0).save(path)
            names.add(dataset_given(f"imagefolder:{tmp_path / 'birds'}"))
        assert len(names) == 2

    def test_images_are_decoded_when_they_are_needed(self, folder, tmp_path, monkeypatch):
        read = []
        monkeypatch.setattr("exitbench.data.image_folder.decoded", lambda path, *rest: read.append(path) or decoded(path, *rest))
        split = load(f"imagefolder:{folder}", tmp_path=tmp_path)
        assert not read
        split.batch(2, 5)
        assert len(read) == 3


FOLDERS = {
    "no folder": ({}, "nowhere", "there is no folder"),
    "no class folders": ({}, "empty", "has no class folders"),
    "no images": ({"": {"ant": 0, "bee": 0}}, "empty", "holds no images in its class folders"),
    "train alone": ({"train": {"ant": 1}}, "x", "has no test images"),
    "two of one part": ({"val": {"ant": 1}, "validation": {"ant": 1}}, "x", "two folders of validation images"),
    "a class beyond those of train": (
        {"train": {"ant": 1, "cat": 1}, "val": {"ant": 1, "bee": 1}},
        "x",
        r"val/bee is a class that",
    ),
}


@pytest.mark.parametrize(("counts", "name", "message"), FOLDERS.values(), ids=FOLDERS)
def test_folders_that_cannot_be_used(tmp_path, counts, name, message):
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / name, counts)
    with pytest.raises(UserError, match=message):
        load(f"imagefolder:{tmp_path / name}", tmp_path=tmp_path)


OPTIONS = {
    ",size=0": "size=0 must be a number of pixels, 1..4096",
    ",size=9999": "must be a number of pixels",
    ",size=\uff12\uff12": "must be a number of pixels",
    ",size=": "must be a number of pixels",
    ",side=3": r"has no option 'side' \(known: size, resize, split\)",
    ",size=30,resize=20": "cannot be resized to 20 and then cropped to 30",
    ",split=extra": "has no part 'extra'",
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.items())
def test_options_that_cannot_be_used(folder, options, message):
    with pytest.raises(UserError, match=message):
        dataset_given(f"imagefolder:{folder}{options}")


def test_a_folder_may_have_commas_and_equal_signs_in_its_name(tmp_path):
    write_folder(tmp_path / "a,b=c" / "d,size=2", {"": {"ant": 1, "bee": 2}})
    assert dataset_card(dataset_given(f"imagefolder:{tmp_path}/a,b=c/d,size=2/,size=9")).input_shape == (3, 9, 9)


class TestShards:
    def test_rows_are_images_and_labels_whatever_their_groups(self, shards, tmp_path):
        split = load(f"hf:{shards}", tmp_path=tmp_path)
        assert (len(split), split.n_classes) == (10, 3)
        order = fixed_order(10).tolist()
        assert split.labels.tolist() == [row % 3 for row in order]
        whole = split.images[:]
        for i, row in enumerate(order):
            assert (whole[i] == decoded(coded(picture(row)), SHAPE, None, "it")).all()
            assert (split.images[i : i + 1][0] == whole[i]).all()

    def test_calibration_images_are_held_out_of_train(self, shards, tmp_path):
        held_out, train = (load(f"hf:{shards}", split, tmp_path=tmp_path) for split in ("calibration", "train"))
        assert (len(held_out), len(train)) == (3, 12)
        assert not set(held_out.input_hashes()) & set(train.input_hashes())

    def test_columns_are_those_of_the_metadata_or_named(self, tmp_path):
        path = write_shard(tmp_path / "test.parquet", [coded(picture(0))], [1], CLASSES, columns=("photo", "fine_label"))
        assert load(f"hf:{path}", tmp_path=tmp_path).labels.tolist() == [1]
        path = write_shard(tmp_path / "x" / "test.parquet", [coded(picture(0))], [1], columns=("photo", "fine_label"))
        with pytest.raises(UserError, match=r"has no column 'image'; say which one is meant, as in ,image=NAME \(it has: photo"):
            dataset_given(f"hf:{path}")
        split = load(f"hf:{path},image=photo,label=fine_label", tmp_path=tmp_path)
        assert split.n_classes is None and split.labels.tolist() == [1]

    def test_the_name_says_what_was_read(self, shards):
        name = dataset_given(f"hf:{shards}")
        assert name.startswith("hf-pets-") and dataset_given(f"hf:{shards}") == name
        write_shard(shards / "data" / "train-0.parquet", [coded(picture(99))] * 15, [0] * 15, CLASSES)
        assert dataset_given(f"hf:{shards}") != name

    @pytest.mark.parametrize("layout", ["test.parquet", "plain_text/test/0000.parquet", "data/x_test.0.parquet", "x.parquet"])
    def test_parts_are_said_by_files_or_folders(self, tmp_path, layout):
        write_shard(tmp_path / "d" / layout, [coded(picture(0))] * 2, [0, 1], CLASSES)
        assert len(load(f"hf:{tmp_path / 'd'}", tmp_path=tmp_path)) == 2

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 3], r"the label \(label\) of row 1 is 3; labels must be 0\.\.2, it names 3 classes"),
            ([-1, 0], r"the label \(label\) of row 0 is -1.*labels that are withheld"),
            (pa.array([0, None], pa.int64()), "whole numbers, it has 1 missing values"),
            (pa.array(["ant", "bee"]), "whole numbers, it has values of type string"),
            (pa.array([0.0, 1.0]), "whole numbers, it has values of type double"),
        ],
    )
    def test_labels_beyond_the_classes_are_named(self, tmp_path, labels, message):
        write_shard(tmp_path / "test.parquet", [coded(picture(0))] * 2, labels, CLASSES)
        with pytest.raises(UserError, match=rf"test\.parquet: {message}|test\.parquet: labels \(label\) must be {message}"):
            load(f"hf:{tmp_path}", tmp_path=tmp_path)

    def test_images_that_are_missing_or_damaged_are_named(self, tmp_path):
        for bad, message in ((None, "row 2 has no image bytes"), (b"\x89PNG", "the image in row 2 of .* cannot be decoded")):
            write_shard(tmp_path / "test.parquet", [coded(picture(0))] * 2 + [bad], [0, 1, 2], CLASSES)
            split = load(f"hf:{tmp_path}", tmp_path=tmp_path)
            with pytest.raises(UserError, match=message):
                split.images[:]

    def test_what_unpacks_to_too_much_is_refused_before_it_is(self, shards, tmp_path, monkeypatch):
        """``tests/bench/test_data_bounds.py`` has files whose footers lie about their pages."""
        split = load(f"hf:{shards}", tmp_path=tmp_path)
        monkeypatch.setattr(shard, "MOST_PAGE", 1_000)
        with pytest.raises(UserError, match=r"test-0000.*: a page of images unpacks to [\d,]+ bytes; at most 1,000"):
            split.images[:2]
        monkeypatch.setattr(shard, "MOST_ROWS", 6)
        with pytest.raises(UserError, match="says that it has 7 rows; at most 6"):
            dataset_given(f"hf:{shards}")

    def test_repeated_images_are_read_as_any(self, tmp_path):
        image = coded(picture(0))
        write_shard(tmp_path / "test.parquet", [image] * 40, [0] * 40, CLASSES, group=40)
        split = load(f"hf:{tmp_path}", tmp_path=tmp_path)
        assert (split.images[:] == decoded(image, SHAPE, None, "it")).all()

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 not parquet PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1", b"<html>"])
    def test_what_is_no_parquet_file_is_named(self, tmp_path, content):
        (tmp_path / "test.parquet").write_bytes(content)
        with pytest.raises(UserError, match=r"test\.parquet is not a readable parquet file"):
            dataset_given(f"hf:{tmp_path}")

    def test_shards_of_several_datasets_are_refused(self, shards):
        write_shard(shards / "other" / "test.parquet", [coded(picture(0))], [0], ["x", "y"])
        with pytest.raises(UserError, match="has other classes than"):
            dataset_given(f"hf:{shards}")

    @settings(max_examples=60)
    @given(data=st.data())
    def test_damage_is_an_answer_or_our_error(self, data, tmp_path_factory):
        path = tmp_path_factory.mktemp("shard") / "test.parquet"
        raw = bytearray(write_shard(path, [coded(picture(0, 8, 8))] * 3, [0, 1, 2], CLASSES).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(raw[: data.draw(st.integers(len(raw) - 40, len(raw)))]))
        try:
            load(f"hf:{path}", tmp_path=path.parent).images[:]
        except UserError as error:
            assert "test.parquet" in str(error)


def test_a_network_must_fit(folder, bench, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    run = ["--dataset", f"imagefolder:{folder},size=20", "--attack", "single", "--policy", "exit:2", "--n", "2"]
    code, _, err = bench("run", "--model", "net.py:two", *run)
    assert code == 2 and "the model has 2 classes, imagefolder-birds-" in err and "has 3" in err, err
    code, _, err = bench("run", "--model", "net.py:grey", *run)
    assert code == 2 and "has images of 3x20x20, the model takes 1x20x20" in err, err
    path = write_shard(tmp_path / "test.parquet", [coded(picture(0))] * 3, [0, 1, 7])
    code, _, err = bench("run", "--model", "net.py:three", "--dataset", f"hf:{path}", "--attack", "single", "--policy", "exit:2")
    assert code == 2 and "the model has 3 classes, hf-test-" in err and "labels up to 7" in err, err
