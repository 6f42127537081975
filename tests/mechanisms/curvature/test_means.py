import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.mechanisms import curvature

pytestmark = pytest.mark.usefixtures("x64")
EXACT = {"rtol": 1e-10, "atol": 1e-10}
LOSSES = {
    "cross-entropy": lambda out, e: -jax.nn.log_softmax(out)[e["y"]],
    "squared error": lambda out, e: jnp.sum((out - e["x"][:3]) ** 2),
}
CASES = [(act, loss) for act in np.eye(2) for loss in np.eye(2)]


def predict(acts, params, example):
    """With tanh, ReLU or a mixture, so that all are one program."""
    hidden = example["x"] @ params["first"]
    hidden = acts[0] * jnp.tanh(hidden) + acts[1] * jax.nn.relu(hidden)
    return hidden @ params["second"]


def mixture(losses, out, example):
    return sum(share * f(out, example) for share, f in zip(losses, LOSSES.values()))


def cross_entropy(params, example):
    return LOSSES["cross-entropy"](
        predict(np.array([1.0, 0.0]), params, example), example
    )


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    params = {"first": rng.normal(size=(4, 5)), "second": rng.normal(size=(5, 3))}
    x, y = rng.normal(size=(11, 4)), rng.integers(0, 3, 11)
    return params, {"x": x[:count], "y": y[:count]}


def mesh(*shape):
    names = "ab"[: len(shape)]
    return jax.sharding.Mesh(np.array(jax.devices()[:4]).reshape(shape), tuple(names))


@pytest.fixture(scope="module")
def by_example():
    """Dense Hessians and Gauss-Newton matrices of each of eleven examples."""

    @jax.jit
    def of_one(params, acts, losses, e):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        outputs = lambda v: predict(acts, unravel(v), e)
        loss = lambda out: mixture(losses, out, e)
        rows, curved = jax.jacobian(outputs)(flat), jax.hessian(loss)(outputs(flat))
        hessian = jax.hessian(lambda v: loss(outputs(v)))(flat)
        return hessian, rows.T @ curved @ rows

    def by_example(acts, losses):
        params, examples = drawn(11)
        each = [
            of_one(params, acts, losses, {"x": x, "y": y})
            for x, y in zip(examples["x"], examples["y"])
        ]
        return np.moveaxis(np.asarray(each), 1, 0)

    return by_example


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "on, count, batch_size",
    [
        (None, 11, 3),
        ((4,), 3, 2),
        ((2, 2), 11, 2),
        slow(None, 1, 1),
        slow(None, 8, 2),
        slow(None, 11, 100),
        slow((4,), 1, 1),
        slow((4,), 8, 2),
        slow((4,), 11, 100),
        slow((2, 2), 3, 2),
        slow((2, 2), 8, 1),
    ],
    ids=str,
)
def test_peers_c11_uneven_batches_give_the_dense_mean(
    on, count, batch_size, dense, by_example
):
    knobs = {"batch_size": batch_size, "mesh": on and mesh(*on)}
    params, examples = drawn(count)

    @jax.jit
    def matrices(params, examples, acts, losses):
        outputs = functools.partial(predict, acts)
        loss = functools.partial(mixture, losses)
        whole = lambda p, e: loss(outputs(p, e), e)
        return (
            dense(curvature.mean_hessian(whole, params, examples, **knobs), params),
            dense(
                curvature.mean_gauss_newton(outputs, loss, params, examples, **knobs),
                params,
            ),
        )

    for acts, losses in CASES:
        ours = matrices(params, examples, acts, losses)
        theirs = by_example(acts, losses)[:, :count].mean(axis=1)
        np.testing.assert_allclose(ours, theirs, **EXACT)


def test_peers_c3_linear_softmax_whose_gauss_newton_operator_is_the_hessian(dense):
    x, w = np.random.default_rng(0).normal(size=(2, 13, 4))
    w, y = w[:3], np.arange(13) % 3
    outputs = lambda w, e: w @ e[0]
    loss = lambda out, e: -jax.nn.log_softmax(out)[e[1]]
    whole = lambda w, e: loss(outputs(w, e), e)

    @jax.jit
    def both(w, x):
        return (
            dense(curvature.mean_hessian(whole, w, (x, y), batch_size=5), w),
            dense(
                curvature.mean_gauss_newton(outputs, loss, w, (x, y), batch_size=5), w
            ),
        )

    closed = np.zeros((12, 12))
    for one in x:
        p = np.exp(w @ one) / np.exp(w @ one).sum()
        closed += np.kron(np.diag(p) - np.outer(p, p), np.outer(one, one)) / 13
    for matrix in both(w, x):
        np.testing.assert_allclose(matrix, closed, **EXACT)


def test_the_empirical_fisher_information_is_a_gauss_newton_operator(dense):
    params, examples = drawn(7)

    @jax.jit
    def both(params, examples):
        product = curvature.mean_gauss_newton(
            cross_entropy, lambda out, _: out**2 / 2, params, examples, batch_size=3
        )
        gradients = jax.vmap(jax.grad(cross_entropy), (None, 0))(params, examples)
        rows = jax.vmap(lambda g: jax.flatten_util.ravel_pytree(g)[0])(gradients)
        return dense(product, params), rows

    matrix, rows = map(np.asarray, both(params, examples))
    np.testing.assert_allclose(matrix, rows.T @ rows / 7, **EXACT)


@pytest.mark.parametrize("on", [None, (4,)], ids=str)
def test_memory_does_not_grow_with_the_number_of_examples(on):
    devices = on and mesh(*on)
    spec = jax.sharding.PartitionSpec("a")
    where = devices and jax.sharding.NamedSharding(devices, spec)
    loss = lambda w, x: jnp.sum(jnp.tanh(x @ w) ** 2)

    def bytes_for(count):
        like = jax.ShapeDtypeStruct((count, 64), float, sharding=where)
        w = jax.ShapeDtypeStruct((64, 8), float)
        product = lambda x, w: curvature.mean_hessian(
            loss, w, x, batch_size=16, mesh=devices
        )(w)
        return jax.jit(product).lower(like, w).compile().memory_analysis()

    few, many = bytes_for(64 * 16), bytes_for(64 * 256)
    share = 64 * 240 // (4 if on else 1)  # of the further examples
    numbers = 8 * share // 16  # of their batches, which is all that is held of them
    assert many.temp_size_in_bytes <= few.temp_size_in_bytes + numbers
    grown = many.argument_size_in_bytes - few.argument_size_in_bytes
    assert grown == share * 64 * 8


def test_what_is_spread_over_devices_may_be_anywhere_before(by_example):
    params, examples = drawn(10)
    explicit = jax.make_mesh((4,), ("a",), (jax.sharding.AxisType.Explicit,))
    product = lambda params, examples, devices: curvature.mean_hessian(
        cross_entropy, params, examples, mesh=devices
    )(params)
    exact = by_example(*CASES[0])[0, :10].mean(axis=0)
    expected = exact @ jax.flatten_util.ravel_pytree(params)[0]
    for given, devices, run in (
        (examples, mesh(4), product),
        (examples, mesh(4), jax.jit(product, static_argnums=2)),
        (jax.tree.map(jnp.asarray, examples), explicit, product),
    ):
        image = jax.flatten_util.ravel_pytree(run(params, given, devices))[0]
        np.testing.assert_allclose(image, expected, **EXACT)


def test_uneven_examples_may_be_used_beside_in_one_program(by_example):
    # XLA aborts the process if it spreads them unevenly over the devices
    params, examples = drawn(3)

    @jax.jit
    def both(params, examples):
        product = curvature.mean_hessian(cross_entropy, params, examples, mesh=mesh(4))
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        mean = lambda v: jnp.mean(
            jax.vmap(cross_entropy, (None, 0))(unravel(v), examples)
        )
        return product(params), jax.hessian(mean)(flat)

    image, beside = both(params, examples)
    exact = by_example(*CASES[0])[0, :3].mean(axis=0)
    np.testing.assert_allclose(beside, exact, **EXACT)
    flat = jax.flatten_util.ravel_pytree(params)[0]
    image = jax.flatten_util.ravel_pytree(image)[0]
    np.testing.assert_allclose(image, exact @ flat, **EXACT)


def test_leading_eigenpairs_of_a_data_set_in_one_program(by_example):
    params, examples = drawn(11)

    @jax.jit
    def pairs(params, examples):
        matvec = curvature.mean_hessian(
            cross_entropy, params, examples, batch_size=2, mesh=mesh(4)
        )
        return curvature.top_eigenpairs(
            matvec, params, key=jax.random.key(0), num=3, steps=35
        )

    found = pairs(params, examples)
    exact = np.linalg.eigvalsh(by_example(*CASES[0])[0].mean(axis=0))
    exact = exact[np.argsort(-np.abs(exact))][:3]
    np.testing.assert_allclose(found.values, exact, rtol=1e-8)
    assert np.max(found.residuals) < 1e-8


def test_impossible_examples_are_named():
    loss = lambda w, e: jnp.sum(w * e)
    for examples, said in (
        (np.zeros((0, 2)), r"\[\(0,\)\]"),
        ((np.zeros((3, 2)), np.zeros(4)), r"\[\(3,\), \(4,\)\]"),
        ((np.zeros((3, 2)), 1.0), r"\[\(\), \(3,\)\]"),
        ((), r"\[\]"),
    ):
        with pytest.raises(ValueError, match=rf"`examples` has leading axes {said}"):
            curvature.mean_hessian(loss, jnp.zeros(2), examples)
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        curvature.mean_hessian(loss, jnp.zeros(2), np.zeros((3, 2)), batch_size=0)
