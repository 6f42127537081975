"""JPEG as a differentiable function: what an image looks like when it comes back.

The codec is the usual one, baseline JPEG with chroma at half the resolution, as Pillow
and libjpeg-turbo have it by default. It is followed to the rounding of pixels and the
padding of edges, so that decoded images are those of Pillow but for a few gray levels.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Key
from protojax.mechanisms import checks

Round = Callable[[Array], Array]


def straight_through_round(x: Array) -> Array:
    """Round to integers; the derivative is that of the identity.

    Args:
      x: `[...]` values.

    Returns:
      `[...]` the nearest integers; of two, that farther from zero, as in codecs.

    References:
      Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons,
      2013.

    >>> float(straight_through_round(1.7)), float(jax.grad(straight_through_round)(1.7))
    (2.0, 1.0)
    """
    return x + jax.lax.stop_gradient(_rounded(x) - x)


def cubic_round(x: Array) -> Array:
    """Nearly round to integers, smoothly: add the cube of what is cut off.

    At integers the derivative is zero, half way between them it is 0.75.

    Args:
      x: `[...]` values.

    Returns:
      `[...]` values at most an eighth away from the nearest integers.

    References:
      Shin and Song, JPEG-resistant Adversarial Images, 2017, section 3.1.

    >>> float(cubic_round(1.5)), float(jax.grad(cubic_round)(1.5))
    (1.875, 0.75)
    """
    nearest = jax.lax.stop_gradient(_rounded(x))
    return nearest + (x - nearest) ** 3


def jpeg(
    x: Array, *, quality: ArrayLike, rounding: Round = straight_through_round
) -> Array:
    """Compress an image as a JPEG, and decode it.

    Args:
      x: `[H, W, 3]` or `[H, W, 1]` the image, in [0, 1]; any size. Color has half the
        resolution (4:2:0).
      quality: `[]` from 1 to 100; may be traced.
      rounding: what rounds the coefficients, or stands for it; pixels are rounded
        straight through.

    Returns:
      `[H, W, C]` the decoded image, whole gray levels in [0, 1].

    Raises:
      ValueError: for a batch, integers, other channels, or NaN or a quality out of
        range, where these are known.

    References:
      ISO/IEC 10918-1; annex K for the tables. Their scaling, and how color is brought
      back to full resolution, are those of libjpeg.

    >>> x = jnp.full((8, 8, 1), 200 / 255)
    >>> round(255 * float(jpeg(x, quality=20)[0, 0, 0]), 3)
    198.0
    """
    checks.image(x)
    if x.shape[-1] not in (1, 3):
        raise ValueError(f"`x` has {x.shape[-1]} channels: JPEG takes 1 or 3")
    luma_steps, chroma_steps = jpeg_tables(quality)
    levels = straight_through_round(255 * x)
    if x.shape[-1] == 1:
        return _coded(levels[..., 0], luma_steps, rounding)[..., None] / 255
    mixed = jnp.einsum("hwc,kc->hwk", levels, jnp.asarray(_TO_YCC), precision="highest")
    luma, *chroma = jnp.moveaxis(_pixels(mixed + jnp.asarray(_GRAY)), -1, 0)
    rows, columns = luma.shape
    planes = [_coded(luma, luma_steps, rounding)]
    for plane in chroma:
        half = _coded(_halved(plane), chroma_steps, rounding)
        half = half[: -(-rows // 2), : -(-columns // 2)]
        planes.append(_doubled(half)[:rows, :columns])
    ycc = jnp.stack(planes, axis=-1) - jnp.asarray(_GRAY)
    rgb = jnp.einsum("hwk,ck->hwc", ycc, jnp.asarray(_TO_RGB), precision="highest")
    return _pixels(rgb) / 255


def random_jpeg(
    x: Array,
    *,
    key: Key,
    low: ArrayLike = 20,
    high: ArrayLike = 95,
    rounding: Round = straight_through_round,
) -> Array:
    """Compress an image as a JPEG of random quality.

    As `transform` of an attack it makes perturbations that outlive compression.

    Args:
      x: `[H, W, 3]` or `[H, W, 1]` the image, in [0, 1].
      key: consumed.
      low: `[]` the lowest quality.
      high: `[]` the highest; every whole number from low to high is as likely.
      rounding: as in `jpeg`.

    Returns:
      `[H, W, C]` the decoded image.

    Raises:
      ValueError: as for `jpeg`, or if no quality is left between the two.

    >>> x = jnp.full((8, 8, 1), 0.5)
    >>> random_jpeg(x, key=jax.random.key(0)).shape
    (8, 8, 1)
    """
    _check_quality("low", low)
    _check_quality("high", high)
    if checks.known((low, high)) and not np.asarray(low) <= np.asarray(high):
        raise ValueError(f"`low` is {low} and `high` is {high}: pass `low` <= `high`")
    quality = jax.random.randint(key, (), low, jnp.asarray(high) + 1)
    return jpeg(x, quality=quality.astype(x.dtype), rounding=rounding)


def jpeg_tables(quality: ArrayLike) -> tuple[Array, Array]:
    """The steps to which coefficients are rounded, as libjpeg scales the standard's.

    Args:
      quality: `[]` from 1 to 100; may be traced.

    Returns:
      `[8, 8]` for luma and `[8, 8]` for chroma, whole numbers from 1 to 255, rows being
      vertical frequencies. The derivative is as if they were not whole.

    Raises:
      ValueError: for a quality out of range, where it is known.

    >>> jpeg_tables(20)[0][0].tolist()
    [40.0, 28.0, 25.0, 40.0, 60.0, 100.0, 128.0, 153.0]
    """
    _check_quality("quality", quality)
    quality = jnp.asarray(quality, jnp.float32)
    percent = jnp.where(quality < 50, _floor(5000 / quality), 200 - 2 * quality)
    luma, chroma = (
        jnp.clip(_floor((jnp.asarray(base) * percent + 50) / 100), 1, 255)
        for base in (_LUMA, _CHROMA)
    )
    return luma, chroma


# Annex K of the standard; rows are vertical frequencies.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
]

# JFIF: luma is a mean of the colors, chroma what blue and red are above it, scaled.
_WEIGHTS = np.array([0.299, 0.587, 0.114])
_ABOVE = (np.eye(3)[[2, 0]] - _WEIGHTS) / (2 * (1 - _WEIGHTS[[2, 0], None]))
_TO_YCC = np.concatenate([_WEIGHTS[None], _ABOVE]).astype(np.float32)
_TO_RGB = np.linalg.inv(_TO_YCC.astype(np.float64)).astype(np.float32)
_GRAY = np.array([[[0, 128, 128]]], np.float32)

# The orthonormal cosine transform of eight values, frequencies down.
_COSINES = np.cos(np.pi * np.outer(np.arange(8), np.arange(8) + 0.5) / 8) / 2
_COSINES[0] /= np.sqrt(2)


def _coded(plane: Array, steps: Array, rounding: Round) -> Array:
    """What is left of a plane `[H, W]` of gray levels, in blocks of 8 x 8."""
    rows, columns = plane.shape
    padded = _grown(plane, -rows % 8, -columns % 8) - 128
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8)
    cosines, steps = jnp.asarray(_COSINES, plane.dtype), steps.reshape(1, 8, 1, 8)
    einsum = functools.partial(jnp.einsum, precision="highest")
    there = einsum("ui,hiwj,vj->huwv", cosines, blocks, cosines)
    there = straight_through_round(8 * there) / 8  # as precise as the codec's
    kept = steps * rounding(there / steps)
    back = einsum("ui,huwv,vj->hiwj", cosines, kept, cosines)
    return _pixels(back.reshape(padded.shape)[:rows, :columns] + 128)


def _halved(plane: Array) -> Array:
    """Means of 2 x 2 pixels, half levels up in every other column, as libjpeg has it.

    Columns are padded to whole blocks before, rows after.
    """
    wide = _grown(plane, plane.shape[0] % 2, -plane.shape[1] % 16)
    means = wide.reshape(wide.shape[0] // 2, 2, wide.shape[1] // 2, 2).mean((1, 3))
    bias = jnp.asarray(np.arange(means.shape[1]) % 2 / 4 + 0.25, plane.dtype)
    return _floor(means + bias.reshape(1, -1))


def _doubled(plane: Array) -> Array:
    """Twice as many pixels: three parts of the nearest, one of the next, each way."""
    tall = jnp.moveaxis(_doubled_rows(plane), 0, 1)
    sums = jnp.moveaxis(_doubled_rows(tall), 0, 1)  # sixteen times the levels
    bias = jnp.asarray(8 - np.arange(sums.shape[1]) % 2, plane.dtype)
    return _floor((sums + bias.reshape(1, -1)) / 16)


def _doubled_rows(plane: Array) -> Array:
    above = jnp.concatenate([plane[:1], plane[:-1]])
    below = jnp.concatenate([plane[1:], plane[-1:]])
    pairs = jnp.stack([3 * plane + above, 3 * plane + below], axis=1)
    return pairs.reshape(2 * plane.shape[0], plane.shape[1])


def _grown(plane: Array, rows: int, columns: int) -> Array:
    return jnp.pad(plane, ((0, rows), (0, columns)), mode="edge")


def _rounded(x: Array) -> Array:
    return jnp.trunc(x + jnp.copysign(0.5, x))


def _pixels(levels: Array) -> Array:
    """Whole levels from 0 to 255; those at the ends keep their slope."""
    whole = straight_through_round(levels)
    return jnp.where(whole < 0, 0, jnp.where(whole > 255, 255, whole))


def _floor(x: Array) -> Array:
    """Largest whole number below, straight through; whole ones outlive rounding."""
    return x + jax.lax.stop_gradient(jnp.floor(x + 1e-3) - x)


def _check_quality(name: str, quality: ArrayLike) -> None:
    if not checks.known(quality):
        return
    if not np.all((np.asarray(quality) >= 1) & (np.asarray(quality) <= 100)):
        raise ValueError(f"`{name}` is {quality}: JPEG's quality is from 1 to 100")
