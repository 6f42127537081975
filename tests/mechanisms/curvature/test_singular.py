"""Singular triplets against NumPy's, and of the Jacobian of a normalized map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.mechanisms import curvature
from protojax.methods import attributions

KEY = jax.random.key(0)
X64 = pytest.mark.usefixtures("x64")


def numpy(fn, **knobs):
    """A compiled function whose results are NumPy's."""
    jitted = jax.jit(fn, **knobs)
    return lambda *args, **knobs: jax.tree.map(np.asarray, jitted(*args, **knobs))


@functools.partial(numpy, static_argnames=("num", "steps"))
def triplets_of(matrix, **knobs):
    operator = curvature.Jacobian(lambda v: matrix @ v, lambda u: matrix.T @ u)
    return curvature.top_singular(operator, matrix[0], key=KEY, **knobs)


SLOW = pytest.mark.slow


@X64
@pytest.mark.parametrize(
    "shape",
    [(5, 8), (8, 5), *(pytest.param(s, marks=SLOW) for s in ((7, 7), (1, 5), (5, 1)))],
    ids=str,
)
def test_the_largest_singular_triplets_are_numpys(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    num = min(shape)
    values, left, right, residuals = triplets_of(matrix, num=num)
    u, s, vt = np.linalg.svd(matrix)
    np.testing.assert_allclose(values, s[:num], rtol=1e-9)
    np.testing.assert_allclose(np.abs(left @ u[:, :num]), np.eye(num), atol=1e-7)
    np.testing.assert_allclose(np.abs(right @ vt[:num].T), np.eye(num), atol=1e-7)
    np.testing.assert_allclose(matrix @ right.T, left.T * values, atol=1e-10)
    true = np.linalg.norm(matrix.T @ left.T - right.T * values, axis=0)
    np.testing.assert_allclose(residuals, true, atol=1e-10)


@X64
def test_fragility_5_3_the_worst_direction_of_a_normalized_map():
    weights = np.random.default_rng(0).normal(size=(6, 12))
    x = np.random.default_rng(1).normal(size=(3, 2, 2))
    score = lambda z: jnp.sum(jax.nn.softplus(weights @ z.ravel()))
    explain = lambda z: attributions.heatmap(attributions.gradient(score, z))

    @numpy
    def both(x):
        jacobian = curvature.jacobian(explain, x)
        return curvature.top_singular(jacobian, x, key=KEY), explain(x)

    found, _ = both(x)
    s = 1 / (1 + np.exp(-weights @ x.ravel()))
    gradient, hessian = weights.T @ s, weights.T @ np.diag(s * (1 - s)) @ weights
    total = np.sum(np.abs(gradient))
    channels = np.kron(np.eye(6), np.ones(2))  # a map adds up over channels
    share = channels @ np.abs(gradient) / total
    spread = np.eye(6) - np.outer(share, np.ones(6))
    rows = spread @ channels @ np.diag(np.sign(gradient)) @ hessian / total
    u, values, vt = np.linalg.svd(rows)
    assert found.values[0] == pytest.approx(values[0], rel=1e-9)
    assert abs(found.right[0].ravel() @ vt[0]) == pytest.approx(1, abs=1e-9)
    assert abs(found.left[0].ravel() @ u[:, 0]) == pytest.approx(1, abs=1e-9)
    assert found.left.shape == (1, 3, 2) and found.right.shape == (1, 3, 2, 2)
    # shares sum to one whatever moves, so that no map moves along a constant
    assert abs(found.left[0].sum()) < 1e-9
    # a step of that direction moves the map by the singular value, to first order
    moved = np.linalg.norm(both(x + 1e-6 * found.right[0])[1] - both(x)[1])
    assert moved == pytest.approx(1e-6 * values[0], rel=1e-4)


@X64
def test_singular_values_of_low_rank():
    noise = np.random.default_rng(0).normal(size=(2, 8))
    matrix = noise.T @ noise[:, :5]
    found = triplets_of(matrix, num=5)
    exact = np.linalg.svd(matrix)[1]
    np.testing.assert_allclose(found.values[:2], exact[:2], rtol=1e-9)
    # lost below the square root of rounding, as the docstring says
    assert np.all(found.values[2:] < 1e-6 * exact[0])
    assert all(np.isfinite(part).all() for part in found)


def test_more_triplets_than_dimensions_are_refused():
    with pytest.raises(ValueError, match="`num` is 3: .*dimension .2."):
        triplets_of(np.ones((2, 5)), num=3)
