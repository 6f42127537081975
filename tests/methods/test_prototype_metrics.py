"""What later work measures prototypes by, against counts made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import metrics, objectives, prototypes

KEY = jax.random.key(0)


def test_dossier_8_consistency_of_the_known_example():
    """The dossier's toy: the third part is never hit, the second always."""
    hits = jnp.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]])
    seen = jnp.array([[1, 0, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]])
    # a second prototype of the same class is found on nothing, a third has no images
    three = jnp.stack([hits, 0 * hits, hits], axis=1)
    owners, labels = jnp.array([0, 0, 1]), jnp.zeros(4)
    found = metrics.consistency(three, seen, labels, owners, threshold=0.8)
    assert float(found) == pytest.approx(100 / 3, rel=1e-6)
    all_of = metrics.consistency(three[:, :1], seen, labels, owners[:1])
    none = metrics.consistency(three[:, 1:2], seen, labels, owners[:1])
    assert all_of == 100 and none == 0


def counted(hits, seen, labels, owners):
    """Consistency by loops."""
    good = 0
    for j, owner in enumerate(owners):
        images = [n for n in range(len(hits)) if labels[n] == owner]
        rates = []
        for k in range(hits.shape[2]):
            of = [hits[n, j, k] for n in images if seen[n, k]]
            rates.append(sum(of) / len(of) if of else 0.0)
        good += max(rates) >= 0.5
    return 100 * good / len(owners)


def test_consistency_and_stability_are_those_by_loops_in_any_order():
    draw = np.random.default_rng(0)
    seen = draw.random((20, 4)) < 0.8
    hits = (draw.random((20, 6, 4)) < 0.5) & seen[:, None]
    labels, owners = draw.integers(3, size=20), np.arange(6) // 2
    of = lambda *a: metrics.consistency(*map(jnp.asarray, a), threshold=0.5)
    assert of(hits, seen, labels, owners) == counted(hits, seen, labels, owners)
    order = draw.permutation(20)
    assert of(hits[order], seen[order], labels[order], owners) == of(
        hits, seen, labels, owners
    )
    noisy = hits.copy()
    noisy[::3, 1, 0] ^= True
    shares = [
        np.mean(
            [np.all(hits[n, j] == noisy[n, j]) for n in np.flatnonzero(labels == c)]
        )
        for j, c in enumerate(owners)
    ]
    found = metrics.stability(*map(jnp.asarray, (hits, noisy, labels, owners)))
    assert float(found) == pytest.approx(100 * np.mean(shares), rel=1e-5)
    same = metrics.stability(*map(jnp.asarray, (hits, hits, labels, owners)))
    assert same == 100


def test_dossier_8_purity_is_the_share_of_the_best_part():
    hits = jnp.array([[1, 0]] * 8 + [[0, 1]] * 2)
    assert float(metrics.purity(hits, jnp.ones((10, 2)))) == pytest.approx(0.8)
    once = jnp.zeros((10, 2)).at[9, 1].set(1)  # seen in one image, and hit there
    assert metrics.purity(hits, once.at[:, 0].set(1)) == 1


def test_boxes_are_the_published_ones_and_parts_lie_in_them_or_not():
    peak = jnp.zeros((224, 224)).at[10, 200].set(1)
    assert metrics.peak_box(peak).tolist() == [0, 47, 164, 224]
    places = [
        metrics.patch_box(jnp.array([i, i]), (7, 7), (224, 224)) for i in range(7)
    ]
    assert [p[0].item() for p in places] == [32 * i for i in range(7)]
    last = metrics.patch_box(jnp.array([25, 0]), (26, 26), (224, 224))
    assert last.tolist() == [192, 224, 0, 32]  # 25 steps of 8 pixels are cut off there
    points = jnp.array([[46.9, 164.0], [47.0, 164.0], [0.0, 223.0], [10.0, 163.9]])
    hits = metrics.part_hits(metrics.peak_box(peak), points, jnp.ones(4, bool))
    assert hits.tolist() == [True, False, True, False]
    unseen = metrics.part_hits(metrics.peak_box(peak), points, jnp.zeros(4, bool))
    assert not jnp.any(unseen)


def test_duplicates_are_found_after_their_first():
    found = jax.random.uniform(KEY, (5, 8))
    found = found.at[3].set(found[1]).at[4].set(found[0] + 1e-4)
    assert metrics.duplicates(found).tolist() == [False, False, False, True, False]
    near = metrics.duplicates(found, within=1e-6)
    assert near.tolist() == [False, False, False, True, True]


def test_dossier_8_nothing_is_misaligned_where_nothing_has_changed():
    top = jnp.arange(8)[:, None] * jnp.ones((8, 8))
    before = (top < 4).astype(float)
    owners = jnp.array([0, 0, 1, 1, 2])
    s, right = jnp.array([5.0, 6, 4, 3, 7]), jnp.array([1, 1, 0, 1])
    same = (
        metrics.location_change(before, before),
        metrics.activation_change(4.0, 4.0),
        metrics.rank_change(s, s, 0, owners),
        metrics.accuracy_change(right, right),
    )
    assert same == (0, 0, 0, 0)


def test_a_map_with_nan_is_no_map_that_looks_well():
    """Counted as masks, it has no highest pixel at all: nothing lies outside."""
    a = jnp.ones((4, 4)).at[0, 0].set(jnp.nan)
    inside = jnp.ones((4, 4), bool)
    of = (metrics.pointing_game, metrics.high_inside, metrics.activation_precision)
    found = [measure(a, inside) for measure in of]
    found += [metrics.location_change(a, b) for b in (a, jnp.ones((4, 4)))]
    assert all(map(jnp.isnan, found))


def test_shares_and_prototypes_that_are_none_are_named():
    a, s = jnp.ones((4, 4)), jnp.ones(3)
    with pytest.raises(ValueError, match="`share` is 5: choose from 0 to 1"):
        metrics.high_inside(a, a, share=5)
    with pytest.raises(ValueError, match="`prototype` is 3 but there are 3 prototypes"):
        metrics.rank_change(s, s, 3, jnp.arange(3))
    with pytest.raises(ValueError, match="`prototype` is -1 but"):
        prototypes.rank(s, -1)


def test_dossier_8_the_cross_entropy_of_a_single_logit_has_no_gradient():
    """So that what is lowered by an attack elsewhere must be the similarity itself."""
    alone = objectives.cross_entropy(lambda x: jnp.max(x).reshape(1), 0)
    assert not jnp.any(jax.grad(alone)(jnp.arange(12.0).reshape(2, 2, 3)))


def test_dossier_8_relevance_outside_and_inside():
    inside = jnp.zeros((4, 4), bool).at[:2].set(True)
    a = jnp.where(inside, 0.8, 0.2)
    perfect = inside.astype(float)
    assert metrics.outside_inside_ratio(perfect, inside) == 0
    assert metrics.inside_outside_difference(1 - perfect, inside) == -1
    zero = jnp.zeros((4, 4))
    assert metrics.inside_outside_difference(zero, inside) == 0
    # zeros do not count in the means: half of the inside is dark, and nothing changes
    half = a.at[0].set(0)
    assert float(metrics.outside_inside_ratio(half, inside)) == pytest.approx(0.25)


def test_pointing_and_precision_by_hand():
    a = jnp.arange(1.0, 17).reshape(4, 4)
    inside = jnp.zeros((4, 4), bool).at[3, 2:].set(True)
    assert metrics.pointing_game(a, inside) == 1
    assert metrics.pointing_game(-a, inside) == 0
    assert float(metrics.pointing_energy(a, inside)) == pytest.approx(31 / 136)
    assert float(metrics.high_inside(a, inside, share=0.2)) == pytest.approx(2 / 4)
    precision = metrics.activation_precision(a, inside, share=0.2)
    assert float(precision) == pytest.approx(31 / (13 + 14 + 15 + 16))
    assert float(metrics.object_share(a > 14.5, inside)) == 1
    assert float(metrics.background_share(a > 13.5, inside)) == pytest.approx(1 / 3)
    flat = jnp.ones((4, 4))  # all of its pixels are highest: the area is the answer
    assert float(metrics.activation_precision(flat, inside)) == pytest.approx(1 / 8)
    assert float(metrics.high_inside(flat, inside)) == pytest.approx(1 / 8)
    assert metrics.pointing_energy(0 * flat, inside) == 0
