"""One gradient, or one modified backward pass."""

import jax
import numpy as np

from protojax.contracts import Array, ArrayLike, Score
from protojax.mechanisms import checks
from protojax.methods import activations
from protojax.methods.attributions import inputs


def gradient(score: Score, x: Array) -> Array:
    """The gradient of the score.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: for a batch, an image with NaN or of integers, or a score of more than
        one number.

    References:
      Simonyan et al., Deep inside convolutional networks, 2013.

    >>> import jax.numpy as jnp
    >>> gradient(lambda x: jnp.sum(x**2), jnp.ones((1, 1, 2))).tolist()
    [[[2.0, 2.0]]]
    """
    score = inputs.checked(score, x)
    return jax.grad(score)(x)


def input_x_gradient(score: Score, x: Array, *, baseline: Array | None = None) -> Array:
    """The gradient times the image's difference from a baseline.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      baseline: `[H, W, C]` image without evidence; black by default.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: as `gradient`, or for a baseline of another shape.

    References:
      Shrikumar et al., Not just a black box: learning important features through
      propagating activation differences, 2016, who compare it.

    >>> import jax.numpy as jnp
    >>> input_x_gradient(lambda x: jnp.sum(x**2), 3 * jnp.ones((1, 1, 1))).tolist()
    [[[18.0]]]
    """
    return (x - inputs.baseline_of(x, baseline)) * gradient(score, x)


def guided_gradient(score: Score, x: Array) -> Array:
    """Guided backpropagation: at each ReLU, only positive gradients go down.

    Args:
      score: `[H, W, C] -> []`, with ReLUs.
      x: `[H, W, C]` image.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: as `gradient`, or if the score holds no ReLU.

    References:
      Springenberg et al., Striving for simplicity: the all convolutional net, 2015.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(jax.nn.relu(x)) - jnp.sum(jax.nn.relu(2 * x))
    >>> guided_gradient(f, jnp.ones((1, 1, 1))).tolist()
    [[[1.0]]]
    """
    score = inputs.checked(score, x)
    return jax.grad(activations.guided(score))(x)


def deep_lift(
    score: Score,
    x: Array,
    *,
    baseline: Array | None = None,
    pool: activations.BackwardRule | None = None,
) -> Array:
    """DeepLIFT with the rescale rule: each input's part in the score's difference.

    The entries sum to `score(x) - score(baseline)`, in two forward passes and one
    backward. A ReLU network needs no smooth twin for it.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      baseline: `[H, W, C]` image without evidence; black by default.
      pool: the rule for max pooling, see `activations.multipliers`.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: as `gradient`, for a baseline of another shape, or if the score holds
        something that has no rule, say a loop.

    References:
      Shrikumar et al., Learning important features through propagating activation
      differences, 2017.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: 1 - jax.nn.relu(1 - x.sum())  # flat at the image
    >>> deep_lift(f, 2 * jnp.ones((1, 1, 1))).tolist()
    [[[1.0]]]
    """
    score = inputs.checked(score, x)
    start = inputs.baseline_of(x, baseline)
    return (x - start) * activations.multipliers(score, x, start, pool=pool)


def lrp(
    score: Score,
    x: Array,
    *,
    rule: activations.RelevanceRule | None = None,
    first: activations.RelevanceRule | None = None,
) -> Array:
    """Layer-wise relevance propagation.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      rule: for the layers: `activations.epsilon()` by default, or `zero`, `gamma()`,
        `alpha_beta()`, `z_plus`; `without_bias` is the "LP" of the code of Ghorbani et
        al. 2019.
      first: for the layers that read the image, say `activations.box()`; `rule` by
        default.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: as `gradient`, or if the score holds something that has no rule, say a
        loop.

    References:
      Bach et al., On pixel-wise explanations for non-linear classifier decisions by
      layer-wise relevance propagation, 2015.

    >>> import jax.numpy as jnp
    >>> lrp(lambda x: 2 * x.sum(), jnp.ones((1, 1, 2))).tolist()
    [[[2.0, 2.0]]]
    """
    score = inputs.checked(score, x)
    rule = activations.epsilon() if rule is None else rule
    return activations.relevances(score, x, rule=rule, first=first)


def deep_taylor(
    score: Score, x: Array, *, low: ArrayLike = 0.0, high: ArrayLike = 1.0
) -> Array:
    """Deep Taylor decomposition: z+ rules, and z^B for the pixels.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      low: the least value of a pixel, of any shape that broadcasts.
      high: the largest.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: as `gradient`, for an image that is known to leave these bounds, or if
        the score holds something that has no rule, say a loop.

    References:
      Montavon et al., Explaining nonlinear classification decisions with deep Taylor
      decomposition, 2017.

    >>> import jax.numpy as jnp
    >>> deep_taylor(lambda x: 2 * x.sum(), jnp.ones((1, 1, 2))).tolist()
    [[[2.0, 2.0]]]
    """
    score = inputs.checked(score, x)
    if checks.known((x, low, high)):
        _check_bounds(*map(np.asarray, (x, low, high)))
    return activations.relevances(
        score, x, rule=activations.z_plus, first=activations.box(low, high)
    )


def _check_bounds(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    if np.any((x < low) | (x > high)):
        raise ValueError(
            f"`x` has pixels from {x.min():g} to {x.max():g}, outside of `low` and "
            "`high`: pass the least and the largest value that a pixel may have"
        )
