"""What pulls prototypes to their class and away from others, for one example each.

The loss of ProtoPNet on a batch is the mean of

    cross_entropy + 0.8 * cluster - 0.08 * separation

over its examples, plus `1e-4 * off_class_l1`.

References:
  Chen et al., This Looks Like That, 2019, section 2.2; the numbers are of its code.
"""

import chex
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.methods.prototypes import distances as _distances


def cluster(
    distances: Array, y: ArrayLike, owners: Array, *, bound: ArrayLike | None = None
) -> Array:
    """Distance of the nearest prototype of an example's class.

    Args:
      distances: `[P]` of the example from each prototype.
      y: `[]` its class.
      owners: `[P]` the class of each prototype.
      bound: `[]` the authors' code takes the minimum as the bound (the number of
        features) minus a maximum over zero and more, so that it is cut off there; None
        does not.

    Returns:
      `[]`; infinity if the class has no prototype.

    References:
      Chen et al. 2019: the cluster cost.

    >>> d = jnp.array([0.9, 0.4, 0.6, 0.7])
    >>> round(float(cluster(d, 1, jnp.array([0, 0, 1, 1]))), 3)
    0.6
    """
    return _nearest(distances, jnp.asarray(owners) == y, bound)


def separation(
    distances: Array, y: ArrayLike, owners: Array, *, bound: ArrayLike | None = None
) -> Array:
    """Distance of the nearest prototype of the other classes; more is better.

    Args:
      distances: `[P]` of the example from each prototype.
      y: `[]` its class.
      owners: `[P]` the class of each prototype.
      bound: as in `cluster`.

    Returns:
      `[]`; infinity if the other classes have no prototype.

    References:
      Chen et al. 2019: the separation cost, which they give the opposite sign.

    >>> d = jnp.array([0.9, 0.4, 0.6, 0.7])
    >>> round(float(separation(d, 1, jnp.array([0, 0, 1, 1]))), 3)
    0.4
    """
    return _nearest(distances, jnp.asarray(owners) != y, bound)


def mean_separation(distances: Array, y: ArrayLike, owners: Array) -> Array:
    """Mean distance of the prototypes of other classes, which is watched in training.

    Args:
      distances: `[P]` of the example from each prototype.
      y: `[]` its class.
      owners: `[P]` the class of each prototype.

    Returns:
      `[]`; NaN if the other classes have no prototype.

    >>> d = jnp.array([0.9, 0.4, 0.6, 0.7])
    >>> round(float(mean_separation(d, 1, jnp.array([0, 0, 1, 1]))), 3)
    0.65
    """
    other = jnp.asarray(owners) != y
    chex.assert_rank([distances, other], 1)
    chex.assert_equal_shape([distances, other])
    return jnp.sum(jnp.where(other, distances, 0)) / jnp.sum(other)


def off_class_l1(kernel: Array, owners: Array) -> Array:
    """Sum of what prototypes weigh, either way, for classes that are not theirs.

    Args:
      kernel: `[P, K]` the last layer.
      owners: `[P]` the class of each prototype.

    Returns:
      `[]`.

    References:
      Chen et al. 2019: the penalty of the last layer.

    >>> kernel = jnp.array([[1.0, -0.5], [0.25, 1.0]])
    >>> float(off_class_l1(kernel, jnp.array([0, 1])))
    0.75
    """
    owners, classes = jnp.asarray(owners), jnp.arange(kernel.shape[1])
    chex.assert_rank([kernel, owners], [2, 1])
    chex.assert_equal_shape_prefix([kernel, owners], 1)
    other = owners[:, None] != classes[None]
    return jnp.sum(jnp.where(other, jnp.abs(kernel), 0))


def _nearest(distances: Array, among: Array, bound: ArrayLike | None) -> Array:
    chex.assert_rank([distances, among], 1)
    chex.assert_equal_shape([distances, among])
    if bound is None:
        return _distances.first_min(jnp.where(among, distances, jnp.inf))
    below = jnp.where(among, distances - bound, 0)
    return jnp.asarray(bound) + _distances.first_min(below)
