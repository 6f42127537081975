"""Push and prune against loops in NumPy, written from the published algorithm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import prototypes

OWNERS = prototypes.owners(6, 3)


def data_set(ties):
    """Latent maps `[11, 3, 4, 5]`; with ties, of small integers and one image twice."""
    draw = np.random.default_rng(0)
    shape = (11, 3, 4, 5)
    latent = draw.integers(3, size=shape) if ties else draw.uniform(size=shape)
    latent = latent.astype(np.float32)
    if ties:
        latent[8] = latent[2]
    labels = np.array([0, 1, 2, 2, 1, 0, 0, 1, 2, 0, 1], np.int32)
    found = (
        draw.integers(3, size=(6, 5)) if ties else draw.uniform(size=(6, 5))
    ).astype(np.float32)
    return latent, labels, found


def by_loops(latent, labels, found):
    """The push of the paper: strictly smaller distances win, in reading order."""
    best = [(np.inf, -1, -1, -1)] * len(found)
    for image, (maps, label) in enumerate(zip(latent, labels)):
        for j, p in enumerate(found):
            if OWNERS[j] != label:
                continue
            for row, column in np.ndindex(3, 4):
                d = np.sum((maps[row, column].astype(np.float64) - p) ** 2)
                if d < best[j][0]:
                    best[j] = (d, image, row, column)
    patches = [latent[image, row, column] for _, image, row, column in best]
    return best, np.stack(patches)


@functools.partial(jax.jit, static_argnames=("owners", "k"))
def of_batch(latent, found, labels, images, owners, k):
    return prototypes.nearest(latent, found, labels, images, k=k, owners=owners)


def gone_through(latent, labels, found, *, sizes, k=1, owners=OWNERS, order=None):
    total = prototypes.none_found(jnp.asarray(found), k=k)
    images = np.arange(len(latent)) if order is None else order
    for size in sizes:
        now, images = images[:size], images[size:]
        here = of_batch(latent[now], found, labels[now], now, owners, k)
        total = jax.jit(prototypes.merge)(total, here)
    assert not len(images)
    return total


@pytest.mark.parametrize("ties", [False, True])
def test_dossier_8_push_is_the_push_by_loops_with_its_ties_and_places(ties):
    latent, labels, found = data_set(ties)
    best, patches = by_loops(latent, labels, found)
    total = gone_through(latent, labels, found, sizes=[4, 4, 3])
    np.testing.assert_array_equal(prototypes.push(total, OWNERS), patches)
    places = np.concatenate([total.image, total.cell[:, 0]], axis=1)
    np.testing.assert_array_equal(places, [b[1:] for b in best])
    np.testing.assert_allclose(total.distance[:, 0], [b[0] for b in best], rtol=1e-6)
    np.testing.assert_array_equal(total.label[:, 0], OWNERS)
    if ties:  # there were some, else nothing was shown
        all_of = [
            d
            for image in np.flatnonzero(labels == 2)
            for d in np.sum((latent[image] - found[4]) ** 2, axis=-1).ravel()
        ]
        assert np.sum(np.array(all_of) == best[4][0]) > 1


def test_dossier_8_push_does_not_depend_on_batches_or_their_order():
    latent, labels, found = data_set(ties=True)
    one = gone_through(latent, labels, found, sizes=[11], k=3)
    order = np.random.default_rng(1).permutation(11)
    for other in (
        gone_through(latent, labels, found, sizes=[4, 4, 3], k=3),
        gone_through(latent, labels, found, sizes=[4, 4, 3], k=3, order=order),
    ):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_push_is_spread_over_devices_without_a_change():
    latent, labels, found = data_set(ties=True)
    one = of_batch(latent[:8], found, labels[:8], np.arange(8), OWNERS, 2)
    mesh = jax.sharding.Mesh(jax.local_devices(), ("data",))
    spread = jax.NamedSharding(mesh, jax.P("data"))
    parts = [jax.device_put(a, spread) for a in (latent[:8], labels[:8], np.arange(8))]
    several = of_batch(parts[0], found, *parts[1:], OWNERS, 2)
    jax.tree.map(np.testing.assert_array_equal, one, several)


def test_dossier_8_push_again_changes_nothing():
    latent, labels, found = data_set(ties=False)
    total = gone_through(latent, labels, found, sizes=[11])
    pushed = np.asarray(prototypes.push(total, OWNERS))
    again = gone_through(latent, labels, pushed, sizes=[4, 7])
    np.testing.assert_array_equal(prototypes.push(again, OWNERS), pushed)
    np.testing.assert_array_equal(again.distance, np.zeros((6, 1)))
    np.testing.assert_array_equal(again.image, total.image)
    np.testing.assert_array_equal(again.cell, total.cell)


def test_a_class_without_an_image_is_refused():
    latent, labels, found = data_set(ties=False)
    kept = labels != 1
    total = gone_through(latent[kept], labels[kept], found, sizes=[kept.sum()])
    assert total.image[2:4].tolist() == [[-1], [-1]]
    for owners in (OWNERS, jnp.array(OWNERS)):
        with pytest.raises(ValueError, match="2 prototypes have no image .* classes 1"):
            prototypes.push(total, owners)
    traced = jax.jit(lambda total: prototypes.push(total, OWNERS))(total)
    assert np.isnan(traced).all(1).tolist() == [False, False, True, True, False, False]
    latent[labels == 2] = np.nan
    total = gone_through(latent[kept], labels[kept], found, sizes=[kept.sum()])
    with pytest.raises(ValueError, match="4 prototypes .* classes 1, 2: .* NaN"):
        prototypes.push(total, OWNERS)


def test_the_nearest_images_are_those_of_a_sort():
    latent, labels, found = data_set(ties=False)
    total = gone_through(latent, labels, found, sizes=[4, 4, 3], k=6, owners=None)
    least = np.min(
        np.sum((latent[..., None, :] - found.astype(np.float64)) ** 2, -1), (1, 2)
    )
    order = np.argsort(least, axis=0)[:6].T
    np.testing.assert_array_equal(total.image, order)
    np.testing.assert_array_equal(total.label, labels[order])
    few = gone_through(latent[:2], labels[:2], found, sizes=[2], k=6, owners=None)
    assert np.all(few.image[:, 2:] == -1) and np.all(np.isinf(few.distance[:, 2:]))
    assert np.all(few.image[:, :2] >= 0)
    filler = np.array([0, 1, -1])
    filled = of_batch(latent[:3], found, labels[:3], filler, None, 6)
    np.testing.assert_array_equal(filled.image, few.image)


def test_dossier_8_a_prototype_goes_if_its_neighbors_are_of_other_classes():
    found = prototypes.none_found(jnp.zeros((2, 1)), k=6)
    found = found._replace(label=jnp.array([[1, 1, 1, 0, 2, 3], [1, 1, 0, 0, 2, 3]]))
    assert prototypes.prune(found, (1, 1)).tolist() == [True, False]
    assert prototypes.prune(found, (1, 1), needed=0).tolist() == [True, True]
    with pytest.raises(ValueError, match="`needed` is 7, and 6 images were looked for"):
        prototypes.prune(found, (1, 1), needed=7)


def test_a_count_below_one_is_refused():
    latent, labels, found = data_set(ties=False)
    with pytest.raises(ValueError, match="`k` is 0"):
        prototypes.none_found(jnp.asarray(found), k=0)
    with pytest.raises(ValueError, match="`k` is 0"):
        prototypes.nearest(latent, found, labels, np.arange(11), k=0)


def test_classes_may_have_different_numbers_of_prototypes():
    latent, labels, found = data_set(ties=False)
    uneven = (2, 0, 0, 2, 0, 4)  # none of class 1 or 3, and no image of class 4
    total = gone_through(latent, labels, found, sizes=[4, 7], owners=uneven)
    least = np.sum((latent[..., None, :] - found.astype(np.float64)) ** 2, -1).min(
        (1, 2)
    )
    least[labels[:, None] != np.array(uneven)] = np.inf
    np.testing.assert_allclose(total.distance[:, 0], least.min(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(total.image[:5, 0], least.argmin(axis=0)[:5])
    assert total.image[5, 0] == -1
    total = gone_through(latent, labels, found, sizes=[11], k=6, owners=(0,) * 6)
    assert set(total.label.ravel().tolist()) == {0, -1}
    with pytest.raises(ValueError, match="`owners` names the classes of 2 prototypes"):
        gone_through(latent, labels, found, sizes=[11], owners=(0, 1))


def test_peers_e5_orthogonal_features_are_their_own_prototypes():
    """PEERS E5: push is the identity, and similarity is largest at the right place."""
    latent = jnp.eye(12).reshape(1, 3, 4, 12)
    found = jnp.eye(12)
    owners, one = (0,) * 12, jnp.zeros(1, jnp.int32)
    near = prototypes.nearest(latent, found, one, one, k=1, owners=owners)
    np.testing.assert_array_equal(prototypes.push(near, owners), found)
    rows, columns = np.divmod(np.arange(12), 4)
    np.testing.assert_array_equal(near.cell[:, 0], np.stack([rows, columns], axis=1))
    maps = prototypes.similarity(prototypes.squared_distances(latent[0], found))
    # a distance of zero is known to a few roundings of one, the similarity to 1e4 times
    np.testing.assert_allclose(maps.max((0, 1)), 9.2103, atol=5e-3)
    np.testing.assert_array_equal(maps.reshape(12, 12).argmax(0), np.arange(12))
