"""Operators on flat vectors, and Krylov spaces that do not end early."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from matfree import decomp

from protojax.contracts import Array, Key, MatVec, PyTree
from protojax.mechanisms import ascent, checks, lowering


class Operator(NamedTuple):
    """A symmetric operator on flat vectors.

    Attributes:
      product: `[N] -> [N]`, in the form that is fast on CPU.
      like: `[N]` what a vector looks like.
      unravel: from `[N]` to a tree.
    """

    product: Callable[[Array], Array]
    like: jax.ShapeDtypeStruct
    unravel: Callable[[Array], PyTree]


def flat(matvec: MatVec, like: PyTree, *, name: str = "like") -> Operator:
    """An operator on trees as one on vectors.

    Args:
      matvec: the product with a tree like `like`.
      like: a tree of floating-point arrays.
      name: how that argument is called.

    Returns:
      The operator.

    Raises:
      ValueError: for a tree without numbers or with integers, and for a product of
        another size.

    >>> twice = flat(lambda tree: {"a": 2 * tree["a"]}, {"a": jnp.ones(2)})
    >>> twice.product(jnp.ones(2)).tolist()
    [2.0, 2.0]
    """
    vector, unravel = jax.flatten_util.ravel_pytree(like)
    if not vector.size or not jnp.issubdtype(vector.dtype, jnp.floating):
        raise ValueError(
            f"`{name}` has {vector.size} numbers of type {vector.dtype}: pass a tree "
            "of floating-point arrays"
        )

    def product(v: Array) -> Array:
        image = jax.flatten_util.ravel_pytree(matvec(unravel(v)))[0]
        if image.shape != v.shape:
            raise ValueError(
                f"`matvec` gives {image.size} numbers for {v.size}: the operator must "
                f"be symmetric, from trees like `{name}` to trees like `{name}`"
            )
        return image

    shape = jax.ShapeDtypeStruct(vector.shape, vector.dtype)
    return Operator(lowering.canonical(product), shape, unravel)


def dense(operator: Operator) -> Array:
    """All of a small operator, one product at a time.

    Args:
      operator: of dimension N.

    Returns:
      `[N, N]` the matrix.

    >>> dense(flat(lambda v: 2 * v, jnp.ones(2))).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    (size,) = operator.like.shape
    return jax.lax.map(operator.product, jnp.eye(size, dtype=operator.like.dtype))


def scaled(operator: Operator, key: Key) -> tuple[Operator, Array]:
    """An operator divided by the norm of its product with a random unit vector.

    Args:
      operator: of any scale, on which squares might leave the range of the numbers.
      key: consumed.

    Returns:
      The operator of scale one (zero stays zero), and the scale.

    >>> unit, scale = scaled(flat(lambda v: 8 * v, jnp.ones(1)), jax.random.key(0))
    >>> scale.item(), unit.product(jnp.ones(1)).item()
    (8.0, 1.0)
    """
    scale = norm(operator.product(_unit(key, operator.like)))
    divisor = jnp.where(scale == 0, 1, scale)
    return operator._replace(product=lambda v: operator.product(v) / divisor), scale


def norm(tree: PyTree) -> Array:
    """The Euclidean norm, at any scale: squares of single numbers may be out of range.

    Args:
      tree: a tree of arrays.

    Returns:
      `[]` the norm.

    >>> round(float(norm({"a": jnp.full(1, 3e-30), "b": jnp.full(1, 4e-30)})) * 1e30, 4)
    5.0
    """
    leaves = jax.tree.leaves(tree)
    peak = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0) for leaf in leaves]))
    peak = jnp.where(peak > 0, peak, 1)
    return peak * jnp.sqrt(sum(jnp.sum((leaf / peak) ** 2) for leaf in leaves))


class Lanczos(NamedTuple):
    """What an operator does on a Krylov space.

    Attributes:
      basis: `[S, N]`, orthonormal.
      matrix: `[S, S]` the operator there, tridiagonal, with the random diagonal.
      rest: `[N]` what the product with the last vector has outside of the space.
      fresh: `[N]` the random diagonal that was added.
    """

    basis: Array
    matrix: Array
    rest: Array
    fresh: Array


def lanczos(operator: Operator, key: Key, steps: int) -> Lanczos:
    """Lanczos with full reorthogonalization from a random vector.

    A random diagonal just above rounding level is added to the operator: an operator of
    low rank exhausts its Krylov space early, and goes on in a fresh direction instead
    of dividing rounding errors by each other.

    Args:
      operator: of scale one, and of dimension N.
      key: consumed.
      steps: how many products, at most N.

    Returns:
      The space and the operator there.

    >>> found = lanczos(flat(lambda v: 3 * v, jnp.ones(4)), jax.random.key(0), 4)
    >>> bool(jnp.allclose(found.matrix, 3 * jnp.eye(4), atol=1e-4))
    True
    """
    start_key, fresh_key = jax.random.split(key)
    like = operator.like
    fresh = 256 * jnp.finfo(like.dtype).eps
    fresh *= jax.random.uniform(fresh_key, like.shape, like.dtype, -1, 1)
    found = decomp.tridiag_sym(steps, custom_vjp=False)(
        lambda v: operator.product(v) + fresh * v, _unit(start_key, like)
    )
    return Lanczos(found.Q_tall, found.J_small, found.residual, fresh)


def space(operator: Operator, key: Key, steps: int) -> tuple[Array, Array]:
    """An orthonormal basis of a Krylov space, and the products with it.

    Args:
      operator: of scale one, and of a dimension N above `steps`.
      key: consumed.
      steps: how many products.

    Returns:
      The basis `[steps, N]`, and its products with the operator `[steps, N]`.

    >>> basis, images = space(flat(lambda v: 3 * v, jnp.ones(4)), jax.random.key(0), 2)
    >>> bool(jnp.allclose(images, 3 * basis, atol=1e-6))
    True
    """
    basis, matrix, rest, fresh = lanczos(operator, key, steps)
    return basis, (matrix @ basis).at[-1].add(rest) - basis * fresh[None]


def raise_unless_finite(result: PyTree) -> None:
    """Name a product that is not finite.

    Args:
      result: what was made of the products, a tree of arrays. Traced results pass:
        there the numbers say it.

    Raises:
      FloatingPointError: if a product is known not to be finite.

    >>> raise_unless_finite(jnp.ones(3))
    """
    if not checks.known(result):
        return
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(result)):
        raise FloatingPointError(
            "a product with the operator is not finite: look at the function whose "
            "curvature it is (a logarithm or a norm at zero?)"
        )


def raise_unless_sound(scale: Array, result: PyTree) -> None:
    """Name an operator that is zero, or a product that is not finite.

    Args:
      scale: `[]` of the operator. Traced results pass: there the numbers say it.
      result: what was made of the products, a tree of arrays.

    Raises:
      Stalled: for an operator that is known to be zero.
      FloatingPointError: if a product is known not to be finite.

    >>> raise_unless_sound(jnp.ones(()), jnp.ones(3))
    """
    raise_unless_finite(result)
    if checks.known((scale, result)) and scale == 0:
        raise ascent.Stalled(
            "the operator is zero. The Hessian of a piecewise linear function, such as "
            "the logit of a ReLU network, is zero almost everywhere: take a smooth twin"
            " (activations.replace(fn, activations.softplus(beta))) or a cross-entropy"
        )


def _unit(key: Key, like: jax.ShapeDtypeStruct) -> Array:
    v = jax.random.normal(key, like.shape, like.dtype)
    return v / jnp.sqrt(jnp.sum(v**2))
