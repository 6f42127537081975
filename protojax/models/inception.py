"""InceptionV1 (GoogLeNet) for ImageNet, in torchvision's form."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import ad_checkpoint

from protojax import contracts
from protojax.models import layers

Array = contracts.Array


class InceptionV1(nn.Module):
    """GoogLeNet with batch norm, as torchvision ships it.

    Torchvision's weights were trained on pixels scaled to [-1, 1], and there an image
    that was normalized by ImageNet's statistics is brought to that scale
    (`transform_input`). Here `mean` and `std` of 0.5 say the same at once; for weights
    that were trained on normalized images give those of ImageNet. What is called 5x5 is
    a 3x3 convolution, as there. The auxiliary heads, which are for training alone, are
    left out.

    Modules are named as in torchvision's files. Layers are named `conv1`, `conv2`,
    `conv3`, `inception3a`, ..., `inception5b` and `pooled`.

    Attributes:
      classes: how many logits.
      act: the non-linearity.
      mean: of the channels, as in the training of the weights.
      std: the same.
      batch_axis: the name of the `vmap` axis over which batch norms take the statistics
        of their batch, which changes `variables["batch_stats"]`. None: they apply those
        statistics as they are.

    References:
      Szegedy et al., Going Deeper with Convolutions, 2015, table 1.

    >>> import jax
    >>> x = jax.numpy.zeros((224, 224, 3))
    >>> params = jax.eval_shape(InceptionV1().init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    6624904
    """

    classes: int = 1000
    act: Callable[[Array], Array] = nn.relu
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)
    batch_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        h = layers.normalize(x, self.mean, self.std)
        layers.check_sides(x, _SMALLEST, "InceptionV1")
        norm = layers.batch_norm(self.batch_axis)

        def conv(h: Array, name: str, width: int, size: int, stride: int = 1) -> Array:
            made = _Conv(width, size, stride, self.act, norm, name=name)(h)
            return ad_checkpoint.checkpoint_name(made, name)

        h = layers.max_pool(conv(h, "conv1", 64, 7, 2), 3)
        h = conv(conv(h, "conv2", 64, 1), "conv3", 192, 3)
        for stage, blocks in _WIDTHS.items():
            h = layers.max_pool(h, 2 if stage == 5 else 3)
            for letter, widths in zip("abcde", blocks, strict=False):
                name = f"inception{stage}{letter}"
                made = _Inception(widths, self.act, norm, name=name)(h)
                h = ad_checkpoint.checkpoint_name(made, name)
        h = ad_checkpoint.checkpoint_name(jnp.mean(h, axis=(0, 1)), "pooled")
        return nn.Dense(self.classes, name="fc")(h)


_SMALLEST = 15  # the third pool still has a window, if only two of its three places

# Channels of the 1x1; 1x1 and 3x3; 1x1 and "5x5"; pool's 1x1: table 1 of the paper.
_WIDTHS = {
    3: ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    4: (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    5: ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
}


class _Conv(nn.Module):
    """A convolution without bias, batch norm, the non-linearity."""

    width: int
    size: int
    stride: int
    act: Callable[[Array], Array]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = layers.conv(self.width, self.size, self.stride, name="conv")(x)
        return self.act(self.norm(name="bn", epsilon=1e-3)(h))


class _Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3, "5x5", and a pool."""

    widths: Sequence[int]
    act: Callable[[Array], Array]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        one, before3, three, before5, five, pool = self.widths

        def conv(h: Array, name: str, width: int, size: int = 1) -> Array:
            return _Conv(width, size, 1, self.act, self.norm, name=name)(h)

        reduced = conv(x, "branch2.0", before3), conv(x, "branch3.0", before5)
        around = nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))
        branches = [
            conv(x, "branch1", one),
            conv(reduced[0], "branch2.1", three, 3),
            conv(reduced[1], "branch3.1", five, 3),
            conv(around, "branch4.1", pool),
        ]
        return jnp.concatenate(branches, axis=-1)
