"""Which part of an image a score needs: a mask, learned as an image is."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Key, PyTree, Score
from protojax.mechanisms import images
from protojax.methods.generation import canvases, climbing, losses


def isolate(
    score: Score,
    x: Array,
    *,
    background: Array,
    steps: int = 256,
    area: ArrayLike = 1.0,
    roughness: ArrayLike = 1.0,
    cells: int = 28,
) -> climbing.Generated:
    r"""Keep of an image what drives a score, and cover the rest.

    .. math:: score(m x + (1 - m) \, background) - area \cdot \overline{m}
              - roughness \cdot L_{hf}(m)

    The mask m is the sigmoid of a coarse grid that is enlarged. On a prototype or on a
    natural image; classes are isolated one by one, by their scores.

    Args:
      score: `[H, W, C] -> []`, say a logit.
      x: `[H, W, C]` the image.
      background: `[H, W, C]` what covers: the `baseline`.
      steps: how many.
      area: `[]` weight of how much is shown, in units of the score; may be traced.
      roughness: `[]` weight of the mask's `high_frequency`; may be traced.
      cells: rows and columns of the grid.

    Returns:
      The mask as its `x`, `[H, W, 1]`, from 0 (covered) to 1 (shown).

    Raises:
      ValueError: for a bad image or background, or fewer than two cells.
      Stalled: if the score does not depend on the mask.

    References:
      The documentation of leap-ie, by the authors of Prototype Generation, for the idea
      and the weights; the formula is ours.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((8, 8, 1))
    >>> out = isolate(lambda z: 9 * z[:4].mean(), x, background=0 * x, cells=8)
    >>> bool(out.x[:3].min() > 0.7), bool(out.x[5:].max() < 0.3)
    (True, True)
    """
    images.check(x)
    if cells < 2:
        raise ValueError(f"`cells` is {cells}: a mask needs 2 rows or more")
    if background.shape != x.shape:
        raise ValueError(
            f"`background` has shape {background.shape} and `x` has {x.shape}: pass an "
            "image of the same size"
        )

    def masked(m: Array) -> Array:
        return score(m * x + (1 - m) * background)

    def cost(m: Array) -> Array:
        return jnp.add(area * jnp.mean(m), roughness * losses.high_frequency(m))

    return climbing.generate(
        masked, _mask(x.shape[:2], cells), steps=steps, penalty=cost
    )


def _mask(size: Sequence[int], cells: int) -> canvases.Canvas:
    def start(_: Key | None) -> Array:
        return jnp.zeros((cells, cells, 1))

    def render(grid: PyTree) -> Array:
        return jax.nn.sigmoid(images.resize(grid, size))

    return canvases.Canvas(start, render, lambda grid: grid)
