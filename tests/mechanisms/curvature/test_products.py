import functools
import itertools

import chex
import jax
import jax.ad_checkpoint
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protojax.mechanisms import curvature
from protojax.methods import activations, attributions
from tests import small

EXACT = {"rtol": 1e-10, "atol": 1e-10}
X64 = pytest.mark.usefixtures("x64")

ACTS = {
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
}
TARGET = np.array([0.0, 1.0, 0.0])
LOSSES = {
    "cross-entropy": lambda out: -jnp.sum(TARGET * jax.nn.log_softmax(out)),
    "squared error": lambda out: 0.5 * jnp.sum((out - TARGET) ** 2),
    "logistic": lambda out: jnp.sum(jax.nn.softplus(out) - TARGET * out),
    "poisson": lambda out: jnp.sum(jnp.exp(out) - TARGET * out),
    "not convex": lambda out: jnp.sum(jnp.cos(out)) * out[0],
}


def chosen(functions, shares):
    """A mixture of functions: one program for each of them, and for all together."""
    return lambda x: sum(share * f(x) for share, f in zip(shares, functions.values()))


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


@X64
def test_peers_c11_every_operator_is_its_dense_matrix(dense):
    """With respect to parameters and input at once: both blocks, and that across."""

    @jax.jit
    def matrices(at, acts, losses):
        act, loss = chosen(ACTS, acts), chosen(LOSSES, losses)
        predict = lambda at: network(act, *at)
        whole = lambda at: loss(predict(at))
        jacobian = curvature.jacobian(predict, at)
        ours = {
            "hessian": dense(curvature.hessian(whole, at), at),
            "gauss_newton": dense(curvature.gauss_newton(predict, loss, at), at),
            "jacobian": dense(jacobian.forward, at),
            "transpose": dense(jacobian.transpose, jnp.zeros(3)),
        }
        flat_predict, flat = flattened(predict, at)
        hessian = jax.hessian(lambda v: loss(flat_predict(v)))(flat)
        rows = jax.jacobian(flat_predict)(flat)
        curved = jax.hessian(loss)(predict(at))
        theirs = {
            "hessian": hessian,
            "gauss_newton": rows.T @ curved @ rows,
            "jacobian": rows,
            "transpose": rows.T,
        }
        return ours, theirs

    for act in np.eye(len(ACTS)):
        for loss in np.eye(len(LOSSES)):
            ours, theirs = matrices(drawn(), act, loss)
            chex.assert_trees_all_close(ours, theirs, **EXACT)


@X64
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), a=st.floats(-10, 10))
def test_operators_are_symmetric_and_linear(seed, a, products):
    params, x = drawn(seed)
    u, v = drawn(seed + 1)[0], drawn(seed + 2)[0]
    mixed = jax.tree.map(lambda u, v: a * u + v, u, v)
    flat = [np.asarray(jax.flatten_util.ravel_pytree(t)[0]) for t in (u, v, mixed)]
    images = products(params, x, np.stack(flat))
    for name, (of_u, of_v, of_mixed) in images.items():
        scale = 1e-12 * (1 + np.max(np.abs(images[name])))
        np.testing.assert_allclose(flat[0] @ of_v, flat[1] @ of_u, atol=1e2 * scale)
        np.testing.assert_allclose(a * of_u + of_v, of_mixed, atol=1e2 * scale)
    assert flat[0] @ images["gauss_newton"][0] >= -1e-12  # of a convex loss


@pytest.fixture(scope="module")
def products():
    @jax.jit
    def products(params, x, vectors):
        unravel = jax.flatten_util.ravel_pytree(params)[1]
        predict, loss = lambda p: network(jnp.tanh, p, x), LOSSES["poisson"]
        operators = {
            "hessian": curvature.hessian(lambda p: loss(predict(p)), params),
            "gauss_newton": curvature.gauss_newton(predict, loss, params),
        }
        flat = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
        return {
            name: jax.lax.map(lambda v: flat(operator(unravel(v))), vectors)  # noqa: B023
            for name, operator in operators.items()
        }

    return lambda *args: jax.tree.map(np.asarray, products(*args))


@X64
def test_peers_c6_the_hessian_of_log_cosh_and_fragility_9_1_its_norm_by_signs(dense):
    weights, x = np.random.default_rng(0).normal(size=(2, 5, 5))
    x, signs = x[0], np.array(list(itertools.product([1.0, -1.0], repeat=5)))
    f = lambda z: jnp.sum(jnp.log(jnp.cosh(weights @ z)))

    @jax.jit
    def both(x):
        product = curvature.hessian(f, x)
        return dense(product, x), jax.lax.map(product, signs)

    matrix, images = both(x)
    closed = weights.T @ np.diag(np.cosh(weights @ x) ** -2) @ weights
    np.testing.assert_allclose(matrix, closed, **EXACT)
    # over all signs, the mean square of the change is the squared Frobenius norm
    np.testing.assert_allclose(np.sum(images**2) / 32, np.sum(closed**2))


@X64
def test_fragility_9_1_layers_add_up_to_the_hessian_and_bound_it(dense):
    # dossier 5.6: H = sum of J' diag(b s'') J over layers, and the bound from it
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 5)), rng.normal(size=(4, 6))
    last, x, beta = rng.normal(size=4), rng.normal(size=5), 3.0
    act = activations.softplus(beta)
    score = lambda z: last @ act(second @ act(first @ z))
    matrix = jax.jit(lambda x: dense(curvature.hessian(score, x), x))(x)

    softplus = lambda z: np.logaddexp(0, beta * z) / beta
    slope = lambda z: 1 / (1 + np.exp(-beta * z))
    lower, upper = first @ x, second @ softplus(first @ x)
    rows = first, second @ np.diag(slope(lower)) @ first
    sent = second.T @ (last * slope(upper)), last  # to each layer's output
    total, bound = 0, 0
    for z, jacobian, b in zip((lower, upper), rows, sent):
        bend = beta * slope(z) * (1 - slope(z))
        total += jacobian.T @ np.diag(b * bend) @ jacobian
        bound += np.max(np.abs(b)) * np.linalg.norm(jacobian, 2) ** 2
    np.testing.assert_allclose(matrix, total, **EXACT)
    assert np.linalg.norm(matrix, 2) <= beta / 4 * bound


@X64
def test_the_hessian_with_respect_to_a_named_layer(dense):
    params, x = drawn()
    run = lambda z: network(jax.nn.softplus, params, z)
    named = lambda z: run(jax.ad_checkpoint.checkpoint_name(jnp.sin(z), "sine"))

    @jax.jit
    def both(x):
        layer = activations.record(named, ["sine"])(x)[1]["sine"]
        after = activations.intervene(named, "sine")
        ours = dense(curvature.hessian(lambda h: after(x, h)[1], layer), layer)
        flat = lambda h: run(h.reshape(x.shape))[1]
        return ours, jax.hessian(flat)(jnp.sin(x).ravel())

    np.testing.assert_allclose(*both(x), **EXACT)


@X64
def test_fragility_5_3_the_jacobian_of_a_normalized_map(dense):
    weights, x = np.random.default_rng(0).normal(size=(2, 6, 9))
    x = x[0].reshape(3, 3, 1)
    score = lambda z: jnp.sum(jax.nn.softplus(weights @ z.ravel()))
    explain = lambda z: attributions.heatmap(attributions.gradient(score, z))

    @jax.jit
    def both(x):
        jacobian = curvature.jacobian(explain, x)
        return dense(jacobian.forward, x), dense(jacobian.transpose, jnp.zeros((3, 3)))

    matrix, transpose = both(x)
    slope = 1 / (1 + np.exp(-weights @ x.ravel()))
    gradient = weights.T @ slope
    hessian = weights.T @ np.diag(slope * (1 - slope)) @ weights
    total = np.sum(np.abs(gradient))
    spread = np.eye(9) - np.outer(np.abs(gradient) / total, np.ones(9))
    expected = spread @ np.diag(np.sign(gradient)) @ hessian / total
    np.testing.assert_allclose(matrix, expected, **EXACT)
    np.testing.assert_allclose(transpose, expected.T, **EXACT)
    assert np.abs(matrix - matrix.T).max() > 1e-3


@X64
def test_the_fisher_information_is_the_gauss_newton_operator_of_cross_entropy(dense):
    params, x = drawn()
    predict = lambda p: network(jnp.tanh, p, x)

    @jax.jit
    def both(params):
        product = curvature.gauss_newton(predict, LOSSES["cross-entropy"], params)
        fn, flat = flattened(lambda p: jax.nn.log_softmax(predict(p)), params)
        scores = jax.jacobian(fn)(flat)  # of each label that the network might draw
        return dense(product, params), scores, jnp.exp(fn(flat))

    matrix, scores, p = jax.tree.map(np.asarray, both(params))
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
def test_the_highest_precision_whatever_the_users_default(name):
    with jax.default_matmul_precision("bfloat16"):
        found = small.precisions(_user_operators()[name], jnp.ones(4), jnp.ones(4))
    assert found and set(found) == {"(Precision.HIGHEST,"}


@X64
def test_one_product_alone_is_the_same_and_all_run_under_jit_vmap_and_grad():
    params, x = drawn()
    xs = np.stack([x, 2 * x, -x])
    score = lambda z: network(jax.nn.softplus, params, z)[0]
    each = lambda z, v: curvature.hessian(score, z)(v)
    alone = lambda z, v: curvature.hvp(score, z, v)

    @jax.jit
    def both(xs):
        x = xs[0]
        slope = lambda product: jax.grad(lambda z: jnp.sum(product(z, x) ** 2))(x)
        ours = jax.vmap(each)(xs, xs), slope(each)
        return ours, (jax.lax.map(lambda z: alone(z, z), xs), slope(alone))

    chex.assert_trees_all_close(*both(xs), **EXACT)
