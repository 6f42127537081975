r"""Traces and diagonals from random products, with errors that can be believed.

Both take the operator apart: what lives on a Krylov space of dimension `rank` is exact,
what is left is estimated from independent random vectors. Those come after the space,
so that, given it, they are independent and the estimate is without bias. Estimates
that use each vector for both (XTrace, XDiag) are about as accurate, but the spread of
their leave-one-out values covers the truth too rarely where a spectrum decays.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from protojax.contracts import Array, Key, MatVec, PyTree
from protojax.mechanisms.curvature import krylov


class Estimate(NamedTuple):
    """A number from random vectors, or a tree of them.

    Attributes:
      value: the estimate.
      error: its standard error; zero where it is exact.
      low: lower end of its 95 % interval, of Student's t. Rounding comes on top.
      high: upper end.
    """

    value: PyTree
    error: PyTree
    low: PyTree
    high: PyTree


def trace(
    matvec: MatVec, like: PyTree, *, key: Key, rank: int = 16, probes: int = 16
) -> Estimate:
    r"""The trace of a symmetric operator, as the sum of all eigenvalues.

    With an orthonormal basis `Q` of a Krylov space of dimension `rank` and
    `P = I - Q Q^T`,

    .. math:: tr(A) = tr(Q^T A Q) + E[v^T P A P v],

    `v` uniform on the sphere of radius `\sqrt d` in the `d` dimensions that are left.
    On a sphere the variance of a quadratic form is twice the mean square of the part
    of `P A v` across `v`, so the products measure their own error without bias,
    instead of leaving it to the spread of a few values. As degrees of freedom there
    are the probes, which is right in the worst case (a rest of rank one) and cautious
    in others.

    Args:
      matvec: the product with a tree like `like`; symmetric.
      like: a tree of floating-point arrays that gives the shapes.
      key: consumed.
      rank: dimension of the Krylov space; what takes the outliers out of the error,
        and memory for twice as many vectors. Zero is Hutchinson's estimate, which
        holds one vector at a time.
      probes: how many random vectors, one after another. In all, `rank + probes + 1`
        products are taken; if the dimension is at most `rank + probes`, as many as
        there are dimensions, and the trace is exact.

    Returns:
      The estimate, each field `[]`.

    Raises:
      ValueError: for a negative rank or fewer than two probes.
      Stalled: if the operator is known to be zero.
      FloatingPointError: if a product is known not to be finite.

    References:
      Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989;
      Meyer et al., Hutch++, 2021; Chen and Hallman, Krylov-aware stochastic trace
      estimation, 2023. Epperly, Tropp and Webber, XTrace, 2024, for the comparison.

    >>> diagonal = jnp.arange(1.0, 101.0)
    >>> found = trace(lambda v: diagonal * v, diagonal, key=jax.random.key(0))
    >>> bool(found.low < 5050 < found.high)
    True
    """
    _check(rank, probes)
    operator = krylov.flat(matvec, like)
    (size,) = operator.like.shape
    scale_key, space_key, probe_key = jax.random.split(key, 3)
    with jax.default_matmul_precision("highest"):
        if size <= rank + probes:
            return _exact(operator, jnp.sum)
        unit, scale = krylov.scaled(operator, scale_key)
        basis, images = _deflated(unit, space_key, rank)
        left = size - rank

        def form(key: Key) -> tuple[Array, Array]:
            v = jax.random.normal(key, operator.like.shape, operator.like.dtype)
            v = _outside(basis, v)
            v *= jnp.sqrt(left / jnp.sum(v**2))
            image = _outside(basis, unit.product(v))
            along = jnp.sum(v * image)
            return along, jnp.sum((image - v * (along / left)) ** 2)

        along, across = jax.lax.map(form, jax.random.split(probe_key, probes))
    value = jnp.sum(basis * images) + jnp.mean(along)
    error = jnp.sqrt(2 * jnp.mean(across) / probes)
    estimate = interval(value * scale, error * scale, degrees=probes)
    krylov.raise_unless_sound(scale, estimate)
    return estimate


def diagonal(
    matvec: MatVec, like: PyTree, *, key: Key, rank: int = 16, probes: int = 16
) -> Estimate:
    r"""The diagonal of a symmetric operator: the curvature along each coordinate.

    With `Q` and `P` as for `trace`, `A = A - P A P + P A P`: the diagonal of the first
    two is known from the products that made `Q`, and that of the last is the mean of
    `v \odot P A P v` over random signs `v`. The error of each entry is that of a mean
    of independent values.

    Args:
      matvec: the product with a tree like `like`; symmetric.
      like: a tree of floating-point arrays that gives the shapes.
      key: consumed.
      rank: as for `trace`.
      probes: as for `trace`.

    Returns:
      The estimate, each field a tree like `like`. The interval is that of each entry by
      itself.

    Raises:
      ValueError: for a negative rank or fewer than two probes.
      Stalled: if the operator is known to be zero.
      FloatingPointError: if a product is known not to be finite.

    References:
      Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, 2007;
      Baston and Nakatsukasa, Stochastic diagonal estimation, 2022.

    >>> curvature = jnp.array([1.0, -2.0, 4.0])
    >>> found = diagonal(lambda v: curvature * v, curvature, key=jax.random.key(0))
    >>> found.value.tolist(), found.error.tolist()
    ([1.0, -2.0, 4.0], [0.0, 0.0, 0.0])
    """
    _check(rank, probes)
    operator = krylov.flat(matvec, like)
    (size,) = operator.like.shape
    scale_key, space_key, probe_key = jax.random.split(key, 3)
    with jax.default_matmul_precision("highest"):
        if size <= rank + probes:
            return _exact(operator, operator.unravel)
        unit, scale = krylov.scaled(operator, scale_key)
        basis, images = _deflated(unit, space_key, rank)
        inside = 2 * images - (basis @ images.T) @ basis

        def add(state: tuple, key: Key) -> tuple[tuple, None]:
            count, mean, squares = state
            v = jax.random.rademacher(key, operator.like.shape, operator.like.dtype)
            value = v * _outside(basis, unit.product(_outside(basis, v)))
            count, change = count + 1, value - mean
            mean += change / count
            return (count, mean, squares + change * (value - mean)), None

        zero = jnp.zeros(operator.like.shape, operator.like.dtype)
        (_, mean, squares), _ = jax.lax.scan(
            add, (0, zero, zero), jax.random.split(probe_key, probes)
        )
    value = jnp.sum(basis * inside, axis=0) + mean
    error = jnp.sqrt(squares / (probes - 1) / probes)
    value, error = operator.unravel(value * scale), operator.unravel(error * scale)
    estimate = interval(value, error, degrees=probes - 1)
    krylov.raise_unless_sound(scale, estimate)
    return estimate


def interval(value: PyTree, error: PyTree, degrees: int) -> Estimate:
    """An estimate with the 95 % interval of Student's t.

    Args:
      value: a tree of arrays.
      error: standard errors, a tree like it.
      degrees: of freedom, which `error` was estimated with.

    Returns:
      The estimate.

    >>> found = interval(jnp.array(1.0), jnp.array(1.0), degrees=8)
    >>> round(float(found.low), 3), round(float(found.high), 3)
    (-1.306, 3.306)
    """
    from scipy import special  # takes a fifth of a second to load

    factor = float(special.stdtrit(degrees, 0.975))
    width = jax.tree.map(lambda e: factor * e, error)
    low = jax.tree.map(lambda v, w: v - w, value, width)
    high = jax.tree.map(lambda v, w: v + w, value, width)
    return Estimate(value, error, low, high)


def _check(rank: int, probes: int) -> None:
    if rank < 0:
        raise ValueError(f"`rank` is {rank}: pass zero or more")
    if probes < 2:
        raise ValueError(
            f"`probes` is {probes}: an interval takes two random vectors or more"
        )


def _deflated(unit: krylov.Operator, key: Key, rank: int) -> tuple[Array, Array]:
    if rank:
        return krylov.space(unit, key, rank)
    empty = jnp.zeros((0, *unit.like.shape), unit.like.dtype)
    return empty, empty


def _outside(basis: Array, v: Array) -> Array:
    """Off the space; a second time, as what is left may be small."""
    for _ in range(2):
        v = v - (basis @ v) @ basis
    return v


def _exact(operator: krylov.Operator, shaped: Callable[[Array], PyTree]) -> Estimate:
    matrix = krylov.dense(operator)
    value = shaped(jnp.diagonal(matrix))
    krylov.raise_unless_sound(jnp.max(jnp.abs(matrix)), value)
    return interval(value, jax.tree.map(jnp.zeros_like, value), degrees=1)
