"""How far a prototype that should look at one place hears of what is elsewhere.

An attack changes the image outside of where the most similar prototype looks, to lower
that similarity. A prototype that is local does not notice: the first three are zero.
(The released benchmark hands a single logit to an attack that climbs its cross-entropy,
which is zero for any logit: what it reports may be the random start alone. Ours are to
be used after an attack on the similarity itself.)

References:
  Sacha et al., Interpretability Benchmark for Evaluating Spatial Misalignment of
  Prototypical Parts Explanations, 2024.
"""

import chex
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks
from protojax.methods.metrics import localization


def location_change(before: Array, after: Array, *, share: ArrayLike = 0.1) -> Array:
    """By how much the highest pixels of a map have moved, in percent (PLC).

    Args:
      before: `[H, W]` the map, enlarged bilinearly.
      after: `[H, W]` the map under attack.
      share: `[]` how many of the pixels count as the highest.

    Returns:
      `[]` from 0 to 100: one minus intersection over union; NaN if a map has one.

    Raises:
      ValueError: for a share that is known not to be from 0 to 1.

    References:
      Sacha et al. 2024.

    >>> a = jnp.arange(16.0).reshape(4, 4)
    >>> float(location_change(a, a)), float(location_change(a, a[::-1]))
    (0.0, 100.0)
    """
    masks = (localization.high_mask(a, share=share) for a in (before, after))
    moved = 100 * (1 - localization.mask_overlap(*masks))
    return localization.unless_nan(moved, before, after)


def activation_change(before: ArrayLike, after: ArrayLike) -> Array:
    """What a prototype's similarity has lost, in percent (PAC).

    Args:
      before: `[]` the largest similarity, above zero.
      after: `[]` the largest under attack.

    Returns:
      `[]` up to 100; below zero where it rose.

    References:
      Sacha et al. 2024.

    >>> float(activation_change(4.0, 1.0))
    75.0
    """
    return 100 * (1 - jnp.asarray(after) / before)


def rank_change(
    before: Array, after: Array, prototype: ArrayLike, owners: Array
) -> Array:
    """How many prototypes of other classes have come above one (PRC).

    Args:
      before: `[P]` the largest similarities.
      after: `[P]` those under attack.
      prototype: `[]` which one.
      owners: `[P]` classes of the prototypes.

    Returns:
      int `[]`; below zero where it climbed.

    Raises:
      ValueError: if it is known that there is no such prototype.

    References:
      Sacha et al. 2024.

    >>> owners = jnp.array([0, 1, 1])
    >>> int(rank_change(jnp.array([3.0, 2, 1]), jnp.array([1.0, 2, 1]), 0, owners))
    1
    """
    chex.assert_rank([before, after, owners], 1)
    chex.assert_equal_shape([before, after, owners])
    checks.index("prototype", prototype, len(owners), "prototypes")
    other = owners != owners[prototype]
    above = [jnp.sum(other & (s > s[prototype])) for s in (before, after)]
    return above[1] - above[0]


def accuracy_change(before: Array, after: Array) -> Array:
    """By how many points of a hundred the accuracy has fallen (AC).

    Args:
      before: bool `[N]` which images are classified correctly.
      after: bool `[N]` which of them are under attack.

    Returns:
      `[]` in points of a hundred; below zero where it rose.

    References:
      Sacha et al. 2024.

    >>> float(accuracy_change(jnp.array([1, 1]), jnp.array([1, 0])))
    50.0
    """
    chex.assert_equal_shape([before, after])
    return 100 * (jnp.mean(before.astype(bool)) - jnp.mean(after.astype(bool)))
