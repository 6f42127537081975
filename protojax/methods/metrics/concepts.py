"""Whether a prototype means one thing: the parts that it is found on, over many images.

What is known of an image are the places of its parts, `points` `[K, 2]` (row and
column, in pixels of the map) and which of them are seen, `visible` `[K]`. What a
prototype is found on is a box; `part_hits` says which parts lie in it. The rest is
counting, over `[N, ...]` images.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike


def peak_box(a: Array, *, half: int = 36) -> Array:
    """The square around the highest pixel of a map, as consistency takes it.

    Args:
      a: `[H, W]` an enlarged map; of equal pixels the first counts, NaN as the highest.
      half: how many pixels the square reaches on each side; 36 for 224 pixels.

    Returns:
      int `[4]`: first row, last row (exclusive), first column, last column (exclusive).

    References:
      Huang et al., Evaluation and Improvement of Interpretability for Self-Explainable
      Part-Prototype Networks, 2023.

    >>> peak_box(jnp.zeros((9, 9)).at[1, 5].set(1), half=2).tolist()
    [0, 4, 3, 8]
    """
    chex.assert_rank(a, 2)
    ends = []
    place = jnp.argmax(a)
    for middle, size in zip(
        (place // a.shape[1], place % a.shape[1]), a.shape, strict=True
    ):
        ends += [jnp.maximum(middle - half, 0), jnp.minimum(middle + half + 1, size)]
    return jnp.stack(ends)


def patch_box(
    cell: Array, grid: Sequence[int], size: Sequence[int], *, patch: int = 32
) -> Array:
    """The patch of the image that a place of a map stands for, as purity takes it.

    Patches of a given size, spread evenly over the image: a larger patch has more parts
    and looks purer.

    Args:
      cell: int `[2]` row and column of the place.
      grid: height and width of the map.
      size: height and width of the image.
      patch: side of the patch in pixels; 32 for 224 pixels.

    Returns:
      int `[4]`: first row, last row (exclusive), first column, last column (exclusive).

    References:
      Nauta et al., PIP-Net: Patch-Based Intuitive Prototypes for Interpretable Image
      Classification, 2023, and its code.

    >>> patch_box(jnp.array([0, 6]), (7, 7), (224, 224)).tolist()
    [0, 32, 192, 224]
    """
    chex.assert_shape(cell, (2,))
    ends = []
    for axis in (0, 1):
        skip = round((size[axis] - patch) / max(grid[axis] - 1, 1))
        low = jnp.clip(cell[axis] * skip, 0, size[axis] - patch)
        ends += [low, low + patch]
    return jnp.stack(ends)


def part_hits(box: Array, points: Array, visible: Array) -> Array:
    """Which parts lie in a box.

    Args:
      box: `[4]` first row, last row (exclusive), first column, last column (exclusive).
      points: `[K, 2]` row and column of each part, in pixels.
      visible: bool `[K]` which of them are seen.

    Returns:
      bool `[K]`.

    >>> points = jnp.array([[1.0, 1.0], [5.0, 1.0]])
    >>> part_hits(jnp.array([0, 4, 0, 4]), points, jnp.array([True, True])).tolist()
    [True, False]
    """
    chex.assert_shape([box, points], [(4,), (len(visible), 2)])
    row, column = points[:, 0], points[:, 1]
    within = (row >= box[0]) & (row < box[1]) & (column >= box[2]) & (column < box[3])
    return within & visible.astype(bool)


def part_rates(hits: Array, visible: Array, *, among: ArrayLike | None = None) -> Array:
    r"""How often a prototype is found on each part, of the images in which it is seen.

    .. math:: a_k = \sum_x o_k(x) / \sum_x v_k(x)

    Args:
      hits: bool `[N, K]`.
      visible: bool `[N, K]`.
      among: bool `[N]` which images count, all by default.

    Returns:
      `[K]` from 0 to 1; 0 for a part that is never seen.

    References:
      Huang et al. 2023, and its code.

    >>> hits, seen = jnp.array([[1, 0], [1, 0]]), jnp.array([[1, 1], [1, 0]])
    >>> part_rates(hits, seen).tolist()
    [1.0, 0.0]
    """
    chex.assert_rank([hits, visible], 2)
    chex.assert_equal_shape([hits, visible])
    counted = jnp.ones(len(hits), bool) if among is None else jnp.asarray(among, bool)
    seen = visible.astype(bool) & counted[:, None]
    o, v = jnp.sum(hits.astype(bool) & seen, axis=0), jnp.sum(seen, axis=0)
    return jnp.where(v == 0, 0.0, o / jnp.where(v == 0, 1, v))


def purity(hits: Array, visible: Array) -> Array:
    """How often a prototype is found on the part that it is found on most.

    Over its ten most similar training images, with patches of `patch_box`. Of parts
    that come in pairs the two are merged first: seen or hit if one of them is. A part
    that is seen in few of the images is found in all of them more easily; the published
    code may count that in another way, as its users could not reproduce all numbers.

    Args:
      hits: bool `[N, K]` for the images of one prototype.
      visible: bool `[N, K]`.

    Returns:
      `[]` from 0 to 1.

    References:
      Nauta et al., PIP-Net, 2023.

    >>> hits = jnp.array([[1], [1], [1], [1], [0]])
    >>> round(float(purity(hits, jnp.ones((5, 1)))), 3)
    0.8
    """
    return jnp.max(part_rates(hits, visible))


def consistency(
    hits: Array,
    visible: Array,
    labels: Array,
    owners: Array,
    *,
    threshold: ArrayLike = 0.8,
) -> Array:
    """The percentage of prototypes that are found on one part nearly always.

    Over the test images of each prototype's class, with boxes of `peak_box`.

    Args:
      hits: bool `[N, P, K]` which parts each prototype is found on in each image.
      visible: bool `[N, K]`.
      labels: `[N]` classes of the images.
      owners: `[P]` classes of the prototypes.
      threshold: `[]` the share of images from which on it is nearly always.

    Returns:
      `[]` from 0 to 100; a prototype whose class has no image counts as inconsistent.

    References:
      Huang et al. 2023, and its code.

    >>> hits, seen = jnp.ones((2, 1, 3)), jnp.ones((2, 3))
    >>> float(consistency(hits, seen, jnp.zeros(2), jnp.zeros(1)))
    100.0
    """
    own = _own(hits, labels, owners)
    rates = jax.vmap(
        lambda hit, among: part_rates(hit, visible, among=among), in_axes=1
    )(hits, own)
    return 100 * jnp.mean(jnp.max(rates, axis=1) >= threshold)


def stability(before: Array, after: Array, labels: Array, owners: Array) -> Array:
    """The percentage of images in which noise leaves a prototype on the same parts.

    A mean over prototypes of means over the test images of their class. The noise is
    Gaussian of standard deviation 0.2, cut off at 0.25, after the network's own
    normalization: about 11 and 14 gray levels. A prototype that is never found on any
    part is perfectly stable: see too how many of `before` are empty.

    Args:
      before: bool `[N, P, K]` which parts each prototype is found on in each image.
      after: bool `[N, P, K]` the same with noise.
      labels: `[N]` classes of the images.
      owners: `[P]` classes of the prototypes.

    Returns:
      `[]` from 0 to 100; prototypes whose class has no image are left out, and it is
      NaN if that is all of them.

    References:
      Huang et al. 2023, and its code, for the noise too.

    >>> hits = jnp.ones((2, 1, 3))
    >>> float(stability(hits, hits, jnp.zeros(2), jnp.zeros(1)))
    100.0
    """
    chex.assert_equal_shape([before, after])
    own = _own(before, labels, owners)
    same = jnp.all(before.astype(bool) == after.astype(bool), axis=2) & own
    counts = jnp.sum(own, axis=0)
    shares = jnp.sum(same, axis=0) / jnp.where(counts == 0, 1, counts)
    return 100 * jnp.sum(shares) / jnp.sum(counts > 0)


def duplicates(prototypes: Array, *, within: ArrayLike = 0.0) -> Array:
    """Which prototypes are there twice: an earlier one is (nearly) the same.

    Nothing in ProtoPNet keeps several prototypes of a class from being pushed to one
    patch.

    Args:
      prototypes: `[P, D]`.
      within: `[]` the squared distance at which two are the same.

    Returns:
      bool `[P]`.

    >>> duplicates(jnp.array([[1.0], [2.0], [1.0]])).tolist()
    [False, False, True]
    """
    chex.assert_rank(prototypes, 2)
    apart = jax.lax.map(  # row by row, in the memory of the prototypes
        lambda one: jnp.sum((prototypes - one[None]) ** 2, axis=-1), prototypes
    )
    place = jnp.arange(len(prototypes))
    return jnp.any((apart <= within) & (place[None] < place[:, None]), axis=1)


def explanation_size(scores: Array, *, threshold: ArrayLike = 0.1) -> Array:
    """How many prototypes an explanation consists of.

    Args:
      scores: `[P]` how much each contributes, zero or more.
      threshold: `[]` what counts must be above this part of the largest.

    Returns:
      `[]` a count.

    References:
      Schlinge et al., quanproto, 2025: local size.

    >>> int(explanation_size(jnp.array([1.1, 10.0])))
    2
    """
    chex.assert_rank(scores, 1)
    return jnp.sum(scores > threshold * jnp.max(scores))


def _own(hits: Array, labels: Array, owners: Array) -> Array:
    """Which images are of each prototype's class, bool `[N, P]`."""
    count, num, _ = hits.shape
    chex.assert_shape([labels, owners], [(count,), (num,)])
    return jnp.asarray(labels)[:, None] == jnp.asarray(owners)[None]
