"""Activation paths against NumPy and SciPy; the oracles of path metrics (7.7, F9)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from protojax import activations
from protojax.methods.generation import paths

RNG = np.random.default_rng(0)
KERNELS = {
    "first": np.float32(RNG.normal(size=(3, 3, 3, 4))),
    "second": np.float32(RNG.normal(size=(4, 5))),
}
# Images of one kind: a bright square in the middle, and noise.
NATURAL = np.float32(0.2 * RNG.normal(size=(6, 8, 8, 3)))
NATURAL[:, 2:6, 2:6] += 1


def fn(weights, x):
    kernel, dense = weights["first"], weights["second"]
    conv = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    h = jax.nn.relu(conv(x[None], kernel)[0])
    return jnp.tanh(jnp.mean(h, (0, 1)) @ dense)


def path_of(weights, x):
    run = paths.path(functools.partial(fn, weights), ["relu:0"])
    return run(x)


@jax.jit
def everything(weights, images, others):
    """Of each image: its similarity to the mean of the rest; of others, to that of all.

    The order of layers is that of the path: `relu:0`, then the logits.
    """
    run = functools.partial(path_of, weights)
    natural = paths.natural_paths(run, images)
    loo = lambda x: paths.path_similarity(
        run(x), paths.mean_path(paths.leave_out(natural, run(x)))
    )
    mean = paths.mean_path(natural)
    whole = lambda x: paths.path_similarity(run(x), mean)
    alone = paths.natural_paths(run, images[:1])
    own = paths.path_similarity(run(images[0]), paths.mean_path(alone))
    leave_one_out = jax.vmap(loo)(images)
    seen = jax.vmap(whole)(others)
    good = jax.vmap(lambda s: paths.path_success(s, leave_one_out))(seen)
    return natural, leave_one_out, seen, good, own


def by_hand(weights, x):
    logits, layers = activations.record(functools.partial(fn, weights))(x)
    return [np.asarray(layers["relu:0"]), np.asarray(logits)]


def test_paths_leave_one_out_and_success_are_those_of_numpy_and_scipy():
    mean_image = NATURAL.mean(0)
    noise = np.float32(RNG.uniform(size=(8, 8, 3)))
    others = np.stack([mean_image, noise])
    natural, loo, seen, good, own = everything(KERNELS, NATURAL, others)
    each = [by_hand(KERNELS, x) for x in NATURAL]
    total = [sum(layers) for layers in zip(*each, strict=True)]
    assert int(natural.number) == 6
    np.testing.assert_allclose(natural.total["relu:0"], total[0], rtol=1e-5, atol=1e-5)

    def similar(path, mean):
        l1 = [np.mean(np.abs(a - b)) for a, b in zip(path, mean, strict=True)]
        rank = [
            scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
            for a, b in zip(path, mean, strict=True)
        ]
        return np.array(l1), np.array(rank)

    expected = [
        similar(own, [(t - a) / 5 for t, a in zip(total, own, strict=True)])
        for own in each
    ]
    # ranks of ReLUs have ties: units that are zero in all images
    assert np.mean(total[0] == 0) > 0.01
    np.testing.assert_allclose(loo.l1, [e[0] for e in expected], rtol=1e-4)
    np.testing.assert_allclose(loo.rank, [e[1] for e in expected], atol=1e-3)
    for place, x in enumerate(others):
        l1, rank = similar(by_hand(KERNELS, x), [t / 6 for t in total])
        np.testing.assert_allclose(seen.l1[place], l1, rtol=1e-4)
        np.testing.assert_allclose(seen.rank[place], rank, atol=1e-3)
        beaten = np.mean([[a > b for a, b in zip(e[0], l1)] for e in expected])
        np.testing.assert_allclose(good.l1[place], beaten)
        above = np.mean([[a < b for a, b in zip(e[1], rank)] for e in expected])
        np.testing.assert_allclose(good.rank[place], above)


def test_oracle_f9_an_image_is_its_own_mean_and_noise_lies_below_the_natural_band():
    noise = np.float32(RNG.uniform(size=(2, 8, 8, 3)))
    _, loo, seen, good, own = everything(KERNELS, NATURAL, noise)
    np.testing.assert_allclose(own.l1, 0, atol=1e-6)
    np.testing.assert_allclose(own.rank, 1, atol=1e-6)
    assert np.max(seen.rank[:, 0]) < np.min(loo.rank[:, 0])
    assert np.min(seen.l1[:, 0]) > np.max(loo.l1[:, 0])
    assert not np.any(good.rank > 0.5) and not np.any(good.l1 > 0.5)


def test_oracle_7_7_spearman_has_average_ranks_and_no_value_for_a_constant():
    pairs = [
        ([1.0, 2, 3, 4, 5], [5.0, 6, 7, 8, 7], 0.8207826816681233),
        ([1.0, 2, 2, 3], [1.0, 3, 2, 4], 0.9486832980505138),
        ([0.0, 1, 0, 1], [1.0, 2, 1, 0], 0.0),  # case F7
        ([-1.0, 1, 1], [0.0, 0, 2], 0.5),
        ([1.0, 2, 3], [-1.0, -2, -3], -1.0),
        ([2.0, 2, 2], [1.0, 2, 3], np.nan),
    ]

    @jax.jit
    def look(a, b):
        first, second = {"layer": a}, {"layer": b}
        grown = {"layer": jnp.exp(b)}
        double = jax.tree.map(lambda v: 2 * v, (first, second))
        there = [(first, second), (first, grown), (second, first), double]
        return [paths.path_similarity(*both) for both in there]

    for a, b, expected in pairs:
        found, grown, back, double = look(jnp.array(a), jnp.array(b))
        for each in (found, grown, back):
            np.testing.assert_allclose(each.rank[0], expected, atol=1e-6)
        np.testing.assert_allclose(back.l1, found.l1)
        np.testing.assert_allclose(double.l1, 2 * found.l1, rtol=1e-6)


def test_oracle_2_4_an_average_beats_every_image_and_leaving_one_out_costs_each_a_bit():
    """100 samples of a signal in unit noise: 0.791 in their mean, 0.799 out of it."""
    rng = np.random.default_rng(1)
    signal = np.float32(rng.normal(size=2000))
    images = signal + np.float32(rng.normal(size=(100, 2000)))
    run = lambda x: {"pixels": x}

    @jax.jit
    def look(images, signal):
        natural = paths.natural_paths(run, images)
        loo = lambda x: paths.mean_path(paths.leave_out(natural, run(x)))
        inside = lambda x: paths.path_similarity(run(x), paths.mean_path(natural))
        outside = lambda x: paths.path_similarity(run(x), loo(x))
        return (*(jax.vmap(f)(images) for f in (inside, outside)), inside(signal))

    inside, outside, average = look(images, signal)
    np.testing.assert_allclose(np.mean(inside.l1), 0.791, atol=0.01)
    np.testing.assert_allclose(np.mean(outside.l1), 0.799, atol=0.01)
    # the mean differs from the signal by noise of a tenth
    np.testing.assert_allclose(average.l1, np.sqrt(2 / np.pi) / 10, atol=0.005)
    found = paths.path_success(average, outside)
    assert found.l1 == found.rank == 1


def test_pairs_without_a_rank_are_counted_and_left_out():
    natural = paths.Similarity(
        jnp.array([[1.0, 1.0], [1.0, 1.0]]), jnp.array([[0.5, np.nan], [0.9, 0.4]])
    )
    found = paths.path_success(
        paths.Similarity(jnp.zeros(2), jnp.array([0.7, 0.6])), natural
    )
    np.testing.assert_allclose(found, [1, 2 / 3, 1], rtol=1e-6)
    dead = paths.path_success(
        paths.Similarity(jnp.zeros(2), jnp.array([np.nan, np.nan])), natural
    )
    assert np.isnan(dead.rank) and dead.undefined == 4
    broken = paths.Similarity(jnp.array([np.nan, 0.0]), jnp.array([0.7, 0.6]))
    assert np.isnan(paths.path_success(broken, natural).l1)


def test_a_score_is_zero_for_another_class_and_one_for_the_same():
    value = jnp.array([0.2, 0.8, 0.5, 1.1])
    found = paths.normalized(value, other=0.2, same=0.8)
    np.testing.assert_allclose(found, [0, 1, 0.5, 1.5], rtol=1e-5)


def test_pitfall_13_two_paths_with_the_channels_levels_in_common_look_alike():
    """Centering takes that away, and shuffling leaves nothing but that."""
    rng = np.random.default_rng(2)
    levels = 10 * np.arange(8.0)
    here, there = (
        {"map": jnp.asarray(levels + rng.normal(size=(6, 6, 8)), "float32")}
        for _ in range(2)
    )

    @jax.jit
    def ranks(here, there):
        mixed = paths.shuffled(here, key=jax.random.key(0))
        centered = map(paths.channel_centered, (here, there, mixed))
        one, two, three = centered
        pairs = [(here, there), (mixed, here), (one, two), (three, one)]
        return [paths.path_similarity(*both).rank[0] for both in pairs]

    as_it_is, null, places, moved = ranks(here, there)
    assert as_it_is > 0.9 and null > 0.9
    noise = 4 / np.sqrt(6 * 6 * 8)  # four standard deviations of independent maps
    assert abs(places) < noise and abs(moved) < noise
    # what has no places has nothing left to compare
    vector = paths.channel_centered({"logits": jnp.arange(3.0)})
    assert np.isnan(paths.path_similarity(vector, vector).rank[0])


def test_what_cannot_be_compared_is_refused():
    run = paths.path(lambda x: jax.nn.relu(x).sum((0, 1)), ["relu:7"])
    with pytest.raises(ValueError, match="is called 'relu:7': there is relu:0"):
        run(jnp.ones((2, 2, 3)))
    one, two = {"conv1": jnp.ones(3)}, {"conv2": jnp.ones(3)}
    with pytest.raises(ValueError, match="`natural` has the layers conv2, `path` has"):
        paths.path_similarity(one, two)
    with pytest.raises(AssertionError):
        paths.path_similarity(one, {"conv1": jnp.ones(4)})
    single = paths.Natural({"conv1": jnp.ones(3)}, np.asarray(1))
    with pytest.raises(ValueError, match="`natural` is of 1 image: leaving one out"):
        paths.leave_out(single, one)
    with pytest.raises(ValueError, match="`images` has leading axes"):
        paths.natural_paths(lambda x: {"x": x}, jnp.zeros((0, 2, 2, 3)))
