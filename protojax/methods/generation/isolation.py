"""Which part of an image a score needs: a mask, or how opaque the image must be."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Key, PyTree, Score, Transform
from protojax.mechanisms import checks, images
from protojax.methods.generation import canvases, climbing, colors, losses, recipes


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
    checks.image(x)
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


def translucent(
    score: Score,
    x0: Array,
    *,
    key: Key,
    steps: int = 512,
    transform: Transform = recipes.distill_affine,
    area: ArrayLike = 1.0,
    sd: ArrayLike = 0.5,
) -> climbing.Generated:
    """A visualization that is transparent where the score does not care.

    In waves, with one more channel for how opaque the image is. In each step it lies on
    other random waves, so that what is transparent must not matter.

    Args:
      score: `[H, W, C] -> []`.
      x0: `[H, W, C]` an image of the size wanted; nothing else of it is used.
      key: consumed.
      steps: how many.
      transform: `(x, *, key) -> x`, of the image on its background.
      area: `[]` weight of the mean opacity, in units of the score; may be traced.
      sd: `[]` of the parameters of the background; may be traced.

    Returns:
      The visualization, `[H, W, C + 1]`, its last channel the opacity; its value is
      the score on gray.

    Raises:
      ValueError: for a bad image or count.
      Stalled: if the score has no gradient.

    References:
      Mordvintsev et al., Differentiable Image Parameterizations, 2018. The article
      multiplies the score by the transparency; that it is subtracted here is ours.

    >>> import jax, jax.numpy as jnp
    >>> out = translucent(lambda x: 9 * x[:4].mean(), jnp.zeros((8, 8, 3)),
    ...                   key=jax.random.key(0), steps=60)
    >>> opacity = out.x[..., 3]
    >>> bool(opacity[:3].mean() > 0.6), bool(opacity[5:].mean() < 0.4)
    (True, True)
    """
    checks.image(x0)
    height, width, channels = x0.shape
    behind = canvases.fourier(x0.shape, sd=sd)

    def painted(image: Array) -> Array:
        color = colors.to_rgb(image[..., :channels])
        return jnp.concatenate([color, jax.nn.sigmoid(image[..., channels:])], -1)

    def looked_at(x: Array, step: Array, draw: Key) -> Array:
        del step
        first, second = jax.random.split(draw)
        background = behind.render(behind.start(first))
        return score(transform(over(x, background), key=second))

    return climbing.climb(
        looked_at,
        canvases.fourier((height, width, channels + 1), colors=painted),
        judge=lambda x: score(over(x, jnp.full(x0.shape, 0.5))),
        key=key,
        steps=steps,
        penalty=lambda x: jnp.multiply(area, jnp.mean(x[..., channels])),
    )


def over(x: Array, background: Array) -> Array:
    """Lay an image with an opacity on another.

    Args:
      x: `[H, W, C + 1]`, the opacity last.
      background: `[H, W, C]`.

    Returns:
      `[H, W, C]`.

    >>> import jax.numpy as jnp
    >>> float(over(jnp.array([[[1.0, 0.25]]]), jnp.zeros((1, 1, 1))).ravel()[0])
    0.25
    """
    opacity = x[..., -1:]
    return opacity * x[..., :-1] + (1 - opacity) * background


def _mask(size: Sequence[int], cells: int) -> canvases.Canvas:
    def start(_: Key | None) -> Array:
        return jnp.zeros((cells, cells, 1))

    def render(grid: PyTree) -> Array:
        return jax.nn.sigmoid(images.resize(grid, size))

    return canvases.Canvas(start, render, lambda grid: grid)
