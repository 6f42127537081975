import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from protojax import activations, attributions
from tests import dialects

KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (12, 12, 3))


class Residual(nn.Module):
    """What the engine must handle on the way of a convolutional network."""

    act: object = nn.relu

    @nn.compact
    def __call__(self, x):
        h = self.act(nn.Conv(4, (3, 3))((x - 0.5) / 0.25))
        h = nn.max_pool(h, (3, 3), (2, 2), "SAME")
        k = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(h))
        h = self.act(h + k)
        h = jnp.concatenate([h, nn.leaky_relu(h - 0.1)], axis=-1)
        h = nn.avg_pool(h, (2, 2), (2, 2))
        h = nn.GroupNorm(2)(h)
        h = jax.checkpoint(
            lambda h: nn.gelu(h) * nn.sigmoid(h.mean((0, 1), keepdims=True))
        )(h)
        return nn.Dense(3)(h.mean((0, 1)))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.Conv(8, (4, 4), strides=4)(x).reshape(-1, 8)
        h = h + nn.SelfAttention(2)(nn.LayerNorm()(h))
        h = h + nn.Dense(8)(jax.nn.silu(nn.Dense(16)(nn.LayerNorm()(h))))
        return nn.softmax(nn.Dense(3)(h.max(0)))


def perturbed(variables):
    """Move biases and statistics away from zero and one."""
    leaves, structure = jax.tree.flatten(variables)
    noise = [0.1 * jax.random.uniform(KEY, leaf.shape) for leaf in leaves]
    return jax.tree.unflatten(structure, map(jnp.add, leaves, noise))


@functools.cache
def linen(kind):
    module = kind()
    variables = jax.jit(lambda key: perturbed(module.init(key, X)))(KEY)
    return functools.partial(module.apply, variables)


def partial():
    net = linen(Residual)
    return jax.tree_util.Partial(net.func, *net.args)


def plain(x):
    a = jax.random.normal(KEY, (432, 8)) / 20
    h = jnp.maximum(0, x.ravel() @ a - 0.1)
    return jnp.minimum(jnp.maximum(h @ jnp.eye(8)[:, :3] - 0.2, 0), 6)


NETS = {
    "plain": lambda: plain,
    "linen": lambda: linen(Residual),
    "partial": partial,
    "nnx": dialects.Nnx,
    "equinox": dialects.in_equinox,
    "transformer": lambda: linen(Transformer),
}


@pytest.fixture(scope="module", params=NETS)
def score(request):
    fn = NETS[request.param]()
    return lambda x: fn(x)[0]


def test_deep_lift_sums_to_the_difference_on_any_network(score):
    baseline = jnp.full_like(X, 0.3)

    @jax.jit
    def run(x):
        parts = attributions.deep_lift(score, x, baseline=baseline)
        return jnp.sum(parts), score(x) - score(baseline), jnp.sum(jnp.abs(parts))

    total, difference, size = run(X)
    np.testing.assert_allclose(total, difference, atol=1e-5 * float(size))


def test_relevance_that_gives_biases_nothing_sums_to_the_score(score):
    total, wanted = jax.jit(
        lambda x: (jnp.sum(attributions.deep_taylor(score, x)), score(x))
    )(X)
    np.testing.assert_allclose(total, wanted, rtol=1e-4, atol=1e-6)


def attention(x):
    """Products, a softmax, a maximum: what bends between two points."""
    tokens = x.reshape(4, 4)
    weights = jax.nn.softmax(tokens @ tokens[:, ::-1].T)
    h = jnp.max(weights @ tokens, axis=0)
    h = h / jnp.sqrt(jnp.mean(h**2) + 0.1)
    return jnp.sum(jax.nn.silu(h) * jnp.array([1.0, -2.0, 0.5, 1.5]))


def test_the_derivative_of_deep_lift_is_that_of_finite_differences():
    with jax.enable_x64(True):
        x, v = (
            jax.random.normal(jax.random.key(k), (4, 4, 1), "float64") for k in (2, 3)
        )

        @jax.jit
        def f(x):
            return jnp.sum(v * attributions.deep_lift(attention, x) ** 2)

        size = 1e-6
        wanted = (f(x + size * v) - f(x - size * v)) / (2 * size)
        forward = jax.jit(lambda x: jax.jvp(f, (x,), (v,))[1])(x)
        np.testing.assert_allclose(forward, wanted, rtol=1e-6)
        np.testing.assert_allclose(jnp.vdot(jax.jit(jax.grad(f))(x), v), forward)
        parts = jax.jit(functools.partial(attributions.deep_lift, attention))(x)
        difference = jax.jit(lambda x: attention(x) - attention(0 * x))(x)
        np.testing.assert_allclose(jnp.sum(parts), difference)


def test_deep_lift_at_its_baseline_is_driven_by_the_gradient():
    net = linen(Residual)

    def score(x):
        return net(x)[0]

    found = jax.jit(lambda x: activations.multipliers(score, x, x))(X)
    np.testing.assert_allclose(found, jax.jit(jax.grad(score))(X), atol=1e-6)


@pytest.mark.optimized
def test_a_batch_shares_one_pass_at_the_baseline():
    net = linen(Residual)

    def total(x):
        return jnp.sum(attributions.deep_lift(lambda z: net(z)[0], x))

    def flops(f, *args):
        return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]

    one, many = flops(total, X), flops(jax.vmap(total), jnp.stack([X] * 8))
    forward = flops(lambda x: net(x)[0], X)
    # Eight images that share the pass at the baseline make seven forward passes less
    # than eight times one; one of them is room for programs that are fused otherwise.
    assert many < 8 * one - 6 * forward


@pytest.mark.parametrize("kind", ["plain", "linen", "nnx", "equinox"])
def test_a_replaced_network_has_curvature_where_the_network_has_none(kind):
    fn = NETS[kind]()
    twin = activations.replace(fn, activations.softplus(5.0))

    def bend(f, x):
        return jax.jvp(jax.grad(lambda z: f(z)[0]), (x,), (x,))[1]

    both = jax.jit(lambda x: (bend(fn, x), bend(twin, x)))(X)
    smooth_parts = kind == "linen"  # its GELU and norms bend anyway
    assert smooth_parts or not jnp.any(both[0])
    assert jnp.any(both[1])


@pytest.mark.optimized
def test_a_replaced_network_is_the_natively_built_one_to_the_bit():
    act = activations.softplus(7.0)
    net = linen(Residual)
    twin = activations.replace(net, act)
    native = functools.partial(Residual(act=act).apply, *net.args)
    assert jnp.array_equal(jax.jit(twin)(X), jax.jit(native)(X))
    gradients = [jax.jit(jax.grad(lambda x, f=f: f(x)[1]))(X) for f in (twin, native)]
    np.testing.assert_allclose(*gradients, atol=1e-7)


Z = jnp.linspace(-3, 9, 7)


@pytest.mark.parametrize(
    "relu6",
    [
        nn.relu6,
        jax.jit(nn.relu6),
        lambda z: jnp.clip(z, 0, 6),
        lambda z: jax.lax.clamp(0.0, z, 6.0),
        lambda z: jnp.minimum(6.0, jnp.maximum(jnp.zeros_like(z), z)),
        lambda z: jnp.maximum(jnp.minimum(z, 6.0), 0),
    ],
)
def test_relu6_in_any_form_becomes_a_difference(relu6):
    act = activations.softplus(2.0)
    wanted = act(Z) - act(Z - 6)
    found = jax.jit(activations.replace(relu6, act))(Z)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    slopes = jax.jit(jax.vmap(jax.grad(activations.guided(relu6))))(Z)
    assert slopes.tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_relus_in_loops_and_checkpoints_are_replaced():
    act = activations.softplus(2.0)

    def f(z, act=nn.relu):
        z = jax.lax.scan(lambda c, _: (act(c) - 0.5, None), z, None, length=2)[0]
        return jax.checkpoint(lambda z: act(jnp.sin(z)))(z)

    found = jax.jit(activations.replace(f, act))(Z)
    np.testing.assert_allclose(found, jax.jit(lambda z: f(z, act))(Z), rtol=1e-6)


@pytest.mark.parametrize(
    "relu",
    [
        lambda z: jnp.where(z > 0, z, 0),
        lambda z: jnp.where(z <= 0, 0.0, z),
        lambda z: jax.lax.select(jnp.less(0, z), z, jnp.zeros_like(z)),
        lambda z: z * (z > 0),
        lambda z: (z >= 0).astype(z.dtype) * z,
    ],
)
def test_a_choice_by_sign_is_a_relu(relu):
    act = activations.softplus(2.0)
    np.testing.assert_array_equal(activations.replace(relu, act)(Z), act(Z))


@jax.jit
def relu(z):
    """It is leaky, whatever its name."""
    return jnp.where(z > 0, z, 0.1 * z)


@pytest.mark.parametrize(
    "smooth",
    [
        relu,
        nn.elu,
        lambda z: jnp.where(z > 0, z * z, 0),
        lambda z: z * (z < 0),
        nn.gelu,
        nn.softplus,
        jnp.sin,
        lambda z: jnp.maximum(z, 0.5),
        nn.LayerNorm(use_bias=False, use_scale=False).bind({}),
    ],
)
def test_what_has_no_relu_says_so(smooth):
    with pytest.raises(ValueError, match="found no ReLU"):
        activations.replace(smooth, activations.softplus(1.0))(Z)


def test_what_is_put_in_the_place_of_a_relu_is_a_function():
    with pytest.raises(ValueError, match="`act` is 30.0: pass a function"):
        activations.replace(nn.relu, 30.0)


def test_a_sharpness_that_is_none_is_named():
    for beta in (0.0, -2.0, jnp.nan):
        with pytest.raises(ValueError, match=f"`beta` is {beta}: it must be above"):
            activations.softplus(beta)


def test_softplus_takes_a_traced_sharpness_and_differentiates_it():
    def f(beta):
        return activations.replace(nn.relu, activations.softplus(beta))(1.0)

    value, slope = jax.jit(jax.value_and_grad(f))(2.0)
    np.testing.assert_allclose(value, np.logaddexp(0, 2) / 2, rtol=1e-6)
    wanted = 1 / (1 + np.exp(-2)) / 2 - np.logaddexp(0, 2) / 4
    np.testing.assert_allclose(slope, wanted, rtol=1e-5)


def test_the_sharpness_is_that_of_the_median_unit():
    weights = jax.random.normal(KEY, (9, 432))

    def fn(x):
        return nn.relu(weights @ x.ravel())

    units = np.sort(np.abs(weights @ X.ravel()))
    found = jax.jit(lambda x: activations.sharpness(fn, x, c=3.0))(X)
    np.testing.assert_allclose(found, 3 / units[4], rtol=1e-6)
    assert jnp.isnan(activations.sharpness(fn, 0 * X))
    np.testing.assert_allclose(
        activations.sharpness(lambda x: fn(255 * x), X), 30 / 255 / units[4], rtol=1e-5
    )


def named(x):
    x = checkpoint_name(2 * x, "first")
    x = checkpoint_name(nn.relu(x - 1), "second")
    return jnp.sum(checkpoint_name(x * x, "second"))


def test_layers_are_recorded_by_name():
    run = jax.jit(jax.vmap(activations.record(named, ["first"])))
    value, found = run(jnp.stack([X, X]))
    np.testing.assert_allclose(found["first"][1], 2 * X)
    np.testing.assert_allclose(value, named(X), rtol=1e-6)
    names = activations.layers(named, X)
    assert list(names) == ["first", "second:0", "second:1"]
    assert names["first"].shape == X.shape


def test_layers_without_names_are_numbered_with_their_bias():
    net = linen(Residual)
    found = {name: s.shape for name, s in activations.layers(net, X).items()}
    assert found == {
        "conv:0": (12, 12, 4),
        "relu:0": (12, 12, 4),
        "conv:1": (6, 6, 4),
        "relu:1": (6, 6, 4),
        "dense:0": (3,),
    }
    logits, values = jax.jit(activations.record(net))(X)
    np.testing.assert_allclose(values["dense:0"], logits, rtol=1e-6)
    np.testing.assert_allclose(values["relu:0"], nn.relu(values["conv:0"]))


def test_an_intervention_sets_a_layer():
    run = activations.intervene(named, "second:0")
    assert float(jax.jit(run)(X, jnp.full_like(X, 2.0))) == 4 * X.size
    with pytest.raises(AssertionError):
        run(X, jnp.ones(3))


def test_an_intervention_with_the_recorded_value_changes_nothing():
    net = linen(Residual)
    logits, values = jax.jit(activations.record(net, ["relu:1"]))(X)
    found = jax.jit(activations.intervene(net, "relu:1"))(X, values["relu:1"])
    np.testing.assert_allclose(found, logits, rtol=1e-5)


def test_recording_leaves_derivatives_of_their_own_alone():
    def f(z):
        return jnp.sum(nn.relu(z))

    run = activations.record(f)
    assert jax.grad(lambda z: run(z)[0])(jnp.zeros(2)).tolist() == [0, 0]


def test_an_unknown_layer_names_the_nearest():
    with pytest.raises(ValueError, match="no layer is called 'frist': there is first"):
        activations.record(named, ["frist"])(X)
    with pytest.raises(ValueError, match="the function has no layers"):
        activations.intervene(jnp.sin, "relu:0")(X, X)
