"""What a map is worth to the model, and how it changes around an image."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Explain, Fn, Key, Score
from protojax.mechanisms import ascent, checks


class Curve(NamedTuple):
    """A model's confidence as an image is taken apart or put together.

    Attributes:
      values: `[S + 1]` probability of the class after each of S steps, from none to all
        of the pixels.
      area: `[]` area under the curve over the fraction of pixels, in [0, 1].
    """

    values: Array
    area: Array


def confidence(fn: Fn, x: Array, y: ArrayLike | None = None) -> Array:
    """Probability that a model gives to a class.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      x: `[H, W, C]` the image.
      y: `[]` the class; the predicted one by default.

    Returns:
      `[]` its softmax probability; NaN for a traced class that does not exist.

    Raises:
      ValueError: for a known class that does not exist.

    >>> import jax.numpy as jnp
    >>> float(confidence(lambda x: jnp.zeros(4), jnp.ones((2, 2, 1))))
    0.25
    """
    logits = fn(x)
    return class_entry(jax.nn.softmax(logits), logits.argmax() if y is None else y)


def class_entry(values: Array, y: ArrayLike) -> Array:
    """One entry of a vector over the classes, where indexing would clamp or wrap.

    Args:
      values: `[K]` logits, probabilities or losses.
      y: `[]` the class.

    Returns:
      `[]` the entry; NaN for a traced class that does not exist.

    Raises:
      ValueError: for a known class that does not exist.

    >>> import jax.numpy as jnp
    >>> float(class_entry(jnp.array([1.0, 2.0]), 1))
    2.0
    """
    chex.assert_rank([values, y], [1, 0])
    checks.index("y", y, values.size, "classes")
    return values.at[y].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )


def max_sensitivity(
    explain: Explain, x: Array, *, radius: ArrayLike, key: Key, samples: int = 10
) -> Array:
    r"""Largest relative change of an explanation at random points nearby.

    .. math:: \max_{\|x' - x\|_\infty \le r} \|I(x') - I(x)\|_2 / \|I(x)\|_2

    over uniform draws, clipped to [0, 1], one after the other: a lower bound of the
    true maximum, which an attack gets much nearer to.

    Args:
      explain: `[H, W, C] -> [H, W]`.
      x: `[H, W, C]` the image.
      radius: `[]` half the width of the box that is drawn from.
      key: consumed.
      samples: how many draws.

    Returns:
      `[]` the largest change; a map of zeros counts as if its norm were one.

    Raises:
      ValueError: for no samples, a radius known to be below zero, or a bad image.

    References:
      Yeh et al., On the (In)fidelity and Sensitivity of Explanations, 2019.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.full((2, 2, 1), 0.5)
    >>> change = max_sensitivity(lambda x: x[..., 0], x, radius=0.1,
    ...                          key=jax.random.key(0))
    >>> bool(0 < change <= 0.2)
    True
    """
    before = explain(x)
    length = _norm(before)

    def change(z: Array) -> Array:
        return _norm(explain(z) - before) / jnp.where(length == 0, 1, length)

    return _largest_nearby(change, x, radius, key, samples)


def local_lipschitz(
    explain: Explain, x: Array, *, radius: ArrayLike, key: Key, samples: int = 10
) -> Array:
    r"""Largest change of an explanation per change of the image, at random points.

    .. math:: \max_{\|x' - x\|_\infty \le r} \|I(x') - I(x)\|_2 / \|x' - x\|_2

    over uniform draws, clipped to [0, 1]: a lower bound of the local Lipschitz
    constant.

    Args:
      explain: `[H, W, C] -> [H, W]`.
      x: `[H, W, C]` the image.
      radius: `[]` half the width of the box that is drawn from, above zero.
      key: consumed.
      samples: how many draws.

    Returns:
      `[]` the largest ratio.

    Raises:
      ValueError: for no samples, a radius known not to be above zero, or a bad image.

    References:
      Alvarez-Melis and Jaakkola, On the Robustness of Interpretability Methods, 2018.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.full((2, 2, 1), 0.5)
    >>> ratio = local_lipschitz(lambda x: 3 * x[..., 0], x, radius=0.1,
    ...                         key=jax.random.key(0))
    >>> round(float(ratio), 4)
    3.0
    """
    checks.positive("radius", radius)
    before = explain(x)

    def ratio(z: Array) -> Array:
        return _norm(explain(z) - before) / _norm(z - x)

    return _largest_nearby(ratio, x, radius, key, samples)


def deletion(
    fn: Fn,
    x: Array,
    a: Array,
    y: ArrayLike,
    *,
    baseline: ArrayLike = 0.0,
    steps: int = 32,
) -> Curve:
    """The class probability as the most salient pixels are removed first.

    A good map makes it fall at once: a small area is good.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      x: `[H, W, C]` the image.
      a: `[H, W]` the map that orders its pixels; of equal ones the first go first.
      y: `[]` the class.
      baseline: broadcastable to `x`; what a removed pixel becomes: zero, the mean
        color, a blurred image.
      steps: in how many equal parts the pixels go.

    Returns:
      The curve `[steps + 1]` and the area under it; NaN if the map has one.

    Raises:
      ValueError: for fewer than one step or more steps than pixels, or a known class
        that does not exist.

    References:
      Petsiuk et al., RISE: Randomized Input Sampling for Explanation, 2018.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [3.0]]])
    >>> fn = lambda x: jnp.stack([x.sum(), 0.0])
    >>> curve = deletion(fn, x, x[..., 0], 0, steps=2)
    >>> [round(float(value), 3) for value in curve.values]
    [0.982, 0.731, 0.5]
    """
    return _exchange(fn, x, jnp.broadcast_to(baseline, x.shape), a, y, steps)


def insertion(
    fn: Fn,
    x: Array,
    a: Array,
    y: ArrayLike,
    *,
    baseline: ArrayLike = 0.0,
    steps: int = 32,
) -> Curve:
    """The class probability as the most salient pixels are put in first.

    A good map makes it rise at once: a large area is good.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      x: `[H, W, C]` the image.
      a: `[H, W]` the map that orders its pixels; of equal ones the first come first.
      y: `[]` the class.
      baseline: broadcastable to `x`; what a pixel is before it is put in.
      steps: in how many equal parts the pixels come.

    Returns:
      The curve `[steps + 1]` and the area under it; NaN if the map has one.

    Raises:
      ValueError: for fewer than one step or more steps than pixels, or a known class
        that does not exist.

    References:
      Petsiuk et al., RISE: Randomized Input Sampling for Explanation, 2018.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0], [3.0]]])
    >>> fn = lambda x: jnp.stack([x.sum(), 0.0])
    >>> curve = insertion(fn, x, x[..., 0], 0, steps=2)
    >>> [round(float(value), 3) for value in curve.values]
    [0.5, 0.953, 0.982]
    """
    return _exchange(fn, jnp.broadcast_to(baseline, x.shape), x, a, y, steps)


def fidelity(
    score: Score,
    x: Array,
    a: Array,
    *,
    key: Key,
    baseline: ArrayLike = 0.0,
    share: float = 0.1,
    samples: int = 128,
) -> Array:
    r"""Whether a score falls by what a map says of the pixels that are removed.

    .. math:: \operatorname{corr}_S \bigl(\sum_{i \in S} a_i, \, s(x) - s(x_{-S})\bigr)

    over random sets of pixels S, all of one size, one after the other.

    Args:
      score: `[H, W, C] -> []`, say a logit.
      x: `[H, W, C]` the image.
      a: `[H, W]` the map, with signs.
      key: consumed.
      baseline: broadcastable to `x`; what a removed pixel becomes.
      share: of the pixels that are removed.
      samples: how many sets.

    Returns:
      `[]` in [-1, 1]; NaN where the map or the score is constant.

    Raises:
      ValueError: for fewer than two sets, or sets of no pixel or of all.

    References:
      Bhatt, Weller, Moura, Evaluating and Aggregating Feature-based Model Explanations,
      2020.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.arange(16.0).reshape(4, 4, 1)
    >>> found = fidelity(lambda x: 3 * x.sum(), x, x[..., 0], key=jax.random.key(0))
    >>> round(float(found), 4)
    1.0
    """
    chex.assert_rank([x, a], [3, 2])
    chex.assert_equal_shape_prefix([x, a], 2)
    count = round(share * a.size)
    if not 0 < count < a.size:
        raise ValueError(
            f"`share` is {share}, {count} of the map's {a.size} pixels: remove one or"
            " more, and not all"
        )
    if samples < 2:
        raise ValueError(f"`samples` is {samples}: a correlation takes two or more")
    whole = score(x)

    def removed(draw: Key) -> tuple[Array, Array]:
        inside = (jax.random.permutation(draw, a.size) < count).reshape(a.shape)
        without = jnp.where(inside[..., None], baseline, x)
        return jnp.sum(inside * a), whole - score(without)

    said, fallen = jax.lax.map(removed, jax.random.split(key, samples))
    said, fallen = said - jnp.mean(said), fallen - jnp.mean(fallen)
    return jnp.sum(said * fallen) / (_norm(said) * _norm(fallen))


def _norm(a: Array) -> Array:
    return jnp.sqrt(jnp.sum(a**2))


def _largest_nearby(
    value: Fn, x: Array, radius: ArrayLike, key: Key, samples: int
) -> Array:
    checks.image(x)
    checks.count("samples", samples)
    project = ascent.within(x, radius)

    def draw(draw_key: Key) -> Array:
        noise = jax.random.uniform(draw_key, x.shape, x.dtype, -1, 1)
        return value(project(x + radius * noise))

    return jnp.max(jax.lax.map(draw, jax.random.split(key, samples)))


def _exchange(
    fn: Fn, start: Array, end: Array, a: Array, y: ArrayLike, steps: int
) -> Curve:
    chex.assert_rank([start, a], [3, 2])
    chex.assert_equal_shape_prefix([start, a], 2)
    if not 1 <= steps <= a.size:
        raise ValueError(
            f"`steps` is {steps} but the map has {a.size} pixels: "
            f"choose 1 <= steps <= {a.size}"
        )
    order = jnp.argsort(a.ravel(), descending=True, stable=True)
    position = jnp.zeros(a.size, jnp.int32).at[order].set(jnp.arange(a.size))
    position = position.reshape(*a.shape, 1)
    counts = jnp.round(jnp.linspace(0, a.size, steps + 1)).astype(jnp.int32)

    def probability(count: Array) -> Array:
        return confidence(fn, jnp.where(position < count, end, start), y)

    values = jax.lax.map(probability, counts)
    values = jnp.where(jnp.any(jnp.isnan(a)), jnp.nan, values)
    widths = jnp.diff(counts) / a.size
    return Curve(values, jnp.sum(widths * (values[1:] + values[:-1]) / 2))
