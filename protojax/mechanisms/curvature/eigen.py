"""Eigenpairs of symmetric operators and singular triplets of others, by Lanczos."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Key, MatVec, PyTree
from protojax.mechanisms import checks, lowering
from protojax.mechanisms.curvature import krylov, products


class Eigenpairs(NamedTuple):
    """Some eigenpairs of a symmetric operator, with what they leave.

    Attributes:
      values: `[num]` the eigenvalues.
      vectors: unit eigenvectors, a tree with a leading axis `[num, ...]`; their signs
        are arbitrary.
      residuals: `[num]` the norms of `A v - value v`, by products with the vectors. An
        eigenvalue of the operator lies within this distance of each value.
    """

    values: Array
    vectors: PyTree
    residuals: Array


def top_eigenpairs(
    matvec: MatVec,
    like: PyTree,
    *,
    key: Key,
    num: int = 1,
    steps: int = 32,
    which: Literal["magnitude", "largest", "smallest"] = "magnitude",
) -> Eigenpairs:
    """Eigenpairs from an end of the spectrum of a symmetric operator.

    Lanczos with full reorthogonalization from a random vector. The operator is scaled
    to one, and a random diagonal just above rounding level is added: an operator of low
    rank (the rank of a Hessian is at most the number of curved units) exhausts the
    Krylov space early, and goes on in a fresh direction instead of dividing rounding
    errors by each other. Values and residuals are of the operator itself.

    Args:
      matvec: the product with a tree like `like`.
      like: a tree of arrays that gives the shapes; its values are not used.
      key: consumed.
      num: how many pairs.
      steps: how many products (and `num` more for the residuals, and one to find the
        scale); as many as there are dimensions, which is exact, where that is fewer.
      which: the pairs of largest magnitude, of the largest or of the smallest values,
        the outermost first.

    Returns:
      The pairs. Of a zero operator, where traced: zeros, and vectors without meaning.

    Raises:
      ValueError: if more pairs are asked for than there are steps or dimensions, or of
        an unknown end.
      Stalled: if the operator is known to be zero, as the Hessian of the logit of a
        piecewise linear network.
      FloatingPointError: if a product is known not to be finite.

    References:
      Lanczos, An iteration method for the solution of the eigenvalue problem, 1950.

    >>> import jax, jax.numpy as jnp
    >>> diagonal = jnp.array([1.0, -5.0, 3.0])
    >>> pairs = top_eigenpairs(lambda v: diagonal * v, diagonal,
    ...                        key=jax.random.key(0), num=2)
    >>> [round(float(value), 4) for value in pairs.values], pairs.vectors.shape
    ([-5.0, 3.0], (2, 3))
    >>> bool(jnp.all(pairs.residuals < 1e-4))
    True
    """
    if which not in _ORDERS:
        raise ValueError(f"`which` is {which!r}: {', '.join(_ORDERS)} are known")
    operator = krylov.flat(matvec, like)
    (size,) = operator.like.shape
    _check_num(num, steps, size)
    with jax.default_matmul_precision("highest"):
        ritz = _lanczos(operator, key, min(steps, size))
        pairs = ritz.pairs(jnp.argsort(_ORDERS[which](ritz.values))[:num])
    krylov.raise_unless_sound(ritz.scale, pairs)
    return pairs._replace(vectors=jax.vmap(operator.unravel)(pairs.vectors))


class SingularTriplets(NamedTuple):
    """Some singular values of an operator, with their vectors and what they leave.

    Attributes:
      values: `[num]` the singular values.
      left: unit vectors, a tree like the output with a leading axis `[num, ...]`; zero
        where the value is.
      right: unit vectors, a tree like the input with a leading axis `[num, ...]`; the
        signs of a pair of vectors are arbitrary, together.
      residuals: `[num]` the norms of `A^T left - value right`, by products with the
        vectors; `A right = value left` holds by construction. A singular value of the
        operator lies within this distance of each value.
    """

    values: Array
    left: PyTree
    right: PyTree
    residuals: Array


def top_singular(
    operator: products.Jacobian,
    like: PyTree,
    *,
    key: Key,
    num: int = 1,
    steps: int = 32,
) -> SingularTriplets:
    """The largest singular values of an operator, with their vectors.

    Lanczos on `A^T A`, as for `top_eigenpairs`; the values are the lengths of the
    products with the right vectors. Values below the largest by more than the square
    root of the rounding level are lost in it; the residuals say so.

    Args:
      operator: its product and that of its transpose, as `jacobian` gives them.
      like: a tree of arrays like its input; the values are not used.
      key: consumed.
      num: how many.
      steps: how many products with the operator and as many with its transpose (and
        `num` more for the residuals, and one to find the scale).

    Returns:
      The triplets, from the largest value down.

    Raises:
      ValueError: if more are asked for than there are steps, or dimensions of input or
        output.
      Stalled: if the operator is known to be zero.
      FloatingPointError: if a product is known not to be finite.

    References:
      Golub and Kahan, Calculating the singular values and pseudo-inverse of a matrix,
      1965.

    >>> import jax, jax.numpy as jnp
    >>> from protojax import curvature
    >>> turned = curvature.jacobian(lambda x: jnp.stack([2 * x[1], x[0]]), jnp.zeros(2))
    >>> found = curvature.top_singular(turned, jnp.zeros(2), key=jax.random.key(0))
    >>> round(float(found.values[0]), 4), jnp.abs(found.left[0]).round(3).tolist()
    (2.0, [1.0, 0.0])
    """
    square = krylov.flat(lambda v: operator.transpose(operator.forward(v)), like)
    (size,) = square.like.shape
    image = jax.eval_shape(operator.forward, like)
    rank = min(size, sum(leaf.size for leaf in jax.tree.leaves(image)))
    _check_num(num, steps, rank)

    def triplet(v: Array) -> tuple[Array, PyTree, PyTree, Array]:
        right = square.unravel(v)
        image = operator.forward(right)
        value = krylov.norm(image)
        left = jax.tree.map(lambda u: u / jnp.where(value > 0, value, 1), image)
        rest = jax.tree.map(lambda u, w: u - value * w, operator.transpose(left), right)
        return value, left, right, krylov.norm(rest)

    with jax.default_matmul_precision("highest"):
        ritz = _lanczos(square, key, min(steps, size))
        vectors = ritz.weights[:, -1 : -num - 1 : -1].T @ ritz.basis
        found = SingularTriplets(*jax.lax.map(lowering.canonical(triplet), vectors))
    krylov.raise_unless_sound(ritz.scale, found)
    return found


class Condition(NamedTuple):
    """How far apart the ends of a spectrum are, and what is known of them.

    Attributes:
      number: `[]` largest over smallest; infinite where the smallest is not positive,
        or at rounding level.
      values: `[2]` the smallest and the largest eigenvalue, with the damping.
      residuals: `[2]` an eigenvalue lies within this distance of each.
    """

    number: Array
    values: Array
    residuals: Array


def condition_number(
    matvec: MatVec,
    like: PyTree,
    *,
    key: Key,
    damping: ArrayLike = 0.0,
    steps: int = 32,
) -> Condition:
    """The condition number of a damped positive definite operator, from below.

    Both ends of the spectrum come from the same Lanczos iteration, from inside: the
    true number is no smaller. The larger it is, the longer `solve` takes.

    Args:
      matvec: the product with a tree like `like`; symmetric.
      like: a tree of arrays that gives the shapes; its values are not used.
      key: consumed.
      damping: `[]` is added to the diagonal; may be traced.
      steps: how many products, as for `top_eigenpairs`.

    Returns:
      The number with both ends.

    Raises:
      ValueError: for fewer than two steps or dimensions, or a negative damping.
      NotPositiveDefinite: if the damped operator is known to be indefinite or singular.
      Stalled: if the operator is known to be zero.
      FloatingPointError: if a product is known not to be finite.

    >>> import jax, jax.numpy as jnp
    >>> diagonal = jnp.array([1.0, 4.0, 9.0])
    >>> found = condition_number(lambda v: diagonal * v, diagonal,
    ...                          key=jax.random.key(0), damping=1.0)
    >>> round(float(found.number), 3)
    5.0
    """
    operator = krylov.flat(matvec, like)
    (size,) = operator.like.shape
    checks.count("steps", steps)
    checks.positive("damping", damping, or_zero=True)
    if min(steps, size) < 2:
        raise ValueError(
            f"`steps` is {steps} and the dimension {size}: a condition number takes two"
        )
    with jax.default_matmul_precision("highest"):
        ritz = _lanczos(operator, key, min(steps, size))
        values, _, residuals = ritz.pairs(jnp.array([0, -1]))
    values = values + damping
    floor = 32 * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    number = jnp.where(values[0] > floor, values[1] / values[0], jnp.inf)
    krylov.raise_unless_sound(ritz.scale, (values, residuals))
    if checks.known((values, damping)) and not values[0] > floor:
        raise NotPositiveDefinite(
            f"the smallest eigenvalue of the operator with `damping` {damping:g} is "
            f"{float(values[0]):.3g} (the largest: {float(values[1]):.3g}), so that it "
            "has no condition number: take more `damping`, or the Gauss-Newton operator"
        )
    return Condition(number, values, residuals)


class NotPositiveDefinite(ValueError):
    """An operator that is indefinite, or singular but for rounding."""


def _check_num(num: int, steps: int, size: int) -> None:
    checks.count("steps", steps)
    checks.count("num", num)
    if num > min(steps, size):
        raise ValueError(
            f"`num` is {num}: choose at most `steps` ({steps}) and at most the "
            f"dimension ({size})"
        )


_ORDERS = {
    "magnitude": lambda values: -jnp.abs(values),
    "largest": lambda values: -values,
    "smallest": lambda values: values,
}


class _Ritz(NamedTuple):
    unit: krylov.Operator  # of scale one
    scale: Array
    values: Array  # of the operator of scale one, ascending
    weights: Array  # [steps, steps] of the vectors in the basis, by column
    basis: Array  # [steps, N]

    def pairs(self, chosen: Array) -> Eigenpairs:
        """Flat ones; values and residuals from products with the vectors."""
        vectors = self.weights[:, chosen].T @ self.basis
        images = jax.lax.map(self.unit.product, vectors)
        values = jnp.sum(vectors * images, 1) / jnp.sum(vectors**2, 1)
        rest = images - values[:, None] * vectors
        residuals = jnp.sqrt(jnp.sum(rest**2, 1))
        return Eigenpairs(values * self.scale, vectors, residuals * self.scale)


def _lanczos(operator: krylov.Operator, key: Key, steps: int) -> _Ritz:
    scale_key, key = jax.random.split(key)
    unit, scale = krylov.scaled(operator, scale_key)
    found = krylov.lanczos(unit, key, steps)
    values, weights = jnp.linalg.eigh(found.matrix)
    return _Ritz(unit, scale, values, weights, found.basis)
