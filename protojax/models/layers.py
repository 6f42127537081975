"""What the networks share: how images enter; norms and pools as PyTorch has them."""

import functools
from collections.abc import Callable, Sequence

import chex
import flax.linen as nn
import jax.numpy as jnp

from protojax import contracts
from protojax.mechanisms import checks

Array = contracts.Array

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(
    x: Array, mean: float | Sequence[float], std: float | Sequence[float]
) -> Array:
    """Shift and scale the channels of an image; the door of every network.

    Args:
      x: `[H, W, C]` one image, floating point, in [0, 1].
      mean: one number for all channels, or C of them.
      std: the same.

    Returns:
      `[H, W, C]`, `(x - mean) / std`.

    Raises:
      ValueError: if `x` is a batch.
      AssertionError: if it is of integers, or has other channels.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.ones((1, 2, 3)), 0.5, (0.5, 0.25, 0.125))[0, 0].tolist()
    [1.0, 2.0, 4.0]
    """
    checks.axes("x", x, "H", "W", "C")
    chex.assert_type(x, float)
    for channels in (mean, std):
        if isinstance(channels, Sequence):
            chex.assert_axis_dimension(x, 2, len(channels))
    shift, scale = (
        jnp.reshape(jnp.asarray(v, x.dtype), (1, 1, -1)) for v in (mean, std)
    )
    return (x - shift) / scale


def check_sides(x: Array, least: int, network: str) -> None:
    """Refuse an image so small that a layer of the network would be empty.

    Args:
      x: `[H, W, C]` the image.
      least: the smallest side that the network can take.
      network: what it is called.

    Raises:
      ValueError: naming size, network and remedy.

    >>> import jax.numpy as jnp
    >>> check_sides(jnp.ones((32, 40, 3)), 32, "VGG")
    """
    if min(x.shape[:2]) < least:
        raise ValueError(
            f"`x` is {x.shape[0]}x{x.shape[1]} pixels; {network} needs {least}x{least}:"
            " resize it"
        )


def conv(width: int, size: int, stride: int = 1, *, name: str) -> nn.Conv:
    """A convolution without bias, padded by half its window on every side.

    Args:
      width: channels of its output.
      size: side of its window, odd.
      stride: how far the window moves.
      name: of the module.

    Returns:
      The module.

    >>> import jax, jax.numpy as jnp
    >>> x, layer = jnp.ones((6, 6, 3)), conv(8, 3, 2, name="conv1")
    >>> layer.init_with_output(jax.random.key(0), x)[0].shape
    (3, 3, 8)
    """
    return nn.Conv(
        width, (size, size), stride, padding=size // 2, use_bias=False, name=name
    )


def batch_norm(axis: str | None) -> Callable[..., nn.BatchNorm]:
    """Batch norm with PyTorch's constants, frozen or live.

    Frozen, the logits of an image depend on that image alone. Live, they depend on the
    batch: apply the model under `jax.vmap(..., axis_name=axis)` with the collection
    `"batch_stats"` mutable. (The running variance is that of the batch itself; PyTorch
    keeps `n / (n - 1)` times as much, n being the number of values in a channel.)

    Args:
      axis: the name of the batch axis, or None to apply the running statistics.

    Returns:
      The module's constructor, which takes the `name`.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[[[0.0]]], [[[4.0]]]])
    >>> norm = batch_norm("batch")(name="bn")
    >>> variables = norm.init(jax.random.key(0), x[0])
    >>> apply = lambda v, x: norm.apply(v, x, mutable=["batch_stats"])
    >>> y, new = jax.vmap(apply, (None, 0), (0, None), axis_name="batch")(variables, x)
    >>> [round(float(v), 3) for v in y.ravel()], float(new["batch_stats"]["mean"][0])
    ([-1.0, 1.0], 0.2...)
    """
    return functools.partial(
        nn.BatchNorm,
        use_running_average=axis is None,
        axis_name=axis,
        momentum=0.9,
        epsilon=1e-5,
    )


def max_pool(h: Array, size: int, *, ceil_mode: bool = True) -> Array:
    """Maxima of windows that are two places apart, as PyTorch takes them.

    Args:
      h: `[h, w, C]` maps.
      size: side of a window, 2 or 3.
      ceil_mode: whether a window that is partly beyond the lower or right edge counts.

    Returns:
      `[h', w', C]`.

    >>> import jax.numpy as jnp
    >>> h = jnp.arange(4.0).reshape(1, 4, 1).repeat(3, 0)
    >>> max_pool(h, 3)[0, :, 0].tolist(), max_pool(h, 3, ceil_mode=False).shape
    ([2.0, 3.0], (1, 1, 1))
    """
    over = [(0, (side - size) % 2 if ceil_mode else 0) for side in h.shape[:2]]
    return nn.max_pool(h, (size, size), strides=(2, 2), padding=over)
