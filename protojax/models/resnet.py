"""Residual networks: those for CIFAR (option A) and those for ImageNet.

Batch norm stands frozen, unless it is given the name of the batch's axis: it applies
the statistics in `variables["batch_stats"]` and never changes them, so that the logits
of an image depend on that image alone.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import ad_checkpoint

from protojax import contracts
from protojax.models import layers

Array = contracts.Array


class CifarResNet(nn.Module):
    """The residual networks of He et al. for CIFAR, of depth 6n + 2.

    Shortcuts are of option A: where a stage begins, every second pixel is taken and
    the new channels are zero, half of them before the old ones and half after. Blocks
    are named `layer1.0`, `layer1.1`, ..., the first convolution `conv1`.

    Attributes:
      depth: 20, 32, 44, 56, 110, ...
      classes: how many logits.
      act: the non-linearity.
      mean: of the channels, as in the training of the weights.
      std: the same.
      batch_axis: the name of the `vmap` axis over which batch norms take the statistics
        of their batch, which changes `variables["batch_stats"]`. None: they apply those
        statistics as they are.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2016, section 4.2.

    >>> import jax
    >>> x = jax.numpy.zeros((32, 32, 3))
    >>> model = CifarResNet(depth=20)
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    269722
    """

    depth: int = 20
    classes: int = 10
    act: Callable[[Array], Array] = nn.relu
    mean: Sequence[float] = layers.IMAGENET_MEAN
    std: Sequence[float] = layers.IMAGENET_STD
    batch_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"`depth` is {self.depth}; take one of 6n + 2: 20, 32, 56")
        h = layers.normalize(x, self.mean, self.std)
        norm = layers.batch_norm(self.batch_axis)
        h = self.act(norm(name="bn1")(layers.conv(16, 3, name="conv1")(h)))
        h = ad_checkpoint.checkpoint_name(h, "conv1")
        for stage, width in enumerate((16, 32, 64), 1):
            for i in range((self.depth - 2) // 6):
                name = f"layer{stage}.{i}"
                stride = 2 if stage > 1 and i == 0 else 1
                block = _Basic(width, stride, self.act, norm, _option_a, name=name)
                h = ad_checkpoint.checkpoint_name(block(h), name)
        return nn.Dense(self.classes, name="linear")(jnp.mean(h, axis=(0, 1)))


class ResNet(nn.Module):
    """The residual networks for ImageNet, in torchvision's form.

    In a bottleneck the 3x3 convolution has the stride (not the first 1x1, as in the
    paper). Blocks are named `layer1.0`, ..., the first convolution `conv1`, the mean
    over places `pooled`.

    Attributes:
      depth: 18, 34, 50, 101 or 152.
      classes: how many logits.
      act: the non-linearity.
      mean: of the channels, as in the training of the weights.
      std: the same.
      batch_axis: the name of the `vmap` axis over which batch norms take the statistics
        of their batch, which changes `variables["batch_stats"]`. None: they apply those
        statistics as they are.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2016, table 1.

    >>> import jax
    >>> x = jax.numpy.zeros((224, 224, 3))
    >>> params = jax.eval_shape(ResNet(50).init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    25557032
    """

    depth: int = 18
    classes: int = 1000
    act: Callable[[Array], Array] = nn.relu
    mean: Sequence[float] = layers.IMAGENET_MEAN
    std: Sequence[float] = layers.IMAGENET_STD
    batch_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        if self.depth not in _COUNTS:
            raise ValueError(f"`depth` is {self.depth}; take one of {list(_COUNTS)}")
        block = _Basic if self.depth < 50 else _Bottleneck
        h = layers.normalize(x, self.mean, self.std)
        norm = layers.batch_norm(self.batch_axis)
        h = self.act(norm(name="bn1")(layers.conv(64, 7, 2, name="conv1")(h)))
        h = ad_checkpoint.checkpoint_name(h, "conv1")
        h = nn.max_pool(h, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, count in enumerate(_COUNTS[self.depth], 1):
            for i in range(count):
                name = f"layer{stage}.{i}"
                stride = 2 if stage > 1 and i == 0 else 1
                width = 64 * 2 ** (stage - 1)
                made = block(width, stride, self.act, norm, _projection, name=name)
                h = ad_checkpoint.checkpoint_name(made(h), name)
        h = ad_checkpoint.checkpoint_name(jnp.mean(h, axis=(0, 1)), "pooled")
        return nn.Dense(self.classes, name="fc")(h)


# Blocks of each stage: table 1 of the paper.
_COUNTS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class _Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    width: int
    stride: int
    act: Callable[[Array], Array]
    norm: Callable[..., nn.BatchNorm]
    shortcut: Callable[[Array, int, int, Callable], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = layers.conv(self.width, 3, self.stride, name="conv1")(x)
        h = self.act(self.norm(name="bn1")(h))
        h = self.norm(name="bn2")(layers.conv(self.width, 3, name="conv2")(h))
        return self.act(h + self.shortcut(x, self.width, self.stride, self.norm))


class _Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, and a shortcut."""

    width: int
    stride: int
    act: Callable[[Array], Array]
    norm: Callable[..., nn.BatchNorm]
    shortcut: Callable[[Array, int, int, Callable], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = self.act(self.norm(name="bn1")(layers.conv(self.width, 1, name="conv1")(x)))
        h = layers.conv(self.width, 3, self.stride, name="conv2")(h)
        h = self.act(self.norm(name="bn2")(h))
        h = self.norm(name="bn3")(layers.conv(4 * self.width, 1, name="conv3")(h))
        return self.act(h + self.shortcut(x, 4 * self.width, self.stride, self.norm))


def _option_a(x: Array, width: int, stride: int, norm: Callable) -> Array:
    """Every `stride`-th pixel, and zeros on both sides of the channels."""
    del norm
    new = width - x.shape[-1]
    return jnp.pad(x[::stride, ::stride], ((0, 0), (0, 0), (new // 2, new - new // 2)))


def _projection(x: Array, width: int, stride: int, norm: Callable) -> Array:
    """The input itself if it fits, else a 1x1 convolution of it."""
    if stride == 1 and x.shape[-1] == width:
        return x
    return norm(name="downsample.1")(
        layers.conv(width, 1, stride, name="downsample.0")(x)
    )
