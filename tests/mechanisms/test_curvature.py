import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.mechanisms import ascent, curvature

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnames=("num", "steps"))
def dense_pairs(matrix, scale=1.0, **kwargs):
    return curvature.top_eigenpairs(
        lambda v: scale * (matrix @ v), matrix[0], key=KEY, **kwargs
    )


@functools.partial(jax.jit, static_argnames=("score", "num", "steps"))
def input_pairs(score, x, **kwargs):
    return curvature.top_eigenpairs(
        lambda v: curvature.hvp(score, x, v), x, key=KEY, **kwargs
    )


def symmetric(size, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    values = rng.normal(size=size) * 3
    values[size if rank is None else rank :] = 0
    return jnp.float32((basis * values) @ basis.T)


def test_the_product_is_that_of_the_dense_hessian_on_any_tree():
    def f(tree):
        return jnp.sum(jnp.tanh(tree["a"] @ tree["b"])) + jnp.sum(tree["b"] ** 3)

    keys = jax.random.split(KEY, 4)
    x = {"a": jax.random.normal(keys[0], (3, 2)), "b": jax.random.normal(keys[1], (2,))}
    v = {"a": jax.random.normal(keys[2], (3, 2)), "b": jax.random.normal(keys[3], (2,))}
    flat, unravel = jax.flatten_util.ravel_pytree(x)

    @jax.jit
    def both(flat, v):
        dense = jax.hessian(lambda z: f(unravel(z)))(flat)
        return dense @ v, curvature.hvp(f, unravel(flat), unravel(v))

    expected, got = both(flat, jax.flatten_util.ravel_pytree(v)[0])
    got = jnp.concatenate([got["a"].ravel(), got["b"]])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_peers_c7_the_rosenbrock_hessian():
    def f(x, alpha):
        return (1 - x[0]) ** 2 + alpha * (x[1] - x[0] ** 2) ** 2

    for alpha in (1.0, 100.0):
        for point in ((1.0, 1.0), (2.5, 0.8)):
            x, y = point
            corner = 2 - 4 * alpha * (y - 3 * x**2)
            closed = [[corner, -4 * alpha * x], [-4 * alpha * x, 2 * alpha]]
            rows = jax.vmap(
                lambda v: curvature.hvp(lambda z: f(z, alpha), jnp.array(point), v)  # noqa: B023
            )(jnp.eye(2))
            np.testing.assert_allclose(rows, closed, rtol=1e-5)


def test_products_ask_for_the_highest_precision():
    weights = jnp.ones((4, 4))

    def f(x):
        return jnp.sum(jnp.tanh(weights @ x))

    text = str(jax.make_jaxpr(lambda v: curvature.hvp(f, v, v))(jnp.ones(4)))
    assert text.count("dot_general") == text.count("Precision.HIGHEST, Precision") > 0


def test_peers_c9_as_many_steps_as_dimensions_give_all_eigenvalues():
    matrix = symmetric(12)
    values, vectors, _ = dense_pairs(matrix, num=12, steps=12)
    exact = np.linalg.eigvalsh(matrix)
    exact = exact[np.argsort(-np.abs(exact))]
    np.testing.assert_allclose(values, exact, atol=2e-5)
    columns = np.asarray(vectors).T
    np.testing.assert_allclose(columns.T @ columns, np.eye(12), atol=1e-5)
    np.testing.assert_allclose(
        matrix @ columns, columns * np.asarray(values), atol=1e-4
    )


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_an_exhausted_krylov_space_gives_no_nan_and_no_ghosts(rank):
    matrix = symmetric(40, rank)
    values, vectors, _ = dense_pairs(matrix, num=8)
    exact = np.linalg.eigvalsh(matrix)
    exact = exact[np.argsort(-np.abs(exact))][:8]
    np.testing.assert_allclose(values, exact, atol=2e-5)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_scale_of_the_operator_does_not_matter(scale):
    matrix = symmetric(20, 3)
    values, *_ = dense_pairs(matrix, scale, num=3)
    exact = np.linalg.eigvalsh(matrix)
    exact = exact[np.argsort(-np.abs(exact))][:3]
    np.testing.assert_allclose(values, scale * exact, rtol=1e-4)


@pytest.mark.optimized
def test_equal_eigenvalues_are_no_special_case():
    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def pairs(matrix, key):
        return curvature.top_eigenpairs(lambda v: matrix @ v, matrix[0], key=key, num=6)

    for diagonal in (6 * [2.0], 3 * [3.0] + 3 * [0.0]):
        matrix = jnp.diag(jnp.array(diagonal))
        values, vectors, _ = pairs(matrix, jax.random.split(KEY, 100))
        np.testing.assert_allclose(values, np.tile(diagonal, (100, 1)), atol=1e-5)
        products = np.einsum("kid,kjd->kij", vectors, vectors)
        np.testing.assert_allclose(products, np.tile(np.eye(6), (100, 1, 1)), atol=1e-4)


def test_peers_c5_a_sigmoid_neuron_has_one_eigenpair():
    weights = jax.random.normal(KEY, (3, 4, 2))
    x = jax.random.uniform(jax.random.key(1), (3, 4, 2))

    def score(z):
        return jax.nn.sigmoid(jnp.sum(weights * z))

    values, vectors, _ = input_pairs(score, x, num=2)
    z = float(jnp.sum(weights * x))
    s = 1 / (1 + np.exp(-z))
    expected = s * (1 - s) * (1 - 2 * s) * float(jnp.sum(weights**2))
    assert float(values[0]) == pytest.approx(expected, rel=1e-5)
    assert abs(float(values[1])) < 1e-5 * abs(expected)
    cosine = jnp.vdot(vectors[0], weights) / jnp.linalg.norm(weights.ravel())
    assert abs(float(cosine)) == pytest.approx(1, abs=1e-5)
    assert vectors.shape == (2, 3, 4, 2)


def test_fragility_9_1_a_neuron_and_two_orthogonal_units():
    weights, x = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, 0.1, -0.4])

    def neuron(z):
        return jax.nn.sigmoid(weights @ z)

    value, *_ = input_pairs(neuron, x)
    assert float(value[0]) == pytest.approx(0.06540671, abs=1e-6)

    first = jnp.array([[3.0, 0, 0, 0], [0, 2.0, 0, 0]])
    second, x = jnp.array([1.0, -1.5]), jnp.array([0.2, -0.1, 0.7, 0.4])

    def units(z):
        return second @ jax.nn.softplus(first @ z)

    values, vectors, _ = input_pairs(units, x, num=4)
    np.testing.assert_allclose(values, [2.05905816, -1.48509944, 0, 0], atol=1e-6)
    gradient = jax.grad(units)(x)
    cosine = jnp.vdot(gradient, vectors[0]) / jnp.linalg.norm(gradient)
    assert abs(float(cosine)) == pytest.approx(0.82030094, abs=1e-5)


def test_fragility_9_5_the_spectrum_of_the_golden_network():
    with jax.enable_x64(True):
        unit, pixel = np.arange(8.0), np.arange(16.0)
        x = jnp.asarray(0.5 + 0.5 * np.sin(0.3 * pixel))
        first = np.sin(0.7 * (unit[:, None] + 1) * (pixel + 1))
        second = np.cos(0.5 * (unit + 1))

        def score(z):
            hidden = first @ z + 0.1 * np.cos(unit)
            return second @ (jax.nn.softplus(4 * hidden) / 4)

        values, vectors, _ = input_pairs(score, x, num=16, steps=16)
        expected = [-10.37614456, -7.60456617, -3.92127351, -0.86337569]
        expected += [0.17642967, 0.12645296, -0.04121524, 0.01300874]
        np.testing.assert_allclose(values, expected + 8 * [0], atol=1e-8)
        gradient = jax.grad(score)(x)
        length = jnp.linalg.norm(gradient)
        assert float(length) == pytest.approx(3.42653294, abs=1e-8)
        cosine = float(jnp.vdot(gradient, vectors[0]) / length)
        assert abs(cosine) == pytest.approx(0.04948924, abs=1e-8)
        step = 0.05 * jnp.sign(vectors[0])
        moved = float(jnp.linalg.norm(curvature.hvp(score, x, step)))
        assert moved == pytest.approx(1.94208383, abs=1e-8)
        bound = 0.05 * abs(values[0]) * jnp.sum(jnp.abs(vectors[0]))
        assert float(bound) == pytest.approx(1.88119223, abs=1e-6)


def test_trees_and_vmap():
    matrix = symmetric(6)

    def matvec(tree):
        flat, unravel = jax.flatten_util.ravel_pytree(tree)
        return unravel(matrix @ flat)

    like = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
    keys = jax.random.split(KEY, 3)
    pairs = jax.jit(
        jax.vmap(lambda key: curvature.top_eigenpairs(matvec, like, key=key, num=2))
    )
    values, vectors, _ = pairs(keys)
    assert vectors["a"].shape == (3, 2, 2, 2)
    exact = np.linalg.eigvalsh(matrix)
    exact = exact[np.argsort(-np.abs(exact))][:2]
    np.testing.assert_allclose(values, np.tile(exact, (3, 1)), rtol=1e-4)


def test_a_zero_operator_raises_eagerly_and_gives_zeros_when_traced():
    weights = jax.random.normal(KEY, (5, 8))
    x = jax.random.normal(jax.random.key(1), (8,))

    def pairs(x):
        return curvature.top_eigenpairs(
            lambda v: curvature.hvp(lambda z: jnp.sum(jax.nn.relu(weights @ z)), x, v),
            x,
            key=KEY,
        )

    with pytest.raises(ascent.Stalled, match="piecewise linear.*smooth twin"):
        pairs(x)
    values, vectors, _ = jax.jit(pairs)(x)
    assert values.tolist() == [0]
    assert np.isfinite(vectors).all()


def test_too_many_pairs_are_named():
    for num, steps in ((5, 4), (9, 32), (0, 4)):
        with pytest.raises(ValueError, match=f"`num` is {num}"):
            curvature.top_eigenpairs(
                lambda v: v, jnp.ones(8), key=KEY, num=num, steps=steps
            )
