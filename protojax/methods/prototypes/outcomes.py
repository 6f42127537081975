"""What an attack did to a prototype, as published and as it ought to be asked."""

from typing import NamedTuple

import chex
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks


class Moved(NamedTuple):
    """What became of a prototype that was to be moved.

    Attributes:
      left: `[]` success as published: it is found best outside of where it was.
      arrived: `[]` whether it is found best in the target.
      kept: `[]` whether it is found at least as well as before.
      before: `[]` the largest similarity before.
      after: `[]` after.
      target_before: `[]` the largest within the target before.
      target_after: `[]` after.
    """

    left: Array
    arrived: Array
    kept: Array
    before: Array
    after: Array
    target_before: Array
    target_after: Array


def moved(before: Array, after: Array, *, source: Array, target: Array) -> Moved:
    """What became of a prototype that was to be moved.

    The published success is `left` alone. A move that deserves the name arrived, is
    kept as strong, and leaves the prediction as it was (for the caller to look at).

    Args:
      before: `[h, w]` how similar the places of the image were to the prototype.
      after: `[h, w]` how similar those of the attacked image are.
      source: bool `[h, w]` where it was found before.
      target: bool `[h, w]` where it is to be found.

    Returns:
      All of it.

    References:
      Hoffmann et al., This Looks Like That... Does it?, 2021, and its code; all but
      `left` is ours.

    >>> before, after = jnp.array([[3.0, 1.0]]), jnp.array([[2.0, 4.0]])
    >>> here, there = jnp.array([[True, False]]), jnp.array([[False, True]])
    >>> outcome = moved(before, after, source=here, target=there)
    >>> bool(outcome.left), bool(outcome.arrived), bool(outcome.kept)
    (True, True, True)
    """
    chex.assert_rank([before, after, source, target], 2)
    chex.assert_equal_shape([before, after, source, target])
    was, there = (
        jnp.max(jnp.where(region, after, -jnp.inf)) for region in (source, target)
    )
    return Moved(
        left=jnp.max(after) > was,
        arrived=jnp.max(after) <= there,
        kept=jnp.max(after) >= jnp.max(before),
        before=jnp.max(before),
        after=jnp.max(after),
        target_before=jnp.max(jnp.where(target, before, -jnp.inf)),
        target_after=there,
    )


def rank(similarities: Array, prototype: ArrayLike) -> Array:
    """The place of a prototype among all, the most similar one being the first.

    Args:
      similarities: `[P]` of an image with each prototype.
      prototype: `[]` which one.

    Returns:
      int `[]`: one more than there are prototypes that are more similar. NaN counts as
      more, so that a prototype of NaN comes after all.

    Raises:
      ValueError: if it is known that there is no such prototype.

    >>> int(rank(jnp.array([0.3, 0.9, 0.5]), 2))
    2
    """
    chex.assert_rank([similarities, prototype], [1, 0])
    checks.index("prototype", prototype, len(similarities), "prototypes")
    return 1 + jnp.sum(~(similarities <= similarities[prototype]))
