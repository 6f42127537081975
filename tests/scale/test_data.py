import itertools
import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from protojax.scale import data, parts, sources


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images each, 20 high and 30 wide."""
    rng = np.random.default_rng(0)
    for name in ("wren", "crow"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def take(stream, count):
    return list(itertools.islice(stream, count))


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_started_stream_gives_what_the_whole_one_gives():
    options = {"size": 4, "image_size": 16, "seed": 3}
    whole = take(data.batches("parts:10", "train", **options), 7)
    late = take(data.batches("parts:10", "train", **options, start=3), 4)
    assert_same(whole[3:], late)


def test_an_epoch_meets_no_image_twice_and_the_next_has_another_order():
    stream = data.batches("parts:9", "train", size=4, image_size=16, seed=0)
    ids = [batch["id"] for batch in take(stream, 4)]
    first, second = np.concatenate(ids[:2]), np.concatenate(ids[2:])
    assert len(set(first)) == len(set(second)) == 8
    assert not np.array_equal(first, second)


def test_batches_are_what_they_promise():
    batch = next(data.batches("parts:20", "test", size=5, image_size=24, seed=0))
    assert batch["image"].shape == (5, 24, 24, 3)
    assert batch["image"].dtype == np.float32
    assert batch["label"].dtype == batch["id"].dtype == np.int32
    whole = data.load("parts:20", "test", image_size=24)
    assert_same(batch["image"], whole["image"][batch["id"]])
    assert_same(batch["label"], whole["label"][batch["id"]])


def test_parts_are_the_birds_and_splits_do_not_overlap():
    train = data.load("parts", "train", image_size=32, limit=5)
    test = data.load("parts", "test", image_size=32, limit=5)
    drawn = parts.draw(range(5), image_size=32)
    np.testing.assert_array_equal(train["image"], drawn.image)
    np.testing.assert_array_equal(train["label"], drawn.label)
    assert np.abs(train["image"] - test["image"]).mean((1, 2, 3)).min() > 0.02


def test_a_limit_with_a_seed_draws_from_everywhere(folder):
    drawn = data.load(f"folder:{folder}", "all", image_size=8, limit=4, seed=1)
    assert set(drawn["label"]) == {0, 1}
    assert (np.diff(drawn["id"]) > 0).all()


def test_sub_folders_are_classes_in_alphabetical_order(folder):
    loaded = data.load(f"folder:{folder}", "all", image_size=20)
    assert loaded["label"].tolist() == [0, 0, 0, 1, 1, 1]
    found = sources.find(f"folder:{folder}", "all", image_size=20)
    assert found.classes == ("crow", "wren")
    assert found.name(3) == "wren/0.png"
    pixels = np.asarray(Image.open(folder / "wren" / "0.png"))
    np.testing.assert_array_equal(
        loaded["image"][3], pixels[:, 5:25].astype(np.float32) / 255
    )


def test_splits_that_are_folders_share_the_numbers_of_their_classes(tmp_path):
    for path in ("train/a", "train/b", "train/c", "test/c"):
        (tmp_path / path).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / path / "0.png")
    test = data.load(f"folder:{tmp_path}", "test", image_size=8)
    assert test["label"].tolist() == [2]


@pytest.mark.parametrize(
    ("column", "values", "labels"),
    [("class_id", ("7", "3"), [7, 3]), ("label", ("wren", "crow"), [1, 0])],
)
def test_a_table_gives_labels_and_splits(folder, column, values, labels):
    lines = [f"file,{column},split"]
    lines += [f"wren/0.png,{values[0]},train", f"crow/0.png,{values[1]},train"]
    lines += [f"{folder}/wren/1.png,{values[0]},test"]
    (folder / "labels.csv").write_text("\n".join(lines))
    loaded = data.load(f"folder:{folder}", "train", image_size=8)
    assert loaded["label"].tolist() == labels
    # Of the two classes the test images have but one, which keeps its number.
    test = data.load(f"folder:{folder}", "test", image_size=8)
    assert test["label"].tolist() == labels[:1]
    found = sources.find(f"folder:{folder}", "test", image_size=8)
    assert found.name(0) == "wren/1.png"
    assert len(data.load(f"folder:{folder}/labels.csv", "all", image_size=8)["id"]) == 3


def test_the_usual_split_are_the_test_images_where_they_are_apart(folder):
    usual = sources.usual_split
    assert usual(f"folder:{folder}") == "all"
    (folder / "test").mkdir()
    assert usual(f"folder:{folder}") == "test"
    (folder / "labels.csv").write_text("file,label\nwren/0.png,0")
    assert usual(f"folder:{folder}") == usual(f"folder:{folder}/labels.csv") == "all"
    (folder / "labels.csv").write_text("file,label,split\nwren/0.png,0,test")
    assert usual(f"folder:{folder}") == "test"
    np.savez(folder / "a.npz", images=np.zeros(1), labels=np.zeros(1))
    np.savez(folder / "b.npz", x_test=np.zeros(1), y_test=np.zeros(1))
    assert usual(f"npz:{folder}/a.npz") == "all"
    assert usual(f"npz:{folder}/b.npz") == usual("tfds:cifar10") == "test"
    assert usual("parts") == "test"
    with pytest.raises(FileNotFoundError):  # which is for `load` to say
        data.load("npz:no.npz", usual("npz:no.npz"), image_size=8)


def test_resizing_agrees_with_jax():
    smooth = parts.draw([0], image_size=96).image[:, :64]
    wanted = jax.image.resize(smooth[0], (32, 48, 3), "bilinear", antialias=True)
    exact = data._fit(smooth[0], 32, 32)
    np.testing.assert_allclose(exact, wanted[:, 8:40], atol=1e-5)
    bytes_ = data._fit(np.round(smooth[0] * 255).astype(np.uint8), 32, 32)
    np.testing.assert_allclose(bytes_, wanted[:, 8:40], atol=1.01 / 255)


def test_resize_then_crop_keeps_stored_pixels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(2))
    loaded = data.load(f"npz:{tmp_path}/a.npz", "all", image_size=28, resize=32)
    np.testing.assert_array_equal(
        loaded["image"], images[:, 2:30, 2:30].astype(np.float32) / 255
    )


def test_gray_is_repeated_and_transparent_is_laid_on_white(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4), 51).save(tmp_path / "a" / "gray.png")
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a" / "transparent.png")
    loaded = data.load(f"folder:{tmp_path}", "all", image_size=4)
    np.testing.assert_allclose(loaded["image"][0], 0.2, atol=1e-6)
    np.testing.assert_array_equal(loaded["image"][1], np.ones((4, 4, 3)))


@pytest.mark.parametrize("shape", [(3, 6, 6), (3, 6, 6, 1), (3, 6, 6, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_npz_takes_gray_and_color_in_bytes_and_floats(tmp_path, shape, dtype):
    ones = np.ones(shape, dtype) * (255 if dtype == np.uint8 else 1)
    np.savez(tmp_path / "a.npz", x_train=ones, y_train=np.array([2, 0, 1], np.int64))
    loaded = data.load(f"npz:{tmp_path}/a.npz", "train", image_size=6)
    np.testing.assert_array_equal(loaded["image"], np.ones((3, 6, 6, 3), np.float32))
    assert loaded["label"].tolist() == [2, 0, 1]


@pytest.mark.filterwarnings("ignore")
def test_tfds_is_read_without_tensorflow():
    with tfds.testing.mock_data(num_examples=6):
        color = data.load("tfds:cifar10", "test", image_size=32)
        gray = next(data.batches("tfds:mnist", "train", size=2, image_size=20, seed=0))
        found = sources.find("tfds:cifar10", "train", image_size=32)
    assert color["image"].shape == (6, 32, 32, 3)
    assert gray["image"].shape == (2, 20, 20, 3)
    assert len(found.classes) == 10
    assert "tensorflow" not in sys.modules


@pytest.mark.filterwarnings("ignore")
def test_what_lies_in_a_box_of_a_tfds_image_is_cut_out_and_made_square():
    name = "tfds:caltech_birds2011#bbox"
    with tfds.testing.mock_data(num_examples=3):
        birds = data.load(name, "test", image_size=24)
        record = tfds.data_source("caltech_birds2011", split="test")[1]
    sides = np.tile(record["image"].shape[:2], 2)
    top, left, bottom, right = np.int64(record["bbox"] * sides + 1e-3)
    bottom, right = max(bottom, top + 1), max(right, left + 1)  # mocked boxes are any
    cut = Image.fromarray(record["image"][top:bottom, left:right])
    expected = np.asarray(cut.resize((24, 24), Image.Resampling.BILINEAR))
    assert birds["image"].shape == (3, 24, 24, 3)
    np.testing.assert_array_equal(birds["image"][1], expected / np.float32(255))
    with (
        tfds.testing.mock_data(num_examples=2),
        pytest.raises(ValueError, match="has no feature 'box'"),
    ):
        data.load("tfds:cifar10#box", "test", image_size=24)


def test_a_split_may_be_sliced(folder):
    name = f"folder:{folder}"
    whole = sources.find(name, "all", image_size=8)
    halves = [sources.find(name, f"all[{i}::2]", image_size=8) for i in (0, 1)]
    assert [half.num for half in halves] == [3, 3]
    names = [[half.name(i) for i in range(3)] for half in halves]
    assert [*sum(zip(*names), ())] == [whole.name(i) for i in range(6)]
    image, label = halves[1].read(2)
    np.testing.assert_array_equal(image, whole.read(5)[0])
    assert label == whole.read(5)[1] and halves[1].classes == whole.classes
    last = data.load("parts:9", "test[-2:]", image_size=16)
    assert last["label"].tolist() == [7, 0] and last["id"].tolist() == [0, 1]


@pytest.mark.parametrize("split", ["all[1]", "all[::2", "all[a:b]", "all[::0]"])
def test_a_slice_that_is_none_is_refused(split, folder):
    with pytest.raises(ValueError, match="`split` is .* write a slice as"):
        sources.find(f"folder:{folder}", split, image_size=8)
    with pytest.raises(ValueError, match="has none of the 6 images"):
        sources.find(f"folder:{folder}", "all[9:]", image_size=8)


def test_some_images_are_picked_by_their_place():
    whole = data.load("parts:7", "test", image_size=16)
    some = data.pick("parts:7", "test", [5, 0, 5], image_size=16)
    np.testing.assert_array_equal(some["image"], whole["image"][[5, 0, 5]])
    assert some["id"].tolist() == [5, 0, 5] and some["label"].tolist() == [5, 0, 5]
    for ids in ([7], [-1], []):
        with pytest.raises(ValueError, match="`ids` must be places from 0 to 6"):
            data.pick("parts:7", "test", ids, image_size=16)


def test_images_come_once_and_in_order():
    parts = list(data.in_order("parts:7", "test", size=3, image_size=16))
    assert [part["id"].tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]
    whole = data.load("parts:7", "test", image_size=16)
    for name, values in whole.items():
        joined = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(joined, values)
    with pytest.raises(ValueError, match="`size` must be 1 or more, got 0"):
        next(data.in_order("parts:7", "test", size=0, image_size=16))


def test_a_tfds_set_without_labels_is_named():
    with (
        tfds.testing.mock_data(num_examples=2),
        pytest.raises(
            ValueError, match="tfds:downsampled_imagenet/32x32 has no feature 'label'"
        ),
    ):
        data.load("tfds:downsampled_imagenet/32x32", "train", image_size=8)


@pytest.mark.realdata
def test_real_sets_are_read(data_folder):
    loaded = data.load(
        f"folder:{data_folder}/imagenet_samples", "all", image_size=224, limit=5
    )
    assert loaded["label"].tolist() == [0, 5, 10, 15, 20]
    stored = data.load(
        f"npz:{data_folder}/imagenet_samples_224.npz", "all", image_size=224, limit=2
    )
    cut = data.load(
        f"folder:{data_folder}/imagenet_samples",
        "all",
        image_size=224,
        resize=256,
        limit=5,
    )
    np.testing.assert_array_equal(cut["image"][[0, 4]], stored["image"])
    birds = data.load(f"folder:{data_folder}/cub200_2010_subset", "test", image_size=32)
    assert len(set(birds["label"])) == 7


def test_an_unknown_scheme_is_named():
    for name in ("cifar10", "folder:", "ftp:x"):
        with pytest.raises(ValueError, match="tfds:NAME, folder:PATH, npz:PATH"):
            data.load(name, "train", image_size=8)


def test_bad_numbers_are_named():
    good = {"size": 2, "image_size": 8, "seed": 0}
    bad = {
        "`size` must be 1 to 4": {"size": 5},
        "`image_size` must be": {"image_size": 0},
        "`start` and `seed`": {"start": -1},
        "`resize` must be at least": {"resize": 7},
    }
    for message, change in bad.items():
        with pytest.raises(ValueError, match=message):  # at the call, not at next()
            data.batches("parts:4", "train", **(good | change))
    with pytest.raises(ValueError, match="`limit` must be 1"):
        data.load("parts:4", "train", image_size=8, limit=0)
    with pytest.raises(ValueError, match="parts or parts:COUNT"):
        data.load("parts:many", "train", image_size=8)
    with pytest.raises(ValueError, match=r"parts:COUNT\(#apart\); got 'parts:4#aprat'"):
        data.load("parts:4#aprat", "train", image_size=8)
    with pytest.raises(ValueError, match="`split` of parts must be one of"):
        data.load("parts", "all", image_size=8)


def test_a_folder_that_is_missing_empty_or_unlabeled_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        data.load(f"folder:{tmp_path}/none", "all", image_size=8)
    with pytest.raises(ValueError, match="holds no images"):
        data.load(f"folder:{tmp_path}", "all", image_size=8)
    (tmp_path / "notes.txt").write_text("no folder")
    with pytest.raises(ValueError, match=r"notes\.txt is a file: name a folder"):
        data.load(f"folder:{tmp_path}/notes.txt", "all", image_size=8)
    with pytest.raises(ValueError, match="no split 'train'"):
        data.load(f"folder:{tmp_path}", "train", image_size=8)
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"unlabeled images, first loose\.png"):
        data.load(f"folder:{tmp_path}", "all", image_size=8)


def test_an_image_that_does_not_decode_is_named(folder):
    whole = (folder / "crow" / "1.png").read_bytes()
    (folder / "crow" / "1.png").write_bytes(whole[:200])
    with pytest.raises(ValueError, match=r"crow/1\.png is not an image"):
        data.load(f"folder:{folder}", "all", image_size=8)
    (folder / "crow" / "1.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"crow/1\.png is not an image"):
        take(data.batches(f"folder:{folder}", "all", size=6, image_size=8, seed=0), 1)
    deep = np.full((8, 8), 40000, np.uint16)
    Image.fromarray(deep).save(folder / "crow" / "1.png")
    with pytest.raises(ValueError, match=r"crow/1\.png has pixels of mode 'I"):
        data.load(f"folder:{folder}", "all", image_size=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n", "at least one row"),
        ("name,label\nwren/0.png,1\n", "must have a column `file`"),
        ("file,kind\nwren/0.png,1\n", "one of"),
        ("file,label\nwren/0.png,\n", "empty 'label'"),
        ("file,label\nwren/9.png,1\n", r"do not exist, first .*9\.png"),
    ],
)
def test_a_bad_table_is_named(folder, text, message):
    (folder / "labels.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.load(f"folder:{folder}", "all", image_size=8)
    (folder / "labels.csv").write_text("file,label\nwren/0.png,1\n")
    with pytest.raises(ValueError, match="no rows of split 'test'"):
        data.load(f"folder:{folder}", "test", image_size=8)
    (folder / "labels.csv").write_bytes(b"file,label\nwren/0.png,Stra\xdfe\n")
    with pytest.raises(ValueError, match=r"labels\.csv is no table in UTF-8: .*0xdf"):
        data.load(f"folder:{folder}", "all", image_size=8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 4, 4, 3))}, "no array images or labels"),
        ({"images": np.zeros((2, 4, 4, 3), np.int32)}, "must be uint8"),
        ({"images": np.full((2, 4, 4, 3), 255.0)}, r"must lie in \[0, 1\]"),
        ({"images": np.full((2, 4, 4, 3), np.nan)}, "NaN or infinite"),
        ({"images": np.zeros((2, 4, 4, 4))}, r"must be images \[N, H, W, 3\]"),
        ({"images": np.zeros((0, 4, 4, 3))}, "at least one"),
        ({"labels": np.zeros(3, int)}, r"must be integers \[2\]"),
        ({"labels": np.zeros(2)}, r"must be integers \[2\]"),
        ({"labels": np.array([3, -1])}, "image 1 has the label -1, and labels count"),
    ],
)
def test_a_bad_npz_is_named(tmp_path, arrays, message):
    whole = {"images": np.zeros((2, 4, 4, 3)), "labels": np.zeros(2, int)}
    np.savez(tmp_path / "a.npz", **(arrays if "x" in arrays else whole | arrays))
    with pytest.raises(ValueError, match=message):
        data.load(f"npz:{tmp_path}/a.npz", "all", image_size=4)


def test_a_missing_or_broken_npz_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such npz file"):
        data.load(f"npz:{tmp_path}/none.npz", "all", image_size=4)
    np.savez(tmp_path / "torn.npz", images=np.zeros((2, 4, 4)), labels=np.arange(2))
    whole = (tmp_path / "torn.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[:300])
    with pytest.raises(ValueError, match=r"torn\.npz is not an npz file"):
        data.load(f"npz:{tmp_path}/torn.npz", "all", image_size=4)
    (tmp_path / "torn.npz").write_bytes(whole[:200] + b"!" + whole[201:])
    with pytest.raises(ValueError, match=r"torn\.npz cannot be read: Bad CRC"):
        data.load(f"npz:{tmp_path}/torn.npz", "all", image_size=4)


def test_an_npz_that_holds_a_pickle_is_refused(tmp_path):
    evil = np.array([print, print], dtype=object)
    np.savez(tmp_path / "a.npz", images=evil, labels=np.arange(2))
    with pytest.raises(ValueError, match="cannot be read: Object arrays"):
        data.load(f"npz:{tmp_path}/a.npz", "all", image_size=4)


def test_without_pillow_the_error_names_the_extra(folder, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'protojax\[experiments\]'"):
        sources.find(f"folder:{folder}", "all", image_size=8)
