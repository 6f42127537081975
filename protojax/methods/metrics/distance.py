"""How far one map, curve or image is from another: `(a, b) -> []`.

Maps may be of integers or booleans, and count as floats.
"""

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks, ranks


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

    Raises:
      ValueError: as `top_k_mask`.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, whose metric
      it is.

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

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, whose metric
      it is.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.array([1.0, 2, 3, 4, 5]), jnp.array([5.0, 6, 7, 8, 7])
    >>> round(float(rank_correlation(a, b)), 4)
    0.8208
    """
    chex.assert_equal_shape([a, b])
    first, second = ranks.centered(a.ravel()), ranks.centered(b.ravel())
    lengths = jnp.linalg.norm(first) * jnp.linalg.norm(second)
    correlation = jnp.sum(first * second) / lengths
    return jnp.where(_has_nan(a, b), jnp.nan, correlation)


def kendall(a: Array, b: Array) -> Array:
    """Kendall's tau-b: concordant minus discordant pairs, corrected for ties.

    It takes O(n log(n)^2) time and O(n) memory, see `ranks.pairs`.

    Args:
      a: `[...]` a map.
      b: `[...]` another.

    Returns:
      `[]` in [-1, 1]; NaN if a map has one, or is constant.

    References:
      Kendall, The treatment of ties in ranking problems, 1945.

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

    Raises:
      ValueError: for a batch of maps.

    >>> import jax.numpy as jnp
    >>> center_of_mass(jnp.array([[0.0, 0.0], [1.0, 3.0]])).tolist()
    [1.0, 0.75]
    """
    checks.axes("a", a, "H", "W")
    a = _float(a)
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

    Raises:
      ValueError: as `center_of_mass`.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, whose metric
      it is.

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

    Raises:
      ValueError: as `center_of_mass`.

    References:
      The code of Ghorbani et al. 2019.

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
      data_range: `[]` distance from the least to the largest possible value, above
        zero; what the two maps span by default, as saliency maps have no scale of
        their own.

    Returns:
      `[]` at most 1, which equal maps have.

    Raises:
      ValueError: if the maps are smaller than a window, or for a range that is known
        not to be above zero.

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
    checks.axes("a", a, "H", "W")
    if not 2 <= window <= min(a.shape):
        raise ValueError(
            f"`window` is {window} but the maps are {a.shape}: "
            f"choose 2 <= window <= {min(a.shape)}"
        )
    a, b = _float(a), _float(b)
    if data_range is None:
        span = jnp.maximum(a.max(), b.max()) - jnp.minimum(a.min(), b.min())
        data_range = jnp.where(span == 0, 1, span)  # two equal constants are alike
    else:
        checks.positive("data_range", data_range)
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
    return jnp.max(jnp.abs(_float(a) - _float(b)))


def _float(a: Array) -> Array:
    exact = jnp.issubdtype(a.dtype, jnp.floating)
    return a if exact else a.astype(jnp.result_type(float))


def _has_nan(a: Array, b: Array) -> Array:
    return jnp.any(jnp.isnan(a)) | jnp.any(jnp.isnan(b))


def _window_means(a: Array, window: int) -> Array:
    shape = (window, window)
    total = jax.lax.reduce_window(a, 0.0, jax.lax.add, shape, (1, 1), "VALID")
    return total / window**2
