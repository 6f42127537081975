import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matfree import stochtrace
from scipy import stats

from protojax.mechanisms import ascent, curvature
from protojax.mechanisms.curvature import stochastic

KEY = jax.random.key(0)
SEEDS = jax.random.split(jax.random.key(1), 400)
SIZE = 100
NUMBERS = np.arange(1, SIZE + 1)
SPECTRA = {
    "flat": np.where(NUMBERS % 2, 1.0, -1.0),
    "rank 1": np.where(NUMBERS <= 1, 1.0, 0.0),
    "rank 5": np.where(NUMBERS <= 5, 1 / NUMBERS, 0),
    "rank 20": np.where(NUMBERS <= 20, 1 / NUMBERS, 0),
    "ten equal": np.where(NUMBERS <= 10, 1.0, 0.0),
    "polynomial": 1 / NUMBERS**2,
    "exponential": 0.8**NUMBERS,
    "outliers": np.where(NUMBERS <= 9, 9.0 + NUMBERS, np.cos(3.0 * NUMBERS) / 3),
}


def rotated(values, seed=0):
    size = len(values)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return jnp.float32((basis * values) @ basis.T)


def holds(estimate, exact, slack):
    return (estimate.low - slack <= exact) & (exact <= estimate.high + slack)


@functools.partial(jax.jit, static_argnames=("rank", "probes"))
def traces(diagonals, keys, **knobs):
    """Of diagonal operators: as the vectors are spherical, of all of these spectra."""
    one = lambda values, key: curvature.trace(
        lambda v: values * v, values, key=key, **knobs
    )
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(diagonals, keys)


@functools.partial(jax.jit, static_argnames=("rank", "probes"))
def diagonals(matrices, keys, **knobs):
    one = lambda matrix, key: curvature.diagonal(
        lambda v: matrix @ v, matrix[0], key=key, **knobs
    )
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(matrices, keys)


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "rank, probes", [(0, 16), (4, 4), slow(0, 2), slow(8, 8)], ids=str
)
def test_the_interval_of_a_trace_holds_in_93_of_100_seeds(rank, probes):
    values = np.stack(list(SPECTRA.values()))
    found = traces(jnp.float32(values), SEEDS, rank=rank, probes=probes)
    # Where the space holds the whole operator, rounding is all that is left.
    slack = 4 * np.finfo(np.float32).eps * np.sum(np.abs(values), 1)
    held = holds(found, np.sum(values, 1)[:, None], slack[:, None])
    for name, share in zip(SPECTRA, np.mean(held, 1)):
        assert share >= 0.93, name


@pytest.mark.parametrize("rank, probes", [(4, 4), slow(0, 3), slow(8, 8)], ids=str)
def test_the_interval_of_a_diagonal_holds_in_93_of_100_seeds(rank, probes):
    names = ("flat", "rank 1", "rank 20", "ten equal", "polynomial", "outliers")
    matrices = jnp.stack([rotated(SPECTRA[name]) for name in names])
    found = diagonals(matrices, SEEDS, rank=rank, probes=probes)
    exact = np.diagonal(matrices, axis1=1, axis2=2)
    slack = 4 * np.finfo(np.float32).eps * np.max(np.abs(exact), 1)
    held = holds(found, exact[:, None], slack[:, None, None])
    for name, share in zip(names, np.mean(held, (1, 2))):
        assert share >= 0.93, name


@pytest.mark.parametrize("rank", [4, slow(0), slow(8)])
def test_estimates_are_without_bias_and_their_errors_too(rank):
    values = np.stack(list(SPECTRA.values()))
    keys = jax.random.split(jax.random.key(3), 1000)
    found = traces(jnp.float32(values), keys, rank=rank, probes=2)
    error = np.asarray(found.value) - np.sum(values, 1)[:, None]
    count = error.shape[1]
    spread = np.sqrt(np.mean(error**2, 1))
    size = np.sum(np.abs(values), 1)
    # Four standard errors of a mean of 1000, and rounding.
    assert np.all(np.abs(np.mean(error, 1)) <= 4 * spread / count**0.5 + 1e-6 * size)
    claimed = np.sqrt(np.mean(np.square(found.error), 1))
    # The mean square of values with the kurtosis of a squared normal (15) is known to
    # a relative sqrt(14 / 1000) = 12 %, its root to 6 %: four of these.
    np.testing.assert_allclose(claimed, spread, rtol=0.24, atol=1e-6 * np.max(size))


def test_a_worst_case_of_rank_one_has_as_many_degrees_as_probes():
    """Its trace is a mean of squared normals, whose coverage is known in closed form.

    The estimate is `m` and its error `m sqrt(2 / P)`, where `P m` is chi-squared with
    P degrees; the square root makes it cover from a root of `m - t m sqrt(2/P) = 1`.
    """
    for probes in (2, 4, 8, 16, 64):
        estimate = stochastic.interval(
            jnp.array(1.0), jnp.array((2 / probes) ** 0.5), degrees=probes
        )
        width = float(estimate.high - estimate.low) / 2
        # |m - 1| <= width sqrt(m), as the error is the root of 2 mean(x^2) / P.
        ends = (np.array([-1, 1]) * width + np.sqrt(width**2 + 4)) / 2
        low, high = stats.chi2.cdf(probes * ends**2, probes)
        assert high - low >= 0.9495, probes


def test_a_space_is_worth_more_than_vectors_where_a_spectrum_decays():
    values = jnp.float32(np.stack(list(SPECTRA.values())))
    plain = traces(values, SEEDS, rank=0, probes=16)
    deflated = traces(values, SEEDS, rank=4, probes=4)  # half the products
    gain = dict(zip(SPECTRA, np.mean(plain.error, 1) / np.mean(deflated.error, 1)))
    assert gain["polynomial"] > 3
    assert gain["flat"] > 0.4  # costs a factor of two where there is nothing to find


def test_peers_c13_xtrace_is_as_accurate_and_its_spread_covers_too_rarely():
    """Matfree's, with as many products: why vectors are not used for both here."""
    names = ("flat", "polynomial", "exponential", "outliers")
    values = np.stack([SPECTRA[name] for name in names])
    xtrace = stochtrace.leave_one_out_xtrace()
    draw = stochtrace.sampler_normal(values[0].astype(np.float32), num=8)
    leave_one_out = stochtrace.estimator_leave_one_out_mean_and_sem(xtrace, draw)

    def both(diagonal, key):
        matvec = lambda v: diagonal * v
        ours = curvature.trace(matvec, diagonal, key=key, rank=8, probes=8)
        return ours, *leave_one_out(matvec, key)

    @jax.jit
    def each(values, keys):
        one = lambda v: jax.lax.map(lambda key: both(v, key), keys)
        return jax.lax.map(one, values)

    with jax.numpy_rank_promotion("allow"):  # theirs relies on it
        found = each(jnp.float32(values), SEEDS[:200])
    ours, theirs, error = jax.tree.map(np.asarray, found)
    exact = np.sum(values, 1)[:, None]
    rms = lambda value: np.sqrt(np.mean((value - exact) ** 2, 1))
    assert np.all(rms(ours.value) < 1.2 * rms(theirs))
    assert np.all(rms(theirs) < 1.5 * rms(ours.value))
    assert np.all(np.mean(holds(ours, exact, 0), 1) >= 0.93)
    held = np.abs(theirs - exact) <= stats.t.ppf(0.975, 7) * error
    # Each share of 200 is known to 0.025.
    assert np.all(np.mean(held, 1)[1:] < 0.95 - 2 * 0.025)


def test_peers_c13_as_many_products_as_dimensions_are_exact():
    matrix = rotated(SPECTRA["outliers"][:24])
    found, of_entries = both(matrix, KEY, rank=0, probes=24)
    assert float(found.value) == pytest.approx(float(jnp.trace(matrix)), rel=1e-6)
    assert found.low == found.value == found.high and found.error == 0
    np.testing.assert_allclose(of_entries.value, np.diagonal(matrix), rtol=1e-6)
    assert not np.any(of_entries.error)


def test_a_diagonal_operator_has_its_diagonal_from_any_signs():
    values = jnp.float32(SPECTRA["polynomial"])
    run = lambda values: curvature.diagonal(
        lambda v: values * v, values, key=KEY, rank=0, probes=2
    )
    found = jax.jit(run)(values)
    np.testing.assert_allclose(found.value, values, rtol=1e-6)
    assert np.max(found.error) < 1e-7


@functools.partial(jax.jit, static_argnames=("rank", "probes"))
def both(matrix, key, **knobs):
    matvec = lambda v: matrix @ v
    return (
        curvature.trace(matvec, matrix[0], key=key, **knobs),
        curvature.diagonal(matvec, matrix[0], key=key, **knobs),
    )


@settings(max_examples=12, deadline=None)
@given(
    rank=st.integers(0, 12),
    shift=st.floats(-10, 10, width=32),
    exponent=st.integers(-15, 15),
    seed=st.integers(0, 2**31 - 1),
)
def test_property_low_rank_plus_a_shift_is_exact(rank, shift, exponent, seed):
    """On what is left the operator is a multiple of one: no vector differs.

    Where two of the values all but coincide, fourteen steps in float32 leave some of
    their difference: 1.4e-4 of the size at most in four hundred draws, in all others
    1e-5. Without the fourteen the error is of the size itself.
    """
    rng = np.random.default_rng(seed)
    values = np.zeros(40)
    values[:rank] = rng.uniform(1, 2, rank) * np.array([1, -1] * 6)[:rank]
    scale = 10.0**exponent
    matrix = np.float64(rotated(values, seed)) + shift * np.eye(40)
    size = scale * np.max(np.abs(matrix))
    assume(np.max(np.abs(matrix)) > 1e-3)
    trace, diagonal = both(
        jnp.float32(scale * matrix), jax.random.key(seed), rank=14, probes=4
    )
    exact = np.diagonal(scale * matrix)
    assert np.isfinite(trace.error) and trace.low <= trace.value <= trace.high
    assert float(trace.value) == pytest.approx(np.sum(exact), abs=1e-3 * size)
    assert float(trace.error) < 1e-3 * size
    if not shift:
        np.testing.assert_allclose(diagonal.value, exact, atol=1e-3 * size)


def test_any_tree_and_vmap():
    matrix = rotated(SPECTRA["outliers"][:40])

    def matvec(tree):
        flat, unravel = jax.flatten_util.ravel_pytree(tree)
        return unravel(matrix @ flat)

    like = {"a": jnp.zeros((5, 6)), "b": jnp.zeros(10)}
    found = jax.jit(
        jax.vmap(lambda key: curvature.diagonal(matvec, like, key=key, rank=4))
    )(SEEDS[:30])
    assert found.value["a"].shape == found.low["a"].shape == (30, 5, 6)
    flat = jax.tree.map(
        lambda tree: np.concatenate([tree["a"].reshape(30, -1), tree["b"]], 1),
        found,
        is_leaf=lambda tree: isinstance(tree, dict),
    )
    assert np.mean(holds(flat, jnp.diagonal(matrix)[None], 0)) > 0.9


def test_products_ask_for_the_highest_precision():
    matrix = jnp.ones((40, 40))
    for estimate in (curvature.trace, curvature.diagonal):
        text = str(
            jax.make_jaxpr(
                lambda key: estimate(lambda v: matrix @ v, matrix[0], key=key)  # noqa: B023
            )(KEY)
        )
        assert text.count("dot_general") == text.count("Precision.HIGHEST, Prec") > 3


@pytest.mark.parametrize("estimate", [curvature.trace, curvature.diagonal])
def test_what_cannot_be_estimated_is_named(estimate):
    v = jnp.ones(6)
    few = functools.partial(estimate, key=KEY, rank=2, probes=2)
    with pytest.raises(ValueError, match="`probes` is 1: an interval takes two"):
        few(lambda v: v, v, probes=1)
    with pytest.raises(ValueError, match="`rank` is -1"):
        few(lambda v: v, v, rank=-1)
    with pytest.raises(ValueError, match="`matvec` gives 3 numbers"):
        few(lambda v: v[:3], v)
    with pytest.raises(ValueError, match="`like` has .* numbers of type int32"):
        few(lambda v: v, jnp.arange(6))


@pytest.mark.parametrize("estimate", [curvature.trace, curvature.diagonal])
@pytest.mark.parametrize("size", [4, slow(6)])  # up to four it is exact
def test_zero_and_infinite_operators_raise_eagerly_and_show_when_traced(estimate, size):
    v = jnp.ones(size)
    scaled = lambda c: estimate(lambda u: c * u, v, key=KEY, rank=2, probes=2)
    with pytest.raises(ascent.Stalled, match="operator is zero.*smooth twin"):
        scaled(0.0)
    with pytest.raises(FloatingPointError, match="product with the operator is not"):
        scaled(jnp.nan)
    traced = jax.jit(scaled)
    assert not np.any(traced(0.0).value) and not np.any(traced(0.0).error)
    assert np.all(np.isnan(traced(jnp.nan).value))


def test_a_trace_of_zero_is_stalled_by_probes_too():
    with pytest.raises(ascent.Stalled, match="operator is zero"):
        curvature.trace(lambda v: 0 * v, jnp.ones(6), key=KEY, rank=0, probes=2)


def test_a_hollow_operator_is_not_zero():
    swap = lambda v: v[::-1]
    assert curvature.trace(swap, jnp.ones(4), key=KEY).value == 0
