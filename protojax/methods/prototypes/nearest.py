"""The patches of many images that are nearest to each prototype; push and prune.

A data set is gone through batch by batch, in any order and on any number of devices:

    found = prototypes.none_found(weights["prototypes"], k=1)
    for batch in batches:
        here = prototypes.nearest(latent(batch), weights["prototypes"], ...)
        found = prototypes.merge(found, here)

and what comes out does not depend on how. Of patches at the same distance the one of
the smaller image number comes first, then the smaller row, then the smaller column.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array
from protojax.mechanisms import checks


class Nearest(NamedTuple):
    """The k nearest images of each prototype, each with its nearest patch.

    Attributes:
      distance: `[P, k]` squared, rising; infinity where there are fewer than k images.
      image: `[P, k]` the number of the image, -1 where there is none.
      label: `[P, k]` its class, -1 where there is none.
      cell: `[P, k, 2]` row and column of the patch in the latent map.
      patch: `[P, k, D]` the patch itself.
    """

    distance: Array
    image: Array
    label: Array
    cell: Array
    patch: Array


def none_found(prototypes: Array, *, k: int) -> Nearest:
    """What is known before any image was looked at.

    Args:
      prototypes: `[P, D]`.
      k: how many images shall be found.

    Returns:
      Infinite distances.

    Raises:
      ValueError: for k below one.

    >>> none_found(jnp.zeros((3, 4)), k=2).image.tolist()
    [[-1, -1], [-1, -1], [-1, -1]]
    """
    chex.assert_rank(prototypes, 2)
    checks.count("k", k)
    count, depth = prototypes.shape
    return Nearest(
        distance=jnp.full((count, k), jnp.inf, prototypes.dtype),
        image=jnp.full((count, k), -1),
        label=jnp.full((count, k), -1),
        cell=jnp.zeros((count, k, 2), int),
        patch=jnp.zeros((count, k, depth), prototypes.dtype),
    )


def nearest(
    latent: Array,
    prototypes: Array,
    labels: Array,
    images: Array,
    *,
    k: int,
    owners: Sequence[int] | None = None,
) -> Nearest:
    """Look for the nearest images of each prototype in a batch.

    Distances are sums of squared differences, which a patch has zero of from itself,
    whatever else is in the batch; those of `squared_distances` have rounding errors.

    Args:
      latent: `[N, h, w, D]` latent maps.
      prototypes: `[P, D]`.
      labels: `[N]` the images' classes; with `owners`, one that is no prototype's is
        compared with none.
      images: `[N]` their numbers, each another one; below zero for what is no image but
        fills the batch.
      k: how many images for each prototype.
      owners: `[P]` the class of each prototype: each image is compared with those of
        its own class alone. None compares it with all.

    Returns:
      What is nearest in this batch.

    Raises:
      ValueError: for k below one; for owners whose number is not the prototypes'.

    >>> latent = jnp.array([[[[0.0], [1.0]]], [[[3.0], [4.0]]]])
    >>> ids = jnp.arange(2)
    >>> found = nearest(latent, jnp.array([[2.5]]), ids, ids, k=2)
    >>> found.image.tolist(), found.distance.tolist(), found.patch[:, :, 0].tolist()
    ([[1, 0]], [[0.25, 2.25]], [[3.0, 1.0]])
    """
    chex.assert_rank([latent, prototypes, labels, images], [4, 2, 1, 1])
    chex.assert_equal_shape_prefix([latent, labels, images], 1)
    checks.count("k", k)
    (count, _, columns, depth), num = latent.shape, len(prototypes)
    patches = latent.reshape(count, -1, 1, depth)
    if owners is None:
        least, place = _least(patches, prototypes[None])
    else:
        table = _mine(owners, num)
        mine = table.at[labels].get(
            mode="fill", fill_value=num, wrap_negative_indices=False
        )
        own_least, own_place = _least(patches, prototypes[mine.clip(0, num - 1)])
        rows = jnp.arange(count)[:, None]
        least = jnp.full((count, num), jnp.inf, own_least.dtype)
        least = least.at[rows, mine].set(own_least, mode="drop")
        place = jnp.zeros((count, num), own_place.dtype)
        place = place.at[rows, mine].set(own_place, mode="drop")
    left_out = jnp.isnan(least) | (images < 0)[:, None]
    least = jnp.where(left_out, jnp.inf, least)
    order = _order(least.T, jnp.broadcast_to(images[None], (num, count)), k)
    taken = order.clip(0, count - 1)
    where = jnp.take_along_axis(place.T, taken, axis=1)
    found = Nearest(
        distance=jnp.take_along_axis(least.T, taken, axis=1),
        image=images[taken],
        label=labels[taken],
        cell=jnp.stack([where // columns, where % columns], axis=-1),
        patch=patches[taken, where, 0],
    )
    return _blank(found, order >= count)


def merge(a: Nearest, b: Nearest) -> Nearest:
    """The nearest of two lots of images.

    Args:
      a: of some images.
      b: of others.

    Returns:
      As many for each prototype as `a` has.

    >>> one = none_found(jnp.zeros((1, 1)), k=1)
    >>> two = one._replace(distance=jnp.array([[2.0]]), image=jnp.array([[7]]))
    >>> merge(one, two).image.tolist(), merge(two, one).image.tolist()
    ([[7]], [[7]])
    """
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), a, b)
    order = _order(both.distance, both.image, a.distance.shape[1])

    def take(values: Array) -> Array:
        index = order.reshape(*order.shape, *[1] * (values.ndim - 2))
        return jnp.take_along_axis(values, index, axis=1)

    return jax.tree.map(take, both)


def push(found: Nearest, owners: Sequence[int]) -> Array:
    """Each prototype becomes the patch of its class that is nearest to it.

    Args:
      found: the nearest images of all there are, looked for with `owners`.
      owners: `[P]` the class of each prototype.

    Returns:
      `[P, D]` the new prototypes; where it is traced, NaN for those that have no image.

    Raises:
      ValueError: if a class is known to have no image. (The authors' code makes its
        prototypes zero.)

    References:
      Chen et al., This Looks Like That, 2019, section 2.2: projection of prototypes.

    >>> latent = jnp.array([[[[0.0], [1.0]]], [[[3.0], [4.0]]]])
    >>> ids = jnp.arange(2)
    >>> vectors = jnp.array([[2.5], [2.5]])
    >>> found = nearest(latent, vectors, ids, ids, k=1, owners=(0, 1))
    >>> push(found, (0, 1)).ravel().tolist()
    [1.0, 3.0]
    """
    chex.assert_axis_dimension(found.distance, 0, len(owners))
    if checks.known(found.distance):
        lost = np.flatnonzero(~np.isfinite(found.distance[:, 0])).tolist()
        if lost:
            names = ", ".join(
                str(c) for c in sorted({int(owners[j]) for j in lost})[:8]
            )
            raise ValueError(
                f"{len(lost)} prototypes have no image to be pushed to, those of the "
                f"classes {names}: push on images of every class, and look for NaN in "
                "their features"
            )
    there = jnp.isfinite(found.distance[:, 0])
    return jnp.where(there[:, None], found.patch[:, 0], jnp.nan)


def prune(found: Nearest, owners: Sequence[int], *, needed: int = 3) -> Array:
    """Which prototypes to keep: those whose nearest images are of their class.

    Args:
      found: the nearest images of all classes, after a push; six in the authors'
        code.
      owners: `[P]` the class of each prototype.
      needed: of how many of them the class must be the prototype's.

    Returns:
      bool `[P]`, true for prototypes to be kept.

    Raises:
      ValueError: if more are needed than there are.

    References:
      The code of Chen et al., This Looks Like That, 2019: three of six.

    >>> found = none_found(jnp.zeros((2, 1)), k=3)
    >>> found = found._replace(label=jnp.array([[0, 0, 1], [0, 0, 1]]))
    >>> prune(found, (0, 1), needed=2).tolist()
    [True, False]
    """
    chex.assert_axis_dimension(found.label, 0, len(owners))
    k = found.label.shape[1]
    if not 0 <= needed <= k:
        raise ValueError(
            f"`needed` is {needed}, and {k} images were looked for: choose 0 to {k}"
        )
    same = found.label == jnp.asarray(owners)[:, None]
    return jnp.sum(same, axis=1) >= needed


def _least(patches: Array, prototypes: Array) -> tuple[Array, Array]:
    """Distance and place of the patch nearest to each prototype, of each image.

    Patches are `[N, h w, 1, D]`, prototypes `[N or 1, p, D]`; results `[N, p]`.
    """
    distances = jnp.sum((patches - prototypes[:, None]) ** 2, axis=-1)
    return jnp.min(distances, axis=1), jnp.argmin(distances, axis=1)


def _mine(owners: Sequence[int], num: int) -> Array:
    """`[K, p]` the prototypes of each class; `num`, which is none, fills the rows."""
    if len(owners) != num:
        raise ValueError(
            f"`owners` names the classes of {len(owners)} prototypes, and there are "
            f"{num}: name one for each"
        )
    of = np.asarray(owners)
    rows = [np.flatnonzero(of == c) for c in range(of.max() + 1)]
    table = np.full((len(rows), max(map(len, rows))), num)
    for row, members in zip(table, rows, strict=True):
        row[: len(members)] = members
    return jnp.asarray(table)


def _order(distance: Array, image: Array, k: int) -> Array:
    """Places of the k smallest `[P, k]`, by distance, then by image."""
    places = jax.lax.broadcasted_iota(jnp.int32, distance.shape, 1)
    *_, order = jax.lax.sort((distance, image, places), dimension=1, num_keys=2)
    missing = max(0, k - order.shape[1])
    return jnp.pad(order[:, :k], ((0, 0), (0, missing)), constant_values=2**31 - 1)


def _blank(found: Nearest, absent: Array) -> Nearest:
    """Nothing where there is no image, or none of the class."""
    absent = absent | jnp.isinf(found.distance)
    wide = absent[..., None]
    return Nearest(
        distance=jnp.where(absent, jnp.inf, found.distance),
        image=jnp.where(absent, -1, found.image),
        label=jnp.where(absent, -1, found.label),
        cell=jnp.where(wide, 0, found.cell),
        patch=jnp.where(wide, 0, found.patch),
    )
