"""What is one image, and what is a batch in its place."""

import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array
from protojax.mechanisms import ascent


def check(x: Array) -> None:
    """Raise unless this is one image of floating-point pixels.

    Args:
      x: `[H, W, C]` image.

    Raises:
      ValueError: it is a batch, holds integers, or is known to hold NaN.

    >>> import jax.numpy as jnp
    >>> check(jnp.ones((1, 1, 3)))
    """
    check_axes("x", x, "H", "W", "C")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`x` is {x.dtype}: pass float32 pixels in [0, 1]")
    if ascent.known(x) and np.isnan(x).any():
        raise ValueError("`x` has NaN pixels: repair or drop this image")


def check_axes(name: str, value: Array, *axes: str) -> None:
    """Refuse a batch in the place of one example.

    Args:
      name: how the argument is called.
      value: of any shape.
      *axes: the axes that it must have.

    Raises:
      ValueError: naming argument, shape and remedy.

    >>> import jax.numpy as jnp
    >>> check_axes("a", jnp.ones((2, 3)), "H", "W")
    """
    if jnp.ndim(value) != len(axes):
        raise ValueError(
            f"`{name}` has shape {jnp.shape(value)}: pass one example, "
            f"[{', '.join(axes)}], and use `jax.vmap` for a batch"
        )
