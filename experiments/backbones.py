"""What prototypes are put on: a layer of a network, by name, with its weights.

The names are those of experiments/networks.py, and `vgg11` to `vgg19` (also `_bn`),
`resnet18` to `resnet152`, `densenet121` to `densenet201` with torchvision's weights,
which are read from PROTOJAX_DATA/imagenet_NAME.pth unless `weights` says where;
`random` draws them.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from experiments import classifier, networks
from protojax import activations, models
from protojax.contracts import Fn, PyTree
from protojax.mechanisms import tracing
from protojax.models import pretrained, protopnet

LAYERS = {
    "squeezenet1_1": "fire9",
    "squeezenet1_1_authors": "fire9",
    "mobilenet_v2": "blocks.16",
    "mobilenet_v1_025": "blocks.12",
    "cifar10_resnet20": "layer3.2",
    "cifar10_resnet56": "layer3.8",
}
"""The usual layer of a network whose own does not follow from its kind."""


class Backbone(NamedTuple):
    """A feature map of images.

    Attributes:
      features: `(weights, x) -> [h, w, C]`, with the batch statistics in the weights.
      live: the same in training, `-> ([h, w, C], batch_stats)`; None if there are none.
      weights: what can be trained.
      stats: running statistics of batch norms, `{}` or `{"batch_stats": ...}`.
      image_size: pixels.
      layer: its name.
      shape: of the feature map, `(h, w, C)`.
    """

    features: Fn
    live: Fn | None
    weights: PyTree
    stats: PyTree
    image_size: int
    layer: str
    shape: tuple[int, int, int]


def load(
    name: str,
    *,
    layer: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
) -> Backbone:
    """Load, or train, a backbone by its name.

    Args:
      name: see the module.
      layer: whose feature map is taken; the last one if not given.
      weights: a file, `hf:OWNER/REPOSITORY/FILE` or `random`, for torchvision's.
      image_size: pixels; the network's usual ones if not given.

    Returns:
      The backbone.

    Raises:
      ValueError: there is no such network or layer, says which there are; or it has
        weights of its own.
      FileNotFoundError: its weights are not there.
    """
    known = published(name)
    if known is None:
        if weights is not None:
            raise ValueError(
                f"`weights` is {weights!r}, and {name!r} comes with its own: leave it "
                "out"
            )
        found = networks.load(name, image_size=image_size)
        layer = layer or _birds_layer(name) or LAYERS.get(name)
        if layer is None:
            size = found.image_size
            x = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
            there = activations.layers(functools.partial(found.fn, found.weights), x)
            raise ValueError(
                f"`layer` must be named for the network {name!r}: choose from "
                f"{', '.join(there)}"
            )
        return of_layer(found.fn, found.weights, layer, found.image_size)
    model, usual, loader = known
    size = image_size or 224
    if weights == "random":
        x = jnp.zeros((size, size, 3))
        variables = jax.jit(model.init)(jax.random.key(0), x)
    else:
        path = weights or str(networks.folder() / f"imagenet_{name}.pth")
        model, variables = loader(path)
    return of_layer(model.apply, variables, layer or usual, size, model=model)


def _birds_layer(name: str) -> str | None:
    """The last stage of the networks that are trained on the drawn birds."""
    if name not in networks.BIRDS:
        return None
    return f"stage{len(classifier.CONFIGS[networks.BIRDS[name]].widths)}"


def merged(weights: PyTree, stats: PyTree) -> PyTree:
    """What `Backbone.features` takes: weights with the statistics of batch norms."""
    return {**weights, **stats} if stats else weights


def at_hand(backbone: Backbone) -> Backbone:
    """A backbone that is given its features in the place of images."""
    return backbone._replace(features=lambda _, x: x, live=None, weights={}, stats={})


def of_layer(
    fn: Fn, variables: PyTree, layer: str, size: int, *, model: nn.Module | None = None
) -> Backbone:
    """A layer of a network; its batch norms can live if the Linen module is given."""
    x = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    whole = protopnet.features(fn, layer)
    shape = jax.eval_shape(whole, variables, x).shape
    kept, fill = trimmed(whole, variables, x)
    stats = {}
    if isinstance(kept, dict) and "batch_stats" in kept:
        stats = {"batch_stats": kept["batch_stats"]}
        kept = {key: value for key, value in kept.items() if key != "batch_stats"}
    live = None
    if stats and model is not None:
        moving = protopnet.live_features(model, layer)

        def live(weights, x):
            features, found = moving(fill(weights), x)
            return features, _like(stats["batch_stats"], found)

    return Backbone(
        features=lambda weights, x: whole(fill(weights), x),
        live=live,
        weights=kept,
        stats=stats,
        image_size=size,
        layer=layer,
        shape=shape,
    )


def _like(part: PyTree, whole: PyTree) -> PyTree:
    """The entries of nested dicts that another one has."""
    if not isinstance(part, dict):
        return whole
    return {key: _like(value, whole[key]) for key, value in part.items()}


def trimmed(fn: Fn, weights: PyTree, x: PyTree) -> tuple[PyTree, Callable]:
    """Leave out the weights that a function does not depend on, such as a classifier.

    Args:
      fn: `(weights, x) -> ...`.
      weights: nested dicts of arrays; anything else is left whole.
      x: what it is applied to, or its shape.

    Returns:
      The weights that count, and what fills them up with zeros to what `fn` takes.
    """
    if not isinstance(weights, dict):
        return weights, lambda kept: kept
    program = tracing.straight_line(fn, weights, x)
    needed = {p for p in program.outputs if not isinstance(p, tracing.Constant)}
    for step in reversed(program.steps):
        if needed.intersection(step.outputs):
            needed |= {p for p in step.inputs if not isinstance(p, tracing.Constant)}
    flat = flax.traverse_util.flatten_dict(weights)
    paths = jax.tree_util.tree_leaves_with_path(weights)
    names = [tuple(key.key for key in path) for path, _ in paths]
    used = {
        name
        for name, place in zip(names, program.inputs, strict=False)
        if place in needed
    }
    shapes = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for name, leaf in flat.items()
        if name not in used
    }

    def fill(kept: PyTree) -> PyTree:
        zeros = {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}
        return flax.traverse_util.unflatten_dict(
            {**zeros, **flax.traverse_util.flatten_dict(kept)}
        )

    kept = {name: jnp.asarray(flat[name]) for name in used}
    return flax.traverse_util.unflatten_dict(dict(sorted(kept.items()))), fill


def published(name: str) -> tuple[nn.Module, str, Callable] | None:
    """Module, last layer and loader of torchvision's networks."""
    found = re.fullmatch(r"(vgg|resnet|densenet)(\d+)(_bn)?", name)
    if found is None:
        return None
    kind, depth, norm = found[1], int(found[2]), bool(found[3])
    if kind == "vgg":
        load = functools.partial(pretrained.imagenet_vgg, depth=depth, norm=norm)
        return models.VGG(depth, norm=norm), "pool5", load
    if kind == "densenet":
        load = functools.partial(pretrained.imagenet_densenet, depth=depth)
        return models.DenseNet(depth), "norm5", load
    blocks = 1 if depth == 18 else 2
    load = functools.partial(pretrained.imagenet_resnet, depth=depth)
    return models.ResNet(depth), f"layer4.{blocks}", load
