"""Ranks and pairs of ranks, ties included, in sorts that run under `jit` and `vmap`."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array


class Pairs(NamedTuple):
    """How the pairs of entries of two vectors are ordered; counts, as floats.

    Attributes:
      all: `[]` number of pairs.
      tied_a: `[]` pairs that are equal in the first vector.
      tied_b: `[]` pairs that are equal in the second.
      tied_both: `[]` pairs that are equal in both.
      discordant: `[]` pairs in opposite order.
    """

    all: Array
    tied_a: Array
    tied_b: Array
    tied_both: Array
    discordant: Array


def centered(values: Array) -> Array:
    """Average ranks, minus their mean: equal entries get equal ranks.

    Args:
      values: `[N]`, without NaN, which has no rank.

    Returns:
      `[N]` ranks, from -(N - 1) / 2 to (N - 1) / 2.

    Raises:
      AssertionError: if it is no vector.

    >>> import jax.numpy as jnp
    >>> centered(jnp.array([7.0, 5.0, 7.0, 9.0])).tolist()
    [0.0, -1.5, 0.0, 1.5]
    """
    chex.assert_rank(values, 1)
    below = _from_below(values)
    above = _from_below(-below)  # of counts, as not every type has negatives
    return _float(below - above) / 2


def pairs(a: Array, b: Array) -> Pairs:
    """Count tied and discordant pairs.

    The discordant ones are the inversions of the ranks of `b` in the order of `a`. They
    are counted bit by bit, by the highest in which two ranks differ, each with one
    stable sort: O(N log(N)^2) time, O(N) memory.

    Args:
      a: `[N]`, without NaN.
      b: `[N]`, without NaN.

    Returns:
      The counts.

    Raises:
      AssertionError: if these are no vectors of one length.

    >>> import jax.numpy as jnp
    >>> float(pairs(jnp.array([1.0, 2.0, 3.0]), jnp.array([3.0, 1.0, 2.0])).discordant)
    2.0
    """
    chex.assert_rank([a, b], 1)
    chex.assert_equal_shape([a, b])
    rank_a, rank_b = jax.lax.sort((_from_below(a), _from_below(b)), num_keys=2)
    return Pairs(
        all=jnp.asarray(a.size * (a.size - 1) / 2),
        tied_a=_tied(rank_a),
        tied_b=_tied(jnp.sort(rank_b)),
        tied_both=_tied(rank_a, rank_b),
        discordant=_inversions(rank_b),
    )


def _from_below(values: Array) -> Array:
    """For each entry the number of smaller ones."""
    order = jnp.argsort(values)
    starts = _run_starts(values[order])
    return jnp.zeros(values.size, jnp.int32).at[order].set(starts)


def _run_starts(*ordered: Array) -> Array:
    """For each entry of a sorted array the position of the first of its equals."""
    changes = [jnp.concatenate([jnp.ones(1, bool), v[1:] != v[:-1]]) for v in ordered]
    positions = jnp.arange(ordered[0].size, dtype=jnp.int32)
    return jax.lax.cummax(jnp.where(jnp.stack(changes).any(0), positions, 0))


def _tied(*ordered: Array) -> Array:
    """Number of equal pairs: each entry with those of its equals before it."""
    positions = jnp.arange(ordered[0].size, dtype=jnp.int32)
    return jnp.sum(_float(positions - _run_starts(*ordered)))


def _inversions(ranks: Array) -> Array:
    """Number of pairs in which the larger comes first."""

    def count(ranks: Array, bit: Array) -> tuple[Array, Array]:
        # Among those that agree above this bit: the ones before each zero.
        above, grouped = jax.lax.sort((ranks >> (bit + 1), ranks), num_keys=1)
        ones = (grouped >> bit) & 1
        before = jnp.cumsum(ones) - ones
        inside = before - before[_run_starts(above)]
        return ranks, jnp.sum(_float(jnp.where(ones == 0, inside, 0)))

    bits = max(1, (ranks.size - 1).bit_length())
    _, found = jax.lax.scan(count, ranks, jnp.arange(bits, dtype=jnp.int32))
    return jnp.sum(found)


def _float(counts: Array) -> Array:
    return counts.astype(jnp.result_type(float))
