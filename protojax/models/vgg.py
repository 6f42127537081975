"""VGG networks for ImageNet, with and without batch norm, in torchvision's form."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import ad_checkpoint

from protojax import contracts
from protojax.mechanisms import images
from protojax.models import layers

Array = contracts.Array


class VGG(nn.Module):
    """The networks of 11, 13, 16 and 19 layers of Simonyan and Zisserman.

    Convolutions are named as in torchvision's files, by their place in the list of
    layers (`features.0`, ...), batch norms by the place after; what follows their
    non-linearity is named likewise, and the pools `pool1` to `pool5`. As there, images
    of another size than 224 are pooled to 7x7 before the classifier. Dropout, which is
    for training alone, is left out.

    Attributes:
      depth: 11, 13, 16 or 19.
      norm: whether there are batch norms.
      classes: how many logits.
      hidden: units in each of the two hidden layers of the classifier.
      act: the non-linearity.
      mean: of the channels, as in the training of the weights.
      std: the same.
      batch_axis: the name of the `vmap` axis over which batch norms take the statistics
        of their batch, which changes `variables["batch_stats"]`. None: they apply those
        statistics as they are.

    References:
      Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
      Recognition, 2015, table 1.

    >>> import jax
    >>> x = jax.numpy.zeros((224, 224, 3))
    >>> params = jax.eval_shape(VGG(19).init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    143667240
    """

    depth: int = 16
    norm: bool = False
    classes: int = 1000
    hidden: int = 4096
    act: Callable[[Array], Array] = nn.relu
    mean: Sequence[float] = layers.IMAGENET_MEAN
    std: Sequence[float] = layers.IMAGENET_STD
    batch_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        if self.depth not in _COUNTS:
            raise ValueError(f"`depth` is {self.depth}; take one of {list(_COUNTS)}")
        h = layers.normalize(x, self.mean, self.std)
        layers.check_sides(x, _SMALLEST, "VGG")
        norm, place = layers.batch_norm(self.batch_axis), 0
        for stage, count in enumerate(_COUNTS[self.depth], 1):
            for _ in range(count):
                name = f"features.{place}"
                h = nn.Conv(min(512, 32 * 2**stage), (3, 3), padding=1, name=name)(h)
                if self.norm:
                    place += 1
                    h = norm(name=f"features.{place}")(h)
                h = ad_checkpoint.checkpoint_name(self.act(h), name)
                place += 2
            h = nn.max_pool(h, (2, 2), strides=(2, 2))
            h = ad_checkpoint.checkpoint_name(h, f"pool{stage}")
            place += 1
        h = jnp.moveaxis(_pooled(h, 7), -1, 0).ravel()  # as in the files
        for name in ("classifier.0", "classifier.3"):
            h = self.act(nn.Dense(self.hidden, name=name)(h))
            h = ad_checkpoint.checkpoint_name(h, name)
        return nn.Dense(self.classes, name="classifier.6")(h)


# Convolutions of each stage: table 1 of the paper, columns A, B, D and E.
_COUNTS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_SMALLEST = 32  # five pools halve it to one


def _pooled(h: Array, size: int) -> Array:
    """Means over `size` x `size` windows that cover the map, as even as may be."""
    if h.shape[:2] == (size, size):
        return h
    rows, columns = (
        jnp.asarray(images.window_means(side, size), h.dtype) for side in h.shape[:2]
    )
    return jnp.einsum("ih,jw,hwc->ijc", rows, columns, h)
