"""The differentiable JPEG against Pillow's codec, and its derivatives."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from protojax.mechanisms import images
from protojax.scale import parts

jpeg = jax.jit(lambda x, quality: images.jpeg(x, quality=quality))


def pillow(x, quality):
    """What Pillow's codec makes of gray levels [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(x).save(buffer, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(buffer))


def bird(shape):
    """A drawn bird with the noise of a camera, clear of black and white."""
    drawn = parts.draw([3], image_size=80).image[0]
    noisy = drawn + np.random.default_rng(0).normal(0, 0.02, drawn.shape)
    return np.uint8(20 + 215 * np.clip(noisy, 0, 1))[: shape[0], : shape[1]]


def decibels(a, b):
    return -10 * np.log10(np.mean((np.float64(a) - b) ** 2) / 255**2)


@pytest.mark.parametrize("shape", [(64, 64), (49, 70), (66, 37)])
def test_decoded_images_are_pillows(shape):
    # 50 dB are 0.8 gray levels, root mean square: integer transforms there, floating
    # point here. Without the codec's details (smoothing of chroma, padding, how
    # precise its coefficients are) there were 36 to 46 dB; what compression costs is
    # 20 to 32.
    x = bird(shape)
    for quality in (5, 20, 49, 50, 75, 95, 100):
        ours = 255 * np.asarray(jpeg(np.float32(x) / 255, float(quality)))
        theirs = pillow(x, quality)
        assert decibels(ours, theirs) > 50, quality
        assert np.median(np.abs(ours - theirs)) < 0.5, quality
        assert abs(decibels(x, ours) - decibels(x, theirs)) < 0.05, quality


@pytest.mark.realdata
def test_decoded_photographs_are_pillows(data_folder):
    # 42.3, 46.4 and 46.8 dB are what an implementation without the codec's details had
    file = np.load(data_folder / "imagenet_samples_224.npz")
    for quality, least in ((20, 52), (50, 50), (90, 48)):
        for x in file["images"][:3]:
            ours = 255 * np.asarray(jpeg(np.float32(x) / 255, float(quality)))
            assert decibels(ours, pillow(x, quality)) > least


@pytest.mark.parametrize("quality", [20, 50])
def test_dossier_8_a_constant_gray_comes_back_as_from_pillow(quality):
    step = {20: 5, 50: 2}[quality]  # of the first coefficient, over eight
    levels = np.arange(256)
    planes = np.broadcast_to(levels[:, None, None, None], (256, 8, 8, 1))
    ours = jax.vmap(lambda x: jpeg(x, quality))(jnp.asarray(planes / 255, jnp.float32))
    away = np.trunc(np.abs(levels - 128) / step + 0.5) * np.sign(levels - 128)
    np.testing.assert_allclose(
        255 * ours[:, 3, 5, 0], np.clip(128 + step * away, 0, 255), atol=1e-3
    )
    for level in (0, 60, 101, 128, 200, 201, 255):
        theirs = pillow(np.full((8, 8), level, np.uint8), quality)
        np.testing.assert_allclose(255 * ours[level, ..., 0], theirs, atol=1e-3)


def test_dossier_8_the_tables_are_pillows_at_every_quality():
    luma, chroma = jax.vmap(images.jpeg_tables)(jnp.arange(1.0, 101))
    for quality in range(1, 101):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        theirs = PIL.Image.open(buffer).quantization
        np.testing.assert_array_equal(luma[quality - 1].ravel(), theirs[0])
        np.testing.assert_array_equal(chroma[quality - 1].ravel(), theirs[1])


def test_dossier_8_the_transform_is_orthonormal():
    # quality 100 has steps of one: what is lost is rounding, of coefficients and pixels
    x = bird((40, 40))[..., :1]
    ours = 255 * np.asarray(jpeg(np.float32(x) / 255, 100.0))
    assert np.abs(ours - x).max() <= 3
    assert decibels(ours, x) > 10 * np.log10(255**2 / (2 / 12)) - 0.5


def test_straight_through_the_derivative_is_that_of_the_codec_without_rounding():
    # With nothing rounded or subsampled away, what comes back is the image: the
    # derivative of a gray image is the identity.
    x = jnp.asarray(bird((24, 17))[..., :1] / 255, jnp.float32)
    v = jax.random.normal(jax.random.key(0), x.shape)
    value, slope = jax.jvp(functools.partial(images.jpeg, quality=30.0), (x,), (v,))
    np.testing.assert_allclose(slope, v, atol=1e-4)
    assert jnp.abs(value - x).max() > 0.05


@pytest.mark.parametrize(
    "rounding", [images.straight_through_round, images.cubic_round]
)
def test_there_is_a_gradient_for_every_pixel_and_for_the_quality(rounding):
    x = bird((33, 26))
    x[:3], x[3:6] = 0, 255  # saturated pixels can still be moved
    target = jnp.asarray(bird((33, 26))[::-1] / 255, jnp.float32)

    @jax.jit
    def slopes(x, quality):
        def distance(x, quality):
            back = images.jpeg(x, quality=quality, rounding=rounding)
            return jnp.sum((back - target) ** 2)

        return jax.grad(distance, (0, 1))(x, quality)

    pixels, quality = slopes(jnp.asarray(x / 255, jnp.float32), 30.0)
    assert np.isfinite(pixels).all()
    assert (pixels != 0).mean() > 0.99
    assert np.isfinite(quality) and quality != 0


def test_random_compression_is_of_every_quality_between():
    x = jnp.asarray(bird((16, 16)) / 255, jnp.float32)
    draw = functools.partial(images.random_jpeg, x, low=30, high=32)
    drawn = jax.jit(jax.vmap(lambda key: draw(key=key)))(
        jax.random.split(jax.random.key(0), 40)
    )
    each = [jpeg(x, quality) for quality in (30.0, 31.0, 32.0)]
    # a tie may go either way, in a batch and alone
    off = np.abs(drawn[:, None] - jnp.stack(each)[None]).mean((2, 3, 4))
    found = off < 0.5 * np.abs(each[0] - each[1]).mean()
    assert np.any(found, axis=1).all()
    assert np.any(found, axis=0).all()


def test_bad_qualities_and_channels_are_named():
    x = jnp.zeros((8, 8, 3))
    for quality in (0, 101, np.nan):
        with pytest.raises(ValueError, match=f"`quality` is {quality}"):
            images.jpeg(x, quality=quality)
    with pytest.raises(ValueError, match="`low` is 0"):
        images.random_jpeg(x, key=jax.random.key(0), low=0)
    with pytest.raises(ValueError, match="`high` is 120"):
        images.random_jpeg(x, key=jax.random.key(0), high=120)
    with pytest.raises(ValueError, match="`low` is 90 and `high` is 30: pass"):
        images.random_jpeg(x, key=jax.random.key(0), low=90, high=30)
    with pytest.raises(ValueError, match="`x` has 4 channels"):
        images.jpeg(jnp.zeros((8, 8, 4)), quality=20)
    with pytest.raises(ValueError, match="`x` is uint8: pass float32 pixels"):
        images.jpeg(np.zeros((8, 8, 3), np.uint8), quality=20)
