import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from protojax.mechanisms import ascent, curvature
from protojax.models import pretrained

KEY = jax.random.key(0)
SEEDS = jax.random.split(jax.random.key(1), 400)


@functools.partial(jax.jit, static_argnames=("steps", "probes"))
def jitted(values, **knobs):
    return curvature.spectral_density(lambda v: values * v, values, key=KEY, **knobs)


def spectrum(values, **knobs):
    """Of a diagonal operator: the vectors do not know of its axes."""
    return jax.tree.map(np.asarray, jitted(values, **knobs))


densities, masses = jax.jit(curvature.density), jax.jit(curvature.mass)


def grid(low, high):
    """Of one length, so that the programs above are compiled once."""
    return np.float32(np.linspace(low, high, 400))


def test_peers_c9_as_many_steps_as_dimensions_give_all_eigenvalues():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(12, 12))
    matrix = jnp.float32(matrix + matrix.T)
    exact = np.linalg.eigvalsh(np.float64(matrix))
    for steps in (12, 64):
        found = jax.jit(
            lambda m: curvature.spectral_density(
                lambda v: m @ v,
                m[0],
                key=KEY,
                steps=steps,  # noqa: B023
                probes=2,
            )
        )(matrix)
        np.testing.assert_allclose(found.nodes, np.tile(exact, (2, 1)), atol=1e-5)
        np.testing.assert_allclose(found.weights, 1 / 12)
    whole = curvature.average(found, lambda value: value**3)
    assert float(whole.value) == pytest.approx(np.mean(exact**3), rel=1e-5)
    assert whole.error == 0  # all of them: nothing is random
    # Its density differs by less than 5e-2 in L1 from that of the eigenvalues.
    at = grid(exact[0] - 2, exact[-1] + 2)
    drawn = densities(found, at, width=0.3).value
    bumps = np.exp(-((at[:, None] - exact) ** 2) / 0.18) / np.sqrt(0.18 * np.pi)
    assert np.sum(np.abs(drawn - bumps.mean(1))) * (at[1] - at[0]) < 5e-2


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-9, 1.0, 1e9]))
def test_the_moments_of_each_direction_are_exact_to_degree_2_m_minus_1(seed, scale):
    with jax.enable_x64(True):
        # one-sided, so that no moment is small by cancellation
        values = scale * (1.5 + np.random.default_rng(seed).uniform(-1, 1, 40))
        few = spectrum(values, steps=5, probes=3)
        many = spectrum(values, steps=30, probes=3)  # of the same directions
        for degree in range(10):
            moments = [
                np.sum(found.weights * (found.nodes / scale) ** degree, 1)
                for found in (few, many)
            ]
            np.testing.assert_allclose(*moments, rtol=1e-11)
        least, most = np.min(values), np.max(values)
        assert np.all((least <= few.nodes) & (few.nodes <= most))


def test_one_direction_is_the_quadrature_of_its_own_measure():
    """Its first moments are those of `v A^p v`, which nothing here computes."""
    with jax.enable_x64(True):
        matrix = np.random.default_rng(1).normal(size=(30, 30))
        matrix = jnp.asarray(matrix + matrix.T)
        found = jax.tree.map(
            np.asarray,
            jax.jit(
                lambda key: curvature.spectral_density(
                    lambda v: matrix @ v, matrix[0], key=key, steps=4, probes=400
                )
            )(KEY),
        )
        np.testing.assert_allclose(np.sum(found.weights, 1), 1, rtol=1e-12)
        for degree in (1, 2):
            power = np.linalg.matrix_power(matrix, degree)
            moments = np.sum(found.weights * found.nodes**degree, 1)
            # On the sphere in N dimensions: the mean tr(B) / N, and the variance
            # 2 (N |B|^2 - tr(B)^2) / (N^2 (N + 2)).
            mean = np.trace(power) / 30
            square = 2 * (30 * np.sum(power**2) - np.trace(power) ** 2) / (900 * 32)
            assert np.mean(moments) == pytest.approx(
                mean, abs=4 * (square / 400) ** 0.5
            )
            # Kurtosis up to 15 makes a variance of 400 known to 19 %: three of these.
            assert np.var(moments) == pytest.approx(square, rel=0.57)


SPECTRA = {
    "outliers": np.concatenate([np.linspace(3, 9, 6), np.cos(np.arange(114.0)) / 3]),
    "rank 1": np.concatenate([[1.0], np.zeros(119)]),
    "polynomial": 1 / np.arange(1.0, 121) ** 2,
    "two equal": np.repeat([-1.0, 2.0], 60),
}


def test_the_interval_of_an_average_holds_in_93_of_100_seeds():
    values = np.stack(list(SPECTRA.values()))
    functions = {
        "log": lambda value: np.log1p(value**2),
        "above": lambda value: np.where(value > 0.5, 1.0, 0.0),
        "square": lambda value: value**2,
    }

    def all_of(value):
        above = jnp.where(value > 0.5, 1.0, 0.0)
        return jnp.stack([jnp.log1p(value**2), above, value**2])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def averages(values, key):
        found = curvature.spectral_density(
            lambda v: values * v, values, key=key, steps=12, probes=4
        )
        return curvature.average(found, all_of)

    held = jax.tree.map(np.asarray, averages(jnp.float32(values), SEEDS))
    exact = np.stack([f(values).mean(1) for f in functions.values()], 1)[:, None]
    slack = 1e-5 * np.abs(exact)  # rounding, where nothing is random
    share = np.mean((held.low - slack <= exact) & (exact <= held.high + slack), 1)
    for each, row in zip(SPECTRA, share):
        for name, number in zip(functions, row):
            assert number >= 0.93, (name, each)


def test_peers_c10_two_equal_clusters_and_a_flat_spectrum():
    clusters = np.repeat([-1.0, 2.0], 60) + 0.01 * np.cos(np.arange(120.0))
    found = spectrum(jnp.float32(clusters), steps=16, probes=8)
    half = masses(found, grid(-0.5, 1.5), width=0.05)
    assert np.all((half.low < 0.5) & (half.high > 0.5))
    np.testing.assert_allclose(half.value, half.value[0], rtol=1e-5)

    flat = spectrum(jnp.linspace(0, 1, 120), steps=16, probes=8)
    inside = grid(0.1, 0.9)
    drawn = densities(flat, inside, width=0.05)
    # on the sphere sqrt(2 / 120 / 8 (1 / (2 sqrt(pi) 0.05) - 1)) = 0.1 is expected
    assert np.max(drawn.error) < 0.2  # twice that, and the wings of the quadrature:
    np.testing.assert_allclose(drawn.value, 1, atol=0.4)
    ramp = masses(flat, inside, width=0.02)
    np.testing.assert_allclose(ramp.value, inside, atol=0.04)


def test_peers_c15_a_known_spectrum_within_its_band():
    """A hundred eigenvalues in a bulk and five outliers, as the gallery draws them."""
    values = np.concatenate(
        [np.random.default_rng(2).beta(2, 5, 995), np.arange(2.0, 7)]
    )
    found = spectrum(jnp.float32(values), steps=48, probes=8)
    at, width = grid(-1, 8), 0.08
    drawn = densities(found, at, width=width)
    bumps = np.exp(-((at[:, None] - values) ** 2) / (2 * width**2))
    exact = np.mean(bumps, 1) / (width * np.sqrt(2 * np.pi))
    slack = 1e-3  # of the quadrature, which the band does not promise
    inside = (drawn.low - slack <= exact) & (exact <= drawn.high + slack)
    assert np.mean(inside) > 0.97
    largest = np.sort(np.asarray(found.nodes), 1)[:, -5:]
    np.testing.assert_allclose(largest, np.tile(np.arange(2.0, 7), (8, 1)), atol=1e-4)


def test_the_mass_is_the_integral_of_the_density():
    found = spectrum(jnp.float32(SPECTRA["outliers"]), steps=16, probes=8)
    at, width = grid(-1, 10), 0.15  # five points on each bump
    drawn = densities(found, at, width=width)
    summed = masses(found, at, width=width)
    area = integrate.cumulative_simpson(drawn.value, x=at, initial=0)
    np.testing.assert_allclose(summed.value, area, atol=1e-3)
    assert float(summed.value[-1]) == pytest.approx(1, abs=1e-5)
    assert np.all(np.diff(summed.value) >= -1e-6)
    by_default = densities(found, at).value
    span = np.max(found.nodes) - np.min(found.nodes)
    np.testing.assert_allclose(
        by_default, densities(found, at, width=span / 100).value, rtol=1e-4, atol=1e-6
    )


def test_peers_c13_the_logarithm_of_a_determinant():
    values = jnp.float32(1 + np.random.default_rng(3).uniform(0, 9, 200) ** 2)
    found = spectrum(values, steps=16, probes=8)
    logarithm = jax.tree.map(lambda e: 200 * e, curvature.average(found, jnp.log))
    exact = np.sum(np.log(np.float64(values)))
    assert logarithm.low < exact < logarithm.high
    assert float(logarithm.value) == pytest.approx(exact, rel=0.05)
    with pytest.raises(FloatingPointError, match="the nodes go from -"):
        curvature.average(spectrum(-values, steps=16, probes=8), jnp.log)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_scale_of_the_operator_does_not_matter(scale):
    values = jnp.float32(scale * SPECTRA["outliers"])
    found = spectrum(values, steps=16, probes=8)
    np.testing.assert_allclose(found.nodes[:, -1] / scale, 9, rtol=1e-4)
    unit = spectrum(jnp.float32(SPECTRA["outliers"]), steps=16, probes=8)
    np.testing.assert_allclose(found.nodes / scale, unit.nodes, atol=1e-3)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_an_exhausted_krylov_space_has_no_ghosts(rank):
    values = jnp.float32(np.arange(120) < rank)
    found = spectrum(values, steps=16, probes=8)
    assert np.isfinite(found.nodes).all() and np.isfinite(found.weights).all()
    above = np.sum(np.asarray(found.nodes) > 0.5, 1)
    assert np.all(above <= rank)
    share = curvature.average(found, lambda value: jnp.where(value > 0.5, 1.0, 0.0))
    assert share.low <= rank / 120 <= share.high
    np.testing.assert_allclose(
        np.minimum(np.abs(found.nodes), np.abs(found.nodes - 1)), 0, atol=1e-5
    )


def test_any_tree_and_vmap():
    like = {"a": jnp.zeros((3, 20)), "b": jnp.zeros(40)}
    twice = lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree)
    one = lambda key: curvature.spectral_density(
        twice, like, key=key, steps=4, probes=2
    )
    found = jax.jit(jax.vmap(one))(SEEDS[:3])
    assert found.nodes.shape == found.weights.shape == (3, 2, 4)
    np.testing.assert_allclose(found.nodes, 2, rtol=1e-5)
    assert found.dimension.tolist() == [100, 100, 100]


def test_products_ask_for_the_highest_precision():
    matrix = jnp.ones((40, 40))
    text = str(
        jax.make_jaxpr(
            lambda key: curvature.spectral_density(
                lambda v: matrix @ v, matrix[0], key=key, steps=8
            )
        )(KEY)
    )
    assert text.count("dot_general") == text.count("Precision.HIGHEST, Prec") > 3


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_zero_and_infinite_operators_raise_eagerly_and_show_when_traced(size):
    v = jnp.ones(size)  # up to two it is exact
    scaled = lambda c: curvature.spectral_density(
        lambda u: c * u, v, key=KEY, steps=2, probes=1
    )
    with pytest.raises(ascent.Stalled, match="operator is zero.*smooth twin"):
        scaled(0.0)
    with pytest.raises(FloatingPointError, match="product with the operator is not"):
        scaled(jnp.nan)
    traced = jax.jit(scaled)
    assert not np.any(traced(0.0).nodes) and np.all(np.isnan(traced(jnp.nan).nodes))


def test_what_cannot_be_drawn_is_named():
    few = functools.partial(curvature.spectral_density, key=KEY, steps=2, probes=1)
    size, v = 2, jnp.ones(2)
    with pytest.raises(ValueError, match="`steps` is 0"):
        few(lambda v: v, v, steps=0)
    with pytest.raises(ValueError, match="`probes` is 0"):
        few(lambda v: v, v, probes=0)
    alone = jax.jit(lambda v: few(lambda v: v, v))(v)
    with pytest.raises(ValueError, match="an error takes `probes` of 2 or more"):
        curvature.density(alone, v)
    pair = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), alone[:2])
    with pytest.raises(ValueError, match="`width` is 0"):
        curvature.mass(curvature.Spectrum(*pair, jnp.array(size)), v, width=0)


@pytest.mark.realdata
@pytest.mark.slow
def test_peers_c14_a_trained_network_has_a_few_outliers_above_its_bulk(data_folder):
    """ResNet-20 on CIFAR-10: a top eigenvalue far above the rest (PyHessian's 195)."""
    model, variables = pretrained.cifar10_resnet(
        data_folder / "cifar10_resnet20.npz", depth=20
    )
    images = np.load(data_folder / "cifar10.npz")
    x = jnp.float32(images["x_test"][:32] / 255)
    y = jnp.asarray(images["y_test"][:32])

    def loss(params):
        apply = functools.partial(model.apply, {**variables, "params": params})
        return -jnp.mean(jax.nn.log_softmax(jax.vmap(apply)(x))[jnp.arange(32), y])

    @jax.jit
    def both(params):
        matvec = curvature.hessian(loss, params)
        found = curvature.spectral_density(matvec, params, key=KEY, steps=20, probes=2)
        return found, curvature.top_eigenpairs(matvec, params, key=KEY).values[0]

    found, top = both(variables["params"])
    assert found.dimension == 269722
    np.testing.assert_allclose(found.nodes[:, -1], top, rtol=1e-2)
    crowd = curvature.mass(found, 0.05 * top[None], width=1e-3 * top)
    assert crowd.value[0] > 0.99
    assert -0.5 * top < found.nodes[0, 0] < 0 < top
