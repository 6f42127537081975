"""What goes into an attribution, checked at its door."""

import chex
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array
from protojax.mechanisms import ascent


def baseline_of(x: Array, baseline: Array | None) -> Array:
    """The baseline, or black, of the shape of an image.

    Args:
      x: `[H, W, C]` image.
      baseline: `[H, W, C]`, or `None` for black.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: the shapes differ.

    >>> import jax.numpy as jnp
    >>> baseline_of(jnp.ones((1, 1, 2)), None).tolist()
    [[[0.0, 0.0]]]
    """
    if baseline is None:
        return jnp.zeros_like(x)
    if jnp.shape(baseline) != x.shape:
        raise ValueError(
            f"`baseline` has shape {jnp.shape(baseline)}, and the image {x.shape}: "
            "broadcast it, `jnp.broadcast_to(baseline, x.shape)`"
        )
    return jnp.asarray(baseline, x.dtype)


def check_image(x: Array) -> None:
    """Raise unless this is one image of floating-point pixels.

    Args:
      x: `[H, W, C]` image.

    Raises:
      ValueError: it holds integers, or is known to hold NaN.

    >>> import jax.numpy as jnp
    >>> check_image(jnp.ones((1, 1, 3)))
    """
    chex.assert_rank(x, 3)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`x` is {x.dtype}: pass float32 pixels in [0, 1]")
    if ascent.known(x) and np.isnan(x).any():
        raise ValueError("`x` has NaN pixels: repair or drop this image")
