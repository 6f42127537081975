"""The lowered function is the same function, at orders 0, 1 and 2."""

import functools

import flax.linen as nn
import hypothesis as hp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from protojax.mechanisms import lowering

patient = {"deadline": None, "suppress_health_check": [hp.HealthCheck.too_slow]}
few = hp.settings(max_examples=8, derandomize=True, **patient)
many = hp.settings(max_examples=150, **patient)

# Sums of at most a few hundred float32 products of order one, in another order.
close = {"rtol": 2e-5, "atol": 2e-5}


def assert_same(fn, *args, equal=np.testing.assert_array_equal):
    """Values, gradients and Hessian-vector products are those of `fn` as traced."""
    loss = lambda *a: jnp.sum(jnp.sin(fn(*a)))
    gradient = jax.grad(loss, argnums=tuple(range(len(args))))
    product = lambda *a: jax.jvp(gradient, a, tuple(map(jnp.cos, a)))
    orders = lambda *a: (fn(*a), product(*a))
    expected = jax.jit(orders)(*args)
    actual = jax.jit(lowering.canonical(orders))(*args)
    jax.tree.map(equal, actual, expected)


def assert_close(actual, expected):
    scale = max(1.0, float(jnp.max(jnp.abs(expected), initial=0)))
    np.testing.assert_allclose(actual / scale, expected / scale, **close)


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    pick = lambda low, high: [draw(st.integers(low, high)) for _ in range(rank)]
    kernel, strides, dilation = pick(1, 3), pick(1, 2), pick(1, 2)
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    sizes = [
        (k - 1) * d + 1 + extra for k, d, extra in zip(kernel, dilation, pick(0, 4))
    ]
    letters = "DHW"[-rank:]
    shuffled = ["".join(draw(st.permutations(s + letters))) for s in ("NC", "IO", "NC")]
    axes = dict(zip(letters, sizes)) | {"N": 2, "C": inputs}
    taps = dict(zip(letters, kernel)) | {"I": inputs // groups, "O": outputs}
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    x = rng.normal(size=[axes[a] for a in shuffled[0]]).astype(np.float32)
    w = rng.normal(size=[taps[a] for a in shuffled[1]]).astype(np.float32)
    options = {
        "window_strides": strides,
        "padding": [tuple(draw(st.integers(0, 2)) for _ in "ab") for _ in range(rank)],
        "rhs_dilation": dilation,
        "lhs_dilation": pick(1, 2),
        "feature_group_count": groups,
        "dimension_numbers": tuple(shuffled),
    }
    return x, w, options


def assert_convolution_is_kept(case):
    x, w, options = case
    fn = lambda x, w: lax.conv_general_dilated(x, w, **options)
    assert_same(fn, x, w, equal=assert_close)


@few
@hp.given(convolutions())
def test_any_convolution_keeps_its_values_and_derivatives(case):
    assert_convolution_is_kept(case)


@pytest.mark.slow
@many
@hp.given(convolutions())
def test_many_convolutions_keep_their_values_and_derivatives(case):
    assert_convolution_is_kept(case)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("edges", [(-1, 1), (1, -1), (-1, -1)])
def test_negative_padding_cuts_the_image(edges, dilation):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 5, 4, 2)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 2, 2, 3)), jnp.float32)
    axes = ("NHWC", "HWIO", "NHWC")
    cut = (*edges, dilation - 1)

    def conv(x, w):
        step = (dilation, dilation)
        return lax.conv_general_dilated(
            x, w, (1, 1), [edges, (2, 1)], step, dimension_numbers=axes
        )

    def by_hand(x, w):
        x = lax.pad(
            x, jnp.float32(0), [(0, 0, 0), cut, (2, 1, dilation - 1), (0, 0, 0)]
        )
        return lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=axes)

    found = lowering.canonical(conv)(x, w)
    np.testing.assert_allclose(found, by_hand(x, w), **close)


@pytest.mark.parametrize(
    ("kind", "preferred"),
    [("int8", "int32"), ("bfloat16", "float32"), ("bfloat16", None)],
)
def test_depthwise_convolutions_of_narrow_types_add_in_wide_ones(kind, preferred):
    rng = np.random.default_rng(0)
    size = 100 if kind == "int8" else 1
    x = jnp.asarray(size * rng.normal(size=(1, 6, 6, 4)), kind)
    w = jnp.asarray(size * rng.normal(size=(3, 3, 1, 4)), kind)

    def conv(x, w, **options):
        return lax.conv_general_dilated(
            x,
            w,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
            **options,
        )

    def both(f, x, w):
        y = conv(x, w, preferred_element_type=f)
        small = lambda w: conv(x[:, :3, :3], w)  # few positions: taps are summed
        slope = jax.vjp(small, w)[1](x[:, 3:, 3:]) if kind != "int8" else ()
        return y, slope

    found = jax.jit(lowering.canonical(lambda x, w: both(preferred, x, w)))(x, w)
    wide = "int32" if kind == "int8" else "float32"
    exact = jax.jit(lambda x, w: both(wide, x, w))(x.astype(wide), w.astype(wide))
    for a, b in zip(*map(jax.tree.leaves, (found, exact)), strict=True):
        assert a.dtype == (preferred if a is found[0] and preferred else kind)
        step = jnp.finfo(a.dtype).eps if a.dtype != "int32" else 0
        # rounded once at the end, or sums of nine float32 products in another order
        gap = np.abs(np.float64(a) - np.float64(b))
        assert np.all(gap <= step * np.abs(np.float64(b)) + 9 * 2**-23 * bool(step))


@pytest.mark.optimized
def test_plain_convolutions_are_equal_to_the_bit():
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    w = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    fn = lambda x, w: lax.conv_general_dilated(
        x, w, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert_same(fn, x, w)


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((3, 3), (2, 2), "SAME"),
        ((3, 2), (1, 2), ((0, 1), (1, 0))),
        ((2, 2), (3, 3), "VALID"),
    ],
)
def test_max_pooling_keeps_its_derivatives_ties_too(
    window, strides, padding, rectified
):
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 2))
    fn = lambda x: nn.max_pool(
        jnp.maximum(x, 0) if rectified else x, window, strides, padding
    )
    assert_same(fn, x, equal=assert_close)


@pytest.mark.parametrize("groups", [1, 6])
def test_vmap_over_weights_keeps_values(groups):
    x = jax.random.normal(jax.random.key(0), (2, 7, 7, 6))
    w = jax.random.normal(jax.random.key(1), (3, 3, 3, 6 // groups, 6))
    one = lambda x, w: lax.conv_general_dilated(
        x,
        w,
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    assert_same(jax.vmap(one, (None, 0)), x, w, equal=assert_close)


class Net(nn.Module):
    """Every kind of layer that the rules touch, in a loop and out of it."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), (2, 2))(x)
        x = nn.max_pool(nn.softplus(x), (3, 3), (2, 2), "SAME")
        x = nn.Conv(8, (3, 3), feature_group_count=8)(x)
        x = nn.Conv(4, (1, 1))(nn.silu(x))
        return nn.Dense(3)(jnp.mean(x, (0, 1)))


@pytest.fixture(scope="module")
def net():
    model = Net()
    x = jax.random.uniform(jax.random.key(0), (16, 16, 3))
    return model, jax.jit(model.init)(jax.random.key(1), x), x


def test_loops_calls_and_custom_derivatives_keep_their_values(net):
    model, variables, x = net

    @jax.custom_jvp
    def halved(z):
        return model.apply(variables, z)

    halved.defjvp(lambda z, t: (halved(*z), jax.jvp(halved.fun, z, t)[1] / 2))
    step = lambda z: z - 0.1 * jax.grad(lambda z: jax.checkpoint(halved)(z)[0])(z)

    def walk(z):
        z, _ = lax.scan(lambda z, _: (step(z), None), z, None, length=2)
        z = lax.cond(jnp.sum(z) > 0, step, lambda z: z, z)
        z = lax.while_loop(lambda z: jnp.sum(z) > 1e6, step, z)
        return jax.jit(step)(z)

    expected = jax.jit(walk)(x)
    np.testing.assert_allclose(jax.jit(lowering.canonical(walk))(x), expected, **close)
    np.testing.assert_allclose(lowering.canonical(walk)(x), expected, **close)


def test_pooling_is_rewritten_inside_rematerialized_loops(net):
    model, variables, x = net
    gradient = jax.grad(lambda z: model.apply(variables, z)[0])
    add = jax.checkpoint(lambda total, t: (total + gradient(t * x), None))
    path = lambda x: lax.scan(add, 0 * x, jnp.linspace(0.5, 1, 2))[0]
    actual = jax.jit(lowering.canonical(jax.grad(lambda x: jnp.sum(path(x) ** 2))))(x)
    expected = jax.jit(jax.grad(lambda x: jnp.sum(path(x) ** 2)))(x)
    np.testing.assert_allclose(actual, expected, **close)


def test_maxima_keep_ties_and_nan():
    x = jnp.array([[0.0, 0.0, jnp.nan, 1.0, 2.0, 2.0]])
    pool = lambda x: nn.max_pool(x[..., None], (2,), (1,))[..., 0]
    actual = jax.jit(lowering.canonical(pool))(x)
    np.testing.assert_array_equal(actual, pool(x))
    total = lambda f: jax.grad(lambda x: jnp.sum(f(x)))(x[:, 3:])
    np.testing.assert_array_equal(total(lowering.canonical(pool)), total(pool))


def test_derivatives_and_batches_pass_through_it(net):
    model, variables, x = net
    fn = lambda z: model.apply(variables, z)[0]

    def around(f):
        slope, product = jax.jvp(jax.grad(f), (x,), (x,))
        return slope, product, jax.vmap(f)(jnp.stack([x, 1 - x]))

    actual = jax.jit(lambda: around(lowering.canonical(fn)))()
    equal = functools.partial(np.testing.assert_allclose, **close)
    jax.tree.map(equal, actual, jax.jit(lambda: around(fn))())


def test_a_custom_derivative_is_still_the_users(net):
    model, variables, x = net

    @jax.custom_jvp
    def constant(z):
        return model.apply(variables, z)[0]

    constant.defjvp(lambda z, t: (constant(*z), 7.0 * jnp.sum(t[0])))
    gradient = jax.jit(jax.grad(lowering.canonical(constant)))(x)
    np.testing.assert_array_equal(gradient, jnp.full_like(x, 7.0))


@pytest.mark.parametrize("inside", [True, False])
def test_it_passes_through_shard_map(net, inside):
    model, variables, x = net
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch = jnp.stack([x, x / 2, x / 3, x / 4])
    gradient = jax.vmap(jax.grad(lambda z: model.apply(variables, z)[0]))
    low = lowering.canonical
    shard = lambda f: jax.shard_map(
        f, mesh=mesh, in_specs=P("data"), out_specs=P("data")
    )
    fn = shard(low(gradient)) if inside else low(shard(gradient))
    np.testing.assert_allclose(jax.jit(fn)(batch), jax.jit(gradient)(batch), **close)


def test_unknown_primitives_pass_untouched():
    fn = lambda x: jnp.linalg.eigh(x @ x.T)[0] + jnp.fft.rfft(x[0]).real.sum()
    x = jax.random.normal(jax.random.key(0), (5, 5))
    np.testing.assert_array_equal(jax.jit(lowering.canonical(fn))(x), jax.jit(fn)(x))


def test_errors_and_profiles_still_name_the_users_line(net):
    model, variables, x = net
    lowered = jax.jit(lowering.canonical(lambda z: model.apply(variables, z)))
    text = lowered.lower(x).as_text(debug_info=True)
    assert "test_lowering.py" in text and "Conv_0" in text


def test_structures_keywords_and_results_without_arrays_are_kept():
    fn = lambda x, *, scale: {"a": x["b"] * scale, "none": None}
    out = lowering.canonical(fn)({"b": jnp.ones(2)}, scale=3.0)
    assert out["none"] is None and out["a"].tolist() == [3.0, 3.0]


def test_off_cpu_it_gives_the_function_back(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    fn = lambda x: lax.conv(x, jnp.ones((1, 1, 1, 1)), (1, 1), "SAME")
    x = jnp.ones((1, 1, 2, 2))
    jaxpr = str(jax.make_jaxpr(lowering.canonical(fn))(x))
    assert "dot_general" not in jaxpr and "conv_general_dilated" in jaxpr
