"""Maps: of a layer inside the network, and what is looked at in the end."""

import jax
import jax.numpy as jnp

from protojax.contracts import Array, Score
from protojax.mechanisms import checks
from protojax.methods import activations
from protojax.methods.attributions import inputs, propagated


def heatmap(attribution: Array) -> Array:
    """The map that attacks and metrics look at: absolute, per pixel, summing to one.

    Where the attribution is zero everywhere, the map is uniform. Its derivative at an
    entry of exactly zero is taken as zero.

    Args:
      attribution: `[H, W, C]`.

    Returns:
      `[H, W]`, non-negative, of sum one.

    Raises:
      ValueError: for a batch.

    References:
      Ghorbani et al., Interpretation of neural networks is fragile, 2019.

    >>> import jax.numpy as jnp
    >>> heatmap(jnp.array([[[-1.0, 2.0], [0.0, 1.0]]])).tolist()
    [[0.75, 0.25]]
    """
    checks.axes("attribution", attribution, "H", "W", "C")
    sign = jnp.sign(jax.lax.stop_gradient(attribution))
    pixels = jnp.sum(attribution * sign, axis=-1)
    total = jnp.sum(pixels)
    dead = total == 0
    return jnp.where(dead, 1 / pixels.size, pixels / jnp.where(dead, 1, total))


def class_activation(score: Score, x: Array, *, layer: str) -> Array:
    """A layer's channels weighted by their mean gradient: Grad-CAM, signed and small.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      layer: name of a layer of the score, see `activations.layers`.

    Returns:
      The layer's shape without its last axis: `[h, w]` for a feature map, also where
      the network made a batch of one of it.

    Raises:
      ValueError: the score has no layer of that name, or gives more than one number;
        for a bad image.

    References:
      Selvaraju et al., Grad-CAM, 2017.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(jax.nn.relu(x) ** 2)
    >>> class_activation(f, jnp.ones((1, 2, 1)), layer="relu:0").tolist()
    [[2.0, 2.0]]
    """
    score = inputs.checked(score, x)
    value = activations.layer(score, layer)(x)
    slope = jax.grad(activations.intervene(score, layer), argnums=1)(x, value)
    weights = jnp.mean(slope, axis=tuple(range(value.ndim - 1)))
    small = value @ weights
    return small[0] if small.ndim > 2 and small.shape[0] == 1 else small


def grad_cam(score: Score, x: Array, *, layer: str, method: str = "linear") -> Array:
    """Grad-CAM, resized to the image and shared by its channels.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      layer: name of a feature map `[h, w, D]` of the score, see `activations.layers`.
      method: of `jax.image.resize`.

    Returns:
      `[H, W, C]`, non-negative; its sum over channels is the map.

    Raises:
      ValueError: as `class_activation`, or if the layer is no feature map.

    References:
      Selvaraju et al., Grad-CAM, 2017.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(jax.nn.relu(x) ** 2)
    >>> grad_cam(f, jnp.ones((1, 2, 1)), layer="relu:0").ravel().tolist()
    [2.0, 2.0]
    """
    small = class_activation(score, x, layer=layer)
    if small.ndim != 2:
        raise ValueError(
            f"`layer` {layer!r} has {small.ndim + 1} axes: Grad-CAM needs a feature "
            "map [h, w, D]"
        )
    height, width, channels = x.shape
    large = jax.image.resize(jax.nn.relu(small), (height, width), method)
    return jnp.broadcast_to(large[..., None] / channels, x.shape)


def guided_grad_cam(
    score: Score, x: Array, *, layer: str, method: str = "nearest"
) -> Array:
    """Guided backpropagation times Grad-CAM.

    Args:
      score: `[H, W, C] -> []`, with ReLUs.
      x: `[H, W, C]` image.
      layer: name of a feature map `[h, w, D]` of the score, see `activations.layers`.
      method: of `jax.image.resize`.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: as `grad_cam`, or if the score has no ReLU.

    References:
      Selvaraju et al., Grad-CAM, 2017.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(jax.nn.relu(x) ** 2)
    >>> guided_grad_cam(f, jnp.ones((1, 2, 1)), layer="relu:0").ravel().tolist()
    [4.0, 4.0]
    """
    cam = grad_cam(score, x, layer=layer, method=method)
    return propagated.guided_gradient(score, x) * jnp.sum(cam, axis=-1, keepdims=True)
