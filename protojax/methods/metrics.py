"""What moved: how far one map, curve or image is from another.

A metric is `(a, b) -> []` on two maps (or any two arrays of equal shape, such as two
vectors of influences). Those that need the explanation or the model itself, because
they sample around an image or remove its pixels, come after them.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Explain, Fn, Key
from protojax.mechanisms import ascent, ranks


class Curve(NamedTuple):
    """A model's confidence as an image is taken apart or put together.

    Attributes:
      values: `[S + 1]` probability of the class after each of S steps, from none to all
        of the pixels.
      area: `[]` area under the curve over the fraction of pixels, in [0, 1].
    """

    values: Array
    area: Array


def top_k_mask(a: Array, *, k: int) -> Array:
    """Mark the k largest entries.

    Args:
      a: `[...]` a map.
      k: how many; of equal entries the first come first.

    Returns:
      `[...]` booleans, k of them true.

    Raises:
      ValueError: if the map has fewer than k entries, or k is not positive.

    >>> import jax.numpy as jnp
    >>> top_k_mask(jnp.array([1.0, 3.0, 3.0, 2.0]), k=2).tolist()
    [False, True, True, False]
    """
    if not 1 <= k <= a.size:
        raise ValueError(
            f"`k` is {k} but the map has {a.size} entries: choose 1 <= k <= {a.size}"
        )
    _, indices = jax.lax.top_k(a.ravel(), k)
    return jnp.zeros(a.size, bool).at[indices].set(True).reshape(a.shape)


def top_k_intersection(a: Array, b: Array, *, k: int) -> Array:
    """Share of the k most salient entries that two maps have in common.

    Of independent maps with n entries it is k / n on average.

    Args:
      a: `[...]` a map.
      b: `[...]` another.
      k: how many entries count as salient.

    Returns:
      `[]` in [0, 1]; NaN if a map has one.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, section 4.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.array([4.0, 3.0, 2.0, 1.0]), jnp.array([4.0, 1.0, 2.0, 3.0])
    >>> float(top_k_intersection(a, b, k=2))
    0.5
    """
    chex.assert_equal_shape([a, b])
    shared = jnp.sum(top_k_mask(a, k=k) & top_k_mask(b, k=k)) / k
    return jnp.where(_has_nan(a, b), jnp.nan, shared)


def rank_correlation(a: Array, b: Array) -> Array:
    """Spearman's rank correlation, ties getting their average rank.

    Of independent maps with n entries its standard deviation is 1 / sqrt(n - 1).

    Args:
      a: `[...]` a map.
      b: `[...]` another.

    Returns:
      `[]` in [-1, 1]; NaN if a map has one, or is constant.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.array([1.0, 2, 3, 4, 5]), jnp.array([5.0, 6, 7, 8, 7])
    >>> round(float(rank_correlation(a, b)), 4)
    0.8208
    """
    chex.assert_equal_shape([a, b])
    first, second = ranks.centered(a.ravel()), ranks.centered(b.ravel())
    correlation = jnp.sum(first * second) / (_norm(first) * _norm(second))
    return jnp.where(_has_nan(a, b), jnp.nan, correlation)


def kendall(a: Array, b: Array) -> Array:
    """Kendall's tau-b: concordant minus discordant pairs, corrected for ties.

    It takes O(n log(n)^2) time and O(n) memory, see `ranks.pairs`.

    Args:
      a: `[...]` a map.
      b: `[...]` another.

    Returns:
      `[]` in [-1, 1]; NaN if a map has one, or is constant.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.array([1.0, 2, 3, 4, 5]), jnp.array([5.0, 6, 7, 8, 7])
    >>> round(float(kendall(a, b)), 4)
    0.7379
    """
    chex.assert_equal_shape([a, b])
    pairs = ranks.pairs(a.ravel(), b.ravel())
    untied_a, untied_b = pairs.all - pairs.tied_a, pairs.all - pairs.tied_b
    ordered = untied_a - pairs.tied_b + pairs.tied_both
    tau = (ordered - 2 * pairs.discordant) / (jnp.sqrt(untied_a) * jnp.sqrt(untied_b))
    return jnp.where(_has_nan(a, b), jnp.nan, tau)


def center_of_mass(a: Array) -> Array:
    """Center of mass of a map, in pixels from its first.

    Args:
      a: `[H, W]` a non-negative map, of any sum but zero.

    Returns:
      `[2]` row and column.

    >>> import jax.numpy as jnp
    >>> center_of_mass(jnp.array([[0.0, 0.0], [1.0, 3.0]])).tolist()
    [1.0, 0.75]
    """
    chex.assert_rank(a, 2)
    rows, columns = jnp.arange(a.shape[0]), jnp.arange(a.shape[1])
    moments = jnp.stack([jnp.sum(a.sum(1) * rows), jnp.sum(a.sum(0) * columns)])
    return moments / jnp.sum(a)


def center_shift(a: Array, b: Array) -> Array:
    """Distance between the centers of mass of two maps, in pixels.

    Args:
      a: `[H, W]` a map.
      b: `[H, W]` another.

    Returns:
      `[]` the distance.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, section 4.

    >>> import jax.numpy as jnp
    >>> float(center_shift(jnp.eye(3, 4), jnp.eye(3, 4, k=1)))
    1.0
    """
    chex.assert_equal_shape([a, b])
    offset = center_of_mass(a) - center_of_mass(b)
    return jnp.sqrt(jnp.sum(offset**2))


def truncated_center_shift(a: Array, b: Array) -> Array:
    """The center shift as the authors' code has it: between whole pixels.

    Both centers are cut to integers first, an error of up to the diagonal of a pixel
    each. It is here for comparison with published numbers.

    Args:
      a: `[H, W]` a map.
      b: `[H, W]` another.

    Returns:
      `[]` the distance.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.array([[1.0, 9.0]]), jnp.array([[9.0, 1.0]])
    >>> float(truncated_center_shift(a, b)), round(float(center_shift(a, b)), 3)
    (0.0, 0.8)
    """
    chex.assert_equal_shape([a, b])
    offset = jnp.trunc(center_of_mass(a)) - jnp.trunc(center_of_mass(b))
    return jnp.sqrt(jnp.sum(offset**2))


def ssim(
    a: Array, b: Array, *, window: int = 7, data_range: ArrayLike | None = None
) -> Array:
    """Structural similarity of two maps, the mean over all whole square windows.

    Args:
      a: `[H, W]` a map.
      b: `[H, W]` another.
      window: width of the windows.
      data_range: `[]` distance from the least to the largest possible value; what the
        two maps span by default, as saliency maps have no scale of their own.

    Returns:
      `[]` at most 1, which equal maps have.

    Raises:
      ValueError: if the maps are smaller than a window.

    References:
      Wang et al., Image Quality Assessment, 2004, with uniform windows and sample
      variances; compared between explanations by Adebayo et al., Sanity Checks for
      Saliency Maps, 2018.

    >>> import jax.numpy as jnp
    >>> a = jnp.arange(64.0).reshape(8, 8)
    >>> float(ssim(a, a))
    1.0
    """
    chex.assert_equal_shape([a, b])
    chex.assert_rank(a, 2)
    if not 2 <= window <= min(a.shape):
        raise ValueError(
            f"`window` is {window} but the maps are {a.shape}: "
            f"choose 2 <= window <= {min(a.shape)}"
        )
    if data_range is None:
        data_range = jnp.maximum(a.max(), b.max()) - jnp.minimum(a.min(), b.min())
    small, less_small = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = _window_means(a, window), _window_means(b, window)
    # Windows are centered at the maps' means before squaring: a float32 matter only.
    far_a, far_b = a - a.mean(), b - b.mean()
    off_a, off_b = mean_a - a.mean(), mean_b - b.mean()
    sample = window**2 / (window**2 - 1)
    var_a = sample * (_window_means(far_a**2, window) - off_a**2)
    var_b = sample * (_window_means(far_b**2, window) - off_b**2)
    cov = sample * (_window_means(far_a * far_b, window) - off_a * off_b)
    likeness = (2 * mean_a * mean_b + small) * (2 * cov + less_small)
    most = (mean_a**2 + mean_b**2 + small) * (var_a + var_b + less_small)
    return jnp.mean(likeness / most)


def linf(a: Array, b: Array) -> Array:
    """The largest change of a pixel: how much of the budget an attack has used.

    Args:
      a: `[...]` an image.
      b: `[...]` another.

    Returns:
      `[]` the L-infinity distance.

    >>> import jax.numpy as jnp
    >>> float(linf(jnp.array([0.25, 0.5]), jnp.array([0.5, 0.5])))
    0.25
    """
    chex.assert_equal_shape([a, b])
    return jnp.max(jnp.abs(a - b))


def confidence(fn: Fn, x: Array, y: ArrayLike | None = None) -> Array:
    """Probability that a model gives to a class.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      x: `[H, W, C]` the image.
      y: `[]` the class; the predicted one by default.

    Returns:
      `[]` its softmax probability.

    Raises:
      ValueError: if there is no such class.

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
    if ascent.known(y) and not 0 <= np.asarray(y) < values.size:
        raise ValueError(
            f"class `y` is {y} but the model has {values.size} classes: "
            f"choose 0 <= y < {values.size}"
        )
    return values.at[y].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )


def max_sensitivity(
    explain: Explain, x: Array, *, radius: ArrayLike, key: Key, samples: int = 10
) -> Array:
    r"""Largest relative change of an explanation at random points nearby.

    .. math:: \max_{\|x' - x\|_\infty \le r} \|I(x') - I(x)\|_2 / \|I(x)\|_2

    over uniform draws, one after the other: a lower bound of the true maximum, which
    an attack gets much nearer to.

    Args:
      explain: `[H, W, C] -> [H, W]`.
      x: `[H, W, C]` the image.
      radius: `[]` half the width of the box that is drawn from.
      key: consumed.
      samples: how many draws.

    Returns:
      `[]` the largest change; a map of zeros counts as if its norm were one.

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

    over uniform draws: a lower bound of the local Lipschitz constant.

    Args:
      explain: `[H, W, C] -> [H, W]`.
      x: `[H, W, C]` the image.
      radius: `[]` half the width of the box that is drawn from, above zero.
      key: consumed.
      samples: how many draws.

    Returns:
      `[]` the largest ratio.

    References:
      Alvarez-Melis and Jaakkola, On the Robustness of Interpretability Methods, 2018.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.full((2, 2, 1), 0.5)
    >>> ratio = local_lipschitz(lambda x: 3 * x[..., 0], x, radius=0.1,
    ...                         key=jax.random.key(0))
    >>> round(float(ratio), 4)
    3.0
    """
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
      The curve `[steps + 1]` and the area under it.

    Raises:
      ValueError: for fewer than one step or more steps than pixels.

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
      The curve `[steps + 1]` and the area under it.

    Raises:
      ValueError: for fewer than one step or more steps than pixels.

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


def _has_nan(a: Array, b: Array) -> Array:
    return jnp.any(jnp.isnan(a)) | jnp.any(jnp.isnan(b))


def _window_means(a: Array, window: int) -> Array:
    shape = (window, window)
    total = jax.lax.reduce_window(a, 0.0, jax.lax.add, shape, (1, 1), "VALID")
    return total / window**2


def _norm(a: Array) -> Array:
    return jnp.sqrt(jnp.sum(a**2))


def _largest_nearby(
    value: Fn, x: Array, radius: ArrayLike, key: Key, samples: int
) -> Array:
    ascent.check_count("samples", samples)
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
    order = jnp.argsort(-a.ravel())
    position = jnp.zeros(a.size, jnp.int32).at[order].set(jnp.arange(a.size))
    position = position.reshape(*a.shape, 1)
    counts = jnp.round(jnp.linspace(0, a.size, steps + 1)).astype(jnp.int32)

    def probability(count: Array) -> Array:
        return confidence(fn, jnp.where(position < count, end, start), y)

    values = jax.lax.map(probability, counts)
    widths = jnp.diff(counts) / a.size
    return Curve(values, jnp.sum(widths * (values[1:] + values[:-1]) / 2))
