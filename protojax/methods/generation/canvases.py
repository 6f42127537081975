"""What an image is made of while it is optimized: pixels, waves, or phases alone.

The image that a network likes best depends on the coordinates that it is climbed in: in
pixels each step changes all frequencies alike, in waves mostly the low ones. Each
canvas is three pure functions; everything else does not ask which one it is.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Key, PyTree
from protojax.mechanisms import ascent, checks
from protojax.methods.generation import colors as color_maps
from protojax.methods.generation import spectra


class Canvas(NamedTuple):
    """How an image is parametrized.

    Attributes:
      start: `key -> params`, where a climb starts; None as key where nothing is random.
      render: `params -> [H, W, C]`, the image.
      project: `params -> params`, back to where the parameters may be, after each step.
    """

    start: Callable[[Key | None], PyTree]
    render: Callable[[PyTree], Array]
    project: Callable[[PyTree], PyTree]


def pixels(x0: Array, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Canvas:
    """The pixels themselves, from an image, clipped to their range after each step.

    Args:
      x0: `[H, W, C]` the image to start from.
      bounds: smallest and largest value of a pixel that the network accepts.

    Returns:
      The canvas; its parameters are `[H, W, C]`.

    Raises:
      ValueError: for a batch, an image with NaN, of integers or out of the bounds, and
        for bounds in the wrong order.

    References:
      Tagade and Rumbelow, Prototype Generation, 2023, whose pixels are the parameters.

    >>> import jax.numpy as jnp
    >>> canvas = pixels(jnp.full((1, 1, 1), 0.25))
    >>> float(canvas.render(canvas.project(canvas.start(None) + 2)).ravel()[0])
    1.0
    """
    checks.image(x0)
    _check_bounds(bounds)
    project = ascent.within(x0, jnp.inf, bounds=bounds)
    return Canvas(lambda _: x0, lambda params: params, project)


def fourier(
    shape: Sequence[int],
    *,
    decay: ArrayLike = 1.0,
    sd: ArrayLike = 0.01,
    colors: Callable[[Array], Array] = color_maps.to_rgb,
) -> Canvas:
    r"""Waves, the larger the longer they are, in decorrelated colors.

    .. math:: \operatorname{colors}\left(\tfrac14 \operatorname{irfft2}(
              \operatorname{amplitudes} \cdot (re + i \, im))\right)

    The parameters are two real arrays, so that Adam scales each on its own, as in
    Lucid.

    Args:
      shape: height, width and channels of the image.
      decay: `[]` power with which amplitudes fall with the frequency: 1 in Lucid.
      sd: `[]` standard deviation of the parameters at the start.
      colors: from channels of any size to pixels; `lambda image: image` for the waves
        as they are.

    Returns:
      The canvas; its parameters are a pair of `[H, W // 2 + 1, C]`.

    Raises:
      ValueError: for a shape that is none of an image, and (at the start) without a
        key.

    References:
      Olah et al., Feature Visualization, 2017, and its library, Lucid.

    >>> import jax
    >>> canvas = fourier((8, 9, 3))
    >>> canvas.render(canvas.start(jax.random.key(0))).shape
    (8, 9, 3)
    """
    height, width, channels = _check_shape(shape)
    scale = spectra.amplitudes((height, width), decay=decay)[..., None]
    half = (2, *scale.shape[:2], channels)

    def start(key: Key | None) -> tuple[Array, Array]:
        real, imaginary = sd * jax.random.normal(_required(key, "fourier"), half)
        return real, imaginary

    def render(params: tuple[Array, Array]) -> Array:
        spectrum = jax.lax.complex(*(scale * part for part in params))
        return colors(spectra.inverse(spectrum, width=width) / 4)

    return Canvas(start, render, _as_it_is)


def fourier_params(image: Array, *, decay: ArrayLike = 1.0) -> tuple[Array, Array]:
    """The parameters with which the waves of `fourier` are a given image.

    With them a climb can start from an image: `canvas._replace(start=lambda _: params)`
    and `fourier_params(from_rgb(x))`.

    Args:
      image: `[H, W, C]`, before the color map.
      decay: `[]` as for `fourier`.

    Returns:
      Two arrays `[H, W // 2 + 1, C]`.

    Raises:
      ValueError: for a batch of images.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.random.normal(jax.random.key(0), (4, 5, 1))
    >>> again = fourier(x.shape, colors=lambda image: image).render(fourier_params(x))
    >>> bool(jnp.allclose(again, x, atol=1e-5))
    True
    """
    checks.axes("image", image, "H", "W", "C")
    scale = spectra.amplitudes(image.shape[:2], decay=decay)[..., None]
    spectrum = 4 * jnp.fft.rfft2(image, axes=(0, 1)) / scale
    return spectrum.real, spectrum.imag


def phases(
    template: Array,
    *,
    width: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    colors: Callable[[Array], Array] = color_maps.to_rgb,
) -> Canvas:
    """Phases alone; magnitudes are those of natural images (MaCo).

    Phases are standardized first, and so is the image, over all channels together:
    adding to all phases, or scaling them, changes nothing.

    Args:
      template: `[H, W // 2 + 1, C]` magnitudes, from `template` or `power_law`.
      width: W, of the image.
      bounds: smallest and largest value of a pixel.
      colors: from standardized channels to (0, 1).

    Returns:
      The canvas; its parameters are `[H, W // 2 + 1, C]`.

    Raises:
      ValueError: for a template that does not fit the width, that has negative or
        infinite magnitudes or none above zero, for bounds in the wrong order, and (at
        the start) without a key.

    References:
      Fel et al., Unlocking Feature Visualization for Deeper Networks with MAgnitude
      Constrained Optimization, 2023, and the library of its authors, Xplique.

    >>> import jax, jax.numpy as jnp
    >>> canvas = phases(jnp.ones((8, 5, 3)), width=8)
    >>> canvas.render(canvas.start(jax.random.key(0))).shape
    (8, 8, 3)
    """
    _check_template(template, width)
    _check_bounds(bounds)
    low, high = bounds

    def start(key: Key | None) -> Array:
        return jax.random.normal(_required(key, "phases"), template.shape)

    def render(phase: Array) -> Array:
        image = spectra.of_phase(_standardized(phase), template, width=width)
        return low + (high - low) * colors(_standardized(image))

    return Canvas(start, render, _as_it_is)


def group(canvas: Canvas, size: int) -> Canvas:
    """Several images on canvases of one kind, to be climbed together.

    What is climbed is then a function of `[B, H, W, C]`, in which the images may be
    compared, say by `diversity`; transforms get `[B, H, W, C]`, too.

    Args:
      canvas: of one image.
      size: B, how many.

    Returns:
      The canvas of all.

    Raises:
      ValueError: for fewer than one.

    >>> import jax
    >>> several = group(fourier((8, 8, 3)), 4)
    >>> several.render(several.start(jax.random.key(0))).shape
    (4, 8, 8, 3)
    """
    checks.count("size", size)

    def start(key: Key | None) -> PyTree:
        keys = [None] * size if key is None else jax.random.split(key, size)
        starts = [canvas.start(each) for each in keys]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)

    return Canvas(start, jax.vmap(canvas.render), jax.vmap(canvas.project))


def _as_it_is(params: PyTree) -> PyTree:
    return params


def _standardized(values: Array) -> Array:
    return (values - jnp.mean(values)) / (jnp.std(values) + 1e-5)


def _required(key: Key | None, name: str) -> Key:
    if key is None:
        raise ValueError(f"`{name}` starts at random: pass `key`")
    return key


def _check_bounds(bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low < high:
        raise ValueError(f"`bounds` are {bounds}: pass the smaller one first")


def _check_shape(shape: Sequence[int]) -> Sequence[int]:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"`shape` is {shape}: pass height, width and channels")
    return shape


def _check_template(template: Array, width: int) -> None:
    checks.axes("template", template, "H", "W // 2 + 1", "C")
    if template.shape[1] != width // 2 + 1:
        raise ValueError(
            f"`template` has shape {template.shape}, and an image of width {width} has "
            f"a half spectrum of {width // 2 + 1} columns: make it of images of the "
            "size of the canvas, `template(images)`"
        )
    if not checks.known(template):
        return
    magnitudes = np.asarray(template)
    if not (np.isfinite(magnitudes).all() and (magnitudes >= 0).all()):
        raise ValueError(
            "`template` has magnitudes that are negative or not finite: take those of"
            " images, `template(images)`, or `power_law`"
        )
    if not magnitudes.any():
        raise ValueError(
            "`template` is zero everywhere, and so are all its images: take those of"
            " images, `template(images)`, or `power_law`"
        )
