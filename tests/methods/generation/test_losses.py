"""What is minimized, against closed forms, bounds and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from protojax import generation, images, metrics

KEY = jax.random.key(0)
BOARD = jnp.asarray(np.indices((8, 8)).sum(0) % 2, jnp.float32)[..., None]
RAMP = jnp.broadcast_to(jnp.arange(8.0)[None, :, None], (8, 8, 1))


def test_oracle_1_3_the_variance_of_probabilities():
    z = jnp.asarray(np.random.default_rng(0).normal(size=7), jnp.float32)
    p = np.asarray(jax.nn.softmax(z), np.float64)
    slope = jax.grad(generation.probability_variance)(z)
    expected = 2 / 7 * p * (p - np.sum(p**2))
    np.testing.assert_allclose(slope, expected, atol=1e-7)
    for count, variance in ((10, 0.09), (1000, 9.99e-4)):
        one = jnp.zeros(count).at[0].set(1e3)
        found = float(generation.probability_variance(one))
        assert found == pytest.approx(variance, rel=1e-5)
        assert found == pytest.approx((count - 1) / count**2, rel=1e-5)
        other = generation.probability_variance(one, ddof=1)
        assert float(other) == pytest.approx(1 / count, rel=1e-5)
    even = jnp.full(7, 3.0)
    for loss in (
        generation.probability_variance,
        generation.logit_variance,
        generation.uniform_divergence,
    ):
        assert float(loss(even)) == pytest.approx(0, abs=1e-6)
        assert float(loss(z)) > 1e-3
        np.testing.assert_allclose(jax.grad(loss)(even), 0, atol=1e-7)
    divergence = -np.log(7) - np.mean(np.log(p))
    assert float(generation.uniform_divergence(z)) == pytest.approx(divergence, 1e-4)


def test_the_variance_of_probabilities_is_stationary_where_few_classes_share_all():
    ties = np.where(np.tri(6, dtype=bool), 0.0, -200.0)  # of 1, 2, ... of six classes
    slope = jax.jit(jax.vmap(jax.grad(generation.probability_variance)))
    np.testing.assert_allclose(slope(ties), 0, atol=1e-8)
    values = jax.vmap(generation.probability_variance)(ties)
    k = np.arange(1, 7)
    np.testing.assert_allclose(values, (1 / k - 1 / 6) / 6, atol=1e-7)
    even = jax.vmap(jax.grad(generation.logit_variance))(ties[:-1])
    assert jnp.all(jnp.max(jnp.abs(even), axis=1) > 10)


def test_oracle_7_6_variation():
    assert float(images.total_variation(BOARD)) == 112
    assert float(images.total_variation(RAMP)) == 56
    assert float(images.total_variation(jnp.ones((8, 8, 3)))) == 0
    # means over 56 differences each way
    assert float(generation.high_frequency(BOARD)) == 112 / 56
    assert float(generation.high_frequency(RAMP)) == 1
    doubled = generation.high_frequency(2 * BOARD, size=jnp.square)
    assert float(doubled) == 8
    flat = generation.isotropic_high_frequency(jnp.ones((4, 4, 1)))
    assert float(flat) == pytest.approx(1e-4)
    slope = jax.grad(generation.isotropic_high_frequency)(jnp.ones((4, 4, 1)))
    assert jnp.all(slope == 0)
    line = jnp.ones((1, 4, 1)).at[0, 1].set(0)
    assert float(generation.high_frequency(line)) == pytest.approx(2 / 3)


def test_oracle_7_6_a_step_down_the_blur_penalty_blurs():
    x = jax.random.uniform(KEY, (6, 7, 2))
    kernels = {3: 5.0, 5: 17.0}
    for width, total in kernels.items():
        kernel = np.full((width, width), 0.5)
        kernel[1:-1, 1:-1] = 1
        assert kernel.sum() == total
        ones = scipy.signal.convolve2d(np.ones((6, 7)), kernel, "same")
        blurred = np.stack(
            [
                scipy.signal.convolve2d(x[..., c], kernel, "same") / ones
                for c in range(2)
            ],
            axis=-1,
        )
        step = jax.grad(lambda z, w=width: generation.blur_penalty(z, width=w))(x)
        expected = 0.7 * np.asarray(x) + 0.3 * blurred
        np.testing.assert_allclose(x - 0.3 * step, expected, atol=1e-5)
    with pytest.raises(ValueError, match="`width` is 4: pass an odd number"):
        generation.blur_penalty(x, width=4)


def test_oracle_7_6_diversity():
    x = jax.random.uniform(KEY, (5, 4, 6))
    same = jnp.stack([x] * 3)
    assert float(generation.diversity(same)) == pytest.approx(-2, rel=1e-5)
    apart = jnp.stack([x.at[..., 3:].set(0), x.at[..., :3].set(0)])
    assert float(generation.diversity(apart)) == pytest.approx(0, abs=1e-6)
    several = jax.random.uniform(jax.random.key(1), (3, 5, 4, 6))
    value = float(generation.diversity(several))
    assert -2 < value < 0
    shuffled = several[1].reshape(20, 6)[::-1].reshape(5, 4, 6)
    changed = several.at[1].set(7 * shuffled)
    assert float(generation.diversity(changed)) == pytest.approx(value, rel=1e-5)
    dead = jax.grad(generation.diversity)(several.at[0].set(0))
    assert jnp.all(jnp.isfinite(dead))
    with pytest.raises(ValueError, match="two images or more"):
        generation.diversity(several[:1])


@pytest.mark.parametrize(
    ("a", "b", "known"),
    [
        ([0, 1, 0, 1], [1, 2, 1, 0], 0.0),
        ([-1, 1, 1], [0, 0, 2], 0.5),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 0.8207826816681233),
        ([1, 2, 2, 3], [1, 3, 2, 4], 0.9486832980505138),
    ],
)
def test_oracle_7_7_F7_rank_correlations(a, b, known):
    a, b = (jnp.asarray(v, jnp.float32)[None] for v in (a, b))
    assert float(metrics.rank_correlation(a, b)) == pytest.approx(known, abs=1e-6)
    assert float(metrics.rank_correlation(jnp.exp(a), b)) == pytest.approx(
        known, abs=1e-6
    )
    assert float(metrics.rank_correlation(-a, b)) == pytest.approx(-known, abs=1e-6)


def test_F8_a_perfect_explanation_deletes_the_class_at_once():
    """One pixel decides: with it gone nothing is left; the worst map takes it last."""
    fn = lambda x: jnp.stack([30 * x[1, 2, 0] - 20, jnp.zeros(())])
    x = jnp.ones((4, 4, 1))
    best = jnp.zeros((4, 4)).at[1, 2].set(1.0)
    right = metrics.deletion(fn, x, best, 0, steps=16)
    wrong = metrics.deletion(fn, x, 1 - best, 0, steps=16)
    assert jnp.all(right.values[1:] < 1e-6) and float(right.area) < 1 / 16
    assert jnp.all(wrong.values[:-1] > 0.999) and float(wrong.area) > 15 / 16
