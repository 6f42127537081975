"""Influence functions against leaving out, closed forms and dense Hessians."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from protojax import curvature, influence

KEY = jax.random.key(0)


def squares(w, example):
    """Least squares of one example: 1/2 (w x - y)^2."""
    return 0.5 * (w @ example["x"] - example["y"]) ** 2


def regression(count=30, width=4, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, width))
    y = x @ rng.normal(size=width) + noise * rng.normal(size=count)
    test = {"x": rng.normal(size=width), "y": np.array(0.3)}
    return {"x": x, "y": y}, test


def as_float32(tree):
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            leaf, jnp.float32 if np.asarray(leaf).dtype.kind == "f" else jnp.int32
        ),
        tree,
    )


def ridge(train, damping=0.0):
    x, y = train["x"], train["y"]
    hessian = x.T @ x / len(x) + damping * np.eye(x.shape[1])
    return np.linalg.solve(hessian, x.T @ y / len(x)), hessian


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def by_gradients(loss, params, train, test, **knobs):
    """Influences by conjugate gradients on the whole Hessian."""
    matvec = curvature.mean_hessian(loss, params, train, batch_size=16)
    inverse = functools.partial(curvature.solve, matvec, **knobs)
    return influence.of_training(loss, params, train, test, inverse, batch_size=16)


def test_fragility_9_8_leaving_out_is_the_influence_but_for_the_leverage():
    """Sherman and Morrison: the exact step is the first-order one over 1 - h."""
    train, test = regression()
    w, hessian = ridge(train)
    with jax.enable_x64(True):
        found = by_gradients(squares, w, train, test, steps=20, tol=1e-12)
        values = np.asarray(found.values)
    count = len(values)
    slope = (test["x"] @ w - test["y"]) * test["x"]
    for i in range(count):
        rest = {name: np.delete(leaf, i, axis=0) for name, leaf in train.items()}
        leverage = train["x"][i] @ np.linalg.solve(count * hessian, train["x"][i])
        moved = slope @ (ridge(rest)[0] - w)
        np.testing.assert_allclose(values[i] / count, moved * (1 - leverage), rtol=1e-9)


def test_peers_d2_linear_influences_follow_exact_leaving_out():
    """110 x 10 as in torch-influence, drawn by us: the leverages average 1/11."""
    train, test = regression(count=110, width=10, seed=12345, noise=3.0)
    w, _ = ridge(train)
    found = by_gradients(squares, *as_float32((w, train, test)), steps=30)
    gains = []
    for i in range(110):
        rest = {name: np.delete(leaf, i, axis=0) for name, leaf in train.items()}
        gains.append(squares(ridge(rest)[0], test) - squares(w, test))
    check_against_leaving_out(found.values / 110, gains, 0.99)


def logistic(w, example):
    """Cross-entropy of a logistic unit."""
    return jax.nn.softplus(-example["sign"] * (w @ example["x"]))


def test_peers_d2_logistic_influences_follow_retraining():
    """Every example is left out of an L2-regularized training that SciPy does."""
    rng = np.random.default_rng(12345)
    x = rng.normal(size=(110, 10))
    sign = np.sign(x @ rng.normal(size=10) + 2 * rng.normal(size=110))
    x_test, damping = rng.normal(size=10), 0.02

    def trained(weights, start):
        def objective(w):
            margins = sign * (x @ w)
            slopes = -sign * scipy.special.expit(-margins) * weights
            value = np.logaddexp(0, -margins) @ weights / 110 + damping / 2 * w @ w
            return value, x.T @ slopes / 110 + damping * w

        found = scipy.optimize.minimize(
            objective, start, jac=True, method="BFGS", options={"gtol": 1e-9}
        )
        return found.x

    w = trained(np.ones(110), np.zeros(10))
    at_test = lambda w: np.logaddexp(0, -x_test @ w)
    gains = [at_test(trained(1 - np.eye(110)[i], w)) - at_test(w) for i in range(110)]
    train = {"x": x, "sign": sign}
    test = {"x": x_test, "sign": np.array(1.0)}
    found = by_gradients(
        logistic, *as_float32((w, train, test)), damping=damping, steps=40
    )
    check_against_leaving_out(found.values / 110, gains, 0.99)


def check_against_leaving_out(predicted, gains, least):
    """Signs and order agree; the gains are larger by about 1 / (1 - leverage)."""
    predicted, gains = np.asarray(predicted), np.asarray(gains)
    assert np.corrcoef(predicted, gains)[0, 1] > least
    slope = np.sum(predicted * gains) / np.sum(predicted**2)
    # The mean leverage is at most 1/11, that of the few that matter up to 3 times it.
    assert 1.0 < slope < 1.4
    large = np.abs(predicted) > 0.1 * np.abs(predicted).max()
    assert np.all(np.sign(gains[large]) == np.sign(predicted[large]))


def test_no_network_is_needed_but_a_tree_of_parameters():
    loss = lambda p, z: p["a"] * z[0] + p["b"]["c"] * z[1]
    part_loss, part = influence.restrict(
        loss,
        {"a": jnp.array(1.0), "b": {"c": jnp.array(2.0)}},
        lambda name: name == "b/c",
    )
    assert list(part) == ["b/c"]
    assert float(part_loss({"b/c": jnp.array(5.0)}, jnp.array([1.0, 10.0]))) == 51.0
    with pytest.raises(ValueError, match="chooses none of the parameters: they are a,"):
        influence.restrict(loss, {"a": 1.0, "b": {"c": 2.0}}, lambda name: "d" in name)


@pytest.mark.optimized
def test_memory_does_not_grow_with_the_training_set_times_the_parameters():
    params, wide = jnp.zeros(4000), 4000
    loss = lambda w, example: jnp.tanh(w @ example["x"]) - example["y"]

    def values(train, test):
        matvec = curvature.mean_hessian(loss, params, train, batch_size=8)
        inverse = lambda b: curvature.Solution(matvec(b), jnp.array(0.0), 1, True)
        return influence.of_training(
            loss, params, train, test, inverse, batch_size=8
        ).values

    def temporary(count):
        train = {"x": jnp.zeros((count, wide)), "y": jnp.zeros(count)}
        test = {"x": jnp.zeros(wide), "y": jnp.zeros(())}
        program = jax.jit(values).lower(train, test).compile()
        return program.memory_analysis().temp_size_in_bytes

    # A training gradient is 16 kB: 448 more of them would be 7 MB.
    assert temporary(512) - temporary(64) < 448 * 16000 / 4


def test_fewer_examples_than_parameters_need_damping_for_conjugate_gradients_too():
    train, test = as_float32(regression(count=3, width=5))
    w = jnp.ones(5)
    inverse = functools.partial(
        curvature.solve, curvature.mean_hessian(squares, w, train), steps=50
    )
    with pytest.raises(curvature.NotConverged, match="damping"):
        influence.of_training(squares, w, train, test, inverse)
    damping = jnp.array([0.0, 0.1])  # known to no trace
    found = jax.jit(
        jax.vmap(lambda d: by_gradients(squares, w, train, test, damping=d, steps=50))
    )(damping)
    assert found.converged.tolist() == [False, True]


def test_too_few_steps_say_so():
    train, test = as_float32(regression(width=8))
    w = jnp.zeros(8)
    matvec = curvature.mean_hessian(squares, w, train)
    solve = functools.partial(curvature.solve, matvec, steps=2)
    with pytest.raises(curvature.NotConverged, match="raise `steps`"):
        influence.of_training(squares, w, train, test, solve)
    lissa = functools.partial(influence.lissa, matvec, lambda v, **_: matvec(v))
    with pytest.raises(curvature.NotConverged, match=r"above `tol` \(0.05\)"):
        lissa(key=KEY, scale=30.0, steps=3)(jnp.ones(8))
    far = jax.jit(lissa(key=KEY, scale=0.01, steps=9))(jnp.ones(8))  # it diverges
    assert not far.converged and far.residual > 1


def test_an_inverse_of_ones_own_that_did_not_converge_is_not_read():
    train, test = as_float32(regression())
    bad = lambda b: curvature.Solution(b, jnp.array(0.5), 1, jnp.array(False))
    with pytest.raises(curvature.NotConverged, match="relative residual of 0.5"):
        influence.of_training(squares, jnp.zeros(4), train, test, bad)


def test_an_empty_training_set_is_named():
    empty = {"x": jnp.zeros((0, 4)), "y": jnp.zeros(0)}
    one = {"x": jnp.zeros(4), "y": jnp.zeros(())}
    w, keep = jnp.zeros(4), lambda b: curvature.Solution(b, 0.0, 0, True)
    with pytest.raises(ValueError, match=r"`train` has leading axes \[\(0,\)\]"):
        influence.of_training(squares, w, empty, one, keep)
    with pytest.raises(ValueError, match="non-zero number of examples"):
        _sampled(squares, w, empty, size=1)
    with pytest.raises(ValueError, match="`features` is empty"):
        influence.softmax_hessian({"kernel": jnp.zeros((4, 2))}, jnp.zeros((0, 4)))
    uneven = {"x": jnp.zeros((3, 4)), "y": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"leading axes \[\(2,\), \(3,\)\]"):
        influence.of_training(squares, w, uneven, one, keep)


def _sampled(loss, params, train, size):
    return influence.sampled_hessian(loss, params, train, size=size)


def test_small_gradients_do_not_pass_for_solved():
    """In single precision squares below 1e-38 are zero, and with them residuals."""
    twice = lambda v, **_: 2 * v
    walk = functools.partial(influence.lissa, twice, twice, key=KEY)
    small = jnp.full(3, 1e-25)
    with pytest.raises(curvature.NotConverged, match="relative residual is 0.9"):
        walk(scale=40.0, steps=1)(small)
    np.testing.assert_allclose(walk(scale=4.0, steps=60)(small).x, 5e-26, rtol=1e-5)
    outside = influence.projected(PAIRS)(jnp.array([1e-25, 1e-25]))
    assert float(outside.residual) == pytest.approx(0.5**0.5, rel=1e-6)


def test_peers_c8_all_inverses_of_the_hessian_of_a_sum_of_sines():
    x = jnp.array([-0.3, -1.2, -2.0, -2.9])  # where -sin(x) is positive
    product = curvature.hessian(lambda z: jnp.sum(jnp.sin(z)), x)
    pairs = curvature.top_eigenpairs(product, x, key=KEY, num=4)
    walk = {"key": KEY, "scale": 1.0, "steps": 60}
    for inverse in (
        functools.partial(curvature.solve, product),
        influence.projected(pairs),
        influence.projected(influence.all_eigenpairs(jnp.diag(-jnp.sin(x)), x)),
        influence.lissa(product, lambda v, **_: product(v), **walk),
    ):
        np.testing.assert_allclose(inverse(jnp.ones(4)).x, -1 / jnp.sin(x), rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: influence.projected(PAIRS, damping=-1.0), "`damping` is -1.0"),
        (lambda: lissa(damping=-1.0, scale=1.0), "`damping` is -1.0"),
        (lambda: lissa(scale=0.0), "`scale` is 0.0: it must be above zero"),
        (lambda: lissa(scale=1.0, steps=0), "`steps` is 0"),
        (lambda: _sampled(squares, None, jnp.zeros(3), 0), "`size` is 0"),
        (
            lambda: influence.of_training(
                squares, None, jnp.zeros(3), None, None, batch_size=0
            ),
            "`batch_size` is 0",
        ),
    ],
)
def test_bad_knobs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


PAIRS = curvature.Eigenpairs(jnp.ones(1), jnp.eye(2)[:1], jnp.zeros(1))
lissa = functools.partial(influence.lissa, jnp.negative, jnp.negative, key=KEY)
