"""SqueezeNet 1.1, with torchvision's weights in mind."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import ad_checkpoint

from protojax import contracts
from protojax.models import layers

Array = contracts.Array

NAMES = {
    "conv1": "features.0",
    "fire2": "features.3",
    "fire3": "features.4",
    "fire4": "features.6",
    "fire5": "features.7",
    "fire6": "features.9",
    "fire7": "features.10",
    "fire8": "features.11",
    "fire9": "features.12",
    "conv10": "classifier.1",
}
"""What torchvision's files call our modules."""


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1; its logits are never negative.

    The last convolution is followed by the non-linearity too, and the logits are the
    spatial means of its maps. Layers are named `conv1`, `pool1`, `fire2`, `fire3`,
    `pool3`, `fire4`, `fire5`, `pool5`, `fire6` to `fire9`, `conv10`.

    Attributes:
      classes: how many logits.
      ceil_mode: whether a pool counts the partial window at the lower and right edge,
        as torchvision does. The Keras port in which Ghorbani et al. 2019 attacked this
        network does not. At 224 pixels there is no such window; at 227 there is.
      act: the non-linearity.
      mean: of the channels, as in the training of the weights.
      std: the same.

    References:
      Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters,
      2016.

    >>> import jax
    >>> x = jax.numpy.zeros((224, 224, 3))
    >>> model = SqueezeNet()
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    1235496
    """

    classes: int = 1000
    ceil_mode: bool = True
    act: Callable[[Array], Array] = nn.relu
    mean: Sequence[float] = layers.IMAGENET_MEAN
    std: Sequence[float] = layers.IMAGENET_STD

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        h = layers.normalize(x, self.mean, self.std)
        layers.check_sides(x, _SMALLEST, "SqueezeNet")
        name = ad_checkpoint.checkpoint_name
        h = nn.Conv(64, (3, 3), strides=2, padding="VALID", name="conv1")(h)
        h = name(self.act(h), "conv1")
        for i, (squeeze, expand, pool) in enumerate(_FIRES, 2):
            if pool:
                pooled = layers.max_pool(h, 3, ceil_mode=self.ceil_mode)
                h = name(pooled, f"pool{i - 1}")
            h = name(_Fire(squeeze, expand, self.act, name=f"fire{i}")(h), f"fire{i}")
        h = self.act(nn.Conv(self.classes, (1, 1), name="conv10")(h))
        return jnp.mean(name(h, "conv10"), axis=(0, 1))


# Squeezed and expanded channels, and whether a pool comes first: fire2 to fire9.
_FIRES = (
    (16, 64, True),
    (16, 64, False),
    (32, 128, True),
    (32, 128, False),
    (48, 192, True),
    (48, 192, False),
    (64, 256, False),
    (64, 256, False),
)
_SMALLEST = 31  # the last pool still has a whole window, with `ceil_mode` or without


class _Fire(nn.Module):
    """Squeeze by 1x1, expand by 1x1 and 3x3, concatenate."""

    squeeze: int
    expand: int
    act: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = self.act(nn.Conv(self.squeeze, (1, 1), name="squeeze")(x))
        one = self.act(nn.Conv(self.expand, (1, 1), name="expand1x1")(h))
        three = self.act(nn.Conv(self.expand, (3, 3), name="expand3x3")(h))
        return jnp.concatenate([one, three], axis=-1)
