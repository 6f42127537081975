"""Eigenpairs of symmetric operators, by Lanczos."""

import jax
import jax.flatten_util
import jax.numpy as jnp
from matfree import decomp, eig

from protojax.contracts import Array, Key, MatVec, PyTree
from protojax.mechanisms import ascent, lowering


def top_eigenpairs(
    matvec: MatVec, like: PyTree, *, key: Key, num: int = 1, steps: int = 32
) -> tuple[Array, PyTree]:
    """The eigenpairs of largest magnitude of a symmetric operator.

    Lanczos with full reorthogonalization from a random vector. The operator is scaled
    to one, and a random diagonal just above rounding level is added (and its part of
    the eigenvalues taken off again): an operator of low rank (the rank of a Hessian is
    at most the number of curved units) exhausts the Krylov space early, and goes on in
    a fresh direction instead of dividing rounding errors by each other.

    Args:
      matvec: the product with a tree like `like`.
      like: a tree of arrays that gives the shapes; its values are not used.
      key: consumed.
      num: how many pairs.
      steps: how many products (and one more to find the scale); as many as there are
        dimensions, which is exact, where that is fewer.

    Returns:
      Eigenvalues `[num]`, from the largest magnitude down, and unit eigenvectors, a
      tree like `like` with a leading axis `[num, ...]`; their signs are arbitrary. Of a
      zero operator, where traced: zeros, and vectors without meaning.

    Raises:
      ValueError: if more pairs are asked for than there are steps or dimensions.
      Stalled: if the operator is known to be zero, as the Hessian of the logit of a
        piecewise linear network.

    References:
      Lanczos, An iteration method for the solution of the eigenvalue problem, 1950.

    >>> import jax, jax.numpy as jnp
    >>> diagonal = jnp.array([1.0, -5.0, 3.0])
    >>> values, vectors = top_eigenpairs(lambda v: diagonal * v, diagonal,
    ...                                  key=jax.random.key(0), num=2)
    >>> [round(float(value), 4) for value in values], vectors.shape
    ([-5.0, 3.0], (2, 3))
    """
    flat, unravel = jax.flatten_util.ravel_pytree(like)
    if not 1 <= num <= min(steps, flat.size):
        raise ValueError(
            f"`num` is {num}: choose at least 1, at most `steps` ({steps}) and at most "
            f"the dimension ({flat.size})"
        )
    start_key, fresh_key = jax.random.split(key)
    start = jax.random.normal(start_key, flat.shape, flat.dtype)
    start = start / jnp.sqrt(jnp.sum(start**2))
    fresh = 256 * jnp.finfo(flat.dtype).eps
    fresh *= jax.random.uniform(fresh_key, flat.shape, flat.dtype, -1, 1)

    with jax.default_matmul_precision("highest"):
        product = lowering.canonical(
            lambda v: jax.flatten_util.ravel_pytree(matvec(unravel(v)))[0]
        )
        scale = jnp.sqrt(jnp.sum(product(start) ** 2))
        divisor = jnp.where(scale == 0, 1, scale)
        lanczos = decomp.tridiag_sym(min(steps, flat.size), custom_vjp=False)
        values, vectors = eig.eigh_partial(lanczos)(
            lambda v: product(v) / divisor + fresh * v, start
        )
    if ascent.known(scale) and scale == 0:
        raise ascent.Stalled(
            "the operator is zero. The Hessian of a piecewise linear function, such as "
            "the logit of a ReLU network, is zero almost everywhere: take a smooth twin"
            " (activations.replace(fn, activations.softplus(beta))) or a cross-entropy"
        )
    values = values - vectors**2 @ fresh
    order = jnp.argsort(-jnp.abs(values))[:num]
    return values[order] * scale, jax.vmap(unravel)(vectors[order])
