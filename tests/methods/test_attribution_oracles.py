"""Attributions against numbers that others computed or derived.

`fragility` are the numbers of a study of Ghorbani et al. 2019 (sections in the names),
`peers` those that the tests of other libraries hold.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from protojax import activations, attributions

relu = jax.nn.relu


def explain(method, f, x, baseline=None, **knobs):
    """Explain a function of a vector, as an image of one pixel."""
    x = jnp.asarray(x)
    if baseline is not None:
        knobs["baseline"] = jnp.asarray(baseline, x.dtype).reshape(1, 1, -1)
    run = jax.jit(lambda x: method(lambda z: f(z.ravel()), x, **knobs))
    return run(x.reshape(1, 1, -1)).reshape(x.shape)


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
