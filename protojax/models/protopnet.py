"""ProtoPNet: a head of prototypes on the feature map of any network.

The backbone is a function `(weights, x) -> [h, w, C]`: what `features` makes of any
network whose layers have names, be it one of ours or yours. The head is a Linen module
that takes a feature map in the place of an image. `attach` makes one network of both:

    backbone = models.ResNet(34)
    features = protopnet.features(backbone.apply, "layer4.2")
    head = models.PrototypeHead(classes=200, owners=prototypes.owners(2000, 200))
    logits = protopnet.attach(head, features)               # (params, x) -> [K]
    maps = protopnet.attach(head, features, method="similarities")

with `params = {"backbone": weights, "head": head.init(key, map)["params"]}`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
from jax import ad_checkpoint

from protojax import contracts
from protojax.methods import activations, prototypes

Array = contracts.Array
Fn = contracts.Fn


def regular(inputs: int, depth: int) -> tuple[int, ...]:
    """Widths of the two add-on layers that the published networks have.

    Args:
      inputs: channels of the feature map.
      depth: channels of the prototypes.

    Returns:
      The output channels of each layer.

    >>> regular(512, 128)
    (128, 128)
    """
    del inputs
    return depth, depth


def bottleneck(inputs: int, depth: int) -> tuple[int, ...]:
    """Widths of add-on layers that halve the channels, two layers for each half.

    Args:
      inputs: channels of the feature map.
      depth: channels of the prototypes.

    Returns:
      The output channels of each layer.

    References:
      The code of Chen et al. 2019 has it, and its configurations do not use it.

    >>> bottleneck(512, 128)
    (256, 256, 128, 128)
    """
    widths: list[int] = []
    while not widths or inputs > depth:
        widths += 2 * [max(depth, inputs // 2)]
        inputs //= 2
    return tuple(widths)


class PrototypeHead(nn.Module):
    """What ProtoPNet puts on a feature map `[h, w, C]`.

    Add-on layers, which are 1x1 convolutions with ReLU between them and a sigmoid at
    the end; the distance of every place from every prototype, the smallest of each, how
    similar that is; and a linear layer without bias. Variables are `add_on_layers`,
    `prototypes` `[P, D]`, `last_layer` `[P, K]`. Layers are named `latent` and
    `distances`.

    Attributes:
      classes: how many logits, K.
      owners: the class of each of the P prototypes, see `prototypes.owners`.
      depth: channels of the latent map.
      window: rows and columns of places that a prototype covers.
      add_on: `(C, depth) -> widths` of the add-on layers; where there are none the
        features are taken as they are.
      measure: `([h, w, D], [P, D]) -> [h, w, P]`, distances.
      similarity: of distances.

    References:
      Chen et al., This Looks Like That, 2019, section 2.1, and its code.

    >>> import jax
    >>> head = PrototypeHead(classes=2, owners=prototypes.owners(6, 2), depth=8)
    >>> features = jax.numpy.ones((4, 4, 16))
    >>> variables = head.init(jax.random.key(0), features)
    >>> head.apply(variables, features).shape
    (2,)
    >>> head.apply(variables, features, method="similarities").shape
    (4, 4, 6)
    """

    classes: int
    owners: tuple[int, ...]
    depth: int = 128
    window: tuple[int, int] = (1, 1)
    add_on: Callable[[int, int], Sequence[int]] = regular
    measure: Callable[[Array, Array], Array] = prototypes.squared_distances
    similarity: Callable[[Array], Array] = prototypes.similarity

    def setup(self) -> None:
        """Make the variables: uniform prototypes, a last layer of votes."""
        rows, columns = self.window
        self.add_on_layers = _AddOn(self.depth, self.add_on)
        self.prototypes = self.param(
            "prototypes",
            nn.initializers.uniform(1.0),
            (len(self.owners), rows * columns * self.depth),
        )
        self.last_layer = self.param(
            "last_layer",
            lambda _: prototypes.connections(self.owners, self.classes),
        )

    def __call__(self, features: Array) -> Array:
        """Return the logits `[K]` of one feature map `[h, w, C]`."""
        return self.classify(prototypes.min_distances(self.distances(features)))

    def latent(self, features: Array) -> Array:
        """Return what is compared with the prototypes, `[h', w', D]`."""
        chex.assert_rank(features, 3)
        patches = prototypes.patches(self.add_on_layers(features), window=self.window)
        return ad_checkpoint.checkpoint_name(patches, "latent")

    def distances(self, features: Array) -> Array:
        """Return how far each place is from each prototype, `[h', w', P]`."""
        found = self.measure(self.latent(features), self.prototypes)
        return ad_checkpoint.checkpoint_name(found, "distances")

    def similarities(self, features: Array) -> Array:
        """Return how similar each place is to each prototype, `[h', w', P]`."""
        return self.similarity(self.distances(features))

    def classify(self, distances: Array) -> Array:
        """Return the logits `[K]` for the smallest distances `[P]`."""
        chex.assert_shape(distances, (len(self.owners),))
        similar = self.similarity(distances)
        return jax.numpy.einsum("p,pk->k", similar, self.last_layer)


class _AddOn(nn.Module):
    """1x1 convolutions: ReLU between them, a sigmoid at the end."""

    depth: int
    widths: Callable[[int, int], Sequence[int]]

    @nn.compact
    def __call__(self, features: Array) -> Array:
        widths = self.widths(features.shape[-1], self.depth)
        h = features
        for place, width in enumerate(widths, 1):
            conv = nn.Conv(width, (1, 1), kernel_init=_KAIMING, name=f"conv{place}")
            h = (nn.sigmoid if place == len(widths) else nn.relu)(conv(h))
        if h.shape[-1] != self.depth:
            raise ValueError(
                f"`add_on` ends with {h.shape[-1]} channels, and `depth` is "
                f"{self.depth}: make them equal"
            )
        return h


_KAIMING = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def features(fn: Fn, layer: str) -> Fn:
    """A layer of a network, as the backbone of a ProtoPNet.

    Args:
      fn: `(weights, x) -> anything`, such as a Linen module's `apply`.
      layer: the name of the layer, see `activations.layers`; what is computed after it
        costs nothing once compiled.

    Returns:
      `(weights, x) -> [h, w, C]`.

    Raises:
      ValueError: (when called) there is no such layer, or it is no feature map.

    >>> import jax.numpy as jnp
    >>> double = features(lambda w, x: jax.nn.relu(w * x).sum(), "relu:0")
    >>> double(2.0, jnp.ones((1, 1, 3))).tolist()
    [[[2.0, 2.0, 2.0]]]
    """

    def recorded(weights: Any, x: Array) -> Array:
        _, found = activations.record(lambda x: fn(weights, x), [layer])(x)
        return _checked(found[layer], layer)

    return recorded


def _checked(value: Array, layer: str) -> Array:
    if value.ndim != 3:
        raise ValueError(
            f"layer {layer!r} is {list(value.shape)} and prototypes need a feature "
            "map [h, w, C]: name another"
        )
    return value


def live_features(model: nn.Module, layer: str, *, axis: str = "batch") -> Fn:
    """A layer of one of our networks while its batch norms live, in training.

    Args:
      model: a Linen module with the field `batch_axis`.
      layer: as in `features`.
      axis: the name of the `vmap` axis that statistics are taken over.

    Returns:
      `(variables, x) -> ([h, w, C], batch_stats)`, to be called under
      `jax.vmap(..., (None, 0), (0, None), axis_name=axis)`; the statistics are the new
      running ones.

    Raises:
      ValueError: if the module has no such field; (when called) as `features`.

    >>> from protojax import models
    >>> model = models.CifarResNet(depth=8)
    >>> run = live_features(model, "layer1.0")
    >>> images = jax.numpy.zeros((2, 32, 32, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images[0])
    >>> batched = jax.vmap(run, (None, 0), (0, None), axis_name="batch")
    >>> jax.eval_shape(batched, variables, images)[0].shape
    (2, 32, 32, 16)
    """
    if not hasattr(model, "batch_axis"):
        raise ValueError(
            f"{type(model).__name__} has no batch norms that could live (no field "
            "`batch_axis`): train with them frozen"
        )
    live = model.clone(batch_axis=axis)

    def recorded(variables: Any, x: Array) -> tuple[Array, Any]:
        run = activations.record(
            lambda x: live.apply(variables, x, mutable=["batch_stats"]), [layer]
        )
        (_, changed), found = run(x)
        return _checked(found[layer], layer), changed["batch_stats"]

    return recorded


def attach(head: PrototypeHead, features: Fn, *, method: str = "__call__") -> Fn:
    """One network of a backbone and a head of prototypes.

    Args:
      head: the head.
      features: the backbone, `(weights, x) -> [h, w, C]`; `lambda weights, x: x` where
        feature maps are at hand.
      method: what is wanted of the head: its logits, or `latent`, `distances`,
        `similarities`.

    Returns:
      `(params, x) -> [K]` logits, or what the method returns, for `params` with the
      entries `backbone` and `head`.

    >>> import jax.numpy as jnp
    >>> head = PrototypeHead(classes=2, owners=(0, 1), depth=3, add_on=lambda *_: ())
    >>> params = head.init(jax.random.key(0), jnp.ones((2, 2, 3)))["params"]
    >>> fn = attach(head, lambda weights, x: weights * x, method="distances")
    >>> fn({"backbone": 0.5, "head": params}, jnp.ones((2, 2, 3))).shape
    (2, 2, 2)
    """

    def attached(params: Any, x: Array) -> Any:
        found = features(params["backbone"], x)
        return head.apply({"params": params["head"]}, found, method=method)

    return attached
