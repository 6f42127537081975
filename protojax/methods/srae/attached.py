"""Put an explanation network back where it came from: functions of an image again.

What comes out can be explained by any attribution, and attacked by any attack.
"""

from collections.abc import Callable

import chex
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Fn
from protojax.methods import activations
from protojax.methods.srae import fidelity


def attached(fn: Fn, layer: str, read: Callable[[Array], Array]) -> Fn:
    """A network up to one of its layers, and another one from there.

    Args:
      fn: the classifier, any traceable function of an image.
      layer: name of the layer, see `activations.layers`.
      read: from the value of the layer to anything: x-features, contributions, a score.

    Returns:
      `[H, W, C] -> ` what `read` returns.

    Raises:
      ValueError: (when called) there is no such layer; says which there are.

    >>> import jax, jax.numpy as jnp
    >>> fn = lambda x: 3 * jax.nn.relu(x).sum()
    >>> float(attached(fn, "relu:0", jnp.max)(jnp.array([-1.0, 2.0])))
    2.0
    """
    value = activations.layer(fn, layer)
    return lambda x: read(value(x))


def reconstructed(fn: Fn, layer: str, change: Callable[[Array], Array]) -> Fn:
    """A network that goes on from a changed layer, say from its reconstruction.

    Args:
      fn: the classifier, any traceable function of an image.
      layer: name of the layer, see `activations.layers`.
      change: from the value of the layer to one of the same shape.

    Returns:
      `[H, W, C] -> [K]` as `fn`.

    Raises:
      ValueError: (when called) there is no such layer; says which there are.

    >>> import jax, jax.numpy as jnp
    >>> fn = lambda x: 3 * jax.nn.relu(x).sum()
    >>> float(reconstructed(fn, "relu:0", jnp.ones_like)(jnp.array([-1.0, 2.0])))
    6.0
    """
    changed = attached(fn, layer, change)
    return lambda x: activations.intervene(fn, layer)(x, changed(x))


def replaced(fn: Fn, predicted: Fn, c: ArrayLike) -> Fn:
    """A classifier with another function for the logit of one class.

    Args:
      fn: the classifier, `[H, W, C] -> [K]`.
      predicted: `[H, W, C] -> []`, say from `attached`.
      c: `[]` the class.

    Returns:
      `[H, W, C] -> [K]`.

    Raises:
      ValueError: (when called) there is no such class.

    >>> import jax.numpy as jnp
    >>> fn = replaced(lambda x: jnp.array([1.0, 2.0]), jnp.sum, 0)
    >>> fn(jnp.full((1, 1, 1), 5.0)).tolist()
    [5.0, 2.0]
    """
    return lambda x: fidelity.read_back(fn(x), predicted(x), c)


def pooled(h: Array, *, size: int) -> Array:
    """The means of a feature map over a grid of cells, as one vector of units.

    Where the grid does not divide the map, two cells share a row or column, each the
    part of it that lies inside. So every place of the map counts the same. (Adaptive
    average pooling, whose cells overlap, counts some twice or four times, which then
    stand out in all maps of what is made of the units.)

    Args:
      h: `[H, W, D]` feature map.
      size: rows and columns of the grid.

    Returns:
      `[size * size * D]`.

    Raises:
      ValueError: the map is smaller than the grid.

    >>> import jax.numpy as jnp
    >>> pooled(jnp.arange(16.0).reshape(4, 4, 1), size=2).tolist()
    [2.5, 4.5, 10.5, 12.5]
    """
    chex.assert_rank(h, 3)
    if not 1 <= size <= min(h.shape[:2]):
        raise ValueError(
            f"`size` is {size} but the map is {h.shape[0]} x {h.shape[1]}: choose 1 to "
            f"{min(h.shape[:2])}"
        )
    exact = jnp.result_type(h, float)  # a map of integers has weights that are none
    rows, columns = (jnp.asarray(_cells(n, size), exact) for n in h.shape[:2])
    return jnp.einsum("ih,jw,hwd->ijd", rows, columns, h, precision="highest").ravel()


def _cells(length: int, size: int) -> np.ndarray:
    """The weights of means over equal cells of an axis, `[size, length]`."""
    edges = np.arange(size + 1)[:, None] * length / size
    place = np.arange(length)
    inside = np.minimum(edges[1:], place + 1) - np.maximum(edges[:-1], place)
    return np.maximum(inside, 0) * size / length
