"""What the report of `experiments.protopnet` draws and measures, piece by piece."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    protopnet,
    protopnet_analysis,
    protopnet_pictures,
    protopnet_setup,
    protopnet_studies,
)
from protojax import metrics, parts


def test_a_box_is_drawn_along_its_inside():
    image = np.zeros((12, 10, 3), np.float32)
    drawn = protopnet_pictures.boxed(image, np.array([2, 7, 3, 9]))
    changed = np.any(drawn != image, axis=-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 6, 3, 8)
    assert not changed[3:6, 4:8].any() and not image.any()
    assert changed.sum() == 2 * 6 + 2 * 3
    np.testing.assert_array_equal(
        protopnet_pictures.cut(drawn, [2, 7, 3, 9]), drawn[2:7, 3:9]
    )


def test_a_heat_map_goes_from_blue_to_red_and_a_constant_one_is_blue():
    image = np.full((1, 5, 3), 0.5, np.float32)
    heat = protopnet_pictures.overlaid(image, np.arange(5.0)[None])[0]
    assert heat.argmax(-1)[[0, 2, 4]].tolist() == [2, 1, 0]
    flat = protopnet_pictures.overlaid(image, np.ones((1, 5)))
    np.testing.assert_array_equal(flat, np.broadcast_to(heat[:1], (1, 5, 3)))
    assert heat.min() >= 0 and heat.max() <= 1


def test_the_pixels_that_an_attack_elsewhere_leaves_alone():
    found = protopnet_studies.widened(jnp.array([3, 5, 0, 2]), (8, 6), 2)
    expected = np.zeros((8, 6), bool)
    expected[1:7, :4] = True
    np.testing.assert_array_equal(found, expected)


def test_a_map_without_a_truth_has_no_place_and_one_with_it_has():
    a = jnp.zeros((4, 4)).at[1, 1].set(1.0)
    nothing = protopnet_studies.located("head", a, jnp.zeros((4, 4), bool))
    assert all(np.isnan(value) for value in nothing.values())
    there = protopnet_studies.located("head", a, a > 0)
    assert {name: float(value) for name, value in there.items()} == {
        "head_pointing": 1,
        "head_energy": 1,
        "head_precision": 1,
        "head_oirr": 0,
        "head_ior": 1,
    }


def test_the_plain_classifier_tells_apart_what_a_line_does():
    draw = np.random.default_rng(0)
    labels = draw.integers(3, size=90)
    centers = np.array([[3.0, 0, 5], [0, 3, 5], [-3, -3, 5]])
    features = (centers[labels] + draw.normal(size=(90, 3)) / 4).astype(np.float32)
    guesses = protopnet_analysis.linear_guesses(
        features[:60], labels[:60], features[60:], steps=20
    )
    np.testing.assert_array_equal(guesses, labels[60:])


def test_a_test_image_of_each_of_four_classes_is_shown():
    labels = np.array([3, 3, 0, 1, 2, 0, 4])
    test = {"label": labels, "id": np.arange(10, 17)}
    assert protopnet_studies.shown(test) == [10, 12, 13, 14]


def test_a_row_of_a_prototype_says_what_the_metrics_say():
    draw = np.random.default_rng(0)
    labels, owners = draw.integers(2, size=20), np.array([0, 1, 1])
    visible = draw.random((20, 4)) < 0.8
    hits = (draw.random((3, 20, 4)) < [[[0.95, 0.1, 0.1, 0]]]) & visible
    noisy = hits ^ (draw.random((3, 20, 1)) < 0.1) & visible
    weights = {"labels": jnp.asarray(labels), "visible": jnp.asarray(visible)}
    rows = []
    for j in range(3):
        example = {"owner": jnp.asarray(owners[j]), "labels": jnp.array([1, 1, 0, 2])}
        example |= dict.fromkeys(("image", "row", "column", "distance", "duplicate"), j)
        example |= {"hits": jnp.asarray(hits[j]), "noisy": jnp.asarray(noisy[j])}
        example |= {"train_hits": hits[j, :10], "train_visible": visible[:10]}
        rows.append(protopnet_studies.of_prototypes(weights, example, None))
    mean = lambda name: float(np.mean([row[name] for row in rows]))
    of = np.swapaxes(hits, 0, 1), np.swapaxes(noisy, 0, 1)
    consistency = metrics.consistency(of[0], visible, labels, owners)
    assert 100 * mean("consistent") == pytest.approx(float(consistency))
    stability = metrics.stability(*of, labels, owners)
    assert mean("stability") == pytest.approx(float(stability), rel=1e-5)
    assert [int(row["neighbors"]) for row in rows] == [1, 2, 2]
    assert [int(row["part"]) for row in rows] == [0, 0, 0]
    nowhere = [~hits[j].any(1)[labels == owners[j]] for j in range(3)]
    assert mean("nowhere") == pytest.approx(np.mean([n.mean() for n in nowhere]))


def test_what_is_written_beneath_a_prototype():
    row = {"class": 1, "purity": 0.9, "part": 2, "duplicate": True}
    other = {"class": 0, "duplicate": False}
    classes = ("wren", "a bird whose name is longer than its song")
    album = protopnet_pictures.Album([other, row], classes, None, None, None)
    assert album.named(0) == "no. 0, wren"
    assert album.named(1).split("\n") == [
        "no. 1, a bird whose name is …",
        f"{parts.PARTS[2]} (90% pure)",
        "there twice",
    ]


def test_only_finished_runs_of_the_same_test_images_join_an_ensemble(tmp_path):
    """Which is known before anything is trained."""
    config = protopnet.Config(also=(tmp_path,))
    with pytest.raises(ValueError, match="`also` names .* which is no finished run"):
        protopnet_setup.check(config)
    knobs = dataclasses.asdict(dataclasses.replace(config, test="parts:8", also=()))
    (tmp_path / "config.json").write_text(json.dumps({"config": knobs}))
    (tmp_path / "report.html").touch()
    with pytest.raises(
        ValueError, match=r"was tested on parts:8 \(test\), and this is"
    ):
        protopnet_setup.check(config)
