r"""The density of all eigenvalues, by stochastic Lanczos quadrature.

A unit vector `v` weighs the eigenvalues of an operator, and the Lanczos method gives
the Gauss quadrature of these weights: the mean over random `v` of what it gives is
that over all eigenvalues.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy import stats

from protojax.contracts import Array, ArrayLike, Key, MatVec, PyTree
from protojax.mechanisms import checks
from protojax.mechanisms.curvature import krylov, stochastic


class Spectrum(NamedTuple):
    """A quadrature of the eigenvalues for each of P random vectors.

    Attributes:
      nodes: `[P, S]` estimates of eigenvalues, in order.
      weights: `[P, S]` the share of all eigenvalues that each stands for.
      dimension: `[]` how many eigenvalues there are; up to S of them, these are the
        nodes.
    """

    nodes: Array
    weights: Array
    dimension: Array


def spectral_density(
    matvec: MatVec, like: PyTree, *, key: Key, steps: int = 64, probes: int = 8
) -> Spectrum:
    r"""The distribution of the eigenvalues of a symmetric operator.

    For each of `probes` random directions, `steps` of Lanczos with full
    reorthogonalization. The quadrature is exact for polynomials up to degree
    `2 steps - 1`: it resolves the ends of the spectrum and isolated eigenvalues well,
    and what is crowded on average. Read it with `density`, `mass` and `average`.

    The directions are taken one after another (`lax.map`). Each holds its Lanczos basis
    and the products with it, `2 steps N` numbers, which is most of the memory; a `vmap`
    over directions would hold those of all, and on CPU gain nothing.

    Args:
      matvec: the product with a tree like `like`; symmetric.
      like: a tree of floating-point arrays that gives the shapes, of N numbers in all.
      key: consumed.
      steps: how many products for each direction (and one in all to find the scale).
        If there are no more dimensions than that, all eigenvalues are computed instead.
      probes: how many directions; two or more for an error.

    Returns:
      The quadrature, with `min(steps, N)` nodes.

    Raises:
      ValueError: for fewer than one step or probe.
      Stalled: if the operator is known to be zero.
      FloatingPointError: if a product is known not to be finite.

    References:
      Ubaru, Chen and Saad, Fast estimation of tr(f(A)) via stochastic Lanczos
      quadrature, 2017; Ghorbani, Krishnan and Xiao, An investigation into neural net
      optimization via Hessian eigenvalue density, 2019.

    >>> import jax, jax.numpy as jnp
    >>> diagonal = jnp.repeat(jnp.array([0.0, 1.0]), 50)
    >>> found = spectral_density(lambda v: diagonal * v, diagonal,
    ...                          key=jax.random.key(0), steps=8)
    >>> half = mass(found, jnp.array([0.5]), width=0.1)
    >>> found.nodes.shape, bool(half.low[0] < 0.5 < half.high[0])
    ((8, 8), True)
    """
    checks.count("steps", steps)
    checks.count("probes", probes)
    operator = krylov.flat(matvec, like)
    (size,) = operator.like.shape
    scale_key, probe_key = jax.random.split(key)
    with jax.default_matmul_precision("highest"):
        if size <= steps:
            return _all(operator, probes)
        unit, scale = krylov.scaled(operator, scale_key)

        def quadrature(key: Key) -> tuple[Array, Array]:
            basis, images = krylov.space(unit, key, steps)
            nodes, vectors = jnp.linalg.eigh(basis @ images.T)
            return nodes, vectors[0] ** 2

        nodes, weights = jax.lax.map(quadrature, jax.random.split(probe_key, probes))
    nodes = nodes * scale
    krylov.raise_unless_sound(scale, (nodes, weights))
    return Spectrum(nodes, weights, jnp.array(size))


def average(spectrum: Spectrum, f: Callable[[Array], Array]) -> stochastic.Estimate:
    """The mean of a function over all eigenvalues.

    Times the dimension it is the trace of the function of the operator: with
    `jnp.log`, the logarithm of the determinant.

    The error is the larger of two: what the directions differ by, and what they would
    differ by were the quadrature exact, `2 / N` times the variance of the function
    under its weights (the variance of a quadratic form on the sphere). The first sees
    nodes that move; the second does not depend on luck where a few eigenvalues matter.

    Args:
      spectrum: of two directions or more.
      f: `[] -> [...]`, of one eigenvalue.

    Returns:
      The estimate, each field `[...]`. The error is that of the random directions; what
      the quadrature does not resolve (`steps`) comes on top.

    Raises:
      ValueError: for a single direction.
      FloatingPointError: if the function is known not to be finite at a node.

    >>> spectrum = Spectrum(jnp.array([[1.0, 3.0]] * 2), jnp.full((2, 2), 0.5),
    ...                     jnp.array(2))
    >>> average(spectrum, lambda value: value**2).value.item()
    5.0
    """
    probes, steps = spectrum.nodes.shape
    if probes < 2:
        raise ValueError(
            f"`spectrum` has {probes} direction: an error takes `probes` of 2 or more"
        )
    values = jax.vmap(jax.vmap(f))(spectrum.nodes)
    weights = spectrum.weights.reshape(probes, steps, *[1] * (values.ndim - 2))
    means = jnp.sum(weights * values, axis=1)
    spread = jnp.sum(weights * (values - means[:, None]) ** 2, axis=1)
    between = jnp.var(means, axis=0, ddof=1) / probes
    within = 2 * jnp.mean(spread, axis=0) / spectrum.dimension / probes
    variance = jnp.where(spectrum.dimension > steps, jnp.maximum(between, within), 0)
    value = jnp.mean(means, axis=0)
    if checks.known(value) and not jnp.all(jnp.isfinite(value)):
        raise FloatingPointError(
            "`f` is not finite at a node: the nodes go from "
            f"{float(jnp.min(spectrum.nodes)):.3g} to "
            f"{float(jnp.max(spectrum.nodes)):.3g}"
        )
    return stochastic.interval(value, jnp.sqrt(variance), probes - 1)


def density(
    spectrum: Spectrum, grid: Array, *, width: ArrayLike | None = None
) -> stochastic.Estimate:
    """The share of the eigenvalues per unit, smoothed by a Gaussian.

    Args:
      spectrum: of two directions or more.
      grid: `[G]` where.
      width: `[]` standard deviation of the Gaussian; by default a hundredth of what the
        nodes span.

    Returns:
      The estimate, each field `[G]`; it integrates to one.

    Raises:
      ValueError: for a single direction, or a width that is known not to be positive.

    >>> spectrum = Spectrum(jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.array(1))
    >>> round(float(density(spectrum, jnp.zeros(1), width=0.1).value[0]), 4)
    3.9894
    """
    width = _width(spectrum, width)
    return average(spectrum, lambda value: stats.norm.pdf(grid, value, width))


def mass(
    spectrum: Spectrum, grid: Array, *, width: ArrayLike | None = None
) -> stochastic.Estimate:
    """The share of the eigenvalues up to a value: the integral of `density`.

    Args:
      spectrum: of two directions or more.
      grid: `[G]` where.
      width: as for `density`.

    Returns:
      The estimate, each field `[G]`; values from zero to one.

    Raises:
      ValueError: as for `density`.

    >>> spectrum = Spectrum(jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.array(1))
    >>> mass(spectrum, jnp.array([-9.0, 0.0, 9.0]), width=0.1).value.tolist()
    [0.0, 0.5, 1.0]
    """
    width = _width(spectrum, width)
    return average(spectrum, lambda value: stats.norm.cdf(grid, value, width))


def _width(spectrum: Spectrum, width: ArrayLike | None) -> ArrayLike:
    if width is not None:
        checks.positive("width", width)
        return width
    span = jnp.max(spectrum.nodes) - jnp.min(spectrum.nodes)
    tiny = jnp.finfo(span.dtype).eps * jnp.max(jnp.abs(spectrum.nodes))
    return jnp.maximum(span / 100, tiny)


def _all(operator: krylov.Operator, probes: int) -> Spectrum:
    """Every eigenvalue, with the same weight, as all directions would find them."""
    matrix = krylov.dense(operator)
    nodes = jnp.linalg.eigvalsh(matrix)
    krylov.raise_unless_sound(jnp.max(jnp.abs(matrix)), nodes)
    (size,) = nodes.shape
    nodes = jnp.broadcast_to(nodes, (probes, size))
    return Spectrum(nodes, jnp.full_like(nodes, 1 / size), jnp.array(size))
