"""Receptive fields against the published table, pictures against OpenCV's numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from protojax import models, prototypes
from protojax.models import protopnet

SIZE = (224, 224)
KEY = jax.random.key(0)


@functools.cache
def field(make, depth, layer):
    """Of a published backbone, by shapes alone."""
    x = jax.ShapeDtypeStruct((*SIZE, 3), jnp.float32)
    model = make(depth)
    weights = jax.eval_shape(model.init, KEY, x)
    features = protopnet.features(model.apply, layer)
    size = jax.eval_shape(features, weights, x).shape[0]
    return size, prototypes.receptive_field(features, weights, x)


@pytest.mark.parametrize(
    ("make", "depth", "layer", "size", "start"),
    [
        (models.VGG, 11, "pool5", 150, 16.0),
        (models.VGG, 13, "pool5", 156, 16.0),
        (models.VGG, 16, "pool5", 212, 16.0),
        (models.VGG, 19, "pool5", 268, 16.0),
        (models.ResNet, 18, "layer4.1", 435, 0.5),
        (models.ResNet, 34, "layer4.2", 899, 0.5),
        (models.ResNet, 50, "layer4.2", 427, 0.5),
        pytest.param(models.ResNet, 101, "layer4.2", 971, 0.5, marks=pytest.mark.slow),
        pytest.param(models.ResNet, 152, "layer4.2", 1451, 0.5, marks=pytest.mark.slow),
        pytest.param(models.DenseNet, 121, "norm5", 2071, 14.5, marks=pytest.mark.slow),
        pytest.param(models.DenseNet, 161, "norm5", 2967, 14.5, marks=pytest.mark.slow),
        pytest.param(models.DenseNet, 169, "norm5", 3351, 14.5, marks=pytest.mark.slow),
        pytest.param(models.DenseNet, 201, "norm5", 3863, 14.5, marks=pytest.mark.slow),
    ],
)
def test_dossier_8_the_published_backbones_see_what_was_published(
    make, depth, layer, size, start
):
    places, found = field(make, depth, layer)
    assert places == 7 and found.jump == (32, 32) and found.size == (size, size)
    assert found.first[0] + size / 2 == start and found.first[0] == found.first[1]


@pytest.mark.parametrize(
    ("make", "depth", "layer", "cell", "ends"),
    [
        (models.VGG, 16, "pool5", 0, (0, 122)),
        (models.VGG, 16, "pool5", 3, (6, 218)),
        (models.VGG, 16, "pool5", 6, (102, 224)),
        (models.VGG, 19, "pool5", 0, (0, 150)),
        (models.VGG, 19, "pool5", 3, (0, 224)),
        (models.VGG, 19, "pool5", 6, (74, 224)),
        (models.ResNet, 18, "layer4.1", 0, (0, 218)),
        (models.ResNet, 18, "layer4.1", 3, (0, 224)),
    ],
)
def test_dossier_8_boxes_of_places_are_the_published_ones(
    make, depth, layer, cell, ends
):
    _, found = field(make, depth, layer)
    assert prototypes.box(found, (cell, cell), SIZE) == ends * 2


def odd(weights, x):
    """Paddings, strides and branches that differ, and perhaps a normalization."""
    h = jax.lax.conv_general_dilated(
        x[None],
        weights[0],
        (2, 1),
        ((0, 1), (2, 0)),
        rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    h = (h - weights[2] * jnp.mean(h, (0, 1), keepdims=True)).transpose(1, 0, 2)
    h = jnp.pad(h, ((0, 0), (1, 0), (0, 0)))[:, ::2]
    a = jax.lax.reduce_window(
        h, -jnp.inf, jax.lax.max, (3, 1, 1), (1, 1, 1), ((1, 1), (0, 0), (0, 0))
    )
    h = jnp.concatenate([a, jax.nn.relu(h)], axis=-1) @ weights[1]
    return checkpoint_name(h.transpose(1, 0, 2), "odd")


def test_a_field_is_where_the_output_changes_with_the_image():
    """Against derivatives, without the normalization, which sees everything."""
    weights = [jnp.ones((3, 2, 1, 2)), jnp.ones((4, 1)), jnp.float32(1)]
    features = protopnet.features(odd, "odd")
    found = prototypes.receptive_field(features, weights, jnp.ones((12, 10, 1)))
    alone = functools.partial(features, [*weights[:2], 0.0])
    draws = jax.random.uniform(jax.random.key(1), (20, 12, 10, 1))
    slopes = jax.jit(jax.vmap(jax.jacrev(alone)))(draws)[..., 0, :, :, 0]
    seen = np.any(np.asarray(slopes) != 0, axis=0)
    for row, column in np.ndindex(seen.shape[:2]):
        top, bottom, left, right = prototypes.box(found, (row, column), (12, 10))
        inside = np.zeros((12, 10), bool)
        inside[top:bottom, left:right] = True
        assert not np.any(seen[row, column] & ~inside)
        if (bottom - top, right - left) != found.size:
            continue  # padding cannot be told from what it was put beside
        rows, columns = np.nonzero(seen[row, column])
        ends = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert ends == (top, bottom, left, right)


def test_what_is_lost_is_the_whole_image_and_windows_of_places_see_more():
    flat = lambda _, x: jnp.flip(x.reshape(-1)).reshape(x.shape).reshape(8, 2, 4)
    found = prototypes.receptive_field(flat, None, jnp.zeros((8, 4, 2)))
    assert found == prototypes.Field((0, 0), (8, 4), (0, 0))
    assert prototypes.box(found, (3, 1), (8, 4)) == (0, 8, 0, 4)
    for moves in (jnp.flip, jnp.cumsum, jnp.sort):  # each along the rows alone
        along = lambda _, x, moves=moves: moves(x, axis=0)
        found = prototypes.receptive_field(along, None, jnp.zeros((8, 4, 2)))
        assert (found.first[0], found.size[0], found.jump[0]) == (0, 8, 0)
    found = prototypes.Field((-1, 0), (3, 4), (2, 4))
    ends = prototypes.box(found, (1, 0), (16, 16), window=(2, 3))
    assert ends == (1, 6, 0, 12)
    assert prototypes.box(found, (9, 0), (16, 16)) == (16, 16, 0, 4)  # beyond: empty
    with pytest.raises(ValueError, match="`cell` is .* begin with 0"):
        prototypes.box(found, (-1, 0), (16, 16))


def enlarged(row, column):
    return prototypes.enlarge(jnp.zeros((7, 7)).at[row, column].set(1), SIZE)


def test_dossier_8_an_enlarged_map_has_opencvs_numbers():
    middle = enlarged(3, 3)
    assert middle.max() == pytest.approx(0.998911, abs=1e-5)
    assert middle.min() == pytest.approx(-0.111030, abs=1e-5)
    assert divmod(int(middle.argmax()), 224) == (111, 111)
    assert enlarged(0, 0).max() == pytest.approx(1.234523, abs=1e-5)
    ramp = prototypes.enlarge(jnp.arange(49.0).reshape(7, 7), SIZE)
    assert ramp[0, 0] == pytest.approx(-0.772682, abs=1e-4)
    assert ramp[-1, -1] == pytest.approx(48.772682, abs=1e-4)
    assert float(ramp[111, 111]) == pytest.approx(23.8154, abs=1e-3)
    assert float(ramp[112, 112]) == pytest.approx(24.1846, abs=1e-3)
    assert prototypes.high_crop(ramp).tolist() == [194, 224, 109, 224]
    weights = prototypes.enlarge(jnp.eye(7), (224, 7))  # rows alone are enlarged
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(weights[0, :3], [1.09659, -0.09659, 0], atol=1e-5)
    whole = prototypes.enlarge(jnp.arange(49).reshape(7, 7), SIZE)  # of integers
    np.testing.assert_allclose(whole, ramp, rtol=1e-6)
    with pytest.raises(ValueError, match="`size` is .* new height and width"):
        prototypes.enlarge(jnp.eye(7), (0, 7))


def test_a_region_of_places_is_blocks_of_pixels():
    region = prototypes.cell_region((3, 5, 3, 5), (7, 7))
    pixels = prototypes.cell_pixels(region, SIZE)
    block = np.zeros(SIZE, bool)
    block[96:160, 96:160] = True
    np.testing.assert_array_equal(pixels, block)
    uneven = prototypes.cell_pixels(np.eye(13, dtype=bool), SIZE)
    assert np.all(np.sum(uneven, axis=1) >= 17) and uneven.sum() < 18**2 * 13


@pytest.mark.parametrize("rectangle", [(3, 8, 0, 1), (-1, 2, 0, 1), (2, 2, 0, 1)])
def test_a_region_outside_of_the_map_or_empty_is_refused(rectangle):
    with pytest.raises(ValueError, match="`rectangle` is .* 7 x 7 places"):
        prototypes.cell_region(rectangle, (7, 7))
