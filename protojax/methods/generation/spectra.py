"""Half spectra of images: what `jnp.fft.rfft2` gives along rows and columns.

Of the columns, the first (and the last, where the width is even) are their own mirror
images. A spectrum that is no real image's there is made one before it is inverted, as
FFT libraries differ in what they do with it.
"""

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks
from protojax.methods.generation import colors


def frequencies(size: Sequence[int]) -> np.ndarray:
    """Distance of each entry of a half spectrum from the origin, in cycles per pixel.

    Args:
      size: height and width of the image.

    Returns:
      `[H, W // 2 + 1]`.

    >>> frequencies((2, 4)).round(3).tolist()
    [[0.0, 0.25, 0.5], [0.5, 0.559, 0.707]]
    """
    height, width = size
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])


def amplitudes(size: Sequence[int], *, decay: ArrayLike = 1.0) -> Array:
    r"""How large a coefficient of one is in the image, falling with its frequency.

    .. math:: \sqrt{h w} \, / \max(f, 1 / \max(h, w))^d

    Args:
      size: height and width of the image.
      decay: `[]` the power d; may be traced.

    Returns:
      `[H, W // 2 + 1]`.

    References:
      Olah et al., Feature Visualization, 2017, and its library, Lucid.

    >>> amplitudes((4, 4))[0].tolist()
    [16.0, 16.0, 8.0]
    """
    lowest = np.maximum(frequencies(size), 1 / max(size))
    return math.sqrt(math.prod(size)) * jnp.asarray(lowest) ** -jnp.asarray(decay)


def hermitian(spectrum: Array, *, width: int) -> Array:
    """The nearest half spectrum that is that of a real image.

    Args:
      spectrum: `[H, W // 2 + 1, C]` complex.
      width: W, of the image.

    Returns:
      `[H, W // 2 + 1, C]`, changed in the columns that mirror themselves alone.

    >>> import jax.numpy as jnp
    >>> hermitian(jnp.array([[[1j]], [[2 + 0j]], [[0j]]]), width=1).ravel().tolist()
    [0j, (1+0j), (1+0j)]
    """
    mirrored = jnp.conj(_upside_down(spectrum))
    alone = _mirror_themselves(width)
    return jnp.where(alone, (spectrum + mirrored) / 2, spectrum)


def inverse(spectrum: Array, *, width: int) -> Array:
    """The image of a half spectrum, the same on every device.

    Args:
      spectrum: `[H, W // 2 + 1, C]` complex.
      width: W, of the image: even and odd ones have the same half spectrum.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: if the spectrum has not `W // 2 + 1` columns.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [2.0], [6.0]]])
    >>> back = inverse(jnp.fft.rfft2(x, axes=(0, 1)), width=3)
    >>> back.ravel().round(4).tolist()
    [1.0, 2.0, 6.0]
    """
    chex.assert_rank(spectrum, 3)
    height, half, _ = spectrum.shape
    if half != width // 2 + 1:
        raise ValueError(
            f"`spectrum` has {half} columns, and that of an image of width {width} has "
            f"{width // 2 + 1}: pass the width of its image"
        )
    real = hermitian(spectrum, width=width)
    return jnp.fft.irfft2(real, s=(height, width), axes=(0, 1))


def of_phase(phase: Array, template: Array, *, width: int) -> Array:
    """The image of a spectrum that is given by magnitudes and phases.

    In columns that mirror themselves the phases of the upper half are taken, and turned
    for the lower one. So the magnitudes of the image are the template, but for four
    numbers at most that are their own mirror images, the mean among them: what is real
    cannot turn, and they are the template times the cosine.

    Args:
      phase: `[H, W // 2 + 1, C]` in radians.
      template: `[H, W // 2 + 1, C]` the magnitudes, symmetric in these columns, as
        those of real images are.
      width: W, of the image.

    Returns:
      `[H, W, C]`.

    References:
      Fel et al., Unlocking Feature Visualization for Deeper Networks with MAgnitude
      Constrained Optimization, 2023.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [2.0], [0.0], [6.0]]])
    >>> spectrum = jnp.fft.rfft2(x, axes=(0, 1))
    >>> same = of_phase(jnp.angle(spectrum), jnp.abs(spectrum), width=4)
    >>> bool(jnp.allclose(same, x, atol=1e-5))
    True
    """
    alone = _mirror_themselves(width)
    lower = (2 * np.arange(len(phase)) > len(phase))[:, None, None]
    phase = jnp.where(alone & lower, -_upside_down(phase), phase)
    spectrum = jax.lax.complex(template * jnp.cos(phase), template * jnp.sin(phase))
    return inverse(spectrum, width=width)


def template(natural: Array) -> Array:
    """Mean magnitudes of natural images, in decorrelated channels.

    Args:
      natural: `[N, H, W, C]` images of the size of the canvas, in [0, 1].

    Returns:
      `[H, W // 2 + 1, C]`.

    Raises:
      ValueError: for images that are not a batch, an empty one, or one of integers.

    References:
      Fel et al., Unlocking Feature Visualization for Deeper Networks with MAgnitude
      Constrained Optimization, 2023.

    >>> import jax.numpy as jnp
    >>> template(jnp.ones((2, 2, 2, 1)))[..., 0].tolist()
    [[4.0, 0.0], [0.0, 0.0]]
    """
    checks.size_of("natural", natural)
    checks.axes("natural", natural[0], "H", "W", "C")
    if not jnp.issubdtype(natural.dtype, jnp.floating):
        raise ValueError(f"`natural` is {natural.dtype}: pass float32 pixels in [0, 1]")

    def magnitudes(x: Array) -> Array:
        return jnp.abs(jnp.fft.rfft2(colors.decorrelate(x), axes=(0, 1)))

    return jnp.mean(jax.lax.map(magnitudes, jnp.asarray(natural)), axis=0)


def power_law(shape: Sequence[int], *, exponent: ArrayLike = 1.3) -> Array:
    """A template without data: magnitudes that fall as a power of the frequency.

    The exponent is about that of ImageNet at low frequencies, which at high ones fall
    faster. The mean of the image, frequency zero, has none.

    Args:
      shape: height, width and channels of the image.
      exponent: `[]` the power; may be traced.

    Returns:
      `[H, W // 2 + 1, C]`, the same in all channels.

    >>> power_law((4, 4, 1), exponent=1.0)[0, :, 0].tolist()
    [0.0, 16.0, 8.0]
    """
    *size, channels = shape
    law = amplitudes(size, decay=exponent).at[0, 0].set(0.0)
    return jnp.repeat(law[..., None], channels, axis=-1)


def _upside_down(spectrum: Array) -> Array:
    """Row -k in the place of row k."""
    return jnp.roll(spectrum[::-1], 1, axis=0)


def _mirror_themselves(width: int) -> np.ndarray:
    """`[1, W // 2 + 1, 1]`: which columns do."""
    column = np.arange(width // 2 + 1)
    return ((2 * column) % width == 0)[None, :, None]
