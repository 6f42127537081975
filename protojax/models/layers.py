"""What the networks share: how an image enters. No layer of any one network."""

from collections.abc import Sequence

import chex
import jax.numpy as jnp

from protojax import contracts

Array = contracts.Array

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(
    x: Array, mean: float | Sequence[float], std: float | Sequence[float]
) -> Array:
    """Shift and scale the channels of an image; the door of every network.

    Args:
      x: `[H, W, C]` one image, floating point, in [0, 1].
      mean: one number for all channels, or C of them.
      std: the same.

    Returns:
      `[H, W, C]`, `(x - mean) / std`.

    Raises:
      AssertionError: if `x` is a batch, is of integers, or has other channels.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.ones((1, 2, 3)), 0.5, (0.5, 0.25, 0.125))[0, 0].tolist()
    [1.0, 2.0, 4.0]
    """
    chex.assert_rank(x, 3)
    chex.assert_type(x, float)
    for channels in (mean, std):
        if isinstance(channels, Sequence):
            chex.assert_axis_dimension(x, 2, len(channels))
    shift, scale = (
        jnp.reshape(jnp.asarray(v, x.dtype), (1, 1, -1)) for v in (mean, std)
    )
    return (x - shift) / scale
