"""ProtoPNet's formulas: distances, similarities, votes, losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import prototypes

KEY = jax.random.key(0)


def drawn(h=7, w=5, d=128, count=20):
    keys = jax.random.split(KEY)
    features = jax.random.uniform(keys[0], (h, w, d))
    return features, jax.random.uniform(keys[1], (count, d))


def direct(features, found):
    """Squared norms of differences, in double precision."""
    z, p = np.asarray(features, np.float64), np.asarray(found, np.float64)
    return np.sum((z[:, :, None] - p[None, None]) ** 2, axis=-1)


def test_peers_e1_distances_are_norms_of_differences_and_never_negative():
    """PEERS E1: by one product as by the norm, patches among the prototypes."""
    features, found = drawn()
    found = found.at[:5].set(features[3])
    distances = jax.jit(prototypes.squared_distances)(features, found)
    assert distances.shape == (7, 5, 20) and distances.min() >= 0
    np.testing.assert_allclose(distances, direct(features, found), atol=1e-4)


def test_dossier_8_a_patch_is_at_distance_zero_of_itself_far_from_the_origin_too():
    features, found = drawn()
    found = found.at[:5].set(features[3])
    for shift in (0.0, 100.0):  # a product of vectors far away loses all digits
        own = prototypes.squared_distances(features + shift, found + shift)[3]
        own = jnp.diagonal(own[:, :5])
        assert jnp.max(own) < 1e-5
        assert jnp.min(prototypes.similarity(own)) > 9.1


def test_the_product_of_distances_is_at_full_precision_on_every_device():
    """TF32 would make 0.012 of a distance of zero; the traced program forbids it."""
    for measure in (prototypes.squared_distances, prototypes.cosine_distances):
        traced = str(jax.make_jaxpr(measure)(*drawn()))
        assert "dot_general" in traced
        assert traced.count("Precision.HIGHEST") == 2  # of both factors


def test_distances_have_the_gradient_of_the_norm():
    features, found = drawn(2, 2, 6, 3)
    weights = jax.random.normal(KEY, (2, 2, 3))
    norms = lambda z, p: jnp.sum((z[:, :, None] - p[None, None]) ** 2, axis=-1)
    slopes = [
        jax.grad(lambda z, p, f=f: jnp.sum(weights * f(z, p)), (0, 1))(features, found)
        for f in (prototypes.squared_distances, norms)
    ]
    for ours, true in zip(*slopes, strict=True):
        np.testing.assert_allclose(ours, true, atol=1e-5)


def test_dossier_8_distances_of_corners_are_those_of_hamming():
    measure = prototypes.squared_distances
    corners = jax.random.bernoulli(KEY, shape=(3, 3, 16)).astype(float)
    others = jax.random.bernoulli(jax.random.key(1), shape=(4, 16)).astype(float)
    hamming = np.sum(np.asarray(corners)[:, :, None] != others[None, None], axis=-1)
    np.testing.assert_allclose(measure(corners, others), hamming, atol=1e-5)
    features, found = drawn(3, 3, 8, 6)
    order = np.random.default_rng(0).permutation(6)
    permuted = measure(features, found[order])
    np.testing.assert_allclose(
        permuted, measure(features, found)[:, :, order], atol=1e-6
    )


def test_the_similarity_falls_and_has_the_known_inverse():
    assert jnp.all(jnp.diff(prototypes.similarity(jnp.geomspace(1e-6, 128, 50))) < 0)
    inverse = lambda s: (1 - 1e-4 * np.exp(s)) / (np.exp(s) - 1)
    for s, d in ((2.6132278, 0.0789871), (4.612843, 0.0099220)):
        assert inverse(s) == pytest.approx(d, abs=1e-6)
        assert prototypes.similarity(jnp.array(d)) == pytest.approx(s, abs=1e-4)


def test_dossier_8_the_largest_similarity_is_that_of_the_smallest_distance():
    distances = prototypes.squared_distances(*drawn())
    for alike in (prototypes.similarity, prototypes.linear_similarity):
        least = alike(prototypes.min_distances(distances))
        np.testing.assert_array_equal(least, jnp.max(alike(distances), (0, 1)))


def test_cosine_distances_know_directions_alone():
    features, found = drawn(3, 3, 8, 4)
    z, p = np.asarray(features), np.asarray(found)
    cosine = np.einsum("hwd,pd->hwp", z, p)
    cosine /= np.linalg.norm(z, axis=-1)[..., None] * np.linalg.norm(p, axis=-1)
    scaled = prototypes.cosine_distances(3 * features, found / 7)
    np.testing.assert_allclose(scaled, 1 - cosine, atol=1e-5)
    similar = functools.partial(prototypes.linear_similarity, bound=1.0)
    np.testing.assert_allclose(similar(scaled), cosine, atol=1e-5)
    nothing = prototypes.cosine_distances(jnp.zeros((1, 1, 8)), found)
    np.testing.assert_array_equal(nothing, jnp.ones((1, 1, 4)))


def test_of_equally_near_places_the_first_has_the_gradient():
    """As PyTorch's pooling; JAX would share it."""
    distances = jnp.array([[[2.0], [1.0]], [[1.0], [3.0]]])
    slope = jax.grad(lambda d: prototypes.min_distances(d)[0])(distances)
    np.testing.assert_array_equal(slope[..., 0], [[0, 1], [0, 0]])
    below = jax.grad(lambda z: prototypes.squared_distances(z, jnp.ones((1, 2))).sum())
    np.testing.assert_array_equal(below(jnp.ones((1, 1, 2))), jnp.zeros((1, 1, 2)))


def test_patches_of_several_places_are_compared_as_a_whole():
    features = jax.random.uniform(KEY, (4, 5, 3))
    kernels = jax.random.uniform(jax.random.key(1), (2, 2, 3, 3))
    found = prototypes.squared_distances(
        prototypes.patches(features, window=(2, 3)), kernels.reshape(2, -1)
    )
    assert found.shape == (3, 3, 2)
    for h, w in np.ndindex(3, 3):
        patch = features[h : h + 2, w : w + 3][None]
        true = np.sum((patch - kernels) ** 2, axis=(1, 2, 3))
        np.testing.assert_allclose(found[h, w], true, atol=1e-5)
    same = prototypes.patches(features, window=(1, 1))
    np.testing.assert_array_equal(same, features)


@pytest.mark.parametrize("window", [(5, 1), (1, 0), (4, 6)])
def test_a_window_that_does_not_fit_is_refused(window):
    with pytest.raises(ValueError, match="`window` is .* the feature map has 4 x 5"):
        prototypes.patches(jnp.zeros((4, 5, 3)), window=window)


def test_prototypes_that_cannot_be_dealt_out_are_refused():
    with pytest.raises(ValueError, match="`count` is 7, which cannot be divided among"):
        prototypes.owners(7, 3)
    with pytest.raises(ValueError, match="`owners` must be class indices from 0 to 1"):
        prototypes.connections((0, 2), 2)
    given = prototypes.connections(np.array([0, 1]), 2)
    np.testing.assert_array_equal(given, prototypes.connections((0, 1), 2))
    with pytest.raises(ValueError, match="one or more"):
        prototypes.connections((), 2)


def test_dossier_8_the_last_layer_votes_for_the_class_and_against_the_others():
    owners = prototypes.owners(2000, 200)
    kernel = prototypes.connections(owners, 200)
    own = (np.array(owners) == 17).astype(np.float32)
    logits = own @ kernel
    assert logits[17] == 10 and np.all(np.delete(logits, 17) == -5)


def test_dossier_8_the_loss_has_the_known_total():
    """The dossier's example of four prototypes, two classes, three images."""
    d = jnp.array(
        [[0.30, 0.10, 0.20, 0.05], [0.90, 0.40, 0.60, 0.70], [0.25, 0.35, 0.15, 0.45]]
    )
    y, owners = jnp.array([0, 1, 1]), jnp.array([0, 0, 1, 1])
    each = lambda term: jnp.mean(jax.vmap(term, (0, 0, None))(d, y, owners))
    terms = prototypes.cluster, prototypes.separation, prototypes.mean_separation
    found = [each(term) for term in terms]
    kernel = prototypes.connections((0, 0, 1, 1), 2)
    logits = prototypes.similarity(d) @ kernel
    entropy = -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(3), y])
    assert entropy == pytest.approx(0.9958142, abs=1e-4)
    total = entropy + 0.8 * found[0] - 0.08 * found[1] + 1e-4 * 2
    assert total == pytest.approx(1.2040142, abs=1e-4)
    for term in terms[:2]:  # the cut-off changes nothing below the bound
        bounded = functools.partial(term, bound=4.0)
        np.testing.assert_allclose(each(bounded), each(term), atol=1e-6)


def test_dossier_8_the_published_minimum_is_cut_off_and_has_no_gradient_there():
    d, owners = jnp.array([5.0, 6.0, 1.0, 2.0]), jnp.array([0, 0, 1, 1])
    ours = jax.value_and_grad(prototypes.cluster)(d, 0, owners)
    cut_off = functools.partial(prototypes.cluster, bound=4.0)
    theirs = jax.value_and_grad(cut_off)(d, 0, owners)
    assert ours[0] == 5 and ours[1].tolist() == [1, 0, 0, 0]
    assert theirs[0] == 4 and not jnp.any(theirs[1])


def test_a_class_without_prototypes_is_infinitely_far():
    assert prototypes.cluster(jnp.ones(2), 1, jnp.zeros(2, int)) == jnp.inf
    assert prototypes.separation(jnp.ones(2), 0, jnp.zeros(2, int)) == jnp.inf
