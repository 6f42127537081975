"""The terms of the objective against their oracles, and the properties they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import srae

pull_away = jax.jit(srae.pull_away)
pull_away_images = jax.jit(srae.pull_away_images)
objective = jax.jit(srae.objective, static_argnames="pull")

AXES = np.tile(np.eye(5), (10, 1))


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def by_pairs(rows):
    """The definition, pair by pair."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    squares = [
        (a @ b) ** 2 for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j
    ]
    return np.mean(squares)


def test_F1_the_guard_of_the_authors_punishes_live_features_and_ours_does_not():
    columns = jnp.array([[1.0, 0], [2, 0], [3, 0]])
    assert pull_away(columns + 1e-8) == pytest.approx(0.857142858, abs=1e-8)
    assert pull_away(columns) == 0.0
    slope = jax.grad(pull_away)(columns)
    assert np.all(slope == 0)  # and no NaN at the dead one


def test_F1_pull_away_knows_neither_lengths_nor_rotations():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(7, 4))
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    value = pull_away_images(jnp.asarray(rows))
    for other in (rows * rng.uniform(0.1, 9, (7, 1)), rows @ turn):
        assert pull_away_images(jnp.asarray(other)) == pytest.approx(value)


@pytest.mark.parametrize("seed", range(5))
def test_F1_image_mode_keeps_the_welch_bound_and_is_reached_by_one_axis_each(seed):
    rows = np.random.default_rng(seed).uniform(size=(50, 5))
    bound = (50 - 5) / (5 * 49)
    assert bound <= pull_away_images(jnp.asarray(rows)) <= 1
    assert pull_away_images(jnp.asarray(AXES)) == pytest.approx(bound)


def test_nothing_alive_is_worth_zero_and_has_a_gradient():
    for pull in (srae.pull_away, srae.pull_away_images):
        both = jax.jit(jax.value_and_grad(pull))
        for alive in ([0.0, 0, 0], [1.0, 0, 0]):
            value, slope = both(jnp.asarray(np.tile(alive, (6, 1))))
            assert np.all(np.isfinite(slope))
            assert value == (1 if pull is srae.pull_away_images and alive[0] else 0)


@pytest.mark.parametrize("size", [1e-19, 1e-17, 1e-15, 1e-13, 1e-11, 1e-9])
def test_a_dying_feature_has_a_gradient_in_float32(size):
    """One of length 1e-17 gave NaN, and its network was taken for diverged."""
    with jax.enable_x64(False):
        shrink = np.array([1.0, size], np.float32)
        features = jnp.asarray(shrink * np.arange(1, 9).reshape(4, 2))
        for pull, rows in ((pull_away, features), (pull_away_images, features.T)):
            assert np.all(np.isfinite(jax.jit(jax.grad(pull))(rows)))


Z = jnp.array([[1.0, 0, 2], [3, 1, 0]])
R = jnp.array([[1.0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize(("q", "value"), [(100.0, 2.621217088), (1.0, 0.270310072)])
def test_F2_the_log_stands_between_the_means_over_units_and_over_images(q, value):
    with jax.enable_x64(True):
        z, decoded = (jnp.asarray(np.asarray(a, np.float64)) for a in (Z, R))
        found = float(srae.sparse_reconstruction(z, decoded, q))
    assert found == pytest.approx(value, abs=1e-8)
    each = np.mean(np.log1p(q * (np.asarray(Z) - np.asarray(R)) ** 2))
    whole = np.log1p(q * np.mean((np.asarray(Z) - np.asarray(R)) ** 2))
    if q == 100:
        assert each == pytest.approx(1.538373506) and whole == pytest.approx(3.5361167)
    assert each < found < whole
    assert srae.squared_error(z, decoded) == pytest.approx(1 / 3)


def test_F2_for_small_q_it_is_the_squared_error_and_jensen_bounds_it():
    rng = np.random.default_rng(0)
    z, decoded = (jnp.asarray(rng.normal(size=(9, 6))) for _ in "ab")
    mean = float(srae.squared_error(z, decoded))
    small = srae.sparse_reconstruction(z, decoded, 1e-6) / 1e-6
    assert small == pytest.approx(mean, rel=1e-5)
    at = jax.jit(srae.sparse_reconstruction)
    values = [float(at(z, decoded, q)) for q in (1.0, 10.0, 100.0)]
    assert values == sorted(values)
    assert values[2] <= np.log1p(100 * mean)
    even = jnp.ones((3, 4))
    found = srae.sparse_reconstruction(even, 0 * even)
    assert found == pytest.approx(np.log1p(100))  # equal where all errors are


def test_F3_a_broadcast_would_be_another_loss_and_is_refused():
    y = jnp.arange(4.0)
    assert srae.faithfulness(y, y) == 0
    wrong = np.mean((np.arange(4.0)[:, None] - np.arange(4.0)) ** 2)
    assert wrong == 2.5 == 2 * np.var(np.arange(4.0))
    with pytest.raises(AssertionError):
        srae.faithfulness(y[:, None], y)
    with pytest.raises(AssertionError):
        srae.sparse_reconstruction(jnp.ones((4, 2)), jnp.ones((4, 1)))


@pytest.mark.parametrize(
    ("means", "accepted"),
    [
        ([1.0, 0.3], True),
        ([1.0, 0.29], False),
        ([1.0, -0.5, -0.5], False),
        ([-1.0, -2.0], False),
        ([0.0, 0.0], False),
    ],
)
def test_a_network_is_accepted_if_a_second_feature_counts(means, accepted):
    for kind in (jnp.float32, jnp.float64):
        assert bool(srae.accepted(jnp.array(means, kind))) is accepted


def test_the_five_rounds_of_the_authors():
    rounds = [srae.weights_of_round(srae.Weights(), n) for n in range(5)]
    np.testing.assert_allclose(
        [w.rec for w in rounds], [15, 18, 21.6, 25.92, 31.104], rtol=1e-6
    )
    np.testing.assert_allclose(
        [w.pull for w in rounds], [5, 4, 3.2, 2.56, 2.048], rtol=1e-6
    )
    assert all(w.faith == 1 and w.q == 100 for w in rounds)
    assert srae.first_accepted(jnp.array([False] * 5)) == 4
    assert srae.first_accepted(jnp.array([True, False, True])) == 0


def random_output(scores=1):
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.uniform(size=shape))
    return (
        srae.Output(draw(8, 3), draw(8, scores), draw(8, 6)),
        draw(3, scores),
        draw(8, 6),
        draw(8, scores),
    )


def test_the_objective_is_the_weighted_sum_of_its_terms():
    output, readout, z, scores = random_output()
    weights = srae.Weights(2.0, 3.0, 5.0, 7.0)
    loss, terms = objective(output, readout, z, scores, weights)
    wrong = np.asarray(output.scores) - np.asarray(scores)
    assert terms["faith"] == pytest.approx(np.mean(wrong**2))
    errors = np.mean((np.asarray(z) - np.asarray(output.decoded)) ** 2, axis=0)
    assert terms["rec"] == pytest.approx(np.mean(np.log1p(7 * errors)))
    assert terms["pull"] == pytest.approx(by_pairs(np.asarray(output.features).T))
    assert loss == pytest.approx(
        2 * terms["faith"] + 3 * terms["rec"] + 5 * terms["pull"]
    )


def test_of_several_scores_pull_away_is_summed_with_each_read_out():
    output, readout, z, scores = random_output(scores=2)
    _, terms = objective(
        output, readout, z, scores, srae.Weights(), pull=srae.pull_away_images
    )
    features, readout = np.asarray(output.features), np.asarray(readout)
    each = [by_pairs(features * readout[:, k]) for k in range(2)]
    assert terms["pull"] == pytest.approx(sum(each))


def test_without_weights_it_is_a_regression():
    output, readout, z, scores = random_output()
    alone = srae.Weights(1.0, 0.0, 0.0)
    loss = lambda output: objective(output, readout, z, scores, alone)[0]
    value, slope = jax.jit(jax.value_and_grad(loss))(output)
    error = np.mean((np.asarray(output.scores) - np.asarray(scores)) ** 2)
    assert value == pytest.approx(error)
    assert np.all(slope.decoded == 0) and np.all(slope.features == 0)
    assert np.any(slope.scores != 0)


def test_everything_maps_and_compiles():
    output, readout, z, scores = random_output()
    loss = lambda eta: objective(output, readout, z, scores, srae.Weights(pull=eta))[0]
    etas = jnp.array([0.0, 1.0, 5.0])
    alone = [float(loss(eta)) for eta in etas]
    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(etas), alone, rtol=1e-12)
