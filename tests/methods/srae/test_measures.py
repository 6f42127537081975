"""What read-outs, x-features and codes are worth, against oracles and libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import srae


def test_F3_significant_are_the_fewest_that_make_nine_tenths():
    kept = lambda *c, **knobs: srae.significant(jnp.array(c), **knobs).tolist()
    assert kept(0.0, 5.0) == [False, True]
    assert kept(1.0, 1.0, 1.0) == [True, True, True]
    assert kept(0.1, 8.9, 1.0, share=0.9) == [False, True, True]


def test_correlations_are_those_of_numpy_and_dead_features_stand_apart():
    rng = np.random.default_rng(0)
    features = np.float32(rng.normal(size=(50, 4)))
    features[:, 2] = 7.3  # constant, and no round number
    found = jax.jit(srae.correlations)(jnp.asarray(features))
    live = [0, 1, 3]
    expected = np.corrcoef(features[:, live], rowvar=False)
    np.testing.assert_allclose(found.matrix[np.ix_(live, live)], expected, atol=1e-6)
    assert found.alive.tolist() == [True, True, False, True]
    assert found.matrix[2].tolist() == [0, 0, 1, 0]
    off = expected - np.eye(3)
    assert srae.shared_variance(found) == pytest.approx(np.sum(off**2) / 6, rel=1e-4)
    logdet = np.linalg.slogdet(expected)[1]
    assert srae.redundancy(found) == pytest.approx(-logdet, rel=1e-4)


def test_features_that_follow_from_each_other_are_wholly_redundant():
    column = jnp.arange(5.0)
    found = srae.correlations(jnp.stack([column, 2 * column], axis=1))
    assert srae.shared_variance(found) == pytest.approx(1)
    assert srae.redundancy(found) > 10


def test_part_shares_of_a_map_sum_to_one():
    a = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 6)))
    masks = jnp.zeros((2, 4, 6), bool).at[0, :2].set(True).at[1, 3, :3].set(True)
    shares = srae.part_shares(a, masks)
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == pytest.approx(float(a[3, :3].sum() / a.sum()))


def test_two_trainings_are_matched_whatever_order_and_sign_their_features_have():
    rng = np.random.default_rng(0)
    a = np.float32(rng.normal(size=(40, 4)))
    order = [2, 0, 3, 1]
    found = srae.matched(a, -3 * a[:, order])
    np.testing.assert_allclose(found, 1, atol=1e-5)
    noisy = a + np.float32(rng.normal(size=a.shape))
    assert np.all(srae.matched(a, noisy) < 0.95)
    dead = a * np.array([1, 1, 1, 0], np.float32)
    assert srae.matched(dead, a)[3] == 0
    assert np.count_nonzero(srae.matched(a, a[:, :2])) == 2
    with pytest.raises(ValueError, match="of 40 examples and `b` of 39"):
        srae.matched(a, a[1:])


def test_every_place_counts_the_same_in_cells_that_do_not_divide_a_map():
    h = np.float32(np.random.default_rng(0).normal(size=(13, 7, 2)))
    fine = h.repeat(3, axis=0).repeat(3, axis=1)  # of which the cells are whole
    expected = fine.reshape(3, 13, 3, 7, 2).mean((1, 3)).ravel()
    np.testing.assert_allclose(srae.pooled(h, size=3), expected, atol=1e-6)


def test_errors_of_a_score_for_all_and_for_some():
    rng = np.random.default_rng(0)
    y, guess = np.float32(rng.normal(size=(2, 30)))
    own = np.arange(30) < 7
    for where, chosen in ((None, slice(None)), (jnp.asarray(own), own)):
        found = srae.regression(jnp.asarray(guess), jnp.asarray(y), where=where)
        wrong = guess[chosen] - y[chosen]
        assert found.rmse == pytest.approx(np.sqrt(np.mean(wrong**2)), rel=1e-5)
        assert found.mae == pytest.approx(np.mean(np.abs(wrong)), rel=1e-5)
        share = 1 - np.mean(wrong**2) / np.var(y[chosen])
        assert found.r2 == pytest.approx(share, rel=1e-4)
    assert np.isnan(srae.regression(jnp.ones(3), jnp.ones(3)).r2)


def test_a_read_out_in_closed_form_is_that_of_scipy():
    rng = np.random.default_rng(0)
    features = np.float32(3 + rng.normal(size=(40, 4)) * [1, 10, 0.1, 1])
    features[:, 3] = 2.5
    scores = np.float32(rng.normal(size=(40, 2)))
    readout, bias = srae.least_squares(jnp.asarray(features), jnp.asarray(scores))
    design = np.c_[features[:, :3], np.ones(40)]
    expected = np.linalg.lstsq(design, scores, rcond=None)[0]
    np.testing.assert_allclose(readout[:3], expected[:3], rtol=1e-3, atol=1e-4)
    assert readout[3].tolist() == [0, 0]  # a constant unit
    np.testing.assert_allclose(bias, expected[3], rtol=1e-3, atol=1e-3)


def test_reading_a_score_back_changes_what_it_must():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 3))
    labels = rng.integers(3, size=60)
    guess = logits[:, 1] + rng.normal(size=60)
    found = srae.classification(*map(jnp.asarray, (logits, guess)), 1, labels)
    replaced = logits.copy()
    replaced[:, 1] = guess
    before, after = logits.argmax(1), replaced.argmax(1)
    own = labels == 1
    assert found.accuracy == pytest.approx(np.mean(after[own] == 1), rel=1e-5)
    assert found.accuracy_before == pytest.approx(np.mean(before[own] == 1), rel=1e-5)
    assert found.agreement == pytest.approx(np.mean(before == after), rel=1e-5)
    softmax = lambda v: np.exp(v)[:, 1] / np.exp(v).sum(1)
    moved = np.abs(softmax(logits) - softmax(replaced)).mean()
    assert found.probability == pytest.approx(moved, rel=1e-4)
    same = srae.classification(
        jnp.asarray(logits), jnp.asarray(logits[:, 1]), 1, labels
    )
    assert same.agreement == 1 and same.probability == 0


def test_a_class_that_does_not_exist_is_refused_and_one_that_never_occurs_is_nan():
    logits = jnp.ones((4, 3))
    with pytest.raises(ValueError, match="`c` is 3 but there are 3 classes"):
        srae.read_back(logits, jnp.ones(4), 3)
    assert np.isnan(jax.jit(srae.read_back)(logits, jnp.ones(4), 3)).all()
    found = srae.classification(logits, jnp.ones(4), 2, jnp.zeros(4, int))
    assert np.isnan(found.accuracy) and found.agreement == 1


def test_F9_top_k_keeps_the_largest():
    rows = jnp.array([[1.0, 2, 3], [3.0, 2, 1]])
    assert srae.top_k(rows, k=1).tolist() == [[0, 0, 3], [3, 0, 0]]
    assert srae.top_k(jnp.ones(4), k=2).sum() == 2  # k of them, also of equal ones
    with pytest.raises(ValueError, match="`k` is 4 of 3 codes"):
        srae.top_k(rows, k=4)


def test_codes_are_measured_row_by_row_at_any_scale_and_sign():
    found = srae.hoyer(jnp.array([[1.0, 0, 0], [1e-30, 0, 0]]))
    np.testing.assert_allclose(found, [1, 1], atol=1e-6)
    mixed = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    assert not np.any(srae.dead(mixed))  # their sums are zero


def test_PEERS_F2_what_dead_atoms_are_asked_for_is_that_of_sparsify():
    """Its formulas, row by row in NumPy."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(7, 6))
    atoms = rng.normal(size=(10, 6))
    unit = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    bias = np.where(np.arange(10) < 5, -30.0, 0.0)  # five that nobody uses
    with jax.enable_x64(True):
        params = srae.Dictionary(*map(jnp.asarray, (unit.T, bias, atoms, z.mean(0))))
        loss, terms = jax.jit(srae.top_k_loss, static_argnames="k")(
            params, jnp.asarray(z), k=2
        )
    before = (z - z.mean(0)) @ unit.T + bias
    codes = np.zeros_like(before)
    for row, values in zip(codes, before, strict=True):
        top = np.argsort(-values)[:2]
        row[top] = np.maximum(values[top], 0)
    error = z - (codes @ unit + z.mean(0))
    variance = np.sum((z - z.mean(0)) ** 2)
    dead = np.flatnonzero(np.all(codes == 0, axis=0))
    most = z.shape[1] // 2
    again = np.zeros_like(before)
    for row, values in zip(again, before, strict=True):
        top = dead[np.argsort(-values[dead])][: min(most, len(dead))]
        row[top] = values[top]
    revive = min(len(dead) / most, 1) * np.sum((again @ unit - error) ** 2) / variance
    assert len(dead) >= 5
    assert terms["error"] == pytest.approx(np.sum(error**2) / variance)
    assert terms["revive"] == pytest.approx(revive)
    assert loss == pytest.approx(np.sum(error**2) / variance + revive / 32)


def test_the_length_of_an_atom_does_not_count():
    params = srae.dictionary(jnp.ones((3, 4)), size=5, key=jax.random.key(0))
    longer = params._replace(atoms=3 * params.atoms)
    codes = jnp.arange(5.0)
    np.testing.assert_allclose(
        srae.decode(longer, codes), srae.decode(params, codes), rtol=1e-5
    )
