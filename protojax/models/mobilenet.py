"""MobileNet V1 and V2 with their batch norms folded into the convolutions.

Padding is TensorFlow's SAME: a 3x3 window that moves by two pads an even side at its
end alone. Weights trained with symmetric padding (torchvision's) do not fit.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import ad_checkpoint

from protojax import contracts
from protojax.models import layers

Array = contracts.Array


class MobileNetV1(nn.Module):
    """MobileNet V1: depthwise and pointwise convolutions in turn.

    Takes the image as it is. Weights know the size that they were trained at (those of
    the 0.25-128 net: 128 pixels), so resize the image to it first. Layers are named
    `stem`, `blocks.0` to `blocks.12`.

    Attributes:
      classes: how many logits.
      alpha: multiplies every width.
      act: the non-linearity.

    References:
      Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile
      Vision Applications, 2017.

    >>> import jax
    >>> x = jax.numpy.zeros((128, 128, 3))
    >>> params = jax.eval_shape(MobileNetV1().init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    467336
    """

    classes: int = 1000
    alpha: float = 0.25
    act: Callable[[Array], Array] = nn.relu6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        h = layers.normalize(x, (0.5,) * 3, (0.5,) * 3)
        width = _width(32, self.alpha)
        h = self.act(nn.Conv(width, (3, 3), strides=2, name="stem")(h))
        h = ad_checkpoint.checkpoint_name(h, "stem")
        for i, (channels, stride) in enumerate(_V1_BLOCKS):
            width = _width(channels, self.alpha)
            h = _Separable(width, stride, self.act, name=f"blocks.{i}")(h)
            h = ad_checkpoint.checkpoint_name(h, f"blocks.{i}")
        return nn.Dense(self.classes, name="classifier")(jnp.mean(h, axis=(0, 1)))


class MobileNetV2(nn.Module):
    """MobileNet V2: inverted residuals with linear bottlenecks.

    Layers are named `stem`, `blocks.0` to `blocks.16`, `head`.

    Attributes:
      classes: how many logits.
      alpha: multiplies every width; above one, that of the head too.
      act: the non-linearity.

    References:
      Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018.

    >>> import jax
    >>> x = jax.numpy.zeros((224, 224, 3))
    >>> params = jax.eval_shape(MobileNetV2().init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    3487816
    """

    classes: int = 1000
    alpha: float = 1.0
    act: Callable[[Array], Array] = nn.relu6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        h = layers.normalize(x, (0.5,) * 3, (0.5,) * 3)
        width = _width(32, self.alpha)
        h = self.act(nn.Conv(width, (3, 3), strides=2, name="stem")(h))
        h = ad_checkpoint.checkpoint_name(h, "stem")
        for i, (expand, channels, stride) in enumerate(_v2_blocks()):
            width = _width(channels, self.alpha)
            h = _Inverted(expand, width, stride, self.act, name=f"blocks.{i}")(h)
            h = ad_checkpoint.checkpoint_name(h, f"blocks.{i}")
        width = _width(1280, max(1.0, self.alpha))
        h = self.act(nn.Conv(width, (1, 1), name="head")(h))
        h = ad_checkpoint.checkpoint_name(h, "head")
        return nn.Dense(self.classes, name="classifier")(jnp.mean(h, axis=(0, 1)))


# Channels and stride of each block.
_V1_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


def _v2_blocks() -> list[tuple[int, int, int]]:
    """Expansion, channels and stride of each block: table 2 of the paper, unrolled."""
    table = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    )
    return [
        (expand, channels, stride if i == 0 else 1)
        for expand, channels, count, stride in table
        for i in range(count)
    ]


def _width(channels: int, alpha: float) -> int:
    """The nearest multiple of eight, but never less than 90 % of what was asked."""
    width = max(8, int(channels * alpha + 4) // 8 * 8)
    return width + 8 if width < 0.9 * channels * alpha else width


def _depthwise(h: Array, stride: int) -> Array:
    channels = h.shape[-1]
    conv = nn.Conv(
        channels, (3, 3), stride, feature_group_count=channels, name="depthwise"
    )
    return conv(h)


class _Separable(nn.Module):
    """Depthwise 3x3, then pointwise."""

    width: int
    stride: int
    act: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = self.act(_depthwise(x, self.stride))
        return self.act(nn.Conv(self.width, (1, 1), name="pointwise")(h))


class _Inverted(nn.Module):
    """Expand, depthwise 3x3, project linearly; added to the input where it fits."""

    expand: int
    width: int
    stride: int
    act: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = x
        if self.expand > 1:
            h = nn.Conv(self.expand * x.shape[-1], (1, 1), name="expand")(h)
            h = self.act(h)
        h = self.act(_depthwise(h, self.stride))
        h = nn.Conv(self.width, (1, 1), name="project")(h)
        return x + h if h.shape == x.shape else h
