"""What inside of a network is to be shown: builders of `x -> []`, to be maximized.

Layers are found by name, as `activations.record` does. Their last axis are channels,
those before it positions: `[h, w, C]` of a convolution, `[C]` of a dense layer,
`[n, C]` of tokens. Units, positions and directions may be traced, so that many are one
program. Several at once are plain Python: `lambda x: a(x) - 0.5 * b(x)`.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Fn, Objective
from protojax.mechanisms import checks
from protojax.methods import activations

FLOOR = 0.1  # of cosines, so that a dot product of any sign has a gradient


def channel(fn: Fn, name: str, unit: ArrayLike) -> Objective:
    """The mean of a channel over all positions.

    Args:
      fn: any traceable function of an image.
      name: of the layer.
      unit: `[]` which channel.

    Returns:
      The objective; it raises a ValueError if there is no such layer or channel.

    References:
      Olah et al., Feature Visualization, 2017.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[[1.0, 5.0]], [[2.0, 7.0]]])
    >>> float(channel(lambda x: 3 * jax.nn.relu(x), "relu:0", 1)(x))
    6.0
    """

    def objective(x: Array) -> Array:
        values = activations.layer(fn, name)(x)
        means = jnp.mean(values, axis=tuple(range(values.ndim - 1)))
        return _entry(means, (unit,), "unit", "channels")

    return objective


def neuron(
    fn: Fn, name: str, unit: ArrayLike, *, position: Sequence[ArrayLike] | None = None
) -> Objective:
    """One channel at one position.

    Args:
      fn: any traceable function of an image.
      name: of the layer.
      unit: `[]` which channel.
      position: row and column (or as many numbers as the layer has positional axes);
        the middle by default: index `size // 2`, the lower right of four.

    Returns:
      The objective; it raises a ValueError if there is no such layer, channel or
      position.

    References:
      Olah et al., Feature Visualization, 2017.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.arange(16.0).reshape(4, 4, 1)
    >>> float(neuron(lambda x: 3 * jax.nn.relu(x), "relu:0", 0)(x))
    10.0
    """

    def objective(x: Array) -> Array:
        there = _at(activations.layer(fn, name)(x), position)
        return _entry(there, (unit,), "unit", "channels")

    return objective


def direction(
    fn: Fn,
    name: str,
    vector: Array,
    *,
    position: Sequence[ArrayLike] | None = None,
    power: ArrayLike = 0.0,
) -> Objective:
    r"""How far a layer goes along a direction, and how exactly.

    .. math:: (h \cdot v) \, \max(0.1, \cos(h, v))^p

    The cosine keeps the image from other directions. The floor lets a climb begin from
    where the direction is not yet to be seen.

    Args:
      fn: any traceable function of an image.
      name: of the layer.
      vector: `[C]` the direction.
      position: where; the mean over all positions by default.
      power: `[]` the power p of the cosine: 0 in Lucid, 2 in Xplique.

    Returns:
      The objective; it raises a ValueError if there is no such layer or position, or
      the layer has not as many channels as the direction.

    References:
      Carter et al., Activation Atlas, 2019; the floor is Lucid's.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[[3.0, 4.0]]])
    >>> along = direction(lambda x: 3 * jax.nn.relu(x), "relu:0", jnp.array([0.0, 1.0]))
    >>> float(along(x))
    4.0
    """

    def objective(x: Array) -> Array:
        values = activations.layer(fn, name)(x)
        if vector.shape != values.shape[-1:]:
            raise ValueError(
                f"`vector` has shape {vector.shape}, and layer {name!r} has "
                f"{values.shape[-1]} channels: pass a direction among them"
            )
        if position is not None:
            values = _at(values, position)
        return jnp.mean(_aligned(values, vector, power))

    return objective


def deepdream(fn: Fn, name: str) -> Objective:
    """Whatever a layer sees: its mean square.

    Args:
      fn: any traceable function of an image.
      name: of the layer.

    Returns:
      The objective; it raises a ValueError if there is no such layer.

    References:
      Mordvintsev et al., Inceptionism: Going Deeper into Neural Networks, 2015.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[[-3.0, 4.0]]])
    >>> float(deepdream(lambda x: 3 * jax.nn.relu(x), "relu:0")(x))
    8.0
    """
    return lambda x: jnp.mean(activations.layer(fn, name)(x) ** 2)


def caricature(fn: Fn, name: str, x: Array, *, power: ArrayLike = 1.0) -> Objective:
    r"""What a layer sees in an image, exaggerated.

    The dot product of the layer's values with those of the image, all positions
    together, times the cosine to a power, as in `direction`. (Lucid shows the image to
    the network under the transform of the step; here it is shown once, as it is, and
    the cosine is divided by the image's norm, too.)

    Args:
      fn: any traceable function of an image.
      name: of the layer.
      x: `[H, W, C]` the image.
      power: `[]` the power of the cosine.

    Returns:
      The objective.

    Raises:
      ValueError: if there is no such layer.

    References:
      The library Lucid, for the objective.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[[3.0, 4.0]]])
    >>> float(caricature(lambda x: 3 * jax.nn.relu(x), "relu:0", x)(2 * x))
    50.0
    """
    values = activations.layer(fn, name)
    target = jax.lax.stop_gradient(values(x)).ravel()
    return lambda z: _aligned(values(z).ravel(), target, power)


def _aligned(values: Array, vector: Array, power: ArrayLike) -> Array:
    """Dot product times the power of the cosine, along the last axis."""
    dot = jnp.einsum("...c,c->...", values, vector, precision="highest")
    cosine = dot * _inverse_norm(values) * _inverse_norm(vector)
    return dot * jnp.maximum(cosine, FLOOR) ** power


def _inverse_norm(values: Array) -> Array:
    squares = jnp.sum(values**2, axis=-1)
    return jax.lax.rsqrt(jnp.maximum(squares, 1e-24))  # its derivative is finite


def _at(values: Array, position: Sequence[ArrayLike] | None) -> Array:
    """`[C]`: the channels at a position."""
    sizes = values.shape[:-1]
    if position is None:
        position = [size // 2 for size in sizes]
    if len(position) != len(sizes):
        raise ValueError(
            f"`position` is {position}, and the layer has {len(sizes)} positional axes:"
            " pass one number for each"
        )
    return _entry(values, tuple(position), "position", "places along this axis")


def _entry(values: Array, index: tuple[ArrayLike, ...], name: str, what: str) -> Array:
    """Indexing that neither clamps nor wraps: NaN for a traced index out of range."""
    for each, size in zip(index, values.shape, strict=False):
        chex.assert_rank(each, 0)
        checks.index(name, each, size, what)
    return values.at[index].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )
