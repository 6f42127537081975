"""What a set of x-features is worth as concepts: apart, local, few, and found again."""

from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike


class Correlations(NamedTuple):
    """Pearson correlations of x-features.

    Attributes:
      matrix: `[F, F]`; a dead feature correlates with itself alone.
      alive: bool `[F]`, which features vary at all.
    """

    matrix: Array
    alive: Array


def correlations(features: Array) -> Correlations:
    """Correlations of x-features, or contributions, over a set.

    Args:
      features: `[N, F]`.

    Returns:
      The matrix, and which features are alive: that of a constant is undefined.

    >>> import jax.numpy as jnp
    >>> found = correlations(jnp.array([[0.0, 1, 5], [1, 0, 5], [2, 2, 5]]))
    >>> found.matrix.round(3).tolist(), found.alive.tolist()
    ([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]], [True, True, False])
    """
    chex.assert_rank(features, 2)
    centered = features - jnp.mean(features, axis=0, keepdims=True)
    squares = jnp.sum(centered**2, axis=0)
    least = 8 * jnp.finfo(features.dtype).eps * jnp.max(jnp.abs(features), axis=0)
    alive = squares > len(features) * least**2
    unit = jnp.where(alive, centered / jnp.sqrt(jnp.where(alive, squares, 1))[None], 0)
    matrix = jnp.matmul(unit.T, unit, precision="highest")
    off = matrix - jnp.diag(jnp.diag(matrix))
    return Correlations(off + jnp.eye(len(alive), dtype=off.dtype), alive)


def shared_variance(found: Correlations) -> Array:
    """The first orthogonality: mean squared correlation of two different features.

    Args:
      found: from `correlations`.

    Returns:
      `[]` over pairs of live features, zero if there are none. Times F (F - 1) it is
      the sum over ordered pairs.

    References:
      Qi et al. 2021 report two measures of orthogonality; their formulas were not at
      hand, and that it is a mean is ours.

    >>> import jax.numpy as jnp
    >>> matrix = jnp.array([[1, 0.5, 0.2], [0.5, 1, 0], [0.2, 0, 1]])
    >>> round(float(shared_variance(Correlations(matrix, jnp.ones(3, bool)))), 6)
    0.096667
    """
    count = jnp.sum(found.alive)
    squares = jnp.sum(found.matrix**2) - len(found.alive)
    return squares / jnp.maximum(count * (count - 1), 1)


def redundancy(found: Correlations) -> Array:
    """The second orthogonality: minus the log-determinant of the correlations.

    Twice the information, in nats, that normally distributed features have in common.

    Args:
      found: from `correlations`.

    Returns:
      `[]` zero if uncorrelated, infinite if one follows from the others.

    References:
      Qi et al. 2021, see `shared_variance`.

    >>> import jax.numpy as jnp
    >>> matrix = jnp.array([[1, 0.5, 0.2], [0.5, 1, 0], [0.2, 0, 1]])
    >>> round(float(redundancy(Correlations(matrix, jnp.ones(3, bool)))), 5)
    0.34249
    """
    return -jnp.linalg.slogdet(found.matrix)[1]


def part_shares(a: Array, masks: Array) -> Array:
    """What share of a map falls on each part, and on none of them.

    Args:
      a: `[H, W]` a map, not below zero.
      masks: bool `[P, H, W]`, the parts; they do not overlap.

    Returns:
      `[P + 1]` that sum to one, the rest last; NaN for a map of zeros.

    >>> import jax.numpy as jnp
    >>> masks = jnp.array([[[True, False, False]], [[False, True, False]]])
    >>> part_shares(jnp.array([[1.0, 2.0, 1.0]]), masks).tolist()
    [0.25, 0.5, 0.25]
    """
    chex.assert_rank([a, masks], [2, 3])
    chex.assert_equal_shape_suffix([a, masks], 2)
    on = jnp.sum(a[None] * masks, axis=(1, 2))
    total = jnp.sum(a)
    return jnp.append(on, total - jnp.sum(on)) / total


def spread(shares: Array) -> Array:
    """How much a map is spread over parts: the locality of an x-feature, low is local.

    Args:
      shares: `[P]` of a map on each of two or more parts, or their means over images;
        they sum to one.

    Returns:
      `[]` their entropy over that of equal shares: 0 on one part, 1 on all alike.

    References:
      Qi et al. 2021 measure locality; the formula is ours.

    >>> import jax.numpy as jnp
    >>> round(float(spread(jnp.array([0.7, 0.2, 0.1]))), 6)
    0.729847
    """
    chex.assert_rank(shares, 1)
    logs = jnp.log(jnp.where(shares > 0, shares, 1))
    return -jnp.sum(shares * logs) / np.log(len(shares))


def significant(contributions: Array, *, share: ArrayLike = 0.9) -> Array:
    """The fewest x-features that make up most of what speaks for a class.

    Args:
      contributions: `[F]` of one image.
      share: `[]` of the sum of the positive ones.

    Returns:
      bool `[F]`; none where nothing is positive.

    References:
      Hamidi-Haines et al., Interactive Naming for Explaining Deep Neural Networks,
      2019.

    >>> import jax.numpy as jnp
    >>> significant(jnp.array([6.0, 3.0, 0.8, 0.2, -4.0])).tolist()
    [True, True, False, False, False]
    """
    chex.assert_rank(contributions, 1)
    positive = jnp.maximum(contributions, 0)
    order = jnp.argsort(-positive)
    ranked = positive[order]
    before = jnp.cumsum(ranked) - ranked  # what the larger ones reach without it
    rounding = 16 * jnp.finfo(positive.dtype).eps
    needed = before < (share - rounding) * jnp.sum(positive)
    return jnp.zeros(len(positive), bool).at[order].set(needed & (ranked > 0))


def matched(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pair the x-features of two trainings, and say how alike the pairs are.

    Args:
      a: `[N, F]` features or contributions of one training.
      b: `[N, G]` of another, on the same examples.

    Returns:
      `[F]` absolute correlation of each feature of `a` with its partner, in the best
      pairing of all; 0 for a dead feature, or one without a partner.

    Raises:
      ValueError: if they are not of the same examples.

    >>> import numpy as np
    >>> a = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> matched(a, a[:, ::-1]).round(6).tolist()
    [1.0, 1.0]
    """
    import scipy.optimize  # half a second, which nothing else here needs

    if len(a) != len(b):
        raise ValueError(
            f"`a` is of {len(a)} examples and `b` of {len(b)}: pass features of the "
            "same ones"
        )
    both = correlations(jnp.asarray(np.concatenate([a, b], axis=1)))
    alike = np.abs(np.asarray(both.matrix))[: a.shape[1], a.shape[1] :]
    alike = alike * np.outer(both.alive[: a.shape[1]], both.alive[a.shape[1] :])
    rows, columns = scipy.optimize.linear_sum_assignment(-alike)
    found = np.zeros(a.shape[1], alike.dtype)
    found[rows] = alike[rows, columns]
    return found
