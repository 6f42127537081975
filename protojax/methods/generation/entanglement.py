"""Entanglement: what else a network sees in the picture that stands for a class.

A prototype of one class raises others that share features with it. How far is a matrix
over classes, which can be held against the errors that the network makes.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, Fn, Key, Transform
from protojax.mechanisms import checks, lowering
from protojax.methods import metrics


class Entanglement(NamedTuple):
    """What a network sees in a picture, class by class; rows of a matrix.

    Attributes:
      probability: `[K]` mean probability of each class.
      logit: `[K]` by how much its logit lies above that of the baseline, on average.
    """

    probability: Array
    logit: Array


def class_entanglement(
    fn: Fn,
    x: Array,
    *,
    baseline: Array,
    transform: Transform | None = None,
    key: Key | None = None,
    samples: int = 16,
) -> Entanglement:
    """Which classes a picture of one class raises, under random transforms.

    Args:
      fn: `[H, W, C] -> [K]` the network.
      x: `[H, W, C]` the picture, say a prototype.
      baseline: `[H, W, C]` a picture that stands for no class; it meets the same
        transforms.
      transform: random; none by default, which makes one sample of it.
      key: consumed; needed with a transform.
      samples: how many transforms are drawn.

    Returns:
      Probabilities and risen logits, means over the draws.

    Raises:
      ValueError: a transform without a key, or fewer than one sample.

    References:
      The score of Tagade and Rumbelow's product is not published; this one is ours.

    >>> import jax.numpy as jnp
    >>> fn = lambda x: jnp.sum(x) * jnp.array([1.0, 2.0])
    >>> ones = jnp.ones((1, 1, 3))
    >>> class_entanglement(fn, ones, baseline=0 * ones).logit.tolist()
    [3.0, 6.0]
    """
    checks.count("samples", samples)
    chex.assert_equal_shape([x, baseline])
    if transform is None:
        return _seen(fn, x, baseline)
    if key is None:
        raise ValueError("`transform` is random: pass `key`")

    def one(key: Key) -> Entanglement:
        return _seen(fn, transform(x, key=key), transform(baseline, key=key))

    each = jax.lax.map(lowering.canonical(one), jax.random.split(key, samples))
    return jax.tree.map(lambda a: jnp.mean(a, axis=0), each)


def asymmetry(matrix: Array) -> Array:
    """How unlike what classes see in each other is.

    Args:
      matrix: `[K, K]` not negative; its diagonal does not count.

    Returns:
      `[]` from 0 (all pairs alike) to 1 (one direction only); NaN if all is zero.

    Raises:
      ValueError: if the matrix is not square, or of one class.

    >>> import jax.numpy as jnp
    >>> float(asymmetry(jnp.array([[9.0, 3.0], [1.0, 9.0]])))
    0.5
    """
    _check_square(matrix)
    apart, both = jnp.abs(matrix - matrix.T), matrix + matrix.T
    away = _away(matrix)
    return jnp.sum(apart[away]) / jnp.sum(both[away])


def matrix_correlation(a: Array, b: Array) -> Array:
    """Spearman's correlation of two matrices over classes, their diagonals left out.

    Args:
      a: `[K, K]` say of entanglement.
      b: `[K, K]` say of confusion.

    Returns:
      `[]` in [-1, 1]; NaN if one of them is constant.

    Raises:
      ValueError: if the matrices are not square, or of one class.

    >>> import jax.numpy as jnp
    >>> a = jnp.arange(9.0).reshape(3, 3)
    >>> round(float(matrix_correlation(a, 2 * a)), 4)
    1.0
    """
    _check_square(a)
    chex.assert_equal_shape([a, b])
    away = _away(a)
    return metrics.rank_correlation(a[away], b[away])


def _seen(fn: Fn, x: Array, baseline: Array) -> Entanglement:
    logits = fn(x)
    return Entanglement(jax.nn.softmax(logits), logits - fn(baseline))


def _away(matrix: Array) -> np.ndarray:
    """True off the diagonal."""
    return ~np.eye(len(matrix), dtype=bool)


def _check_square(matrix: Array) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(
            f"`matrix` has shape {matrix.shape}: pass one row and one column for each"
            " of two or more classes"
        )
