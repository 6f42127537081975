"""What is minimized, against closed forms, bounds and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from protojax import generation, images, metrics

BOARD = np.float32(np.indices((8, 8)).sum(0) % 2)[..., None]
RAMP = np.float32(np.indices((8, 8))[1])[..., None]


LOSSES = (
    generation.probability_variance,
    generation.logit_variance,
    generation.uniform_divergence,
)


def test_oracle_1_3_the_variance_of_probabilities():
    z = np.random.default_rng(0).normal(size=7).astype(np.float32)

    @jax.jit
    def of_all(z):
        both = [jax.value_and_grad(loss)(z) for loss in LOSSES]
        return both, generation.probability_variance(z, ddof=1)

    found, _ = of_all(z)
    p = np.exp(np.float64(z)) / np.exp(np.float64(z)).sum()
    np.testing.assert_allclose(found[0][0], np.var(p), rtol=1e-4)
    np.testing.assert_allclose(found[0][1], 2 / 7 * p * (p - np.sum(p**2)), atol=1e-7)
    np.testing.assert_allclose(found[1][0], np.var(z), rtol=1e-5)
    np.testing.assert_allclose(found[2][0], -np.log(7) - np.mean(np.log(p)), rtol=1e-4)
    even, _ = of_all(np.full(7, 3.0, np.float32))
    np.testing.assert_allclose(jax.tree.leaves(even)[0::2], 0, atol=1e-6)
    np.testing.assert_allclose([slope for _, slope in even], 0, atol=1e-7)
    for count, variance in ((10, 0.09), (1000, 9.99e-4)):
        one = np.zeros(count, np.float32)
        one[0] = 1e3
        (((value, _), *_), other) = of_all(one)
        np.testing.assert_allclose(value, variance, rtol=1e-5)
        np.testing.assert_allclose(value, (count - 1) / count**2, rtol=1e-5)
        np.testing.assert_allclose(other, 1 / count, rtol=1e-5)


def test_the_variance_of_probabilities_is_stationary_where_few_classes_share_all():
    ties = np.where(np.tri(6, dtype=bool), 0.0, -200.0)  # of 1, 2, ... of six classes

    @jax.jit
    @jax.vmap
    def both(z):
        return [jax.value_and_grad(loss)(z) for loss in LOSSES[:2]]

    (values, slopes), (_, others) = both(ties)
    np.testing.assert_allclose(slopes, 0, atol=1e-8)
    k = np.arange(1, 7)
    np.testing.assert_allclose(values, (1 / k - 1 / 6) / 6, atol=1e-7)
    assert np.all(np.abs(others[:-1]).max(1) > 10)


def test_oracle_7_6_F6_variation():
    @jax.jit
    @jax.vmap
    def of_all(x):
        return (
            images.total_variation(x),
            generation.high_frequency(x),
            generation.high_frequency(2 * x, size=jnp.square),
            jax.value_and_grad(generation.isotropic_high_frequency)(x),
        )

    total, mean, square, (smooth, slope) = of_all(np.stack([BOARD, RAMP, 0 * RAMP + 1]))
    np.testing.assert_array_equal(total, [112, 56, 0])
    # means over the 56 differences down, and over the 56 across
    np.testing.assert_allclose(mean, [112 / 56, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(square, [8, 4, 0], rtol=1e-6)
    np.testing.assert_allclose(smooth, [2**0.5, 1, 1e-4], rtol=1e-6)
    assert not slope[2].any()
    line = np.float32([[[1.0], [0.0], [1.0], [1.0]]])  # with nothing above it
    assert float(generation.high_frequency(line)) == pytest.approx(2 / 3)


def test_oracle_7_6_a_step_down_the_blur_penalty_blurs():
    x = np.random.default_rng(0).uniform(size=(6, 7, 2)).astype(np.float32)
    for width, total in ((3, 5.0), (5, 17.0)):
        kernel = np.full((width, width), 0.5)
        kernel[1:-1, 1:-1] = 1
        assert kernel.sum() == total
        ones = scipy.signal.convolve2d(np.ones((6, 7)), kernel, "same")
        sums = [scipy.signal.convolve2d(x[..., c], kernel, "same") for c in range(2)]
        penalty = functools.partial(generation.blur_penalty, width=width)
        step = jax.jit(jax.grad(penalty))(x)
        expected = 0.7 * x + 0.3 * np.stack([each / ones for each in sums], axis=-1)
        np.testing.assert_allclose(x - 0.3 * step, expected, atol=1e-5)
    with pytest.raises(ValueError, match="`width` is 4: pass an odd number"):
        generation.blur_penalty(x, width=4)
    with pytest.raises(ValueError, match="pass an image of two rows and columns"):
        generation.isotropic_high_frequency(x[:1])


def test_oracle_7_6_diversity():
    draw = np.random.default_rng(0)
    x = draw.uniform(size=(5, 4, 6)).astype(np.float32)
    of = jax.jit(jax.value_and_grad(generation.diversity))
    assert float(of(np.stack([x] * 3))[0]) == pytest.approx(-2, rel=1e-5)
    first, second = np.arange(6) < 3, np.arange(6) >= 3  # channels of their own
    apart, _ = of(np.stack([x * first, x * second, 0 * x]))
    assert float(apart) == pytest.approx(0, abs=1e-6)
    several = draw.uniform(size=(3, 5, 4, 6)).astype(np.float32)
    value, slope = of(several)
    assert -2 < float(value) < 0 and slope.any()
    changed = several.copy()  # places shuffled, and all of it scaled
    changed[1] = 7 * several[1].reshape(20, 6)[::-1].reshape(5, 4, 6)
    assert float(of(changed)[0]) == pytest.approx(float(value), rel=1e-5)
    several[0] = 0  # dead
    assert np.isfinite(of(several)[1]).all()
    with pytest.raises(ValueError, match="two images or more"):
        generation.diversity(several[:1])


def test_F7_rank_correlations():
    known = {0.0: ([0, 1, 0, 1], [1, 2, 1, 0]), -1.0: ([1, 2, 3, 4], [4, 3, 2, 1])}
    pairs = np.array([*known.values()], np.float32)[:, :, None]
    of = jax.jit(jax.vmap(lambda pair: metrics.rank_correlation(pair[0], pair[1])))
    np.testing.assert_allclose(of(pairs), [*known], atol=1e-6)
    tied = metrics.rank_correlation(*np.float32([[[-1, 1, 1]], [[0, 0, 2]]]))
    assert float(tied) == pytest.approx(0.5, abs=1e-6)


def test_F8_fidelity_is_one_for_what_a_linear_score_is_made_of_and_minus_one_reversed():
    draw = np.random.default_rng(0)
    x, weights = draw.normal(size=(2, 5, 6, 3)).astype(np.float32)
    made_of = ((x - 0.25) * weights).sum(-1)
    score = lambda z: jnp.sum(weights * z) + 3

    @jax.jit
    @jax.vmap
    def of(a):
        key = jax.random.key(0)
        return metrics.fidelity(score, x, a, key=key, baseline=0.25, samples=1000)

    other = draw.normal(size=(5, 6)).astype(np.float32)
    found = of(np.stack([made_of, -2 * made_of, other, 0 * other]))
    np.testing.assert_allclose(found[:2], [1, -1], atol=1e-5)
    # of any other map it is that of the single pixels, but for the draw: 0.02
    pixels = np.corrcoef(made_of.ravel(), other.ravel())[0, 1]
    assert float(found[2]) == pytest.approx(pixels, abs=0.07)
    assert np.isnan(found[3])
    for knobs, message in (
        ({"share": 0.01}, "`share` is 0.01, 0 of the map's 30 pixels"),
        ({"share": 1.0}, "30 of the map's 30 pixels: remove one or more, and not all"),
        ({"samples": 1}, "`samples` is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.fidelity(score, x, other, key=jax.random.key(0), **knobs)


def test_F8_a_perfect_explanation_deletes_the_class_at_once():
    """One pixel decides: with it gone nothing is left; the worst map takes it last."""
    fn = lambda x: jnp.stack([30 * x[1, 2, 0] - 20, jnp.zeros(())])
    x = jnp.ones((4, 4, 1))
    best = jnp.zeros((4, 4)).at[1, 2].set(1.0)
    of = jax.jit(lambda a: metrics.deletion(fn, x, a, 0, steps=16))
    right, wrong = of(best), of(1 - best)
    assert jnp.all(right.values[1:] < 1e-6) and float(right.area) < 1 / 16
    assert jnp.all(wrong.values[:-1] > 0.999) and float(wrong.area) > 15 / 16
