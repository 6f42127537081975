"""Attributions against what was computed for Ghorbani et al. 2019.

The names of the tests tell their sections in that study of the paper; its numbers are
in `protojax.conformance`, but for those that need several functions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from protojax import activations, attributions
from tests.small import explain

relu = jax.nn.relu


integrated = attributions.integrated_gradients
right = functools.partial(integrated, rule=attributions.right, steps=100)


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


def test_fragility_9_3_deep_lift_has_the_known_jacobian_where_a_unit_does_not_move():
    a, b = jnp.array([[1.0, -2], [3, 1], [-1, 1]]), jnp.array([0.5, -1, 0])
    c, d = jnp.array([[1.0, -1, 2], [-2, 1, 1]]), jnp.array([0, 0.5])
    v, x = jnp.array([2.0, -1]), jnp.array([1, 0.5])

    def f(x):
        return v @ relu(c @ relu(a @ x + b) + d)

    lift = functools.partial(explain, attributions.deep_lift, f)
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


def test_fragility_9_5_the_twin_is_the_network_with_another_act():
    with jax.enable_x64(True):
        fn, x = golden()
        twin = activations.replace(fn, activations.softplus(4.0))
        native = functools.partial(fn, act=activations.softplus(4.0))
        assert jnp.array_equal(twin(x), native(x))

        def saliency(fn):
            run = jax.jit(jax.grad(lambda z: fn(z)[0]))
            return attributions.heatmap(run(x))

        np.testing.assert_allclose(
            saliency(twin)[0], [0.190829, 0.070435, 0.026040, 0.007690], atol=1e-6
        )


def test_fragility_9_5_a_relu_network_gives_the_top_k_objective_no_gradient():
    with jax.enable_x64(True):
        fn, x = golden()

        def lost(fn, x):
            a = attributions.heatmap(attributions.gradient(lambda z: fn(z)[0], x))
            return -jnp.sum(a.ravel()[jnp.array([0, 7, 9, 15])])

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
