import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protojax.scale import canvas, parts


@pytest.fixture(scope="module")
def birds():
    return parts.draw(range(48), image_size=64)


def test_an_example_is_the_same_whatever_else_is_drawn(birds):
    alone = parts.draw([37], image_size=64)
    for whole, one in zip(birds, alone, strict=True):
        np.testing.assert_array_equal(whole[37], one[0])


def test_another_seed_is_another_set_of_the_same_classes(birds):
    other = parts.draw(range(8), image_size=64, seed=1)
    assert np.abs(other.image - birds.image[:8]).mean() > 0.02
    np.testing.assert_array_equal(other.label, birds.label[:8])


def test_arrays_have_the_promised_types_and_ranges(birds):
    assert birds.image.shape == (48, 64, 64, 3)
    assert birds.image.dtype == np.float32
    assert birds.image.min() >= 0
    assert birds.image.max() <= 1
    assert birds.label.dtype == np.int32
    assert birds.masks.shape == (48, 8, 64, 64)
    assert birds.points.shape == (48, 8, 2)
    assert not birds.cue.any()


def test_masks_do_not_overlap_and_make_up_the_segmentation(birds):
    assert birds.masks.sum(1).max() == 1
    np.testing.assert_array_equal(birds.masks.any(1), birds.segmentation)
    assert 0.08 < birds.segmentation.mean() < 0.3


def test_every_part_is_seen_nearly_always(birds):
    assert (birds.masks.any((2, 3)).mean(0) > 0.95).all()
    assert birds.visible.mean() > 0.95


def test_a_visible_key_point_lies_in_its_mask(birds):
    for n, p in zip(*np.nonzero(birds.visible), strict=True):
        row, column = np.nonzero(birds.masks[n, p])
        gap = np.hypot(row - birds.points[n, p, 0], column - birds.points[n, p, 1])
        assert gap.min() < 1.5, (n, parts.PARTS[p])


def test_masks_and_points_agree_between_resolutions(birds):
    large = parts.draw(range(16), image_size=128)
    pooled = large.masks.reshape(16, 8, 64, 2, 64, 2).mean((3, 5))
    small = birds.masks[:16]
    overlap = np.minimum(pooled, small).sum() / np.maximum(pooled, small).sum()
    assert overlap > 0.85
    points = (large.points + 0.5) / 2 - 0.5
    np.testing.assert_allclose(points, birds.points[:16], atol=1e-4)
    shrunk = large.image.reshape(16, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(shrunk - birds.image[:16]).mean() < 0.02


def test_no_variant_belongs_to_one_class_alone():
    for part in range(len(parts.PARTS)):
        _, counts = np.unique(parts.CLASSES[:, part], return_counts=True)
        assert counts.min() >= 2


def test_classes_differ_in_two_to_four_parts_and_never_in_the_eye():
    differing = parts.differing_parts()
    np.testing.assert_array_equal(differing, differing.swapaxes(0, 1))
    count = differing.sum(-1)[np.triu_indices(8, 1)]
    assert set(count) == {2, 4}
    assert not differing[..., parts.PARTS.index("eye")].any()


def test_only_differing_parts_change_between_two_classes():
    one, two = parts.CLASSES[0], parts.CLASSES[1]
    a = parts.draw(range(6), classes=one[None])
    b = parts.draw(range(6), classes=two[None])
    differing = parts.differing_parts(np.stack([one, two]))[0, 1]
    may_change = (a.masks | b.masks)[:, differing].any(1)
    grown = np.stack([_grow(m) for m in may_change])
    change = np.abs(a.image - b.image).sum(-1)
    assert change.sum() > 100
    assert (change * ~grown).sum() < 0.005 * change.sum()  # seams of covered edges


def test_a_cue_changes_nothing_but_its_disk(birds):
    cued = parts.draw(range(48), image_size=64, cue_class=3)
    assert (cued.cue.any((1, 2)) == (cued.label == 3)).all()
    changed = (cued.image != birds.image).any(-1)
    assert changed.any()
    assert not (changed & ~np.stack([_grow(m) for m in cued.cue])).any()
    assert not (cued.cue & cued.segmentation).any()


def test_more_classes_can_be_made_of_the_same_parts():
    rows = np.stack([np.full(8, i) for i in range(3)])
    rows[:, parts.PARTS.index("eye")] = 0
    birds = parts.draw(range(6), classes=rows)
    np.testing.assert_array_equal(birds.label, [0, 1, 2, 0, 1, 2])
    assert "hooked" in parts.describe(rows[2])


@pytest.mark.slow
def test_color_alone_does_not_tell_the_classes():
    train, test = parts.draw(range(1200)), parts.draw(range(400), seed=1)
    weights = _logistic(_histograms(train.image), train.label)
    guess = np.argmax(_histograms(test.image) @ weights, axis=1)
    assert 0.2 < (guess == test.label).mean() < 0.75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": []}, "`indices` must name at least one"),
        ({"indices": [-1]}, "each 0 or more"),
        ({"image_size": 4}, "`image_size` must be 8 or more, got 4"),
        ({"seed": -1}, "`seed` must be 0 or more"),
        ({"cue_class": 8}, "`cue_class` must be 0 to 7"),
        ({"classes": np.zeros((2, 3), int)}, r"`classes` must be int \[K, 8\]"),
        ({"classes": np.full((2, 8), 3)}, "a variant that does not exist"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        parts.draw(**({"indices": [0]} | arguments))


def test_distances_of_a_circle_and_of_a_stroke_are_exact():
    u, v = canvas.grid(33)
    circle = canvas.ellipse(u, v, (0.4, 0.5), (0.2, 0.2))
    np.testing.assert_allclose(circle, np.hypot(u - 0.4, v - 0.5) - 0.2, atol=1e-6)
    stroke = canvas.cone(u, v, (0.0, 0.5), (1.0, 0.5), (0.1, 0.1))
    np.testing.assert_allclose(stroke, np.abs(v - 0.5) - 0.1, atol=1e-6)


def _grow(mask):
    """The mask and the pixels around it: paint covers edges in part."""
    padded = np.pad(mask, 1)
    size = mask.shape[0]
    shifts = [(r, c) for r in range(3) for c in range(3)]
    return np.any([padded[r : r + size, c : c + size] for r, c in shifts], axis=0)


def _histograms(images):
    levels = (images * 5.999).astype(int) @ np.array([36, 6, 1])
    counts = [np.bincount(x.ravel(), minlength=216) for x in levels]
    return np.sqrt(np.stack(counts) / levels[0].size)


def _logistic(features, labels):
    def loss(weights):
        each = optax.softmax_cross_entropy_with_integer_labels(
            features @ weights, labels
        )
        return each.mean() + 1e-4 * jnp.sum(weights**2)

    optimizer = optax.adam(0.05)
    weights = jnp.zeros((features.shape[1], 8))

    def step(carry, _):
        weights, state = carry
        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return (weights + updates, state), None

    carry, _ = jax.lax.scan(step, (weights, optimizer.init(weights)), length=600)
    return carry[0]
