import functools

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protojax.mechanisms import curvature
from protojax.methods import activations, attributions

EXACT = {"rtol": 1e-10, "atol": 1e-10}

ACTS = {
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
}
TARGET = np.array([0.0, 1.0, 0.0])
LOSSES = {
    "cross-entropy": lambda out: -jnp.sum(TARGET * jax.nn.log_softmax(out)),
    "squared error": lambda out: 0.5 * jnp.sum((out - TARGET) ** 2),
    "logistic": lambda out: jnp.sum(jax.nn.softplus(out) - TARGET * out),
    "poisson": lambda out: jnp.sum(jnp.exp(out) - TARGET * out),
    "not convex": lambda out: jnp.sum(jnp.cos(out)) * out[0],
}


def network(act, params, x):
    """A convolution, a pool, a residual connection and a linear layer."""
    hidden = jax.lax.conv_general_dilated(
        x[None],
        params["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    hidden = act(hidden) + x[None]
    pooled = jax.lax.reduce_window(
        hidden, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    return act(pooled.ravel() @ params["weights"]) + params["bias"]


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(0.7 * rng.normal(size=shape))
    params = {"kernel": draw(3, 3, 2, 2), "weights": draw(8, 3), "bias": draw(3)}
    return params, draw(4, 4, 2)


def flattened(fn, like):
    flat, unravel = jax.flatten_util.ravel_pytree(like)
    return lambda v: jax.flatten_util.ravel_pytree(fn(unravel(v)))[0], flat


def cases(params, x, act):
    """The network as a function of its parameters, and of its input."""
    return {
        "parameters": (lambda p: network(act, p, x), params),
        "input": (lambda z: network(act, params, z), x),
    }


@pytest.mark.parametrize("of", ["parameters", "input"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.usefixtures("x64")
def test_peers_c11_every_operator_is_its_dense_matrix(act, loss, of, dense):
    @jax.jit
    def matrices(params, x):
        predict, at = cases(params, x, ACTS[act])[of]
        whole = lambda z: LOSSES[loss](predict(z))
        jacobian = curvature.jacobian(predict, at)
        ours = {
            "hvp": dense(functools.partial(curvature.hvp, whole, at), at),
            "hessian": dense(curvature.hessian(whole, at), at),
            "gauss_newton": dense(
                curvature.gauss_newton(predict, LOSSES[loss], at), at
            ),
            "jacobian": dense(jacobian.forward, at),
            "transpose": dense(jacobian.transpose, jnp.zeros(3)),
        }
        flat_predict, flat = flattened(predict, at)
        flat_whole, _ = flattened(whole, at)
        hessian = jax.hessian(lambda v: flat_whole(v)[0])(flat)
        rows = jax.jacobian(flat_predict)(flat)
        curved = jax.hessian(LOSSES[loss])(predict(at))
        theirs = {
            "hvp": hessian,
            "hessian": hessian,
            "gauss_newton": rows.T @ curved @ rows,
            "jacobian": rows,
            "transpose": rows.T,
        }
        return ours, theirs

    ours, theirs = matrices(*drawn())
    chex.assert_trees_all_close(ours, theirs, **EXACT)


@pytest.mark.usefixtures("x64")
def test_peers_c7_the_rosenbrock_hessian():
    def f(x, alpha):
        return (1 - x[0]) ** 2 + alpha * (x[1] - x[0] ** 2) ** 2

    for alpha in (1.0, 100.0):
        for point in ((1.0, 1.0), (2.5, 0.8)):
            x, y = point
            corner = 2 - 4 * alpha * (y - 3 * x**2)
            closed = [[corner, -4 * alpha * x], [-4 * alpha * x, 2 * alpha]]
            product = curvature.hessian(lambda z: f(z, alpha), jnp.array(point))  # noqa: B023
            np.testing.assert_allclose(jax.vmap(product)(jnp.eye(2)), closed, **EXACT)


@pytest.mark.usefixtures("x64")
def test_peers_c6_the_hessian_of_log_cosh(dense):
    weights, x = np.random.default_rng(0).normal(size=(2, 5, 5))
    x = x[0]
    product = curvature.hessian(lambda z: jnp.sum(jnp.log(jnp.cosh(weights @ z))), x)
    closed = weights.T @ np.diag(np.cosh(weights @ x) ** -2) @ weights
    np.testing.assert_allclose(dense(product, jnp.array(x)), closed, **EXACT)


@pytest.mark.usefixtures("x64")
def test_fragility_9_1_layers_add_up_to_the_hessian_and_bound_it(dense):
    # dossier 5.6: H = sum of J' diag(b s'') J over layers, and the bound from it
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 5)), rng.normal(size=(4, 6))
    last, x, beta = rng.normal(size=4), jnp.asarray(rng.normal(size=5)), 3.0
    act = activations.softplus(beta)
    tops = {
        0: lambda z: last @ act(second @ act(z)),
        1: lambda z: last @ act(z),
    }
    inner = {0: lambda z: first @ z, 1: lambda z: second @ act(first @ z)}
    total, bound = 0, 0
    for layer, top in tops.items():
        pre = inner[layer](x)
        slope = jax.vmap(jax.grad(act))(pre)
        sent = jax.grad(top)(pre) / slope  # to the layer's output
        bend = jax.vmap(jax.grad(jax.grad(act)))(pre)
        rows = jax.jacobian(inner[layer])(x)
        total += rows.T @ jnp.diag(sent * bend) @ rows
        bound += jnp.max(jnp.abs(sent)) * jnp.linalg.norm(rows, 2) ** 2
    matrix = dense(curvature.hessian(lambda z: tops[0](first @ z), x), x)
    np.testing.assert_allclose(matrix, total, **EXACT)
    assert np.linalg.norm(matrix, 2) <= beta / 4 * bound


@pytest.mark.usefixtures("x64")
def test_the_hessian_with_respect_to_a_named_layer(dense):
    params, x = drawn()
    run = lambda z: network(jax.nn.softplus, params, z)
    named = lambda z: run(jax.ad_checkpoint.checkpoint_name(jnp.sin(z), "sine"))
    after = activations.intervene(named, "sine")
    layer = activations.record(named, ["sine"])(x)[1]["sine"]
    product = curvature.hessian(lambda h: after(x, h)[1], layer)
    expected = jax.hessian(lambda h: run(h.reshape(x.shape))[1])(layer.ravel())
    np.testing.assert_allclose(dense(product, layer), expected, **EXACT)


@pytest.mark.usefixtures("x64")
def test_fragility_5_3_the_jacobian_of_a_normalized_map(dense):
    weights = np.random.default_rng(0).normal(size=(2, 6, 9))
    x = jnp.asarray(weights[1, 0].reshape(3, 3, 1))
    score = lambda z: jnp.sum(jax.nn.softplus(weights[0] @ z.ravel()))
    explain = lambda z: attributions.heatmap(attributions.gradient(score, z))
    jacobian = curvature.jacobian(explain, x)
    matrix = dense(jacobian.forward, x)
    gradient, total = jax.grad(score)(x).ravel(), jnp.sum(jnp.abs(jax.grad(score)(x)))
    share = jnp.abs(gradient) / total
    spread = jnp.eye(9) - jnp.outer(share, jnp.ones(9))
    hessian = jax.hessian(lambda v: score(v.reshape(x.shape)))(x.ravel())
    expected = spread @ jnp.diag(jnp.sign(gradient)) @ hessian / total
    np.testing.assert_allclose(matrix, expected, **EXACT)
    np.testing.assert_allclose(
        dense(jacobian.transpose, jnp.zeros((3, 3))), matrix.T, **EXACT
    )
    assert np.abs(matrix - matrix.T).max() > 1e-3


@pytest.mark.usefixtures("x64")
def test_fragility_5_3_a_neurons_normalized_map_does_not_move(dense):
    weights = jnp.array([1.0, -2.0, 0.5]).reshape(1, 3, 1)
    score = lambda z: jax.nn.sigmoid(jnp.sum(weights * z))
    explain = lambda z: attributions.heatmap(attributions.gradient(score, z))
    x = jnp.array([0.3, 0.1, -0.4]).reshape(1, 3, 1)
    matrix = dense(curvature.jacobian(explain, x).forward, x)
    np.testing.assert_allclose(matrix, 0, atol=1e-15)
    assert np.abs(dense(curvature.hessian(score, x), x)).max() > 1e-2


@pytest.mark.usefixtures("x64")
def test_the_fisher_information_is_the_gauss_newton_operator_of_cross_entropy(dense):
    params, x = drawn()
    predict = lambda p: network(jnp.tanh, p, x)
    p = jax.nn.softmax(predict(params))
    matrix = dense(
        curvature.gauss_newton(predict, LOSSES["cross-entropy"], params), params
    )
    fn, flat = flattened(lambda p: jax.nn.log_softmax(predict(p)), params)
    scores = jax.jacobian(fn)(flat)  # of each label that the network might draw
    np.testing.assert_allclose(matrix, scores.T @ (p[:, None] * scores), **EXACT)


def test_the_gradient_is_traced_once_for_all_products():
    @chex.assert_max_traces(n=1)
    def f(x):
        return jnp.sum(jnp.tanh(x) ** 2)

    product = curvature.hessian(f, jnp.arange(3.0))
    for v in np.eye(3, dtype=np.float32):
        product(v)


def _user_operators():
    weights = jnp.ones((4, 4))
    predict = lambda x: jnp.tanh(weights @ jnp.tanh(weights @ x))
    loss = lambda out: jnp.sum((weights @ out) ** 2)
    f = lambda x: loss(predict(x))
    mean = lambda p, e: f(p * e)
    outputs = lambda p, e: predict(p * e)
    scaled = lambda out, e: loss(out * e)
    examples = jnp.ones((5, 4))
    apply = lambda make: lambda x, v: make(x)(v)
    key = jax.random.key(0)
    return {
        "hvp": functools.partial(curvature.hvp, f),
        "hessian": apply(lambda x: curvature.hessian(f, x)),
        "gauss_newton": apply(lambda x: curvature.gauss_newton(predict, loss, x)),
        "jacobian": apply(lambda x: curvature.jacobian(predict, x).forward),
        "transpose": apply(lambda x: curvature.jacobian(predict, x).transpose),
        "mean_hessian": apply(
            lambda x: curvature.mean_hessian(mean, x, examples, batch_size=2)
        ),
        "mean_gauss_newton": apply(
            lambda x: curvature.mean_gauss_newton(
                outputs, scaled, x, examples, batch_size=2
            )
        ),
        "top_eigenpairs": lambda x, v: curvature.top_eigenpairs(
            lambda u: weights @ u + x, v, key=key
        ),
        "top_singular": lambda x, v: curvature.top_singular(
            curvature.Jacobian(lambda u: weights @ u, lambda u: weights.T @ u + x),
            v,
            key=key,
        ),
        "condition_number": lambda x, v: curvature.condition_number(
            lambda u: weights @ u + x, v, key=key
        ),
        "solve": lambda x, v: curvature.solve(lambda u: weights @ u + 0 * x, v),
        "cross_entropy_eigenpairs": lambda x, v: curvature.cross_entropy_eigenpairs(
            lambda z: weights @ jax.nn.relu(weights @ z), x + v
        ),
    }


@pytest.mark.parametrize("name", _user_operators())
@pytest.mark.parametrize("default", ["bfloat16", "default", "tensorfloat32"])
def test_the_highest_precision_whatever_the_users_default(default, name, precisions):
    with jax.default_matmul_precision(default):
        found = precisions(_user_operators()[name], jnp.ones(4), jnp.ones(4))
    assert found and set(found) == {"(Precision.HIGHEST,"}


@functools.partial(jax.jit, static_argnames="gauss_newton")
def _at_seed(params, x, gauss_newton, vectors):
    predict, loss = lambda p: network(jnp.tanh, p, x), LOSSES["poisson"]
    operator = curvature.hessian(lambda p: loss(predict(p)), params)
    if gauss_newton:
        operator = curvature.gauss_newton(predict, loss, params)
    images = jax.vmap(operator)(vectors)
    return jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])(images)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), a=st.floats(-10, 10), gauss_newton=st.booleans())
def test_operators_are_symmetric_and_linear(seed, a, gauss_newton):
    with jax.enable_x64(True):
        params, x = drawn(seed)
        u, v = drawn(seed + 1)[0], drawn(seed + 2)[0]
        mixed = jax.tree.map(lambda u, v: a * u + v, u, v)
        vectors = jax.tree.map(lambda *leaves: jnp.stack(leaves), u, v, mixed)
        images = _at_seed(params, x, gauss_newton, vectors)
        flat_u, flat_v = (jax.flatten_util.ravel_pytree(t)[0] for t in (u, v))
        scale = 1e-12 * (1 + float(jnp.max(jnp.abs(images))))
        np.testing.assert_allclose(
            flat_u @ images[1], flat_v @ images[0], atol=1e2 * scale
        )
        np.testing.assert_allclose(
            a * images[0] + images[1], images[2], atol=1e2 * scale
        )
        if gauss_newton:
            assert flat_u @ images[0] >= -scale


@pytest.mark.usefixtures("x64")
def test_products_run_under_jit_vmap_and_grad():
    params, x = drawn()
    xs = jnp.stack([x, 2 * x, -x])
    score = lambda z: network(jax.nn.softplus, params, z)[0]
    each = lambda z, v: curvature.hessian(score, z)(v)
    together = jax.jit(jax.vmap(each))(xs, xs)
    alone = jnp.stack([curvature.hvp(score, z, z) for z in xs])
    np.testing.assert_allclose(together, alone, **EXACT)
    size = jax.jit(jax.grad(lambda z: jnp.sum(each(z, x) ** 2)))(x)
    expected = jax.grad(lambda z: jnp.sum(curvature.hvp(score, z, x) ** 2))(x)
    np.testing.assert_allclose(size, expected, **EXACT)
