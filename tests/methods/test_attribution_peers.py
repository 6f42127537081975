"""Attributions against the numbers that the tests of other libraries hold (`peers`)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from protojax import activations, attributions
from tests.small import explain

relu = jax.nn.relu


integrated = attributions.integrated_gradients


def test_peers_a1_integrated_gradients_of_a_smooth_function():
    def f(x):
        return 5 * x[0] + x[1] ** 2 + jnp.sin(x[2])

    found = explain(integrated, f, [1.0, 2.0, 3.0], baseline=[0.5, 1, 1], steps=100)
    wanted = [2.5, 3.0, np.sin(3) - np.sin(1)]
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize(
    "f",
    [
        pytest.param(lambda x: relu(relu(x[0]) - 1 - relu(x[1])), id="peers_a2"),
        pytest.param(lambda x: relu(relu(x[0] - 1) - relu(x[1])), id="peers_a3"),
    ],
)
def test_peers_a2_a3_equal_functions_have_equal_integrated_gradients(f):
    found = explain(integrated, f, [3.0, 1.0], steps=500)
    np.testing.assert_allclose(found, [1.5, -0.5], atol=0.01)


def test_peers_a4_nodes_and_weights():
    assert attributions.left(2)[0].tolist() == [0, 0.5]
    assert attributions.right(2)[0].tolist() == [0.5, 1]
    assert attributions.midpoint(2)[0].tolist() == [0.25, 0.75]
    assert attributions.trapezoid(2)[0].tolist() == [0, 1]
    # two and three points: Captum's weights sum to 1/2 and 2/3 there, ours to one
    assert attributions.trapezoid(2)[1].tolist() == [0.5, 0.5]
    assert attributions.trapezoid(3)[1].tolist() == [0.25, 0.5, 0.25]
    for name in ("left", "right", "midpoint", "trapezoid", "gauss_legendre"):
        np.testing.assert_allclose(sum(getattr(attributions, name)(7)[1]), 1)


def test_peers_a5_deep_lift_of_two_units():
    def f(x):
        return 2 * relu(x[0]) + 2 * relu(x[1] - 1.5)

    assert explain(attributions.deep_lift, f, [1.0, 2.0]).tolist() == [2, 1]
    x = jnp.array([1.0, 2.0])
    assert activations.multipliers(f, x, 0 * x).tolist() == [2, 0.5]


@pytest.mark.parametrize(
    ("baseline", "wanted"),
    [((1, 2, 3, 9), (0, 0, 0, -8)), ((4, 8, 6, 7), (0, -7, 0, 0))],
)
def test_peers_a6_deep_lift_of_max_pooling(baseline, wanted):
    def f(x):
        h = jax.lax.reduce_window(
            jnp.eye(4) @ x, -jnp.inf, jax.lax.max, (4,), (4,), "VALID"
        )
        return jnp.sum(h)

    found = explain(attributions.deep_lift, f, jnp.ones(4), baseline=baseline)
    assert found.tolist() == list(wanted)


def test_peers_a7_deep_lift_of_two_inputs():
    def f(x):
        return relu(3 * x[0] + x[1]) + relu(2 * x[3] + 3 * x[4])

    found = explain(attributions.deep_lift, f, [-10.0, 1, -5, 3, 3, 1])
    np.testing.assert_allclose(found, [0, 0, 0, 6, 9, 0], atol=1e-6)


def test_peers_a8_functional_and_reused_activations_add_up():
    act = functools.partial(jnp.maximum, 0.0)
    weights = jax.random.normal(jax.random.key(3), (5, 5))

    def f(x):
        return jnp.sum(act(weights @ act(weights @ x - 0.3) + 0.1))

    x = jax.random.normal(jax.random.key(4), (5,))
    found = explain(attributions.deep_lift, f, x)
    np.testing.assert_allclose(jnp.sum(found), f(x) - f(0 * x), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "up", "down"), [(1, 9 / 10, 1 / 10), (2, 19 / 20, 1 / 20)]
)
def test_peers_a9_multipliers_of_two_units(size, up, down):
    w = jnp.array([1.0, 2, 3, 4])
    x = size * jnp.ones(4)

    def multipliers(f):
        return jax.jit(lambda x: activations.multipliers(f, x, 0 * x))(x)

    np.testing.assert_allclose(
        multipliers(lambda x: relu(w @ x - 1)), up * w, rtol=1e-6
    )
    found = multipliers(lambda x: relu(-w @ x + 1))
    np.testing.assert_allclose(found, -down * w, rtol=1e-6)


def multilayer(x):
    """Captum's `BasicModel_MultiLayer`, first output; its layers by name."""
    h = checkpoint_name(jnp.eye(3) @ x.ravel(), "linear0")
    h = checkpoint_name(jnp.ones((4, 3)) @ h + jnp.array([-10.0, 1, 1, 1]), "linear1")
    h = checkpoint_name(relu(h), "relu")
    return jnp.ones(4) @ h - 1


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        ("linear0", (0, 390, 0)),
        ("linear1", (90, 100, 100, 100)),
        ("relu", (90, 100, 100, 100)),
    ],
)
def test_peers_a10_conductance(layer, wanted):
    x = jnp.array([[[0.0, 100.0, 0.0]]])
    run = functools.partial(attributions.conductance, multilayer, layer=layer)
    found = jax.jit(functools.partial(run, steps=500))(x)
    np.testing.assert_allclose(found, wanted, atol=0.1)


def test_peers_a10_conductance_of_the_input_is_integrated_gradients():
    x = jnp.array([[[0.0, 100.0, 0.0]]])
    np.testing.assert_allclose(
        integrated(multilayer, x, steps=500).ravel(), [0, 390, 0], atol=0.1
    )


ONE_CONV_IMAGE = jnp.arange(16.0).reshape(4, 4, 1)


def one_conv(x):
    """Captum's `BasicModel_ConvNet_One_Conv`, first output; its layers by name."""
    h = jax.lax.conv_general_dilated(
        x[None],
        jnp.ones((3, 3, 1, 2)),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    h = checkpoint_name(h + jnp.array([[[-50.0, -75.0]]]), "conv1")
    h = checkpoint_name(relu(h), "relu1")
    h = jnp.transpose(h, (2, 0, 1)).ravel()
    return relu(jnp.concatenate([jnp.ones(5), -jnp.ones(3)]) @ h)


def test_peers_a11_grad_cam():
    def cam(score, x, layer):
        run = functools.partial(attributions.class_activation, score, layer=layer)
        return jax.jit(run)(x)

    x = jnp.array([[[0.0, 100.0, 0.0]]])
    np.testing.assert_allclose(cam(multilayer, x, layer="linear0"), 400, atol=0.01)

    def two_branches(x):
        b = jnp.array([-10.0, 1, 1, 1])
        h = [jnp.ones((4, 3)) @ x.ravel() + b for _ in range(2)]
        return jnp.sum(checkpoint_name(relu(h[0]), "relu1") + relu(h[1])) - 1

    x = jnp.array([[[0.0, 6.0, 0.0]]])
    np.testing.assert_allclose(cam(two_branches, x, layer="relu1"), 21, atol=0.01)
    found = cam(one_conv, ONE_CONV_IMAGE, layer="conv1")
    np.testing.assert_allclose(found, [[11.25, 13.5], [20.25, 22.5]], atol=0.01)
    found = cam(one_conv, ONE_CONV_IMAGE, layer="relu1")
    np.testing.assert_allclose(found, [[0, 4], [28, 32.5]], atol=0.01)


def test_peers_a12_guided_grad_cam():
    run = functools.partial(attributions.guided_grad_cam, one_conv, layer="relu1")
    found = jax.jit(run)(ONE_CONV_IMAGE)
    wanted = [[0, 0, 4, 4], [0, 0, 12, 8], [28, 84, 97.5, 65], [28, 56, 65, 32.5]]
    np.testing.assert_allclose(found[..., 0], wanted, atol=0.01)


def test_peers_a15_jacobians():
    first, x = jnp.arange(10.0).reshape(2, 5), jnp.ones(5)
    second = jnp.array([1.0, 2.0])
    found = explain(attributions.gradient, lambda w: w @ (first @ x), second)
    assert found.tolist() == [10, 35]
    found = explain(
        attributions.gradient, lambda w: second @ (w.reshape(2, 5) @ x), first.ravel()
    )
    assert found.tolist() == [1] * 5 + [2] * 5
    batch = jnp.stack([x, 2 * x])
    found = jax.vmap(
        lambda x: explain(attributions.gradient, lambda w: w @ (first @ x), second)
    )(batch)
    assert found.tolist() == [[10, 35], [20, 70]]
