"""Explanations of one score of one image: `(score, x, *, knobs) -> [H, W, C]`.

All are signed, and of the image's shape; `heatmap` makes of any of them the
non-negative map, summing to one, that attacks and metrics look at. All are
differentiable, so that an attack can climb them.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Key, Score
from protojax.methods import activations

Quadrature = Callable[[int], tuple[Any, Any]]
"""`steps -> (nodes, weights)` of an integral over [0, 1], say `midpoint`."""


def gradient(score: Score, x: Array) -> Array:
    """The gradient of the score.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.

    Returns:
      `[H, W, C]`.

    References:
      Simonyan et al., Deep inside convolutional networks, 2013.

    >>> import jax.numpy as jnp
    >>> gradient(lambda x: jnp.sum(x**2), jnp.ones((1, 1, 2))).tolist()
    [[[2.0, 2.0]]]
    """
    _check_image(x)
    return jax.grad(score)(x)


def input_x_gradient(score: Score, x: Array, *, baseline: Array | None = None) -> Array:
    """The gradient times the image's difference from a baseline.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      baseline: `[H, W, C]` image without evidence; black by default.

    Returns:
      `[H, W, C]`.

    >>> import jax.numpy as jnp
    >>> input_x_gradient(lambda x: jnp.sum(x**2), 3 * jnp.ones((1, 1, 1))).tolist()
    [[[18.0]]]
    """
    return (x - _baseline(x, baseline)) * gradient(score, x)


def midpoint(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the midpoint rule on [0, 1].

    Args:
      steps: number of nodes.

    Returns:
      `[steps]` nodes and `[steps]` weights.

    >>> midpoint(2)[0].tolist()
    [0.25, 0.75]
    """
    return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)


def right(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the right Riemann sum on [0, 1].

    Args:
      steps: number of nodes.

    Returns:
      `[steps]` nodes and `[steps]` weights.

    >>> right(2)[0].tolist()
    [0.5, 1.0]
    """
    return (np.arange(steps) + 1) / steps, np.full(steps, 1 / steps)


def left(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the left Riemann sum on [0, 1].

    Args:
      steps: number of nodes.

    Returns:
      `[steps]` nodes and `[steps]` weights.

    >>> left(2)[0].tolist()
    [0.0, 0.5]
    """
    return np.arange(steps) / steps, np.full(steps, 1 / steps)


def trapezoid(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the trapezoid rule on [0, 1].

    Args:
      steps: number of nodes.

    Returns:
      `[steps]` nodes and `[steps]` weights.

    Raises:
      ValueError: there are fewer than two.

    >>> trapezoid(3)[1].tolist()
    [0.25, 0.5, 0.25]
    """
    if steps < 2:
        raise ValueError(f"`steps` is {steps}: the trapezoid rule needs 2 or more")
    weights = np.full(steps, 1 / (steps - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, steps), weights


def gauss_legendre(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1].

    Args:
      steps: number of nodes.

    Returns:
      `[steps]` nodes and `[steps]` weights.

    >>> gauss_legendre(1)[0].tolist()
    [0.5]
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def integrated_gradients(
    score: Score,
    x: Array,
    *,
    baseline: Array | None = None,
    steps: int = 64,
    rule: Quadrature = midpoint,
) -> Array:
    r"""The gradient averaged on the way from a baseline to the image, times that way.

    $(x - b) \int_0^1 \nabla S(b + t (x - b)) dt$, whose entries sum to $S(x) - S(b)$,
    up to the error of the quadrature. Memory does not grow with the number of steps.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      baseline: `[H, W, C]` image without evidence; black by default.
      steps: number of gradients.
      rule: the quadrature: `midpoint`, `gauss_legendre`, or `right`, with which (and
        `steps=100`) Ghorbani et al. 2019 computed theirs.

    Returns:
      `[H, W, C]`.

    References:
      Sundararajan et al., Axiomatic attribution for deep networks, 2017.

    >>> import jax.numpy as jnp
    >>> integrated_gradients(lambda x: jnp.sum(x**2), 3 * jnp.ones((1, 1, 1))).tolist()
    [[[9.0]]]
    """
    _check_image(x)
    start = _baseline(x, baseline)
    way = x - start

    def at(t):
        return jax.grad(score)(start + t * way)

    return way * _integral(at, steps, rule, x.dtype)


def smooth_gradient(
    score: Score,
    x: Array,
    *,
    key: Key,
    samples: int = 32,
    sigma: ArrayLike = 0.1,
) -> Array:
    """The gradient averaged over Gaussian noise on the image.

    Memory does not grow with the number of samples.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      key: consumed.
      samples: number of gradients.
      sigma: `[]` standard deviation of the noise, in pixel values.

    Returns:
      `[H, W, C]`.

    References:
      Smilkov et al., SmoothGrad: removing noise by adding noise, 2017.

    >>> import jax, jax.numpy as jnp
    >>> image = jnp.ones((1, 1, 1))
    >>> smooth_gradient(lambda x: x.sum(), image, key=jax.random.key(0)).tolist()
    [[[1.0]]]
    """
    _check_image(x)
    _check_count("samples", samples)

    def sample(key):
        noise = jax.random.normal(key, x.shape, x.dtype)
        return jax.grad(score)(x + sigma * noise)

    return _total(sample, jax.random.split(key, samples)) / samples


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
      ValueError: the score holds something that has no rule, say a loop.

    References:
      Shrikumar et al., Learning important features through propagating activation
      differences, 2017.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: 1 - jax.nn.relu(1 - x.sum())  # flat at the image
    >>> deep_lift(f, 2 * jnp.ones((1, 1, 1))).tolist()
    [[[1.0]]]
    """
    _check_image(x)
    start = _baseline(x, baseline)
    return (x - start) * activations.multipliers(score, x, start, pool=pool)


def guided_gradient(score: Score, x: Array) -> Array:
    """Guided backpropagation: at each ReLU, only positive gradients go down.

    Args:
      score: `[H, W, C] -> []`, with ReLUs.
      x: `[H, W, C]` image.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: the score holds no ReLU.

    References:
      Springenberg et al., Striving for simplicity: the all convolutional net, 2015.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(jax.nn.relu(x)) - jnp.sum(jax.nn.relu(2 * x))
    >>> guided_gradient(f, jnp.ones((1, 1, 1))).tolist()
    [[[1.0]]]
    """
    _check_image(x)
    return jax.grad(activations.guided(score))(x)


def heatmap(attribution: Array) -> Array:
    """The map that attacks and metrics look at: absolute, per pixel, summing to one.

    Where the attribution is zero everywhere, the map is uniform. Its derivative at an
    entry of exactly zero is taken as zero.

    Args:
      attribution: `[H, W, C]`.

    Returns:
      `[H, W]`, non-negative, of sum one.

    References:
      Ghorbani et al., Interpretation of neural networks is fragile, 2019.

    >>> import jax.numpy as jnp
    >>> heatmap(jnp.array([[[-1.0, 2.0], [0.0, 1.0]]])).tolist()
    [[0.75, 0.25]]
    """
    chex.assert_rank(attribution, 3)
    sign = jnp.sign(jax.lax.stop_gradient(attribution))
    pixels = jnp.sum(attribution * sign, axis=-1)
    total = jnp.sum(pixels)
    dead = total == 0
    return jnp.where(dead, 1 / pixels.size, pixels / jnp.where(dead, 1, total))


def _integral(at, steps: int, rule: Quadrature, dtype):
    """Integrate a function of a number over [0, 1]."""
    _check_count("steps", steps)
    nodes, weights = rule(steps)

    def term(node):
        t, weight = node
        return jax.tree.map(lambda value: weight * value, at(t))

    return _total(term, (jnp.asarray(nodes, dtype), jnp.asarray(weights, dtype)))


def _total(term, inputs):
    """Sum a function over the leading axis of its inputs, in the memory of one."""
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    zero = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(term, first)
    )

    def add(total, item):
        return jax.tree.map(jnp.add, total, term(item)), None

    return jax.lax.scan(jax.checkpoint(add), zero, inputs)[0]


def _baseline(x: Array, baseline: Array | None) -> Array:
    if baseline is None:
        return jnp.zeros_like(x)
    if jnp.shape(baseline) != x.shape:
        raise ValueError(
            f"`baseline` has shape {jnp.shape(baseline)}, and the image {x.shape}: "
            "broadcast it, `jnp.broadcast_to(baseline, x.shape)`"
        )
    return jnp.asarray(baseline, x.dtype)


def _check_image(x: Array) -> None:
    chex.assert_rank(x, 3)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`x` is {x.dtype}: pass float32 pixels in [0, 1]")


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"`{name}` is {count}: take 1 or more")
