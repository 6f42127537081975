"""Regions of an image as places of a feature map: where an attack is to lead."""

from collections.abc import Sequence

import chex
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks


def covered_cells(
    mask: ArrayLike, grid: Sequence[int], *, share: ArrayLike = 0.5
) -> Array:
    """The places of a map whose pixels a mask covers for the most part.

    Args:
      mask: `[H, W]` the pixels of a region: 1 inside, 0 outside.
      grid: height and width of the map, h and w; each place is a block of pixels.
      share: `[]` how much of a block must be covered, more than which counts; with 0 a
        single pixel does.

    Returns:
      bool `[h, w]`.

    Raises:
      ValueError: if it is known that no place is covered so far.

    >>> covered_cells(jnp.array([[1, 1, 1, 0]]), (1, 2), share=0.5).tolist()
    [[True, False]]
    """
    mask = jnp.asarray(mask, float)
    chex.assert_rank(mask, 2)
    rows, columns = (
        jnp.asarray(_blocks(pixels, cells), mask.dtype)
        for pixels, cells in zip(mask.shape, grid, strict=True)
    )
    covered = jnp.einsum("ih,jw,hw->ij", rows, columns, mask, precision="highest")
    cells = covered > share + 1e-6  # a rounding error is no pixel
    if checks.known((mask, share)) and not np.asarray(cells).any():
        most = float(jnp.max(covered))
        raise ValueError(
            f"`mask` covers at most {most:.2f} of any of the {grid[0]} x {grid[1]} "
            f"places, and `share` is {share}: nothing is left; pass a larger mask or a "
            "smaller share"
        )
    return cells


def closed(cells: Array) -> Array:
    """All places within the smallest rectangle around some.

    Args:
      cells: bool `[h, w]`.

    Returns:
      bool `[h, w]`; none, if there were none.

    References:
      The code of Hoffmann et al. 2021 makes this of every target. What is left of a map
      without a rectangle in its midst becomes the whole map.

    >>> closed(jnp.array([[True, False, False], [False, True, False]])).tolist()
    [[True, True, False], [True, True, False]]
    """
    chex.assert_rank(cells, 2)
    lines = []
    for axis in (1, 0):
        line = jnp.any(cells, axis=axis)
        after, before = jnp.cumsum(line), jnp.cumsum(line[::-1])[::-1]
        lines.append((after > 0) & (before > 0))
    return lines[0][:, None] & lines[1][None]


def _blocks(pixels: int, cells: int) -> np.ndarray:
    """`[cells, pixels]` the means over the pixels of each place."""
    place = np.arange(pixels) * cells // pixels
    inside = place[None] == np.arange(cells)[:, None]
    return inside / np.maximum(inside.sum(1, keepdims=True), 1)
