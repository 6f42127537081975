"""Masks: which part of an image a score needs, found by optimization."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Key, Score
from protojax.mechanisms import checks, images, lowering
from protojax.methods.attributions import inputs


def igos(
    score: Score,
    x: Array,
    *,
    key: Key,
    baseline: Array | None = None,
    size: int = 28,
    area: ArrayLike = 1.0,
    smooth: ArrayLike = 20.0,
    steps: int = 15,
    points: int = 20,
) -> Array:
    r"""I-GOS: the smallest, smooth mask that takes the score away.

    A small mask m is enlarged to the image; where it is 0 the image is replaced by the
    baseline. What is minimized is the score plus `area * mean|1 - m|` plus `smooth`
    times the total variation, in steps along the gradient that is integrated from the
    baseline to the masked image, with a line search. All lengths of a step are tried at
    once.

    Where the score has hardly moved after half of the steps, and again after four
    fifths, masked area is made cheaper, by 10 and by 5.

    Args:
      score: `[H, W, C] -> []`, on the scale of one: a probability, or an x-feature over
        its value at the image.
      x: `[H, W, C]` image.
      key: consumed; for the noise along the path.
      baseline: `[H, W, C]` image without evidence; by default the image, blurred by an
        eighth of its size.
      size: rows and columns of the mask.
      area: `[]` weight of the area that is masked.
      smooth: `[]` weight of the total variation (squared differences of neighbors).
      steps: how many.
      points: on the path of each step; a little noise (0.05) is added to each.

    Returns:
      `[H, W, C]` what is masked, from 0 to 1, shared by the channels.

    Raises:
      ValueError: for fewer than one step or point, a mask of fewer than 2 rows, a bad
        image, a baseline of another shape, or a score of more than one number.

    References:
      Qi, Khorram and Li, Visualizing Deep Networks by Optimizing with Integrated
      Gradients, 2020.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.zeros((8, 8, 1)).at[:4, :4].set(1.0)
    >>> score = lambda z: z[:4, :4].mean()
    >>> a = igos(score, x, key=jax.random.key(0), baseline=0 * x, size=4, smooth=0.1)
    >>> bool(a[:3, :3].min() > 0.9), bool(a[6:, 6:].max() < 0.1)
    (True, True)
    """
    score = inputs.checked(score, x)
    checks.count("steps", steps)
    checks.count("points", points)
    if size < 2:
        raise ValueError(f"`size` is {size}: a mask needs 2 rows or more")
    if baseline is None:
        baseline = images.gaussian_blur(x, sigma=max(x.shape[:2]) / 8)
    baseline = inputs.baseline_of(x, baseline)
    shares, before = (jnp.arange(points) + 1) / points, score(x)

    def masked(m: Array) -> Array:
        large = _enlarged(m, x.shape[:2])
        return x * large + baseline * (1 - large)

    def integrated(m: Array, key: Key) -> Array:
        def at(m: Array, share: Array, draw: Key) -> Array:
            point = baseline + share * (masked(m) - baseline)
            return score(point + _NOISE * jax.random.normal(draw, x.shape, x.dtype))

        each = shares, jax.random.split(key, points)
        return jnp.mean(jax.lax.map(lambda t: jax.grad(at)(m, *t), each), axis=0)

    def step(carry: tuple, given: tuple) -> tuple[tuple, None]:
        m, area = carry
        number, draw = given
        moved = before - score(masked(m))
        area = jnp.where((number == steps // 2) & (moved <= 1e-3), area / 10, area)
        area = jnp.where((number == 4 * steps // 5) & (moved <= 1e-2), area / 5, area)
        regular = functools.partial(mask_penalty, area=area, smooth=smooth)
        slope = jax.grad(regular)(m) + integrated(m, draw)
        return (
            _searched(lambda n: regular(n) + score(masked(n)), m, slope),
            area,
        ), None

    start = jnp.ones((size, size), x.dtype), jnp.asarray(area, x.dtype)
    given = jnp.arange(steps), jax.random.split(key, steps)
    (m, _), _ = jax.lax.scan(lowering.canonical(step), start, given)
    hidden = 1 - _enlarged(m, x.shape[:2])
    return jnp.broadcast_to(hidden / x.shape[2], x.shape)


def mask_penalty(m: Array, *, area: ArrayLike = 1.0, smooth: ArrayLike = 20.0) -> Array:
    """What a mask costs: the area that it hides, and its roughness.

    Args:
      m: `[H, W]` mask, from 0 (hidden) to 1.
      area: `[]` weight of the mean of `1 - m`.
      smooth: `[]` weight of the total variation: the mean squared difference of
        neighbors along columns, plus that along rows.

    Returns:
      `[]`.

    References:
      Qi et al. 2020, as in the authors' code.

    >>> import jax.numpy as jnp
    >>> hole = jnp.ones((4, 4)).at[1:3, 1:3].set(0.0)
    >>> round(float(mask_penalty(hole)), 4)
    13.5833
    """
    down, right = m[1:] - m[:-1], m[:, 1:] - m[:, :-1]
    variation = jnp.mean(down**2) + jnp.mean(right**2)
    return jnp.add(area * jnp.mean(1 - m), smooth * variation)


def _searched(loss: Callable[[Array], Array], m: Array, slope: Array) -> Array:
    """The longest step that lowers the loss enough, else the shortest."""
    lengths = _FIRST * _SHRINK ** jnp.arange(_LENGTHS, dtype=m.dtype)
    proposed = jnp.clip(m[None] - lengths[:, None, None] * slope[None], 0, 1)
    enough = loss(m) - _ENOUGH * lengths * jnp.sum(slope**2)
    good = jax.lax.map(loss, proposed) <= enough
    return proposed[jnp.where(jnp.any(good), jnp.argmax(good), _LENGTHS - 1)]


def _enlarged(m: Array, shape: Sequence[int]) -> Array:
    """`[H, W, 1]`."""
    return images.resize(m[..., None], shape)


# As in the authors' code: lengths of a step from 200 down, each a fifth of the last,
# and the share of the expected decrease that one must reach (Armijo's rule); and the
# noise on the path, there 0.2 of a pixel's standard deviation.
_FIRST, _SHRINK, _LENGTHS, _ENOUGH, _NOISE = 200.0, 0.2, 12, 1e-4, 0.05
