"""Maps are laid over images as they should be, and bars are what they stand for."""

import numpy as np
import pytest

from protojax import overlays


def test_where_a_map_is_low_the_image_is_seen_and_where_it_is_high_its_color():
    image = np.random.default_rng(0).uniform(size=(8, 8, 3))
    a = np.zeros((8, 8))
    a[2, 3] = 5.0
    laid = overlays.overlay(image, a)
    same = np.all(laid == image, axis=-1)
    assert same.sum() == 63 and not same[2, 3]
    assert laid.min() >= 0 and laid.max() <= 1


def test_small_maps_are_enlarged_and_what_counts_for_little_is_dark():
    image = np.full((16, 16, 3), 0.5)
    a = np.array([[0.0, 0.0], [0.0, 1.0]])
    laid = overlays.overlay(image, a)
    far = np.abs(laid - image).max(-1)
    assert far[-1, -1] > 0.3 and far[0, 0] < 0.05
    dim = overlays.overlay(image, a, strength=0.0)
    np.testing.assert_allclose(dim, 0.3 * laid, atol=1e-12)


def test_bars_are_as_long_as_contributions():
    image = np.zeros((4, 4, 3))
    figure = overlays.breakdown(
        [[image, image]] * 2,
        [np.array([2.0, -1.0]), np.array([0.5, 0.0])],
        titles=["image", "first"],
        names=["one", "two"],
    )
    bars = [p.get_width() for p in figure.axes[1].patches]
    assert bars == [2.0, -1.0]
    with pytest.raises(ValueError, match="row 0 has 1 pictures for 2 titles"):
        overlays.breakdown([[image]], [np.ones(1)], titles=["a", "b"], names=["one"])
