"""Sparse codes: a TopK autoencoder, today's method of choice, and what codes are worth.

The measures take the codes and reconstructions of any method, x-features included.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Key
from protojax.mechanisms import checks


class Dictionary(NamedTuple):
    """The parameters of a TopK autoencoder of D atoms for S units.

    Attributes:
      encoder: `[S, D]`.
      bias: `[D]`.
      atoms: `[D, S]` the dictionary; only the directions of the atoms count.
      center: `[S]` what is subtracted before and added after.
    """

    encoder: Array
    bias: Array
    atoms: Array
    center: Array


def dictionary(z: Array, *, size: int, key: Key) -> Dictionary:
    """A random dictionary, from which training starts.

    The encoder is the transposed dictionary, the center is the mean of the data.

    Args:
      z: `[N, S]` units of a layer.
      size: how many atoms, D.
      key: consumed.

    Returns:
      The parameters.

    Raises:
      ValueError: for fewer than one atom.

    References:
      Gao et al., Scaling and evaluating sparse autoencoders, 2024.

    >>> import jax, jax.numpy as jnp
    >>> dictionary(jnp.ones((4, 3)), size=5, key=jax.random.key(0)).atoms.shape
    (5, 3)
    """
    chex.assert_rank(z, 2)
    checks.count("size", size)
    atoms = _unit(jax.random.normal(key, (size, z.shape[1]), z.dtype))
    return Dictionary(atoms.T, jnp.zeros(size, z.dtype), atoms, jnp.mean(z, axis=0))


def encode(params: Dictionary, z: Array, *, k: int) -> Array:
    """The codes of some units: the k largest of them, not below zero.

    Args:
      params: of the autoencoder.
      z: `[..., S]` units.
      k: how many codes may be other than zero.

    Returns:
      `[..., D]`.

    Raises:
      ValueError: there are not as many atoms.

    >>> import jax.numpy as jnp
    >>> params = Dictionary(jnp.eye(2), jnp.zeros(2), jnp.eye(2), jnp.zeros(2))
    >>> encode(params, jnp.array([1.0, 2.0]), k=1).tolist()
    [0.0, 2.0]
    """
    return top_k(_before(params, z), k=k)


def decode(params: Dictionary, codes: Array) -> Array:
    """The units that codes stand for.

    Args:
      params: of the autoencoder.
      codes: `[..., D]`.

    Returns:
      `[..., S]`.

    >>> import jax.numpy as jnp
    >>> params = Dictionary(jnp.eye(2), jnp.zeros(2), 3 * jnp.eye(2), jnp.ones(2))
    >>> decode(params, jnp.array([0.0, 2.0])).tolist()
    [1.0, 3.0]
    """
    return codes @ _unit(params.atoms) + _like(params.center, codes)


def top_k(codes: Array, *, k: int) -> Array:
    """Keep the k largest entries, of those that are above zero.

    Args:
      codes: `[..., D]`.
      k: how many.

    Returns:
      `[..., D]`, zero elsewhere.

    Raises:
      ValueError: there are not as many entries.

    >>> import jax.numpy as jnp
    >>> top_k(jnp.array([0.5, -0.25, 2.0, 1.0]), k=2).tolist()
    [0.0, 0.0, 2.0, 1.0]
    """
    size = codes.shape[-1]
    if not 1 <= k <= size:
        raise ValueError(f"`k` is {k} of {size} codes: choose 1 <= k <= {size}")
    values, places = jax.lax.top_k(codes, k)
    none = jnp.zeros_like(codes)
    kept = jax.nn.relu(values)
    return jnp.put_along_axis(none, places, kept, axis=-1, inplace=False)


def top_k_loss(
    params: Dictionary, z: Array, *, k: int, revive: ArrayLike = 1 / 32
) -> tuple[Array, dict[str, Array]]:
    """What a TopK autoencoder minimizes on a batch.

    Besides the error, atoms that no example of the batch uses explain, together, what
    the others leave (AuxK). The published rule counts an atom as dead only after
    millions of examples; batches of thousands of small data sets come to the same.

    Args:
      params: of the autoencoder.
      z: `[N, S]` units.
      k: codes for each example.
      revive: `[]` weight of the second term.

    Returns:
      `[]` the loss, and its terms `error` (share of the variance that is not
      explained) and `revive`.

    References:
      Gao et al. 2024, sections 2.3 and A.2; scaled as in EleutherAI's sparsify.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> params = Dictionary(jnp.eye(2), jnp.zeros(2), jnp.eye(2), jnp.zeros(2))
    >>> float(top_k_loss(params, z, k=1)[0])
    0.0
    """
    chex.assert_rank(z, 2)
    before = _before(params, z)
    codes = top_k(before, k=k)
    left = z - decode(params, codes)
    variance = jnp.sum((z - jnp.mean(z, axis=0, keepdims=True)) ** 2)
    variance = jnp.where(variance > 0, variance, 1)
    unused = dead(codes)
    count, most = jnp.sum(unused), z.shape[1] // 2
    # The largest of the dead ones, at most half as many as units: ranks among them.
    ranks = jnp.argsort(jnp.argsort(-jnp.where(unused[None], before, -jnp.inf)))
    chosen = unused[None] & (ranks < jnp.minimum(most, count))
    again = jnp.where(chosen, before, 0) @ _unit(params.atoms)
    error = (again - jax.lax.stop_gradient(left)) ** 2
    scale = jnp.minimum(count / max(most, 1), 1)
    terms = {
        "error": jnp.sum(left**2) / variance,
        "revive": scale * jnp.sum(error) / variance,
    }
    return terms["error"] + revive * terms["revive"], terms


def explained_variance(z: Array, decoded: Array) -> Array:
    """Share of the units' variance that a reconstruction explains.

    Each unit has its own mean; the mean of the residual counts as error.

    Args:
      z: `[N, S]` units.
      decoded: `[N, S]` their reconstruction.

    Returns:
      `[]` at most 1; NaN, or minus infinity, for units that do not vary.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([[1.0, 2], [3, 2], [5, 8]])
    >>> float(explained_variance(z, jnp.array([[1.0, 3], [3, 3], [4, 6]])))
    0.78125
    """
    chex.assert_rank([z, decoded], 2)
    chex.assert_equal_shape([z, decoded])
    spread = jnp.sum((z - jnp.mean(z, axis=0, keepdims=True)) ** 2)
    return 1 - jnp.sum((z - decoded) ** 2) / spread


def active(codes: Array) -> Array:
    """Mean number of codes that are not zero (L0).

    Args:
      codes: `[N, D]`.

    Returns:
      `[]`.

    >>> import jax.numpy as jnp
    >>> float(active(jnp.array([[0.0, 1.0], [2.0, 1.0]])))
    1.5
    """
    chex.assert_rank(codes, 2)
    return jnp.mean(jnp.sum(codes != 0, axis=1).astype(codes.dtype))


def dead(codes: Array) -> Array:
    """Which codes are zero on all examples.

    Args:
      codes: `[N, D]`.

    Returns:
      bool `[D]`.

    >>> import jax.numpy as jnp
    >>> dead(jnp.array([[0.0, 1.0], [0.0, -1.0]])).tolist()
    [True, False]
    """
    chex.assert_rank(codes, 2)
    return jnp.all(codes == 0, axis=0)


def hoyer(codes: Array) -> Array:
    """How few entries hold all of a vector.

    Args:
      codes: `[..., D]`.

    Returns:
      `[...]` 1 if there is one entry, 0 if all are alike; NaN for zeros, or D of one.

    References:
      Hoyer, Non-negative matrix factorization with sparseness constraints, 2004.

    >>> import jax.numpy as jnp
    >>> round(float(hoyer(jnp.array([3.0, 4.0, 0.0, 0.0]))), 6)
    0.6
    """
    most = codes.shape[-1] ** 0.5
    sizes = jnp.abs(codes) / jnp.max(jnp.abs(codes), axis=-1, keepdims=True)
    lengths = jnp.sqrt(jnp.sum(sizes**2, axis=-1))
    return (most - jnp.sum(sizes, axis=-1) / lengths) / (most - 1)


def _before(params: Dictionary, z: Array) -> Array:
    return (z - _like(params.center, z)) @ params.encoder + _like(params.bias, z)


def _like(vector: Array, batch: Array) -> Array:
    """A vector that broadcasts to the last axis of a batch."""
    return vector.reshape((1,) * (jnp.ndim(batch) - 1) + (-1,))


def _unit(atoms: Array) -> Array:
    squares = jnp.sum(atoms**2, axis=-1, keepdims=True)
    return atoms * jax.lax.rsqrt(jnp.maximum(squares, jnp.finfo(atoms.dtype).tiny))
