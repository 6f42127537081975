import functools

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matfree import decomp, eig
from scipy.sparse import linalg

from protojax.mechanisms import ascent, curvature

KEY = jax.random.key(0)
X64 = pytest.mark.usefixtures("x64")
SIZE, UNITS = 16, 8


def numpy(fn, **knobs):
    """A compiled function whose results are NumPy's."""
    jitted = jax.jit(fn, **knobs)
    return lambda *args, **knobs: jax.tree.map(np.asarray, jitted(*args, **knobs))


@functools.partial(numpy, static_argnames=("num", "steps"))
def pairs_of(matrix, scale=1.0, key=KEY, **knobs):
    return curvature.top_eigenpairs(
        lambda v: scale * (matrix @ v), matrix[0], key=key, **knobs
    )


def drawn(size, rank=None):
    """Eigenvalues of a random operator, from the largest magnitude down."""
    values = np.random.default_rng(0).normal(size=size) * 3
    values[size if rank is None else rank :] = 0
    return values[np.argsort(-np.abs(values))]


def network(matrix=0.0, first=(), second=(), bias=0.0, beta=1.0, sigmoid=0.0):
    """`x A x / 2 + v act(W x + b)`, `act` softplus, a sigmoid, or between.

    Padded with zeros to one size, which adds zeros to the spectrum, so that all such
    networks share a program.
    """
    count = len(first)
    weights, (shift, out) = np.zeros((UNITS, SIZE)), np.zeros((2, UNITS))
    for j, row in enumerate(first):
        weights[j, : len(row)] = row
    out[:count], shift[:count] = second, bias
    matrix = np.asarray(matrix, float) * np.ones((SIZE, SIZE))
    return matrix, weights, shift, out, beta, sigmoid


def score(net, x):
    matrix, first, bias, second, beta, sigmoid = net
    hidden = first @ x + bias
    units = (1 - sigmoid) * jax.nn.softplus(beta * hidden) / beta
    units += sigmoid * jax.nn.sigmoid(hidden)
    return 0.5 * x @ matrix @ x + second @ units


def dense_hessian(net, x):
    matrix, first, bias, second, beta, sigmoid = net
    chance = lambda z: 1 / (1 + np.exp(-z))
    s, p = chance(first @ x + bias), chance(beta * (first @ x + bias))
    bend = (1 - sigmoid) * beta * p * (1 - p) + sigmoid * s * (1 - s) * (1 - 2 * s)
    return matrix + first.T @ np.diag(second * bend) @ first


@numpy
def _all_pairs(net, x, key):
    product = curvature.hessian(functools.partial(score, net), x)
    pairs = curvature.top_eigenpairs(product, x, key=key, num=SIZE, steps=SIZE)
    return *pairs, jax.grad(score, 1)(net, x)


def all_pairs(net, x=(), key=KEY):
    """Values, vectors and residuals of the input Hessian, and the gradient."""
    return _all_pairs(net, np.append(x, np.zeros(SIZE - len(x))), key)


@X64
def test_peers_c9_as_many_steps_as_dimensions_give_all_eigenvalues(symmetric):
    matrix = symmetric(drawn(SIZE))
    values, vectors, residuals, _ = all_pairs(network(matrix))
    np.testing.assert_allclose(values, drawn(SIZE), atol=1e-12)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(SIZE), atol=1e-10)
    np.testing.assert_allclose(vectors @ matrix, values[:, None] * vectors, atol=1e-10)
    assert np.max(residuals) < 1e-10


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_the_ends_of_the_spectrum_by_name_and_trees(which, symmetric):
    matrix = symmetric(drawn(8))

    def matvec(tree):
        image = matrix @ jnp.concatenate([tree["a"].reshape(4), tree["b"]])
        return {"a": image[:4].reshape(2, 2), "b": image[4:]}

    like = {"a": np.zeros((2, 2), np.float32), "b": np.zeros(4, np.float32)}
    values, vectors, _ = jax.tree.map(
        np.asarray,
        curvature.top_eigenpairs(matvec, like, key=KEY, num=3, which=which),
    )
    expected = np.sort(drawn(8))[:: -1 if which == "largest" else 1]
    np.testing.assert_allclose(values, expected[:3], atol=1e-4)
    assert vectors["a"].shape == (3, 2, 2) and vectors["b"].shape == (3, 4)
    flat = np.concatenate([vectors["a"].reshape(3, 4), vectors["b"]], axis=1)
    np.testing.assert_allclose(flat @ matrix, values[:, None] * flat, atol=1e-4)


@X64
def test_residuals_are_those_of_the_vectors_and_bound_the_error(symmetric):
    for seed in range(4):
        exact = np.random.default_rng(seed).normal(size=60)
        matrix = symmetric(exact)
        values, vectors, residuals = pairs_of(matrix, num=3, steps=12)
        left = vectors @ matrix - values[:, None] * vectors
        np.testing.assert_allclose(residuals, np.linalg.norm(left, axis=1), rtol=1e-6)
        nearest = np.abs(values[:, None] - exact).min(axis=1)
        assert np.all(nearest <= residuals) and np.max(residuals) > 1e-3


@X64
def test_peers_c13_fragility_9_1_matfrees_lanczos_and_lobpcg_agree(symmetric):
    # from its own start, so to what a Krylov space of 12 steps knows of three outliers
    values = np.append(np.linspace(-1, 1, 57), [-20.0, 30.0, 50.0])
    matrix = symmetric(values)
    ours = pairs_of(matrix, num=3, steps=12).values
    start = np.random.default_rng(1).normal(size=60)
    solver = eig.eigh_partial(decomp.tridiag_sym(12, custom_vjp=False))
    theirs, _ = numpy(lambda start: solver(lambda v: matrix @ v, start))(start)
    np.testing.assert_allclose(ours, theirs[[-1, -2, 0]], rtol=1e-10)
    np.testing.assert_allclose(ours, values[[-1, -2, -3]], rtol=1e-10)
    block = np.random.default_rng(2).normal(size=(60, 2))
    above, _ = linalg.lobpcg(np.asarray(matrix), block, tol=1e-6, maxiter=200)
    below, _ = linalg.lobpcg(-np.asarray(matrix), block[:, :1], tol=1e-6, maxiter=200)
    np.testing.assert_allclose(ours, [*np.sort(above)[::-1], *-below], rtol=1e-10)


# single precision, all of one program


def single(matrix, scale=1.0, key=KEY):
    matrix, scale = np.float32(matrix), np.float32(scale)
    return pairs_of(matrix, scale, key, num=8, steps=12)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_an_exhausted_krylov_space_gives_no_nan_and_no_ghosts(rank, symmetric):
    values, vectors, residuals = single(symmetric(drawn(40, rank)))
    np.testing.assert_allclose(values, drawn(40, rank)[:8], atol=2e-5)
    assert np.isfinite(vectors).all()
    # the random diagonal turns vectors by its size, 256 roundings
    assert np.max(residuals) < 256 * np.finfo(np.float32).eps * abs(values[0])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_the_scale_of_the_operator_does_not_matter(scale, symmetric):
    found = single(symmetric(drawn(40, 3)), scale)
    np.testing.assert_allclose(found.values[:3], scale * drawn(40, 3)[:3], rtol=1e-4)
    assert np.max(found.residuals) < 1e-4 * scale * abs(drawn(40)[0])


@pytest.mark.parametrize("diagonal", [40 * [2.0], 20 * [3.0] + 20 * [0.0]])
def test_equal_eigenvalues_are_no_special_case(diagonal):
    for key in jax.random.split(KEY, 30):
        values, vectors, residuals = single(np.diag(diagonal), 1, key)
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(8), atol=1e-4)
        nearest = np.abs(values[:, None] - np.unique(diagonal)).min(axis=1)
        assert np.max(nearest) < 1e-5 and np.max(residuals) < 1e-3
        # after the first of each, fresh directions have something of all of them
        assert np.sum(values > 1) >= 6


# networks whose Hessians are known, all of one program


@X64
def test_fragility_9_5_steps_along_the_first_eigenvector_of_the_golden_network():
    unit, pixel = np.arange(8.0), np.arange(16.0)
    x = 0.5 + 0.5 * np.sin(0.3 * pixel)
    first = np.sin(0.7 * (unit[:, None] + 1) * (pixel + 1))
    second = np.cos(0.5 * (unit + 1))
    golden = network(0, first, second, 0.1 * np.cos(unit), beta=4.0)
    values, vectors, _, gradient = all_pairs(golden, x)
    assert np.linalg.norm(gradient) == pytest.approx(3.42653294, abs=1e-8)
    step = 0.05 * np.sign(vectors[0])
    moved = np.linalg.norm((step @ vectors.T * values) @ vectors)
    assert moved == pytest.approx(1.94208383, abs=1e-8)
    bound = 0.05 * abs(values[0]) * np.sum(np.abs(vectors[0]))
    assert bound == pytest.approx(1.88119223, abs=1e-6)


@X64
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), sigmoid=st.floats(0, 1), beta=st.floats(0.1, 10))
def test_the_trace_the_rayleigh_bounds_and_rotations_of_the_input(seed, sigmoid, beta):
    rng = np.random.default_rng(seed)
    matrix, rotation = rng.normal(size=(2, SIZE, SIZE))
    first, (bias, second) = rng.normal(size=(UNITS, SIZE)), rng.normal(size=(2, UNITS))
    x, v = rng.normal(size=(2, SIZE))
    q = np.linalg.qr(rotation)[0]
    matrix = matrix + matrix.T
    plain = network(matrix, first, second, bias, beta, sigmoid)
    turned = network(q.T @ matrix @ q, first @ q, second, bias, beta, sigmoid)
    values, vectors, residuals, _ = all_pairs(plain, x)
    exact = dense_hessian(plain, x)
    close = {"atol": 1e-10 * (1 + np.max(np.abs(values)))}
    np.testing.assert_allclose((vectors.T * values) @ vectors, exact, **close)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(exact), **close)
    np.testing.assert_allclose(values.sum(), np.trace(exact), **close)
    assert values.min() <= v @ exact @ v / (v @ v) <= values.max()
    again, _, _, _ = all_pairs(turned, q.T @ x)
    np.testing.assert_allclose(np.sort(again), np.sort(values), **close)


@X64
def test_a_batch_of_images_is_one_program_traced_once():
    weights, *xs = np.random.default_rng(0).normal(size=(5, UNITS, SIZE))
    xs = np.stack(xs)[:, 0].reshape(4, 2, 4, 2)
    traced = chex.assert_max_traces(n=1)(score)

    @numpy
    @jax.vmap
    def together(x, key):
        product = curvature.hessian(lambda z: traced(net, z.ravel()), x)
        return curvature.top_eigenpairs(product, x, key=key, num=2, steps=SIZE)

    net = network(0, weights, np.ones(UNITS))
    keys = jax.random.split(KEY, 4)
    for images in (xs, xs + 1):
        found = together(images, keys)
        assert found.vectors.shape == (4, 2, 2, 4, 2)
        for x, values, residuals in zip(images, found.values, found.residuals):
            exact = np.linalg.eigvalsh(dense_hessian(net, x.ravel()))[:-3:-1]
            np.testing.assert_allclose(values, exact, rtol=1e-10)
            assert np.max(residuals) < 1e-10


def test_nothing_is_unrolled():
    f = lambda x: jnp.sum(jnp.tanh(x) ** 2)

    def text(steps, num):
        run = lambda x: curvature.top_eigenpairs(
            curvature.hessian(f, x), x, key=KEY, steps=steps, num=num
        )
        return str(jax.make_jaxpr(run)(jnp.ones(200)))

    few, many = text(10, 2), text(100, 50)
    assert few.count("\n") == many.count("\n")


# condition numbers


def condition(matrix, damping=0.0):
    return curvature.condition_number(
        lambda v: matrix @ v, matrix[0], key=KEY, damping=damping, steps=8
    )


@X64
def test_the_condition_number_of_a_damped_operator(symmetric):
    outer, crowded = (
        [0.01, *np.linspace(50, 51, 10), 100.0],
        np.geomspace(0.01, 100, 12),
    )
    run = numpy(condition)
    for damping in (0.0, 1.0):
        exact = (100 + damping) / (0.01 + damping)
        found = run(symmetric(outer), damping)
        assert found.number == pytest.approx(exact, rel=1e-6)
        np.testing.assert_allclose(found.values, [0.01 + damping, 100 + damping])
        assert np.max(found.residuals) < 1e-6
        assert run(symmetric(crowded), damping).number < exact  # from below
    for indefinite in (symmetric(drawn(12)), symmetric(drawn(12, 3) ** 2)):
        assert np.isinf(run(indefinite).number)
        assert np.isfinite(run(indefinite, 20.0).number)


def test_an_indefinite_or_singular_operator_has_no_condition_number(symmetric):
    for matrix in (symmetric(drawn(8)), symmetric(drawn(8, 3) ** 2)):
        with pytest.raises(curvature.NotPositiveDefinite, match="`damping` 0 is "):
            condition(matrix)
    with pytest.raises(ValueError, match="`steps` is 8 and the dimension 1: a cond"):
        condition(np.ones((1, 1)))
    with pytest.raises(ValueError, match="`damping` is nan: it must be zero or more"):
        condition(np.eye(2), np.nan)


# requests that cannot be served


def test_a_zero_operator_raises_eagerly_and_gives_zeros_when_traced():
    weights, x = np.float32(np.random.default_rng(0).normal(size=(2, 8, 8)))
    score = lambda z: jnp.sum(jax.nn.relu(weights @ z))
    with pytest.raises(ascent.Stalled, match="piecewise linear.*smooth twin"):
        curvature.top_eigenpairs(curvature.hessian(score, x[0]), x[0], key=KEY)
    values, vectors, residuals = single(np.zeros((40, 40)))
    assert not values.any() and not residuals.any() and np.isfinite(vectors).all()
    jacobian = curvature.jacobian(jax.grad(score), x[0])
    with pytest.raises(ascent.Stalled, match="the operator is zero"):
        curvature.top_singular(jacobian, x[0], key=KEY)


def test_products_that_are_not_finite_raise_eagerly_and_show_when_traced():
    root = lambda x: jnp.sum(jnp.sqrt(x))
    x = np.float32([1, 0, 2, 3, 4, 5, 6, 7])
    with pytest.raises(FloatingPointError, match="not finite"):
        curvature.top_eigenpairs(curvature.hessian(root, x), x, key=KEY)
    broken = np.diag(40 * [1.0])
    broken[3, 4] = np.nan
    assert not np.isfinite(single(broken).values).any()


def test_what_cannot_be_asked_for_is_named():
    for num, steps in ((5, 4), (9, 32), (0, 4), (1.5, 4)):
        with pytest.raises(ValueError, match=f"`num` is {num}"):
            pairs_of(np.eye(8), num=num, steps=steps)
    for steps in (0, 3.5):
        with pytest.raises(ValueError, match=f"`steps` is {steps}"):
            pairs_of(np.eye(8), steps=steps)
    with pytest.raises(ValueError, match="`which` is 'middle': magnitude, largest"):
        curvature.top_eigenpairs(lambda v: v, np.ones(3), key=KEY, which="middle")


def test_peers_c16_memory_at_four_million_parameters():
    size, steps = 4_000_000, 8
    like = {
        "first": jax.ShapeDtypeStruct((1000, 3960), jnp.float32),
        "second": jax.ShapeDtypeStruct((3960, 10), jnp.float32),
        "bias": jax.ShapeDtypeStruct((400,), jnp.float32),
    }
    examples = jax.ShapeDtypeStruct((4096, 1000), jnp.float32)
    assert sum(leaf.size for leaf in like.values()) == size

    def loss(p, x):
        hidden = jnp.tanh(x @ p["first"])
        return jax.nn.logsumexp(hidden @ p["second"]) + jnp.sum(p["bias"] ** 2)

    pairs = lambda p, x: curvature.top_eigenpairs(
        curvature.mean_hessian(loss, p, x, batch_size=16), p, key=KEY, steps=steps
    )
    program = jax.jit(pairs).lower(like, examples).compile()
    vectors = program.memory_analysis().temp_size_in_bytes / (4 * size)
    # twice the basis (Matfree's layout and ours), what the iteration turns over, and
    # a product's tangents, cotangents and their sum; no Hessian
    assert vectors < 2 * steps + 16
