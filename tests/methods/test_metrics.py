import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import skimage.metrics

from protojax.methods import metrics

overlap = jax.jit(lambda a, b: metrics.top_k_intersection(a, b, k=9))
spearman, tau = jax.jit(metrics.rank_correlation), jax.jit(metrics.kendall)
PAIR = {
    "top_k": overlap,
    "rank": spearman,
    "kendall": tau,
    "center": jax.jit(metrics.center_shift),
    "truncated": jax.jit(metrics.truncated_center_shift),
    "ssim": jax.jit(metrics.ssim),
    "linf": jax.jit(metrics.linf),
}
BEST = {"center": 0, "truncated": 0, "linf": 0}


def maps(seed=0, levels=None, shape=(9, 11)):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(size=(2, *shape)).astype(np.float32)
    if levels:
        a, b = np.floor(a * levels), np.floor(b * levels)
    return jnp.asarray(a), jnp.asarray(b)


@pytest.mark.parametrize("name", PAIR)
def test_fragility_9_6_equal_maps_have_the_best_value(name):
    a, _ = maps()
    assert float(PAIR[name](a, a)) == pytest.approx(BEST.get(name, 1), abs=1e-6)


@pytest.mark.parametrize("name", PAIR)
def test_metrics_are_the_same_under_vmap(name):
    a, b = maps(shape=(3, 9, 11))
    together = jax.jit(jax.vmap(PAIR[name]))(a, b)
    alone = [float(PAIR[name](x, y)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["top_k", "rank", "kendall", "center", "linf"])
def test_a_map_with_nan_gives_nan(name):
    a, b = maps()
    assert np.isnan(PAIR[name](a.at[2, 3].set(jnp.nan), b))
    assert np.isnan(PAIR[name](a, b.at[0, 0].set(jnp.nan)))


@pytest.mark.parametrize("levels", [None, 2, 5])
def test_rank_correlations_agree_with_scipy_under_ties(levels):
    a, b = maps(levels=levels)
    b = a + b
    pair = np.ravel(a), np.ravel(b)
    expected = scipy.stats.spearmanr(*pair).statistic
    assert float(spearman(a, b)) == pytest.approx(expected, abs=1e-6)
    expected = scipy.stats.kendalltau(*pair).statistic
    assert float(tau(a, b)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["uint8", "int32", "bool"])
def test_maps_of_integers_count_as_numbers(kind):
    # the most negative integer has no negative, and unsigned ones have none at all
    low = {"uint8": 0, "int32": -(2**31), "bool": False}[kind]
    a, b = (np.array([[low, 1, 2, 5]], kind), np.array([[low, 5, 2, 1]], kind))
    a, b = np.repeat(a, 4, 0), np.repeat(b, 4, 0) + np.array([[0], [0], [1], [0]], kind)
    ours, theirs = (jnp.asarray(a), jnp.asarray(b)), (np.ravel(a), np.ravel(b))
    for found, name in ((spearman, "spearmanr"), (tau, "kendalltau")):
        wanted = getattr(scipy.stats, name)(*theirs).statistic
        assert float(found(*ours)) == pytest.approx(wanted, abs=1e-6)
    floats = [m.astype(jnp.float32) for m in ours]
    for metric in (metrics.linf, metrics.center_shift, metrics.center_of_mass):
        count = 1 if metric is metrics.center_of_mass else 2
        found, wanted = metric(*ours[:count]), metric(*floats[:count])
        np.testing.assert_array_equal(found, wanted)
    similar = lambda a, b: metrics.ssim(a, b, window=3)
    np.testing.assert_array_equal(similar(*ours), similar(*floats))
    x = jax.random.uniform(jax.random.key(0), (4, 4, 1))
    curves = [
        metrics.deletion(additive, x, m, 0, steps=3) for m in (ours[0], floats[0])
    ]
    np.testing.assert_array_equal(curves[0].values, curves[1].values)


def test_rank_correlation_of_maps_that_are_mostly_zero_is_not_inflated():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(2, 100, 100)) * (rng.uniform(size=(2, 100, 100)) > 0.9)
    expected = scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
    ours = spearman(a.astype(np.float32), b.astype(np.float32))
    assert float(ours) == pytest.approx(expected, abs=1e-5)
    assert abs(float(ours)) < 0.1


def test_rank_correlations_hold_at_the_size_of_an_image():
    a, b = maps(shape=(227, 227))
    b = a + 2 * b
    pair = np.ravel(a), np.ravel(b)
    both = jax.jit(lambda a, b: (metrics.rank_correlation(a, b), metrics.kendall(a, b)))
    spearman, tau = both(a, b)
    assert float(spearman) == pytest.approx(
        scipy.stats.spearmanr(*pair).statistic, abs=1e-5
    )
    assert float(tau) == pytest.approx(
        scipy.stats.kendalltau(*pair).statistic, abs=1e-5
    )


def test_constant_maps_have_no_rank_correlation():
    a, _ = maps()
    assert np.isnan(spearman(a, jnp.ones_like(a)))
    assert np.isnan(tau(a, jnp.ones_like(a)))


def test_fragility_9_6_rank_metrics_ignore_monotone_changes():
    a, b = maps()
    for metric in (overlap, spearman, tau):
        assert float(metric(a, b)) == float(metric(a, jnp.exp(3 * b)))


def test_fragility_9_6_overlap_with_the_reverse_order_is_none():
    a, _ = maps()
    assert float(metrics.top_k_intersection(a, -a, k=a.size // 2)) == 0
    assert float(spearman(a, -a)) == pytest.approx(-1, abs=1e-6)
    assert float(tau(a, -a)) == pytest.approx(-1, abs=1e-6)


def test_the_first_of_equal_entries_are_the_top():
    mask = metrics.top_k_mask(jnp.zeros((2, 3)), k=2)
    assert mask.tolist() == [[True, True, False], [False, False, False]]


def test_k_larger_than_the_map_is_named():
    with pytest.raises(ValueError, match="`k` is 7 but the map has 6 entries"):
        metrics.top_k_intersection(jnp.zeros((2, 3)), jnp.zeros((2, 3)), k=7)
    with pytest.raises(ValueError, match="`k` is 0"):
        metrics.top_k_mask(jnp.zeros((2, 3)), k=0)


def test_the_truncated_shift_is_that_of_whole_pixels():
    a, b = maps()
    a = a.at[7, 9].add(300.0)
    rows = [np.trunc(np.asarray(metrics.center_of_mass(m))) for m in (a, b)]
    expected = np.linalg.norm(rows[0] - rows[1])
    assert float(metrics.truncated_center_shift(a, b)) == expected


@pytest.mark.parametrize("window", [3, 7])
@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_ssim_agrees_with_scikit_image(window, scale):
    a, b = maps(shape=(23, 19))
    a, b = a * scale, (0.7 * a + 0.3 * b) * scale
    span = float(jnp.maximum(a.max(), b.max()) - jnp.minimum(a.min(), b.min()))
    expected = skimage.metrics.structural_similarity(
        np.float64(a), np.float64(b), win_size=window, data_range=span
    )
    assert float(metrics.ssim(a, b, window=window)) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="`window` is 20 but the maps are"):
        metrics.ssim(a, b, window=20)


def test_ssim_of_constant_maps():
    flat = jnp.full((8, 8), 0.1)
    similar = jax.jit(jax.value_and_grad(metrics.ssim))
    value, slope = similar(flat, flat)
    assert float(value) == pytest.approx(1, abs=1e-6)
    assert jnp.all(jnp.isfinite(slope))
    assert float(similar(flat, 3 * flat)[0]) < 0.7
    assert np.isnan(metrics.ssim(flat, flat.at[0, 0].set(jnp.nan)))
    with pytest.raises(ValueError, match="`data_range` is 0.0: it must be above zero"):
        metrics.ssim(flat, flat, data_range=0.0)


def test_peers_a14_a_locally_constant_explanation_has_no_sensitivity():
    weights = jax.random.normal(jax.random.key(0), (4, 4, 2))

    def explain(x):
        return jnp.abs(jax.grad(lambda z: jnp.sum(z * weights))(x)).sum(-1)

    x = jnp.full((4, 4, 2), 0.5)
    for metric in (metrics.max_sensitivity, metrics.local_lipschitz):
        assert float(metric(explain, x, radius=0.1, key=jax.random.key(1))) == 0


def test_peers_a14_sensitivity_is_the_largest_over_the_draws():
    def explain(x):
        return x.sum(-1) ** 2

    x = jax.random.uniform(jax.random.key(0), (3, 3, 2))
    key, radius = jax.random.key(1), 0.05
    changes, ratios = [], []
    for draw in jax.random.split(key, 6):
        noise = radius * jax.random.uniform(draw, x.shape, minval=-1, maxval=1)
        z = np.clip(np.asarray(x) + noise, 0, 1)
        change = np.linalg.norm(explain(z) - explain(x))
        changes.append(change / np.linalg.norm(explain(x)))
        ratios.append(change / np.linalg.norm(z - x))
    options = {"radius": radius, "key": key, "samples": 6}
    sensitivity = metrics.max_sensitivity(explain, x, **options)
    assert float(sensitivity) == pytest.approx(max(changes), rel=1e-4)
    lipschitz = metrics.local_lipschitz(explain, x, **options)
    assert float(lipschitz) == pytest.approx(max(ratios), rel=1e-4)


def test_the_lipschitz_estimate_of_a_linear_map_is_below_its_norm():
    matrix = jax.random.normal(jax.random.key(0), (12, 12))
    x = jax.random.uniform(jax.random.key(1), (4, 3, 1))
    ratio = metrics.local_lipschitz(
        lambda z: (matrix @ z.ravel()).reshape(4, 3),
        x,
        radius=0.2,
        key=jax.random.key(2),
        samples=50,
    )
    norm = np.linalg.norm(matrix, 2)
    assert 0.3 * norm < float(ratio) <= norm * (1 + 1e-5)


def test_zero_maps_count_as_norm_one_and_counts_are_checked():
    x = jnp.full((2, 2, 1), 0.5)

    def call(**kwargs):
        options = {"radius": 0.5, "key": jax.random.key(0)} | kwargs
        return metrics.max_sensitivity(lambda z: z[..., 0] - 0.5, x, **options)

    assert 0 < float(call()) <= 1
    with pytest.raises(ValueError, match="`samples` is 0"):
        call(samples=0)
    with pytest.raises(ValueError, match="`radius` is -1"):
        call(radius=-1)
    ints = jnp.ones((2, 2, 1), jnp.int32)
    for x, what in ((ints, "`x` is int32"), (ints[None], r"`x` has shape \(1, 2, 2")):
        for metric in (metrics.max_sensitivity, metrics.local_lipschitz):
            with pytest.raises(ValueError, match=what):
                metric(lambda z: z[..., 0], x, radius=0.5, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`radius` is 0.0: it must be above zero"):
        metrics.local_lipschitz(jnp.sum, ints * 1.0, radius=0.0, key=jax.random.key(0))
    for metric in (metrics.center_of_mass, lambda a: metrics.ssim(a, a)):
        with pytest.raises(ValueError, match=r"`a` has shape \(3, 8, 8\).*jax.vmap"):
            metric(jnp.ones((3, 8, 8)))


def additive(x):
    return jnp.stack([jnp.sum(x), jnp.zeros(())])


def test_deletion_and_insertion_follow_the_closed_form_of_an_additive_model():
    x = jax.random.uniform(jax.random.key(0), (4, 5, 1)) - 0.3
    ordered = np.sort(np.ravel(x))[::-1].astype(np.float64)
    kept = np.concatenate([[0], np.cumsum(ordered)])

    def expected(totals):
        values = 1 / (1 + np.exp(-totals))
        return values, np.mean((values[1:] + values[:-1]) / 2)

    values, area = expected(kept[-1] - kept)
    curve = metrics.deletion(additive, x, x[..., 0], 0, steps=20)
    np.testing.assert_allclose(curve.values, values, rtol=1e-5)
    assert float(curve.area) == pytest.approx(area, rel=1e-5)
    values, area = expected(kept)
    curve = metrics.insertion(additive, x, x[..., 0], 0, steps=20)
    np.testing.assert_allclose(curve.values, values, rtol=1e-5)
    assert float(curve.area) == pytest.approx(area, rel=1e-5)


def test_a_map_with_nan_orders_no_pixels():
    x = jnp.ones((2, 2, 1))
    broken = x[..., 0].at[0, 1].set(jnp.nan)
    for metric in (metrics.deletion, metrics.insertion):
        curve = metric(additive, x, broken, 0, steps=2)
        assert np.isnan(curve.values).all() and np.isnan(curve.area)


def test_the_true_order_beats_every_other_order():
    x = jax.random.uniform(jax.random.key(0), (4, 4, 1))
    other = jax.random.uniform(jax.random.key(1), (4, 4))
    best = metrics.deletion(additive, x, x[..., 0], 0, steps=5).area
    worst = metrics.deletion(additive, x, -x[..., 0], 0, steps=5).area
    assert best < metrics.deletion(additive, x, other, 0, steps=5).area < worst


def test_removed_pixels_take_the_baseline():
    x, base = jnp.ones((3, 3, 2)), jnp.array([0.25, 0.5])
    curve = metrics.deletion(
        additive, x, x[..., 0], 1, baseline=base.reshape(1, 1, 2), steps=3
    )
    assert float(curve.values[-1]) == pytest.approx(1 / (1 + np.exp(9 * 0.75)))


def test_bad_classes_and_steps_are_named():
    x = jnp.ones((2, 2, 1))
    with pytest.raises(ValueError, match="`y` is 2 but there are 2 classes"):
        metrics.deletion(additive, x, x[..., 0], 2, steps=2)
    with pytest.raises(ValueError, match="`y` is -1"):
        metrics.confidence(additive, x, -1)
    with pytest.raises(ValueError, match="`y` is True: pass a whole number"):
        metrics.confidence(additive, x, True)  # it would index as a mask
    with pytest.raises(ValueError, match="`steps` is 5 but the map has 4 pixels"):
        metrics.insertion(additive, x, x[..., 0], 0, steps=5)
    traced = jax.jit(lambda y: metrics.confidence(additive, x, y))
    assert np.isnan(traced(2))
    assert np.isnan(traced(-1))


def test_confidence_is_the_probability_of_the_prediction_or_of_a_class():
    x = jnp.full((1, 1, 1), 2.0)
    assert float(metrics.confidence(additive, x)) == pytest.approx(1 / (1 + np.exp(-2)))
    assert float(metrics.confidence(additive, x, 1)) == pytest.approx(
        1 / (1 + np.exp(2))
    )
