"""Decoders in closed form, where encoder and decoder are linear.

The references of everything that is trained: no decoder of its kind does better.
"""

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.methods import srae


def linear_error(covariance: Array, encoder: Array) -> tuple[Array, Array]:
    r"""The best linear decoder of a linear encoder, and what it cannot restore.

    $D = \Sigma W^T (W \Sigma W^T)^{-1}$, with the error $\mathrm{tr}\,\Sigma -
    \mathrm{tr}[D W \Sigma]$. Neither $D W$ nor the error depends on how codes are
    mixed: $A W$ for an invertible A gives the same.

    Args:
      covariance: `[d, d]` of data with mean zero.
      encoder: `[r, d]` its rows independent.

    Returns:
      `[d, r]` the decoder, `[]` the mean squared error, summed over dimensions.

    >>> import jax.numpy as jnp
    >>> decoder, error = linear_error(jnp.diag(jnp.array([4.0, 3, 2, 1])),
    ...                               jnp.full((1, 4), 0.5))
    >>> [round(float(v), 3) for v in decoder.ravel()], round(float(error), 3)
    ([0.8, 0.6, 0.4, 0.2], 7.0)
    """
    chex.assert_rank([covariance, encoder], 2)
    with jax.default_matmul_precision("highest"):
        crossed = encoder @ covariance
        decoder = jnp.linalg.solve(crossed @ encoder.T, crossed).T
        return decoder, jnp.trace(covariance) - jnp.trace(decoder @ crossed)


def principal_error(covariance: Array, *, size: int) -> Array:
    """What the best linear autoencoder cannot restore: the smallest eigenvalues.

    No linear encoder of as many codes does better, `linear_error` is never below.

    Args:
      covariance: `[d, d]` of data with mean zero.
      size: how many codes.

    Returns:
      `[]` the mean squared error, summed over dimensions.

    Raises:
      ValueError: more codes than dimensions, or fewer than none.

    References:
      Baldi and Hornik, Neural networks and principal component analysis, 1989.

    >>> import jax.numpy as jnp
    >>> float(principal_error(jnp.diag(jnp.array([4.0, 3, 2, 1])), size=2))
    3.0
    """
    chex.assert_rank(covariance, 2)
    width = len(covariance)
    if not 0 <= size <= width:
        raise ValueError(f"`size` is {size}: choose 0 to {width}")
    return jnp.sum(jnp.linalg.eigvalsh(covariance)[: width - size])


def principal_components(images: Array, *, size: int) -> tuple[Array, Array]:
    """The mean image and the directions of the best linear autoencoder.

    Args:
      images: `[N, d]` flattened.
      size: how many codes, at most N and d.

    Returns:
      `[d]` the mean, `[size, d]` orthonormal rows: an image comes back as
      `mean + (image - mean) @ rows.T @ rows`.

    Raises:
      ValueError: more codes than there are directions, or fewer than one.

    >>> import jax.numpy as jnp
    >>> mean, rows = principal_components(jnp.array([[1.0, 5], [3, 5]]), size=1)
    >>> mean.tolist(), abs(rows).round(3).tolist()
    ([2.0, 5.0], [[1.0, 0.0]])
    """
    chex.assert_rank(images, 2)
    if not 1 <= size <= min(images.shape):
        raise ValueError(f"`size` is {size}: choose 1 to {min(images.shape)}")
    mean = jnp.mean(images, axis=0)
    rows = jnp.linalg.svd(images - mean[None], full_matrices=False)[2]
    return mean, rows[:size]


def linear_decoder(
    codes: Array, images: Array, *, ridge: ArrayLike = 1e-6
) -> tuple[Array, Array]:
    """The best linear decoder of given codes, on data.

    Args:
      codes: `[N, r]`.
      images: `[N, d]` flattened.
      ridge: `[]` as for `srae.least_squares`.

    Returns:
      `[r, d]` and `[d]`: an image comes back as `code @ kernel + bias`.

    >>> import jax.numpy as jnp
    >>> codes = jnp.array([[0.0], [1], [2]])
    >>> kernel, bias = linear_decoder(codes, jnp.concatenate([codes, 1 - codes], 1))
    >>> kernel.round(3).tolist(), bias.round(3).tolist()
    ([[1.0, -1.0]], [0.0, 1.0])
    """
    return srae.least_squares(codes, images, ridge=ridge)
