"""Where a map looks, held against where the object or the part is known to be.

A map `[H, W]` is any map of pixels that is zero or more, `inside` a mask of the same
size from a segmentation, a box or a part. `distance` and `quality` do without such a
truth. Of a map with NaN all measures are NaN.
"""

import chex
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks


def high_mask(a: Array, *, share: ArrayLike) -> Array:
    """The pixels of a map that are at or above its quantile.

    Args:
      a: `[H, W]`.
      share: `[]` of the pixels, say 0.1; there are more where the quantile is a tie,
        all of them in a constant map. (Some of the published codes leave ties out.)

    Returns:
      bool `[H, W]`; none of them in a map with NaN.

    Raises:
      ValueError: for a share that is known not to be from 0 to 1.

    >>> high_mask(jnp.array([[1.0, 4.0], [3.0, 2.0]]), share=0.5).tolist()
    [[False, True], [True, False]]
    """
    chex.assert_rank(a, 2)
    checks.between("share", share, 0, 1)
    return a >= jnp.quantile(a, 1 - jnp.asarray(share))


def mask_overlap(a: Array, b: Array) -> Array:
    """What two masks share of what they cover together (intersection over union).

    Args:
      a: bool `[H, W]`.
      b: bool `[H, W]`.

    Returns:
      `[]` from 0 to 1; 0 where both are empty.

    >>> rows = jnp.arange(6)[:, None] * jnp.ones((6, 4))
    >>> round(float(mask_overlap(rows < 4, rows >= 2)), 3)
    0.333
    """
    chex.assert_equal_shape([a, b])
    a, b = a.astype(bool), b.astype(bool)
    return _ratio(jnp.sum(a & b), jnp.sum(a | b))


def object_share(a: Array, inside: Array) -> Array:
    """How much of the object a mask covers.

    Args:
      a: bool `[H, W]`, such as `high_mask` of a map.
      inside: bool `[H, W]` the object.

    Returns:
      `[]` from 0 to 1; 0 where there is no object.

    References:
      Schlinge et al., quanproto, 2025: object overlap.

    >>> left = jnp.array([[True, False], [True, False]])
    >>> float(object_share(jnp.eye(2), left))
    0.5
    """
    chex.assert_equal_shape([a, inside])
    a, inside = a.astype(bool), inside.astype(bool)
    return _ratio(jnp.sum(a & inside), jnp.sum(inside))


def background_share(a: Array, inside: Array) -> Array:
    """How much of a mask lies outside of the object.

    Args:
      a: bool `[H, W]`, such as `high_mask` of a map.
      inside: bool `[H, W]` the object.

    Returns:
      `[]` from 0 to 1; 0 where the mask is empty.

    References:
      Schlinge et al., quanproto, 2025: background overlap.

    >>> left = jnp.array([[True, False], [True, False]])
    >>> float(background_share(jnp.eye(2), left))
    0.5
    """
    chex.assert_equal_shape([a, inside])
    a, inside = a.astype(bool), inside.astype(bool)
    return _ratio(jnp.sum(a & ~inside), jnp.sum(a))


def outside_inside_ratio(a: Array, inside: Array) -> Array:
    """Mean of a map outside of the object over its mean inside (OIRR); less is better.

    Means are over pixels that are not zero, as in quanproto's code.

    Args:
      a: `[H, W]` a map, zero or more.
      inside: bool `[H, W]` the object.

    Returns:
      `[]` zero or more: infinity if the map is zero inside, else 0 if it is outside.

    References:
      Schlinge et al., quanproto, 2025.

    >>> left = jnp.array([[True, False], [True, False]])
    >>> float(outside_inside_ratio(jnp.array([[0.8, 0.2], [0.8, 0.0]]), left))
    0.25
    """
    within, without = _means(a, inside)
    zero = within == 0
    return jnp.where(zero, jnp.inf, without / jnp.where(zero, 1, within))


def inside_outside_difference(a: Array, inside: Array) -> Array:
    """Mean of a map inside of the object less its mean outside (IOR); more is better.

    The map is divided by its largest value first. Means are over pixels that are not
    zero, as in quanproto's code, and zero where there are none.

    Args:
      a: `[H, W]` a map, zero or more.
      inside: bool `[H, W]` the object.

    Returns:
      `[]` from -1 to 1; 0 for a map of zeros.

    References:
      Schlinge et al., quanproto, 2025.

    >>> float(inside_outside_difference(3 * jnp.eye(2), jnp.eye(2)))
    1.0
    """
    top = jnp.max(a)
    within, without = _means(a / jnp.where(top == 0, 1, top), inside)
    return within - without


def pointing_game(a: Array, inside: Array) -> Array:
    """Whether the highest pixel of a map lies inside; of equal ones the first counts.

    Args:
      a: `[H, W]` a map.
      inside: bool `[H, W]` the object.

    Returns:
      `[]` 1 or 0.

    References:
      Zhang et al., Top-down Neural Attention by Excitation Backprop, 2018, without its
      tolerance of 15 pixels.

    >>> float(pointing_game(jnp.array([[1.0, 2.0]]), jnp.array([[False, True]])))
    1.0
    """
    chex.assert_equal_shape([a, inside])
    return unless_nan(inside.ravel()[jnp.argmax(a)].astype(float), a)


def pointing_energy(a: Array, inside: Array) -> Array:
    """The share of a map that lies inside (the pointing game of energies).

    Args:
      a: `[H, W]` a map, zero or more.
      inside: bool `[H, W]` the object.

    Returns:
      `[]` from 0 to 1; 0 for a map of zeros.

    References:
      Wang et al., Score-CAM, 2020; CaBRNet measures prototypes by it.

    >>> float(pointing_energy(jnp.array([[1.0, 3.0]]), jnp.array([[False, True]])))
    0.75
    """
    chex.assert_equal_shape([a, inside])
    return _ratio(jnp.sum(a * inside), jnp.sum(a))


def high_inside(a: Array, inside: Array, *, share: ArrayLike = 0.1) -> Array:
    """The share of the highest pixels that lies inside (mask relevance).

    Args:
      a: `[H, W]` a map.
      inside: bool `[H, W]` the object.
      share: `[]` how many of the pixels count.

    Returns:
      `[]` from 0 to 1.

    Raises:
      ValueError: as `high_mask`.

    References:
      CaBRNet: mask relevance.

    >>> float(high_inside(jnp.array([[1.0, 3.0]]), jnp.array([[0, 1]]), share=0.5))
    1.0
    """
    highest = high_mask(a, share=share)
    return unless_nan(1 - background_share(highest, inside), a)


def activation_precision(a: Array, inside: Array, *, share: ArrayLike = 0.05) -> Array:
    """Of what the highest pixels hold, the share that is inside.

    Defined for prototypes of the image's class; the map is enlarged bilinearly.

    Args:
      a: `[H, W]` a map, zero or more.
      inside: bool `[H, W]` what an expert marked.
      share: `[]` how many of the pixels count.

    Returns:
      `[]` from 0 to 1; 0 for a map of zeros.

    Raises:
      ValueError: as `high_mask`.

    References:
      Barnett et al., A case-based interpretable deep learning model for classification
      of mass lesions in digital mammography (IAIA-BL), 2021.

    >>> a = jnp.array([[0.0, 1.0, 3.0]])
    >>> float(activation_precision(a, jnp.array([[0, 0, 1]]), share=0.9))
    0.75
    """
    chex.assert_equal_shape([a, inside])
    highest = jnp.where(high_mask(a, share=share), a, 0)
    return unless_nan(_ratio(jnp.sum(highest * inside), jnp.sum(highest)), a)


def unless_nan(value: Array, *maps: Array) -> Array:
    """What counts pixels sees none in a map with NaN, where zero would be an answer.

    Args:
      value: of the maps.
      *maps: `[H, W]` that it was counted in.

    Returns:
      The value; NaN if a map has one.

    >>> float(unless_nan(jnp.array(0.0), jnp.array([[jnp.nan, 1.0]])))
    nan
    """
    broken = jnp.array([jnp.any(jnp.isnan(a)) for a in maps])
    return jnp.where(jnp.any(broken), jnp.nan, value)


def _means(a: Array, inside: Array) -> tuple[Array, Array]:
    """Over the pixels inside and outside that are not zero; zero if there are none."""
    chex.assert_rank(a, 2)
    chex.assert_equal_shape([a, inside])
    inside = inside.astype(bool)
    parts = [jnp.where(mask, a, 0) for mask in (inside, ~inside)]
    within, without = (_ratio(jnp.sum(p), jnp.sum(p != 0)) for p in parts)
    return within, without


def _ratio(part: Array, whole: Array) -> Array:
    nothing = whole == 0
    return jnp.where(nothing, 0.0, part / jnp.where(nothing, 1, whole))
