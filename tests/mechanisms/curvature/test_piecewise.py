import functools

import jax
import jax.ad_checkpoint
import jax.extend.core.primitives
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.mechanisms import curvature
from protojax.mechanisms.curvature import piecewise
from protojax.methods import activations
from protojax.models import pretrained

KEY = jax.random.key(0)
X64 = pytest.mark.usefixtures("x64")


def mlp(sizes, seed=0, sharpness=1.0):
    rng = np.random.default_rng(seed)
    weights = [
        rng.normal(size=(b, a)) / np.sqrt(a) * (sharpness if b == sizes[-1] else 1.4)
        for a, b in zip(sizes, sizes[1:])
    ]

    def predict(x):
        for matrix in weights[:-1]:
            x = jax.nn.relu(matrix @ x + 0.1)
        return weights[-1] @ x

    return predict, rng.normal(size=sizes[0])


def cross_entropy(predict, y):
    return lambda x: -jax.nn.log_softmax(predict(x))[y]


def compiled(fn, *args):
    return jax.tree.map(np.asarray, jax.jit(fn)(*args))


def closed_and_dense(predict, x, y=0):
    """Our pairs, and the Hessian of the cross-entropy of that class."""
    return compiled(
        lambda x: (
            curvature.cross_entropy_eigenpairs(predict, x),
            jax.hessian(cross_entropy(predict, y))(x),
        ),
        x,
    )


@X64
def test_peers_c4_the_whole_spectrum_of_a_relu_network():
    pairs, dense = closed_and_dense(*mlp((784, 64, 32, 10)), y=3)
    exact = np.linalg.eigvalsh(dense)[::-1]
    np.testing.assert_allclose(pairs.values, exact[:9], atol=1e-12)
    np.testing.assert_allclose(exact[9:], 0, atol=1e-12)  # nine non-zeros of 784
    np.testing.assert_allclose(
        dense, (pairs.vectors.T * pairs.values) @ pairs.vectors, atol=1e-12
    )
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(9), atol=1e-12)
    left = dense @ pairs.vectors.T - pairs.vectors.T * pairs.values
    assert np.abs(left).max() < 1e-12 and np.max(pairs.residuals) < 1e-12


@X64
def test_closed_form_lanczos_and_gauss_newton_agree(dense):
    predict, x = mlp((40, 30, 5))
    loss = lambda logits: -jax.nn.log_softmax(logits)[0]

    def run(x):
        hessian = curvature.hessian(cross_entropy(predict, 0), x)
        return (
            curvature.cross_entropy_eigenpairs(predict, x),
            curvature.top_eigenpairs(hessian, x, key=KEY, num=4),
            dense(curvature.gauss_newton(predict, loss, x), x),
        )

    closed, found, matrix = compiled(run, x)
    np.testing.assert_allclose(found.values, closed.values, atol=1e-12)
    cosines = np.abs(np.sum(found.vectors * closed.vectors, axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-8)
    again = (closed.vectors.T * closed.values) @ closed.vectors
    np.testing.assert_allclose(matrix, again, atol=1e-12)


@X64
def test_fragility_9_1_two_classes_have_one_eigenvector_along_the_gradient():
    predict, x = mlp((12, 9, 2))
    pairs, dense = closed_and_dense(predict, x, y=1)
    gradient = compiled(jax.grad(cross_entropy(predict, 1)), x)
    assert pairs.values.shape == (1,)
    cosine = abs(pairs.vectors[0] @ gradient) / np.linalg.norm(gradient)
    assert cosine == pytest.approx(1, abs=1e-12)
    assert pairs.values[0] == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-12)


@X64
def test_fragility_9_1_the_logit_of_a_relu_network_has_no_curvature(dense):
    predict, x = mlp((12, 9, 3))
    scores = (lambda z: predict(z)[0]), (lambda z: jax.nn.softmax(predict(z))[0])
    of_logit, of_probability = compiled(
        lambda x: [dense(curvature.hessian(score, x), x) for score in scores], x
    )
    assert not of_logit.any() and of_probability.any()


def test_confident_predictions_keep_their_small_eigenvalues():
    predict, x = mlp((30, 20, 6), sharpness=30.0)
    run = functools.partial(curvature.cross_entropy_eigenpairs, predict)
    found = compiled(run, np.float32(x))
    with jax.enable_x64(True):
        logits, rows = compiled(
            lambda x: (predict(x), jax.jacobian(predict)(x)), np.float64(np.float32(x))
        )
    p = np.exp(logits - logits.max()) / np.sum(np.exp(logits - logits.max()))
    centered = np.sqrt(p)[:, None] * (rows - p @ rows)
    exact = np.linalg.svd(centered)[1][:5] ** 2
    assert 1 - p.max() < 1e-6 and exact[1] < 1e-5 * exact[0]
    # roots to the rounding of the largest root; a Gram matrix would round its square,
    # and p - p p' as automatic differentiation has it would round to its size
    np.testing.assert_allclose(
        np.sqrt(found.values), np.sqrt(exact), atol=np.sqrt(exact[0]) * 1e-5
    )
    np.testing.assert_allclose(found.values[:3], exact[:3], rtol=1e-4)


@X64
def test_batches_trees_and_fewer_dimensions_than_classes():
    predict, _ = mlp((4, 9, 7))
    flat = lambda tree: jnp.concatenate([tree["a"].ravel(), tree["b"]])
    rng = np.random.default_rng(0)
    xs = {"a": rng.normal(size=(3, 1, 2)), "b": rng.normal(size=(3, 2))}

    def run(tree):
        hessian = jax.hessian(cross_entropy(predict, 0))(flat(tree))
        of_tree = lambda tree: predict(flat(tree))
        return curvature.cross_entropy_eigenpairs(of_tree, tree), hessian

    found, dense = compiled(jax.vmap(run), xs)
    assert found.values.shape == (3, 4) and found.vectors["a"].shape == (3, 4, 1, 2)
    exact = np.linalg.eigvalsh(dense)[:, ::-1]
    np.testing.assert_allclose(found.values, exact, atol=1e-12)


STEPS = {
    "softplus": lambda h: jax.nn.softplus(h),
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "square": lambda h: h**2,
    "two factors": lambda h: h * (h + 1),
    "own norm": lambda h: h / jnp.sqrt(jnp.mean(h**2)),
    "divided by": lambda h: 1 / (2 + jnp.abs(h)),
    "attention": lambda h: jnp.outer(h, h) @ h,
    "softmax": jax.nn.softmax,
    "a twin": activations.softplus(4.0),
    "in a loop": lambda h: jax.lax.fori_loop(0, 2, lambda _, z: jnp.sin(z), h),
    "hidden": lambda h: jax.jit(lambda z: jax.checkpoint(jnp.tanh)(z))(h),
}
LINEAR_STEPS = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky": jax.nn.leaky_relu,
    "hard tanh": jax.nn.hard_tanh,
    "absolute": jnp.abs,
    "mask": lambda h: h * (h > 0),
    "where": lambda h: jnp.where(h > h.mean(), 2 * h, h - 1),
    "signs": lambda h: h * jnp.sign(jnp.roll(h, 1)),
    "sorted": jnp.sort,
    "largest": lambda h: h[jnp.argsort(h)] - jnp.max(h),
    "fixed statistics": lambda h: (h - 0.3) / jnp.sqrt(jnp.exp(0.1) + 1e-3),
    "named": lambda h: jax.ad_checkpoint.checkpoint_name(
        jax.checkpoint(jax.nn.relu)(h), "h"
    ),
    "pooled": lambda h: jax.lax.reduce_window(
        h.reshape(2, 3), -jnp.inf, jax.lax.max, (1, 2), (1, 1), "SAME"
    ).ravel(),
    "averaged": lambda h: jnp.cumsum(h) / 6 + jnp.pad(h[1:], (0, 1)),
    "tiled": lambda h: jnp.tile(h[:3], 2) + jnp.stack([h[0], h[5]] * 3),
    "placed": lambda h: h.at[:2].set(h[3:5]).at[3].add(h[0]) + sum(h),
}


def test_what_has_no_spectrum_is_named():
    weights = np.float32(np.random.default_rng(0).normal(size=(3, 4)))
    run = curvature.cross_entropy_eigenpairs
    with pytest.raises(ValueError, match="`predict` gives one logit.*for a sigmoid"):
        run(lambda x: weights[:1] @ x, jnp.ones(4))
    for broken in (jnp.full(4, jnp.nan), jnp.full(4, jnp.inf)):
        with pytest.raises(FloatingPointError, match="not finite"):
            run(lambda x: weights @ x, broken)
    traced = jax.jit(lambda x: run(lambda x: weights @ x, x).values)
    assert np.isnan(traced(jnp.full(4, jnp.nan))).all()


def with_step(step):
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(6, 5)), rng.normal(size=(4, 6))
    return lambda x: last @ step(first @ x), rng.normal(size=5)


@pytest.mark.parametrize("name", STEPS)
def test_a_bend_is_named_with_its_line_under_jit_too(name):
    predict, x = with_step(STEPS[name])
    for run in (
        curvature.cross_entropy_eigenpairs,
        jax.jit(curvature.cross_entropy_eigenpairs, static_argnums=0),
    ):
        with pytest.raises(
            curvature.NotPiecewiseLinear,
            match=r"not known to be piecewise linear: `\w+` at .*:\d+",
        ):
            run(predict, x)


@X64
def test_what_is_piecewise_linear_has_the_spectrum_of_its_hessian():
    """All steps in one program, which picks one."""

    @jax.jit
    def both(shares, x):
        steps = lambda h: sum(a * f(h) for a, f in zip(shares, LINEAR_STEPS.values()))
        predict = with_step(steps)[0]
        # the check reads the program; the second derivative along a line says the same
        along = lambda t: predict(x + t * jnp.cos(jnp.arange(5.0)))
        bend = jax.jacfwd(jax.jacfwd(along))(0.0)
        hessian = jax.hessian(cross_entropy(predict, 0))(x)
        return curvature.cross_entropy_eigenpairs(predict, x).values, hessian, bend

    for name, shares in zip(LINEAR_STEPS, np.eye(len(LINEAR_STEPS))):
        values, hessian, bend = both(shares, with_step(None)[1])
        exact = np.linalg.eigvalsh(hessian)[:1:-1]
        np.testing.assert_allclose(values, exact, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(bend, 0, atol=1e-12, err_msg=name)


def test_every_known_step_is_a_primitive_of_jax():
    known = {name for name in piecewise._PIECEWISE_LINEAR | piecewise._PRODUCTS}
    primitives = {
        value.name
        for module in (jax.lax, jax.extend.core.primitives)
        for value in vars(module).values()
        if isinstance(value, jax.extend.core.Primitive)
    }
    apart = "copy name scatter-sub split stack stop_gradient tile unstack"
    assert known - primitives <= set(apart.split())


@pytest.mark.realdata
@pytest.mark.slow
def test_a_real_network_has_nine_eigenvalues_that_its_products_know(data_folder):
    """The first image is sure to 4e-9, the third is not."""
    model, weights = pretrained.cifar10_resnet(
        data_folder / "cifar10_resnet20.npz", depth=20
    )
    images = np.load(data_folder / "cifar10.npz")["x_test"] / np.float32(255)

    @jax.jit
    def closed(weights, x):
        fn = functools.partial(model.apply, weights)
        return curvature.cross_entropy_eigenpairs(fn, x)

    @jax.jit
    def product(weights, x, v):
        fn = functools.partial(model.apply, weights)
        return curvature.hvp(cross_entropy(fn, 0), x, v)

    for x in images[[0, 2]]:
        values, vectors, _ = jax.tree.map(np.asarray, closed(weights, x))
        assert values.shape == (9,) and vectors.shape == (9, 32, 32, 3)
        assert np.all(np.diff(values) <= 0) and values[-1] >= 0
        with jax.enable_x64(True):
            double = jax.tree.map(np.float64, (weights, x, vectors[0]))
            left = product(*double) - values[0] * double[2]
        assert np.linalg.norm(left) < 1e-4 * values[0]


@pytest.mark.realdata
@pytest.mark.slow
def test_lanczos_finds_the_first_eigenvalue_of_a_real_network(data_folder):
    model, weights = pretrained.cifar10_resnet(
        data_folder / "cifar10_resnet20.npz", depth=20
    )
    x = np.load(data_folder / "cifar10.npz")["x_test"][2] / np.float32(255)

    @jax.jit
    def both(weights, x):
        fn = functools.partial(model.apply, weights)
        product = curvature.hessian(cross_entropy(fn, 0), x)
        found = curvature.top_eigenpairs(product, x, key=KEY, steps=12)
        return curvature.cross_entropy_eigenpairs(fn, x).values[0], found.values[0]

    closed, found = both(weights, x)
    assert float(found) == pytest.approx(float(closed), rel=1e-4)
