"""What goes into an attribution, checked at its door."""

import jax
import jax.numpy as jnp

from protojax.contracts import Array, Score
from protojax.mechanisms import checks


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


def checked(score: Score, x: Array) -> Score:
    """A score that makes sure that it is one number.

    Without the check, some methods would explain the sum of all logits.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.

    Returns:
      The score; where it is called it raises a ValueError unless it gives one number.

    Raises:
      ValueError: the image is a batch, holds integers, or is known to hold NaN.

    >>> import jax.numpy as jnp
    >>> image = jnp.ones((1, 1, 3))
    >>> float(checked(jnp.sum, image)(image))
    3.0
    """
    checks.image(x)

    def one_number(z):
        value = score(z)
        shape = jax.tree.map(jnp.shape, value)
        if shape != ():
            raise ValueError(
                f"`score` gives values of shape {shape}: it must give one number, say "
                "the logit of a class, `lambda x: fn(x)[y]`"
            )
        return value

    return one_number
