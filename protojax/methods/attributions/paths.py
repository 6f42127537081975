"""Gradients along a path, or around an image, added up in the memory of one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Key, Score
from protojax.mechanisms import checks
from protojax.methods import activations
from protojax.methods.attributions import inputs

Quadrature = Callable[[int], tuple[Any, Any]]
"""`steps -> (nodes, weights)` of an integral over [0, 1], say `midpoint`."""


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

    Raises:
      ValueError: for a bad image, a score of more than one number, a baseline of
        another shape, or no steps.

    References:
      Sundararajan et al., Axiomatic attribution for deep networks, 2017.

    >>> import jax.numpy as jnp
    >>> integrated_gradients(lambda x: jnp.sum(x**2), 3 * jnp.ones((1, 1, 1))).tolist()
    [[[9.0]]]
    """
    score = inputs.checked(score, x)
    start = inputs.baseline_of(x, baseline)
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

    Raises:
      ValueError: for no samples, a standard deviation known to be below zero, a bad
        image, or a score of more than one number.

    References:
      Smilkov et al., SmoothGrad: removing noise by adding noise, 2017.

    >>> import jax, jax.numpy as jnp
    >>> image = jnp.ones((1, 1, 1))
    >>> smooth_gradient(lambda x: x.sum(), image, key=jax.random.key(0)).tolist()
    [[[1.0]]]
    """
    score = inputs.checked(score, x)
    checks.count("samples", samples)
    checks.positive("sigma", sigma, or_zero=True)

    def sample(key):
        noise = jax.random.normal(key, x.shape, x.dtype)
        return jax.grad(score)(x + sigma * noise)

    return _total(sample, jax.random.split(key, samples)) / samples


def conductance(
    score: Score,
    x: Array,
    *,
    layer: str,
    baseline: Array | None = None,
    steps: int = 64,
    rule: Quadrature = midpoint,
) -> Array:
    r"""How much of the integrated gradients flows through each unit of a layer.

    $\int_0^1 \partial_h S \; \dot h \, dt$ on the straight way from the baseline to
    the image, where $h$ is the layer. It sums to the score's difference, if the layer
    cuts the network in two.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      layer: name of a layer of the score, see `activations.layers`.
      baseline: `[H, W, C]` image without evidence; black by default.
      steps: number of gradients.
      rule: the quadrature.

    Returns:
      The shape of the layer.

    Raises:
      ValueError: as `integrated_gradients`, or if the score has no layer of that name.

    References:
      Dhamdhere et al., How important is a neuron?, 2018.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(jax.nn.relu(2 * x))
    >>> conductance(f, jnp.ones((1, 1, 1)), layer="relu:0").tolist()
    [[[2.0]]]
    """
    score = inputs.checked(score, x)
    start = inputs.baseline_of(x, baseline)
    above = jax.grad(activations.intervene(score, layer), argnums=1)
    below = activations.layer(score, layer)

    def at(t):
        point = start + t * (x - start)
        value, speed = jax.jvp(below, (point,), (x - start,))
        return above(point, value) * speed

    return _integral(at, steps, rule, x.dtype)


def _integral(at, steps: int, rule: Quadrature, dtype):
    """Integrate a function of a number over [0, 1]."""
    checks.count("steps", steps)
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
