"""What is known of images goes through what the images went through."""

import csv

import numpy as np
import pytest
from PIL import Image

from experiments import truths
from protojax import data, parts


@pytest.fixture
def pets(tmp_path):
    """Red animals on blue, their segmentations and head boxes; the last has no head."""
    rows = []
    for i, (height, width) in enumerate([(40, 60), (60, 40), (40, 40)]):
        trimap = np.full((height, width), 2, np.uint8)
        trimap[8:30, 12:28] = 1
        trimap[30:32, 12:28] = 3  # the border is not the animal
        image = np.where(trimap[..., None] == 1, (255, 0, 0), (0, 0, 255))
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{i}.png")
        Image.fromarray(trimap).save(tmp_path / f"{i}-map.png")
        head = dict.fromkeys(("head_xmin", "head_ymin", "head_xmax", "head_ymax"), "")
        if i < 2:
            head = dict(
                head_xmin="12", head_ymin="8", head_xmax="19.6", head_ymax="15.2"
            )
        size = {"width": width, "height": height}
        rows.append(
            {
                "file": f"{i}.png",
                "class_id": i,
                "trimap": f"{i}-map.png",
                **size,
                **head,
            }
        )
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return f"folder:{tmp_path}"


@pytest.mark.parametrize("size", [{"image_size": 20}, {"image_size": 24, "resize": 32}])
def test_masks_lie_on_the_images_they_are_of(pets, size):
    images = data.load(pets, "all", **size)
    truth = truths.known(pets, "all", images["id"], **size)
    red = images["image"][..., 0] > 0.5
    assert truth["object"].shape == red.shape
    # the edge is mixed in the image and not in the mask: at most one pixel along it
    wrong = np.sum(truth["object"] != red, axis=(1, 2))
    edge = np.sum(np.abs(np.diff(red.astype(int), axis=1)), axis=(1, 2))
    edge += np.sum(np.abs(np.diff(red.astype(int), axis=2)), axis=(1, 2))
    assert np.all(wrong <= edge) and np.all(red.sum((1, 2)) > 20)
    assert np.all(truth["head"][:2] <= truth["object"][:2])
    assert truth["head"][:2].any(axis=(1, 2)).all() and not truth["head"][2].any()
    some = truths.known(pets, "all[1::2]", [0], **size)
    np.testing.assert_array_equal(some["object"][0], truth["object"][1])


def test_birds_know_their_parts_and_folders_without_a_table_nothing(tmp_path):
    found = truths.known("parts:20", "test[4:]", [1, 3], image_size=32)
    birds = parts.draw([5, 7], image_size=32, seed=1)
    np.testing.assert_array_equal(found["object"], birds.segmentation)
    np.testing.assert_array_equal(found["points"], birds.points)
    np.testing.assert_array_equal(found["visible"], birds.visible)
    found = truths.known("parts:20#apart", "test", [1, 3], image_size=32)
    birds = parts.draw([1, 3], image_size=32, seed=1, classes=parts.APART)
    np.testing.assert_array_equal(found["object"], birds.segmentation)
    images = data.load("parts:4#apart", "test", image_size=32)
    np.testing.assert_array_equal(images["image"][[1, 3]], birds.image)
    assert images["label"].tolist() == [0, 1, 2, 0]
    assert parts.differing_parts(parts.APART)[0, 1].sum() == len(parts.PARTS) - 1
    (tmp_path / "wren").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "wren" / "0.png")
    assert truths.known(f"folder:{tmp_path}", "all", [0], image_size=8) == {}


def _without(rows, name):
    return [{k: v for k, v in row.items() if k != name} for row in rows]


def _changed(rows, name, value):
    return [{**rows[0], name: value}, *rows[1:]]


@pytest.mark.parametrize(
    "change, kind, told",
    [
        ((_without, "height"), ValueError, "none called height"),
        ((_without, "head_ymax"), ValueError, "none called head_ymax"),
        ((_changed, "head_xmax", "right"), ValueError, "0.png is no box .*'right'"),
        ((_changed, "head_ymax", ""), ValueError, "0.png is no box"),
        ((_changed, "trimap", "0.png"), ValueError, "0.png is in color"),
        ((_changed, "trimap", "1-map.png"), ValueError, "and its image 0.png"),
        ((_changed, "trimap", "none.png"), FileNotFoundError, "none.png"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(pets, change, kind, told):
    _rewrite(pets, *change)
    with pytest.raises(kind, match=told):
        truths.known(pets, "all", [0, 1, 2], image_size=20)


def test_of_an_empty_cell_nothing_is_known_and_boxes_end_at_the_image(pets):
    before = truths.known(pets, "all", [0, 1], image_size=20)
    _rewrite(pets, _changed, "trimap", "")
    after = truths.known(pets, "all", [0, 1], image_size=20)
    assert before["object"][0].any() and not after["object"][0].any()
    np.testing.assert_array_equal(after["object"][1], before["object"][1])
    _rewrite(pets, _changed, "head_ymin", "-4")
    assert truths.known(pets, "all", [0], image_size=20)["head"][0, 0].any()


def _rewrite(pets, change, *knobs):
    table = f"{pets.removeprefix('folder:')}/labels.csv"
    with open(table, newline="") as file:
        rows = change([*csv.DictReader(file)], *knobs)
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
