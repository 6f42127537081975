"""Attributions against numbers that were computed for Ghorbani et al. 2019.

The names of the tests tell their sections in that study of the paper.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attributions
from tests.small import explain

relu = jax.nn.relu


integrated = attributions.integrated_gradients
right = functools.partial(integrated, rule=attributions.right, steps=100)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (attributions.right, (1.01, 4.04)),
        (attributions.left, (0.99, 3.96)),
        (attributions.midpoint, (1, 4)),
        (attributions.trapezoid, (1, 4)),
        (attributions.gauss_legendre, (1, 4)),
    ],
)
def test_fragility_9_2_the_rules_on_a_quadratic(rule, wanted):
    found = explain(
        integrated, lambda x: jnp.sum(x**2), [1.0, -2.0], rule=rule, steps=100
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_fragility_9_2_the_rules_on_a_product():
    found = explain(right, lambda x: x[0] * x[1], [2.0, 3.0])
    np.testing.assert_allclose(found, [3.03, 3.03], rtol=1e-5)
    found = explain(integrated, lambda x: x[0] * x[1], [2.0, 3.0], steps=100)
    np.testing.assert_allclose(found, [3, 3], rtol=1e-5)


def test_fragility_9_2_a_saturated_unit():
    def f(x):
        return 1 - relu(1 - x[0])

    assert explain(attributions.gradient, f, [2.0]) == 0
    np.testing.assert_allclose(explain(right, f, [2.0]), [0.98], atol=1e-6)
    found = explain(integrated, f, [2.0], steps=50, rule=attributions.right)
    np.testing.assert_allclose(found, [0.96], atol=1e-6)
    np.testing.assert_allclose(explain(integrated, f, [2.0]), [1], atol=1e-6)
    np.testing.assert_allclose(explain(attributions.deep_lift, f, [2.0]), [1])


def test_fragility_9_2_without_biases_all_agree():
    first, second = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(6, 3), (6,)])
    )
    x = jnp.array([0.3, -1.2, 0.7])

    def f(x):
        return second @ relu(first @ x)

    wanted = explain(attributions.input_x_gradient, f, x)
    np.testing.assert_allclose(jnp.sum(wanted), f(x), rtol=1e-5)
    for method in (
        functools.partial(integrated, steps=1),
        integrated,
        attributions.deep_lift,
        functools.partial(attributions.lrp, rule=activations.zero),
        functools.partial(attributions.lrp, rule=activations.without_bias),
    ):
        np.testing.assert_allclose(explain(method, f, x), wanted, atol=1e-5)


def test_fragility_9_3_first_network():
    a, b = jnp.array([[0.0, 2], [2, 1]]), jnp.array([-2.0, -1])
    c, d = jnp.array([[1.0, 0], [2, 1]]), jnp.array([2.0, -2])

    def f(x):
        return jnp.sum(relu(c @ relu(a @ x + b) + d))

    x = jnp.array([1.0, 2.0])
    assert (f(x), f(0 * x)) == (9, 2)
    assert explain(attributions.gradient, f, x).tolist() == [2, 7]
    found = explain(attributions.deep_lift, f, x)
    np.testing.assert_allclose(found, [15 / 14, 83 / 14], rtol=1e-6)
    found = explain(integrated, f, x, steps=3000)
    np.testing.assert_allclose(found, [5 / 6, 37 / 6], rtol=1e-4)
    np.testing.assert_allclose(explain(right, f, x), [0.84, 6.2], rtol=1e-5)
    found = explain(functools.partial(right, steps=10), f, x)
    np.testing.assert_allclose(found, [1, 7], rtol=1e-5)


def test_fragility_9_3_second_network_with_a_unit_that_does_not_move():
    a, b = jnp.array([[1.0, -2], [3, 1], [-1, 1]]), jnp.array([0.5, -1, 0])
    c, d = jnp.array([[1.0, -1, 2], [-2, 1, 1]]), jnp.array([0, 0.5])
    v, x = jnp.array([2.0, -1]), jnp.array([1, 0.5])

    def f(x):
        return v @ relu(c @ relu(a @ x + b) + d)

    assert (f(x), f(0 * x)) == (-2, 1)
    assert explain(attributions.gradient, f, x).tolist() == [-1, -5]
    lift = functools.partial(explain, attributions.deep_lift, f)
    np.testing.assert_allclose(lift(x), [-4 / 7, -17 / 7], rtol=1e-6)
    wanted = [[-1.09877551, 0.19755102], [0.09877551, -5.19755102]]
    np.testing.assert_allclose(jax.jit(jax.jacfwd(lift))(x), wanted, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.jacrev(lift))(x), wanted, rtol=1e-5)


def test_fragility_9_4_softplus_constants():
    with jax.enable_x64(True):
        beta = 3.0
        act = jax.jit(activations.softplus(beta))
        z = jnp.linspace(-8, 8, 4001, dtype="float64")
        zero = jnp.zeros((), "float64")
        np.testing.assert_allclose(act(zero), np.log(2) / beta)
        np.testing.assert_allclose(jax.grad(jax.grad(act))(zero), beta / 4)
        np.testing.assert_allclose(jnp.max(act(z) - relu(z)), np.log(2) / beta)
        np.testing.assert_allclose(
            jax.jit(jax.vmap(jax.grad(act)))(z), jax.nn.sigmoid(beta * z)
        )


def test_fragility_9_4_softplus_is_the_mean_of_relu_under_logistic_noise():
    noise = jax.random.logistic(jax.random.key(0), (400_000,)) / 2
    act, t = activations.softplus(2.0), jnp.array(0.37)
    np.testing.assert_allclose(jax.grad(act)(t), 0.676996, rtol=1e-5)
    np.testing.assert_allclose(act(t), 0.565045, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(t + noise > 0), 0.676996, atol=3e-3)
    np.testing.assert_allclose(jnp.mean(relu(t + noise)), 0.565045, atol=3e-3)


def golden():
    """The network and image of the study's end-to-end case; 64 bits must be on."""
    i, j = np.arange(8), np.arange(16)
    x = 0.5 + 0.5 * np.sin(0.3 * j)
    first = np.sin(0.7 * np.outer(i + 1, j + 1))
    second = np.cos(0.5 * np.outer(np.arange(3) + 1, i + 1))

    def fn(x, act=relu):
        return second @ act(first @ x.ravel() + 0.1 * np.cos(i))

    return fn, jnp.asarray(x.reshape(4, 4, 1))


def test_fragility_9_5_maps_of_the_network_and_of_its_twin():
    with jax.enable_x64(True):
        fn, x = golden()
        np.testing.assert_allclose(
            fn(x), [0.70160706, 0.18602592, -0.21831679], atol=1e-8
        )
        twin = activations.replace(fn, activations.softplus(4.0))
        np.testing.assert_allclose(
            twin(x), [0.32251585, 0.18850303, -0.30035607], atol=1e-8
        )
        native = functools.partial(fn, act=activations.softplus(4.0))
        assert jnp.array_equal(twin(x), native(x))

        def saliency(fn):
            run = jax.jit(jax.grad(lambda z: fn(z)[0]))
            return attributions.heatmap(run(x))

        np.testing.assert_allclose(
            saliency(fn),
            [
                [0.132964, 0.112919, 0.033023, 0.001533],
                [0.001732, 0.034508, 0.114779, 0.131469],
                [0.004187, 0.134354, 0.111026, 0.031573],
                [0.001350, 0.001950, 0.036030, 0.116603],
            ],
            atol=1e-6,
        )
        np.testing.assert_allclose(
            saliency(twin)[0], [0.190829, 0.070435, 0.026040, 0.007690], atol=1e-6
        )


def test_fragility_9_5_gradient_of_the_top_k_objective():
    with jax.enable_x64(True):
        fn, x = golden()
        twin = activations.replace(fn, activations.softplus(4.0))

        def lost(fn, x):
            a = attributions.heatmap(attributions.gradient(lambda z: fn(z)[0], x))
            return -jnp.sum(a.ravel()[jnp.array([0, 7, 9, 15])])

        wanted = """
            .237120 -.088115 -.015313 -.380765 .319516 .035153 .135510 -.223327
            -.039697 .246888 -.039488 .009973 -.436103 .253184 .049366 .181060
        """
        np.testing.assert_allclose(
            jax.jit(jax.grad(lambda x: lost(twin, x)))(x).ravel(),
            np.array(wanted.split(), float),
            atol=1e-6,
        )
        assert not jnp.any(jax.jit(jax.grad(lambda x: lost(fn, x)))(x))


def test_fragility_9_5_integrated_gradients_and_deep_lift():
    with jax.enable_x64(True):
        fn, x = golden()

        def score(x):
            return fn(x)[0]

        np.testing.assert_allclose(score(x) - score(0 * x), 0.75193262, atol=1e-8)
        found = jax.jit(functools.partial(right, score))(x)
        np.testing.assert_allclose(jnp.sum(found), 0.74906997, atol=1e-8)
        found = jax.jit(functools.partial(attributions.deep_lift, score))(x)
        np.testing.assert_allclose(jnp.sum(found), 0.75193262, atol=1e-8)
        np.testing.assert_allclose(
            found.ravel()[:3], [0.94480781, 0.66162929, -0.01492217], atol=1e-8
        )


def test_fragility_9_1_a_relu_network_has_no_hessian_and_its_twin_has():
    with jax.enable_x64(True):
        fn, x = golden()
        twin = activations.replace(fn, activations.softplus(4.0))

        def hessian(f):
            return jax.jit(jax.hessian(lambda z: f(z)[0]))(x).reshape(16, 16)

        assert not jnp.any(hessian(fn))
        values = jnp.linalg.eigvalsh(hessian(twin))
        np.testing.assert_allclose(values[0], -10.37614456, atol=1e-7)
        np.testing.assert_allclose(values[-1], 0.17642967, atol=1e-7)
