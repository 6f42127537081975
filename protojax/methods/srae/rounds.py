"""The acceptance rule, and the rounds of training that it asks for."""

import chex
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.methods.srae.losses import Weights


def accepted(contributions: Array, *, ratio: ArrayLike = 0.3) -> Array:
    """Whether more than one x-feature speaks for a class.

    Args:
      contributions: `[F]` means over images. The authors take all images of training,
        most of them of other classes; a feature that fires on its class alone counts
        for more where only that class is averaged.
      ratio: `[]` of the second largest to the largest.

    Returns:
      bool `[]`: two means are above zero, and the ratio is reached.

    References:
      Qi et al. 2021; as in the authors' code.

    >>> import jax.numpy as jnp
    >>> bool(accepted(jnp.array([1.5, -1.0, 0.5])))
    True
    """
    chex.assert_rank(contributions, 1)
    chex.assert_axis_dimension_gteq(contributions, 0, 2)
    ranked = jnp.sort(contributions)
    first, second = ranked[-1], ranked[-2]
    rounding = 1 - 4 * jnp.finfo(contributions.dtype).eps
    return (second > 0) & (second >= ratio * rounding * first)


def weights_of_round(weights: Weights, number: ArrayLike) -> Weights:
    """The weights with which a network that was not accepted is trained anew.

    Args:
      weights: of the first round.
      number: `[]` of the round, from 0; the authors make at most 5.

    Returns:
      Reconstruction counts 1.2 times as much with each round, pull-away 0.8 times.

    References:
      Qi et al. 2021; as in the authors' code.

    >>> again = weights_of_round(Weights(), 2)
    >>> round(float(again.rec), 6), round(float(again.pull), 6)
    (21.6, 3.2)
    """
    return weights._replace(
        rec=weights.rec * jnp.float32(1.2) ** number,
        pull=weights.pull * jnp.float32(0.8) ** number,
    )


def first_accepted(accepted: Array) -> Array:
    """Which of several rounds counts, where all were trained at once.

    Args:
      accepted: bool `[R]`, in order of the rounds.

    Returns:
      int `[]` the first that is accepted, else the last.

    >>> import jax.numpy as jnp
    >>> int(first_accepted(jnp.array([False, True, True])))
    1
    """
    chex.assert_rank(accepted, 1)
    return jnp.where(jnp.any(accepted), jnp.argmax(accepted), len(accepted) - 1)
