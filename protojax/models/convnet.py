"""Small plain networks to train yourself: `ConvNet`, and those of papers."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import ad_checkpoint

from protojax import contracts
from protojax.models import layers

Array = contracts.Array


class ConvNet(nn.Module):
    """A small convolutional network for images of 32 to 128 pixels.

    Each stage is a 3x3 convolution that moves by two, group normalization and the
    non-linearity; then a global average and one dense layer. There are no running
    statistics: `params` is the whole state, in training and after. Stages are named
    `stage1`, `stage2`, ...

    Attributes:
      classes: how many logits.
      widths: channels of each stage; each a multiple of `groups`.
      groups: groups of the normalization; None leaves it out.
      act: the non-linearity.

    >>> import jax
    >>> x = jax.numpy.zeros((64, 64, 3))
    >>> model = ConvNet(classes=5)
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> jax.jit(model.apply)(variables, x).shape
    (5,)
    """

    classes: int = 10
    widths: Sequence[int] = (16, 32, 64, 128)
    groups: int | None = 8
    act: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, C]` in [0, 1]."""
        h = layers.normalize(x, 0.5, 0.25)
        for stage, width in enumerate(self.widths, 1):
            h = nn.Conv(width, (3, 3), strides=2, padding=1, name=f"conv{stage}")(h)
            if self.groups is not None:
                h = _group_norm(self.groups, name=f"norm{stage}")(h)
            h = ad_checkpoint.checkpoint_name(self.act(h), f"stage{stage}")
        return nn.Dense(self.classes, name="head")(jnp.mean(h, axis=(0, 1)))


# One example has no batch axis, which Flax would expect; and its fast variance is the
# less exact one.
_group_norm = functools.partial(
    nn.GroupNorm, reduction_axes=(-3, -2, -1), use_fast_variance=False
)


class CifarCNN(nn.Module):
    """The CIFAR-10 network of Ghorbani et al. 2019, as far as it is known.

    Six 3x3 convolutions of 96, 96, 96 (stride 2), 192, 192, 192 (stride 2) channels, a
    dense layer of 1024 units, and the logits of a softmax. The paper gives its
    accuracy (73 %) but not the details; these are the sizes it is remembered by, with
    SAME padding and no normalization layers. Layers are named `conv1` to `conv6`,
    `dense`.

    Attributes:
      classes: how many logits.
      act: the non-linearity.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019.

    >>> import jax
    >>> x = jax.numpy.zeros((32, 32, 3))
    >>> model = CifarCNN()
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    >>> params["dense"]["kernel"].shape
    (12288, 1024)
    """

    classes: int = 10
    act: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, C]` in [0, 1]."""
        h = layers.normalize(x, 0.5, 0.25)
        for i, (width, stride) in enumerate(_CIFAR_CONVS, 1):
            h = self.act(nn.Conv(width, (3, 3), strides=stride, name=f"conv{i}")(h))
            h = ad_checkpoint.checkpoint_name(h, f"conv{i}")
        h = self.act(nn.Dense(1024, name="dense")(h.reshape(-1)))
        h = ad_checkpoint.checkpoint_name(h, "dense")
        return nn.Dense(self.classes, name="head")(h)


_CIFAR_CONVS = ((96, 1), (96, 1), (96, 2), (192, 1), (192, 1), (192, 2))


class SmallClassifier(nn.Module):
    """The classifier of a reproduction of ClaDec, for digits and clothes.

    Two convolutions, each with a normalization and pooling; layers are named `conv`
    (the last feature map) and `dense`. Norms are of groups, where theirs are of
    batches, so that `params` is the whole state; and it returns logits, where theirs
    returns sigmoids under a cross-entropy.

    Attributes:
      classes: how many logits.
      act: the non-linearity.

    References:
      github.com/tomtuamnuq/cladec-mnist, an independent reproduction in Keras.

    >>> import jax
    >>> model, x = SmallClassifier(), jax.numpy.zeros((28, 28, 1))
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> jax.jit(model.apply)(variables, x).shape
    (10,)
    """

    classes: int = 10
    act: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, C]` in [0, 1]."""
        h = layers.normalize(x, 0.0, 1.0)
        layers.check_sides(x, 4, "SmallClassifier")
        for number, width in enumerate((32, 64)):
            h = self.act(nn.Conv(width, (3, 3), name=f"conv{number}")(h))
            h = _group_norm(8, name=f"norm{number}")(h)
            h = nn.max_pool(h, (2, 2), (2, 2))
        h = ad_checkpoint.checkpoint_name(h, "conv")
        h = self.act(nn.Dense(128, name="hidden")(h.ravel()))
        h = ad_checkpoint.checkpoint_name(h, "dense")
        return nn.Dense(self.classes, name="head")(h)


class StridedVGG(nn.Module):
    """The classifier in the code of ClaDec: a VGG of eight convolutions without pools.

    Each is followed by a batch norm and the non-linearity; every one whose name has no
    letter behind its number halves the image, 32 pixels to one. Layers are named
    `conv0`, `conv1`, `conv2a`, `conv2`, ... `conv4`, and `flat`, the vector that they
    decode by default. Dropout, which is for training alone, is left out.

    Attributes:
      classes: how many logits.
      act: the non-linearity.
      batch_axis: as of `VGG`: the name of the `vmap` axis over which batch norms take
        the statistics of their batch; None applies those that were kept.

    References:
      Schneider and Vlachos, Explaining Classifiers by Constructing Familiar Concepts,
      2023; as in the authors' code.

    >>> import jax
    >>> x = jax.numpy.zeros((32, 32, 1))
    >>> params = jax.eval_shape(StridedVGG().init, jax.random.key(0), x)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    4672490
    """

    classes: int = 10
    act: Callable[[Array], Array] = nn.relu
    batch_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, C]` in [0, 1]."""
        norm = layers.batch_norm(self.batch_axis)
        h = layers.normalize(x, 0.0, 1.0)
        for number, width in enumerate((32, 64, 128, 256, 512)):
            for letter in ("a", "") if number > 1 else ("",):
                name, stride = f"conv{number}{letter}", 1 if letter else 2
                h = layers.conv(width, 3, stride, name=name)(h)
                h = self.act(norm(name=f"norm{number}{letter}")(h))
                h = ad_checkpoint.checkpoint_name(h, name)
        h = ad_checkpoint.checkpoint_name(h.ravel(), "flat")
        return nn.Dense(self.classes, name="head")(h)
