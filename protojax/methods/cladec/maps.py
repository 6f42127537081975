"""Relevance maps from reconstructions, so that they can be held against saliency.

The published protocol of that comparison was not at hand; both maps are ours.
"""

import chex
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import images


def agreement(
    x: Array, decoded: Array, *, scale: ArrayLike = 0.1, sigma: ArrayLike = 1.0
) -> Array:
    """Where the classifier's code brings the image back.

    Args:
      x: `[H, W, C]` the image.
      decoded: `[H, W, C]` its explanation.
      scale: `[]` the error at which agreement has fallen to 1 / e.
      sigma: `[]` width of the blur that maps are compared under, in pixels.

    Returns:
      `[H, W]` in [0, 1], one where nothing is lost.

    >>> import jax.numpy as jnp
    >>> x = jnp.zeros((4, 4, 1))
    >>> round(float(agreement(x, x).min()), 4)
    1.0
    """
    chex.assert_rank(x, 3)
    chex.assert_equal_shape([x, decoded])
    kept = jnp.mean(jnp.exp(-jnp.abs(x - decoded) / scale), axis=-1, keepdims=True)
    return images.gaussian_blur(kept, sigma=sigma)[..., 0]


def kept_by_layer(
    x: Array, decoded: Array, reference: Array, *, sigma: ArrayLike = 1.0
) -> Array:
    """Where the classifier has kept what the reference shows can be decoded.

    Minus the excess error over the reference: a pixel that the reference restores and
    the explanation does not was discarded, and cannot have mattered.

    Args:
      x: `[H, W, C]` the image.
      decoded: `[H, W, C]` its explanation.
      reference: `[H, W, C]` what the reference autoencoder makes of it.
      sigma: `[]` width of the blur that maps are compared under, in pixels.

    Returns:
      `[H, W]`, summed over channels; at most the reference's error.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((4, 4, 1))
    >>> round(float(kept_by_layer(x, 0 * x, x, sigma=0.5).max()), 4)
    -1.0
    """
    chex.assert_rank(x, 3)
    chex.assert_equal_shape([x, decoded, reference])
    excess = jnp.abs(x - decoded) - jnp.abs(x - reference)
    total = jnp.sum(excess, axis=-1, keepdims=True)
    return -images.gaussian_blur(total, sigma=sigma)[..., 0]
