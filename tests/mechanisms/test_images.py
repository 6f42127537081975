import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from protojax.mechanisms import images

KEY = jax.random.key(0)


def image(shape=(9, 12, 3), seed=1):
    return jax.random.uniform(jax.random.key(seed), shape)


def warp(angle=0.0, size=1.0, shift=(0.0, 0.0)):
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    return jnp.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]], jnp.float32)


affine = jax.jit(images.affine)


def test_the_identity_warp_changes_nothing():
    x = image()
    np.testing.assert_allclose(affine(x, warp(), fill=0.3), x, atol=1e-6)


def test_whole_shifts_and_quarter_turns_are_exact():
    x = image((9, 9, 3))
    turned = affine(x, warp(angle=np.pi / 2))
    np.testing.assert_allclose(turned, np.rot90(x, -1), atol=1e-4)
    moved = affine(x, warp(shift=(2, -3)), fill=0.25)
    np.testing.assert_allclose(moved[:-2, 3:], x[2:, :-3], atol=1e-6)
    np.testing.assert_allclose(moved[-2:], 0.25, atol=1e-6)
    np.testing.assert_allclose(moved[:, :3], 0.25, atol=1e-6)


def test_a_warp_agrees_with_scipy():
    x, matrix = image(), warp(0.4, 1.2, (0.7, -1.1))
    center = (np.array(x.shape[:2]) - 1) / 2
    linear = np.asarray(matrix[:, :2], np.float64)
    offset = np.asarray(matrix[:, 2]) + center - linear @ center
    expected = [
        scipy.ndimage.affine_transform(
            np.pad(np.float64(x[..., c]) - 0.5, 3),  # as scipy does not blend borders
            linear,
            offset + 3 - linear @ np.full(2, 3.0),
            order=1,
        )[3:-3, 3:-3]
        + 0.5
        for c in range(3)
    ]
    ours = affine(x, matrix, fill=0.5)
    np.testing.assert_allclose(ours, np.stack(expected, -1), atol=1e-5)


def test_the_mean_color_outside_commutes_with_preprocessing():
    x, mean, scale = image(), jnp.array([0.4, 0.5, 0.6]), jnp.array([0.2, 0.3, 0.25])

    def prepare(z):
        return (z - mean.reshape(1, 1, 3)) / scale.reshape(1, 1, 3)

    matrix = warp(0.7, 0.6, (1.0, 2.0))
    after = prepare(affine(x, matrix, fill=mean))
    before = affine(prepare(x), matrix, fill=0.0)
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_random_warps_stay_within_their_limits():
    x = jnp.zeros((21, 21, 1)).at[10, 10].set(1.0)
    still = images.random_affine(x, key=KEY, shift=0.0, scale=0.0, degrees=180.0)
    np.testing.assert_allclose(still[10, 10], 1, atol=1e-5)

    @jax.jit
    @jax.vmap
    def centers(key):
        moved = images.random_affine(x, key=key, degrees=0.0, scale=0.0, shift=0.2)
        rows, columns = jnp.indices((21, 21))
        return jnp.stack(
            [jnp.sum(moved[..., 0] * rows), jnp.sum(moved[..., 0] * columns)]
        )

    offset = np.asarray(centers(jax.random.split(KEY, 100))) - 10
    assert 3.5 < np.abs(offset).max() <= 0.2 * 21 + 1e-4
    assert np.abs(offset.mean(0)).max() < 1


def test_jitter_moves_whole_pixels_in_all_directions():
    x = jnp.zeros((7, 7, 1)).at[3, 3].set(1.0)
    draw = jax.jit(jax.vmap(lambda key: images.jitter(x, key=key, pixels=2)))
    moved = np.asarray(draw(jax.random.split(KEY, 300)))[..., 0]
    assert set(np.unique(moved)) == {0, 1}
    assert moved.any(0).sum() == 25
    np.testing.assert_allclose(moved.sum((1, 2)), 1)
    filled = images.jitter(jnp.ones((5, 5, 2)), key=KEY, pixels=3, fill=1.0)
    np.testing.assert_allclose(filled, 1)


@pytest.mark.parametrize("sigma", [0.0, 0.6, 2.5])
def test_blur_is_a_gaussian_mean_renormalized_at_the_border(sigma):
    x = image()
    blurred = jax.jit(lambda x, sigma: images.gaussian_blur(x, sigma=sigma))(x, sigma)
    if sigma == 0:
        np.testing.assert_array_equal(blurred, x)
        return
    mean = functools.partial(
        scipy.ndimage.gaussian_filter,
        sigma=(sigma, sigma, 0),
        mode="constant",
        truncate=20.0,
    )
    expected = mean(np.float64(x)) / mean(np.ones(x.shape))
    np.testing.assert_allclose(blurred, expected, atol=1e-5)
    flat = images.gaussian_blur(jnp.full((6, 5, 1), 0.3), sigma=sigma)
    np.testing.assert_allclose(flat, 0.3, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 5), (18, 30)])
def test_resizing_agrees_with_pytorch(size):
    torch = pytest.importorskip("torch")
    x = image()
    peer = torch.nn.functional.interpolate(
        torch.tensor(np.array(x)).permute(2, 0, 1)[None],
        size,
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0].permute(1, 2, 0)
    np.testing.assert_allclose(images.resize(x, size), peer, atol=2e-6)


def test_bad_knobs_and_sizes_are_named():
    x = image()
    levels = np.uint8(255 * x)  # whose differences would wrap around
    for run in (images.total_variation, lambda x: images.affine(x, warp())):
        with pytest.raises(ValueError, match="`x` is uint8: pass float32 pixels"):
            run(levels)
    with pytest.raises(ValueError, match="`sigma` is -1: it must be zero or more"):
        images.gaussian_blur(x, sigma=-1)
    with pytest.raises(ValueError, match="`pixels` is -1"):
        images.jitter(x, key=KEY, pixels=-1)
    for scale in (-0.1, 1.0, np.nan):  # a factor of zero or less would be drawn
        with pytest.raises(ValueError, match=f"`scale` is {scale}: pass the largest"):
            images.random_affine(x, key=KEY, scale=scale)
    for size in ((4,), (0, 3)):
        with pytest.raises(ValueError, match="`size` is"):
            images.resize(x, size)
        with pytest.raises(ValueError, match="`size` is"):
            images.resize_nearest(x, size)


def test_the_nearest_pixel_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    x = image()
    planes = torch.tensor(np.array(x)).permute(2, 0, 1)[None]
    peer = torch.nn.functional.interpolate(planes, (5, 17), mode="nearest")[0]
    resized = images.resize_nearest(x, (5, 17))
    np.testing.assert_array_equal(resized, peer.permute(1, 2, 0))


def test_total_variation_of_a_flat_image_has_no_slope():
    slope = jax.grad(images.total_variation)(jnp.full((4, 4, 1), 0.5))
    assert not np.asarray(slope).any()
    peak = jnp.full((3, 3, 1), 0.5).at[1, 1].set(0.6)
    assert float(jax.grad(images.total_variation)(peak)[1, 1, 0]) == 4


@pytest.mark.parametrize("name", ["affine", "jitter", "blur", "resize"])
def test_transforms_are_differentiable_and_linear(name):
    change = {
        "affine": functools.partial(images.random_affine, key=KEY),
        "jitter": functools.partial(images.jitter, key=KEY, pixels=2),
        "blur": functools.partial(images.gaussian_blur, sigma=1.3),
        "resize": lambda x: images.resize(x, (5, 7)),
    }[name]
    x, v = image(), image(seed=2)

    @jax.jit
    @jax.vmap
    def both(x, v):
        value, slope = jax.jvp(change, (x,), (v,))
        return slope, change(v), value

    slope, linear, value = both(x[None], v[None])
    np.testing.assert_allclose(slope, linear, atol=1e-5)
    assert np.isfinite(value).all()
