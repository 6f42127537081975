"""Differentiable operations on one image `[H, W, C]`.

The random ones are transforms, `transform(x, *, key)` once their knobs are bound, and
can be given to `ascent.ascend` as they are.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Key
from protojax.mechanisms import checks


def affine(x: Array, matrix: Array, *, fill: ArrayLike = 0.0) -> Array:
    """Warp an image by an affine map of its pixels, with bilinear interpolation.

    Outside of the image is the fill color, which blends with the border over the width
    of a pixel. With the data's mean color there, warping before or after a model's
    preprocessing is the same.

    Args:
      x: `[H, W, C]` the image.
      matrix: `[2, 3]` from an output pixel to where it is read, rows then columns,
        both measured from the center: `source = matrix[:, :2] @ target + matrix[:, 2]`.
      fill: `[C]` or `[]` the color outside.

    Returns:
      `[H, W, C]` the warped image.

    Raises:
      ValueError: for a batch, integers, or pixels that are known to be NaN.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> shift = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    >>> affine(x, shift, fill=9.0).ravel().tolist()
    [2.0, 3.0, 9.0]
    """
    checks.image(x)
    chex.assert_shape(matrix, (2, 3))
    height, width, channels = x.shape
    center = (jnp.array([height, width], x.dtype) - 1) / 2
    grid = jnp.indices((height, width), x.dtype).reshape(2, -1)
    # At full precision: ten bits of a coordinate would be off by a tenth of a pixel.
    source = jnp.matmul(matrix[:, :2], grid - center[:, None], precision="highest")
    source = source + (matrix[:, 2] + center)[:, None]
    fill = jnp.broadcast_to(jnp.asarray(fill, x.dtype), (channels,))
    # Interpolation outside is with zeros: so the fill color is made zero.
    planes = jnp.moveaxis(x - fill.reshape(1, 1, -1), -1, 0)
    warped = jax.vmap(_interpolate, (0, None))(planes, source)
    warped = jnp.moveaxis(warped.reshape(channels, height, width), 0, -1)
    return warped + fill.reshape(1, 1, -1)


def random_affine(
    x: Array,
    *,
    key: Key,
    degrees: ArrayLike = 10.0,
    scale: ArrayLike = 0.1,
    shift: ArrayLike = 0.1,
    fill: ArrayLike = 0.0,
) -> Array:
    """Rotate, scale and shift an image at random, each uniformly up to a limit.

    Args:
      x: `[H, W, C]` the image.
      key: consumed.
      degrees: `[]` largest rotation, either way.
      scale: `[]` largest change of size, below 1: factors from 1 - scale to 1 + scale.
      shift: `[]` largest shift, as a share of height and of width.
      fill: `[C]` or `[]` the color outside.

    Returns:
      `[H, W, C]` the warped image.

    Raises:
      ValueError: as for `affine`, or for a change of size that is known not to be in
        [0, 1).

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((8, 8, 3))
    >>> warped = random_affine(x, key=jax.random.key(0), fill=1.0)
    >>> bool(jnp.allclose(warped, x))
    True
    """
    checks.image(x)
    if checks.known(scale) and not 0 <= np.asarray(scale) < 1:
        raise ValueError(
            f"`scale` is {scale}: pass the largest change of size, from zero to below "
            "one (0.1 for factors from 0.9 to 1.1)"
        )
    angle_key, scale_key, shift_key = jax.random.split(key, 3)
    angle = degrees * jnp.pi / 180 * jax.random.uniform(angle_key, (), x.dtype, -1, 1)
    size = 1 + scale * jax.random.uniform(scale_key, (), x.dtype, -1, 1)
    offset = shift * jax.random.uniform(shift_key, (2,), x.dtype, -1, 1)
    offset = offset * jnp.array(x.shape[:2], x.dtype)
    cos, sin = jnp.cos(angle) / size, jnp.sin(angle) / size
    rotation = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    matrix = jnp.concatenate([rotation, offset[:, None]], axis=1)
    return affine(x, matrix, fill=fill)


def jitter(x: Array, *, key: Key, pixels: int, fill: ArrayLike = 0.0) -> Array:
    """Shift an image at random by whole pixels, without interpolation.

    Args:
      x: `[H, W, C]` the image.
      key: consumed.
      pixels: largest shift, in each direction and either way.
      fill: `[C]` or `[]` the color that moves in.

    Returns:
      `[H, W, C]` the shifted image.

    Raises:
      ValueError: for a batch, or a negative shift.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.zeros((4, 4, 1)).at[2, 1].set(1.0)
    >>> float(jitter(x, key=jax.random.key(0), pixels=1).sum())
    1.0
    """
    checks.axes("x", x, "H", "W", "C")
    if pixels < 0:
        raise ValueError(f"`pixels` is {pixels}: pass the largest shift, zero or more")
    fill = jnp.broadcast_to(jnp.asarray(fill, x.dtype), x.shape[-1:]).reshape(1, 1, -1)
    border = ((pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(x - fill, border)
    row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), x.shape) + fill


def gaussian_blur(x: Array, *, sigma: ArrayLike) -> Array:
    """Blur an image; beyond its border nothing is assumed.

    Each pixel is the mean of the image under a Gaussian around it, weights renormalized
    where the Gaussian leaves the image. Two matrix products, one per axis, so that
    `sigma` may be traced.

    Args:
      x: `[H, W, C]` the image.
      sigma: `[]` standard deviation, in pixels; zero changes nothing.

    Returns:
      `[H, W, C]` the blurred image.

    Raises:
      ValueError: for a batch, or a standard deviation that is known to be below zero.

    >>> import jax.numpy as jnp
    >>> x = jnp.zeros((1, 5, 1)).at[0, 2].set(1.0)
    >>> [round(float(pixel), 2) for pixel in gaussian_blur(x, sigma=0.7).ravel()]
    [0.01, 0.21, 0.57, 0.21, 0.01]
    """
    checks.axes("x", x, "H", "W", "C")
    checks.positive("sigma", sigma, or_zero=True)
    rows = _gaussian_weights(x.shape[0], sigma, x.dtype)
    columns = _gaussian_weights(x.shape[1], sigma, x.dtype)
    return jnp.einsum("ih,jw,hwc->ijc", rows, columns, x, precision="highest")


def resize(x: Array, size: Sequence[int]) -> Array:
    """Resize an image, bilinear, with antialiasing where it becomes smaller.

    Args:
      x: `[H, W, C]` the image.
      size: new height and width.

    Returns:
      `[H', W', C]` the image in its new size.

    Raises:
      ValueError: for a batch, or a size that is not two positive numbers.

    >>> import jax.numpy as jnp
    >>> resize(jnp.array([[[0.0], [1.0]]]), (1, 4)).ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    checks.axes("x", x, "H", "W", "C")
    _check_size(size)
    return jax.image.resize(x, (*size, x.shape[-1]), "bilinear", antialias=True)


def resize_nearest(x: Array, size: Sequence[int]) -> Array:
    """Resize an image by taking pixels as they are: row `floor(i * H / H')` for row i.

    That is PyTorch's `nearest`, by which the code of ClaDec makes digits larger. Others
    ask which center is nearest, and take other pixels (of 28 to 32, in 12 places).

    Args:
      x: `[H, W, C]` the image.
      size: new height and width.

    Returns:
      `[H', W', C]` the image in its new size.

    Raises:
      ValueError: for a batch, or a size that is not two positive numbers.

    >>> import jax.numpy as jnp
    >>> resize_nearest(jnp.array([[[0.0], [1.0]]]), (1, 5)).ravel().tolist()
    [0.0, 0.0, 0.0, 1.0, 1.0]
    """
    checks.axes("x", x, "H", "W", "C")
    _check_size(size)
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(size, x.shape[:2], strict=True)
    )
    return x[rows][:, columns]


def _check_size(size: Sequence[int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"`size` is {size}: pass the new height and width")


def total_variation(x: Array) -> Array:
    """Sum of the absolute differences of neighboring pixels.

    Where neighbors are equal its derivative is zero (that of `abs` in JAX is one).

    Args:
      x: `[H, W, C]` the image.

    Returns:
      `[]` the sum over rows, columns and channels.

    Raises:
      ValueError: for a batch, integers, or pixels that are known to be NaN.

    References:
      Rudin, Osher and Fatemi, Nonlinear total variation based noise removal, 1992, in
      its anisotropic form.

    >>> import jax.numpy as jnp
    >>> float(total_variation(jnp.array([[[0.0], [1.0]], [[1.0], [0.0]]])))
    4.0
    """
    checks.image(x)
    down, right = x[1:] - x[:-1], x[:, 1:] - x[:, :-1]
    return jnp.sum(magnitude(down)) + jnp.sum(magnitude(right))


def magnitude(difference: Array) -> Array:
    """The absolute value, whose derivative at zero is zero (that of `abs` is one).

    Args:
      difference: `[...]`.

    Returns:
      `[...]`.

    >>> import jax
    >>> float(magnitude(-2.0)), float(jax.grad(magnitude)(0.0))
    (2.0, 0.0)
    """
    return difference * jnp.sign(jax.lax.stop_gradient(difference))


def window(x: Array, center: Array, side: ArrayLike, *, size: Sequence[int]) -> Array:
    """Cut out a square and resize it, bilinearly; where it leaves the image is zero.

    Its first and last pixels are read at its edges, without antialiasing, as
    `crop_and_resize` does.

    Args:
      x: `[H, W, C]` the image.
      center: `[2]` row and column of its center, as shares of height and width.
      side: `[]` its side, as a share of both.
      size: height and width of what comes out.

    Returns:
      `[H', W', C]`.

    Raises:
      ValueError: for a batch, or a size that is not two positive numbers.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> window(x, jnp.array([0.5, 0.5]), 1.0, size=(1, 5)).ravel().tolist()
    [1.0, 1.5, 2.0, 2.5, 3.0]
    """
    checks.axes("x", x, "H", "W", "C")
    chex.assert_shape(center, (2,))
    _check_size(size)
    for axis, count in enumerate(size):
        step = np.linspace(-0.5, 0.5, count) if count > 1 else np.zeros(1)
        at = (center[axis] + side * step) * (x.shape[axis] - 1)
        x = _read_lines(x, at.astype(x.dtype), axis)
    return x


def window_means(length: int, size: int) -> np.ndarray:
    """The weights of means over windows that cover an axis, as even as may be.

    Args:
      length: of the axis.
      size: how many windows; they overlap where need be, as in adaptive pooling.

    Returns:
      `[size, length]`, of rows that sum to one.

    >>> window_means(3, 2).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    first = np.arange(size) * length // size
    last = -(-np.arange(1, size + 1) * length // size)
    pixel = np.arange(length)
    inside = (pixel >= first[:, None]) & (pixel < last[:, None])
    return inside / inside.sum(axis=1, keepdims=True)


def _read_lines(x: Array, at: Array, axis: int) -> Array:
    """Between the lines of an axis, at `[N]` places; zero outside."""
    first = jnp.floor(at)
    shape = [1] * x.ndim
    shape[axis] = -1
    share = (at - first).reshape(shape)

    def line(number: Array) -> Array:
        return jnp.take(x, number, axis=axis, mode="fill", fill_value=0)

    # Lines are counted from the end, too, where they are below zero.
    number = jnp.where(first < 0, x.shape[axis], first).astype(jnp.int32)
    after = jnp.where(first < -1, x.shape[axis], first + 1).astype(jnp.int32)
    return (1 - share) * line(number) + share * line(after)


def _interpolate(plane: Array, source: Array) -> Array:
    """Values of a plane at points `[2, N]`, zero outside."""
    return jax.scipy.ndimage.map_coordinates(plane, list(source), order=1)


def _gaussian_weights(length: int, sigma: ArrayLike, dtype: jnp.dtype) -> Array:
    pixels = jnp.arange(length, dtype=dtype)
    distance = pixels[:, None] - pixels[None, :]
    narrow = 1e-3  # an identity to the bit, where zero would give 0 / 0
    return jax.nn.softmax(-0.5 * (distance / jnp.maximum(sigma, narrow)) ** 2, axis=1)
