"""Densely connected networks for ImageNet, in torchvision's form."""

import re
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import ad_checkpoint

from protojax import contracts
from protojax.models import layers

Array = contracts.Array


class DenseNet(nn.Module):
    """The networks of 121, 161, 169 and 201 layers of Huang et al.

    Modules are named as in torchvision's files. Layers are named `conv0`, `pool0`,
    `denseblock1`, `transition1`, ..., `denseblock4` and `norm5`: the last batch norm
    with the non-linearity after it.

    Attributes:
      depth: 121, 161, 169 or 201.
      classes: how many logits.
      act: the non-linearity.
      mean: of the channels, as in the training of the weights.
      std: the same.
      batch_axis: the name of the `vmap` axis over which batch norms take the statistics
        of their batch, which changes `variables["batch_stats"]`. None: they apply those
        statistics as they are.

    References:
      Huang et al., Densely Connected Convolutional Networks, 2017, table 1.

    >>> import jax
    >>> x = jax.numpy.zeros((224, 224, 3))
    >>> params = jax.eval_shape(DenseNet(121).init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    7978856
    """

    depth: int = 121
    classes: int = 1000
    act: Callable[[Array], Array] = nn.relu
    mean: Sequence[float] = layers.IMAGENET_MEAN
    std: Sequence[float] = layers.IMAGENET_STD
    batch_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        if self.depth not in SIZES:
            raise ValueError(f"`depth` is {self.depth}; take one of {list(SIZES)}")
        h = layers.normalize(x, self.mean, self.std)
        layers.check_sides(x, _SMALLEST, "DenseNet")
        name = ad_checkpoint.checkpoint_name
        norm = layers.batch_norm(self.batch_axis)
        width, growth, counts = SIZES[self.depth]
        h = layers.conv(width, 7, 2, name="features.conv0")(h)
        h = name(self.act(norm(name="features.norm0")(h)), "conv0")
        h = nn.max_pool(h, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        h = name(h, "pool0")
        for block, count in enumerate(counts, 1):
            for i in range(1, count + 1):
                where = f"features.denseblock{block}.denselayer{i}"
                new = _Layer(growth, self.act, norm, name=where)(h)
                h = jnp.concatenate([h, new], axis=-1)
            h = name(h, f"denseblock{block}")
            if block < len(counts):
                where = f"features.transition{block}"
                h = _Transition(self.act, norm, name=where)(h)
                h = name(h, f"transition{block}")
        h = name(self.act(norm(name="features.norm5")(h)), "norm5")
        return nn.Dense(self.classes, name="classifier")(jnp.mean(h, axis=(0, 1)))


SIZES = {
    121: (64, 32, (6, 12, 24, 16)),
    161: (96, 48, (6, 12, 36, 24)),
    169: (64, 32, (6, 12, 32, 32)),
    201: (64, 32, (6, 12, 48, 32)),
}
"""Depth -> channels of the first convolution, of each layer, layers of each block."""

_SMALLEST = 29  # the last transition still has a whole window to take the mean of
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$")


def modern_name(name: str) -> str:
    """What torchvision calls an array today that its older files call otherwise.

    Args:
      name: of an array in one of its files.

    Returns:
      The name without the dot that Python could not have in an attribute.

    >>> modern_name("features.denseblock1.denselayer2.norm.1.weight")
    'features.denseblock1.denselayer2.norm1.weight'
    """
    return _OLD_NAME.sub(r"\1\2", name)


class _Layer(nn.Module):
    """Norms come first: 1x1 to four times the growth, 3x3 to the growth."""

    growth: int
    act: Callable[[Array], Array]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = self.act(self.norm(name="norm1")(x))
        h = layers.conv(4 * self.growth, 1, name="conv1")(h)
        h = self.act(self.norm(name="norm2")(h))
        return layers.conv(self.growth, 3, name="conv2")(h)


class _Transition(nn.Module):
    """Half the channels, a quarter of the pixels."""

    act: Callable[[Array], Array]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = self.act(self.norm(name="norm")(x))
        h = layers.conv(x.shape[-1] // 2, 1, name="conv")(h)
        return nn.avg_pool(h, (2, 2), strides=(2, 2))
