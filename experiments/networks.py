"""The networks that experiments can be run on, by name, with their own images.

`parts` and `parts_small` are trained here on the drawn birds, in about a minute and
in seconds (that one sees them at 32 pixels and errs more), as is `parts_local`, which
has no normalization, so that a place of its feature maps knows of nothing but what lies
in its receptive field; the pretrained ones are read from the folder that the
environment variable PROTOJAX_DATA names;
`package.module:function` is yours, and returns `(fn, weights)` with
`fn(weights, image) -> logits`.
"""

import functools
import importlib
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import classifier
from protojax import data
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.mechanisms import lowering
from protojax.models import pretrained
from protojax.scale import sources

_log = logging.getLogger(__name__)


class Network(NamedTuple):
    """A network and the images that it is meant for."""

    fn: Fn  # (weights, [H, W, 3] in [0, 1]) -> [K] logits
    weights: PyTree
    images: str  # where its own images come from, for `data.load`
    image_size: int
    resize: int | None = None  # of the short side, before the center is cut out


def load(name: str, *, image_size: int | None = None) -> Network:
    """Load, or train, a network by its name.

    Args:
      name: one of `NAMES`, or `package.module:function`.
      image_size: pixels; the network's usual ones if not given.

    Returns:
      The network.

    Raises:
      ValueError: there is no such network, and which there are; or what it makes of an
        image are not logits.
      FileNotFoundError: its weights are not in PROTOJAX_DATA.
    """
    if ":" in name:
        found = Network(*_own(name), "parts", image_size or 64)
        _check_logits(name, found)
        return found
    if name not in NAMES:
        raise ValueError(
            f"`model` is {name!r}: choose from {', '.join(NAMES)}, or write"
            " package.module:function"
        )
    found = NAMES[name]()
    return found if image_size is None else found._replace(image_size=image_size)


def correct(
    network: Network,
    source: str | None,
    split: str | None,
    *,
    count: int,
    chunk: int = 16,
) -> dict[str, np.ndarray]:
    """The first images that a network classifies correctly.

    Args:
      network: whose classifications count.
      source: where images come from, see `expand`; the network's own if None.
      split: of the source; its test images if None, or all if they are not apart.
      count: how many are wanted.
      chunk: how many are classified at once.

    Returns:
      `image` `[N, S, S, 3]`, `label` `[N]` and `id` `[N]`.

    Raises:
      ValueError: none is classified correctly, logits are not finite, or there are
        fewer of them than classes.
    """
    source = expand(source or network.images)
    split = split or sources.usual_split(source)
    look = mapped(network.fn, chunk=chunk)
    limit = 2 * count
    while True:  # a large source is read no further than it must be
        found = data.load(
            source,
            split,
            image_size=network.image_size,
            resize=network.resize,
            limit=limit,
        )
        guess = guesses(look(network.weights, found["image"]), found["label"])
        right = np.flatnonzero(guess == found["label"])
        if len(right) >= count or len(guess) < limit:
            break
        limit *= 2
    if not len(right):
        raise ValueError(
            f"no image of {source!r} ({split}) is classified correctly: do its labels"
            " count the classes as the network does, and are pixels in [0, 1]?"
        )
    seen = (len(right), len(guess), split)
    _log.info("%d of %d images (%s) are classified correctly", *seen)
    return {name: values[right[:count]] for name, values in found.items()}


def guesses(logits: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """The classes that are seen, of logits `[N, K]` that can tell these labels."""
    broken = np.sum(~np.all(np.isfinite(logits), axis=1))
    if broken:
        raise ValueError(
            f"`model` has logits that are not finite, for {broken} of {len(logits)}"
            " images: are its weights those that were trained, and does it take pixels"
            " in [0, 1]?"
        )
    classes, last = logits.shape[1], 0 if labels is None else labels.max(initial=0)
    if last >= classes:
        raise ValueError(
            f"`model` has {classes} logits, and the images have labels up to {last}:"
            " classes count from 0, one logit for each"
        )
    return np.argmax(logits, axis=1)


def both_splits(
    source: str,
    *,
    train: int,
    test: int,
    seed: int,
    image_size: int,
    resize: int | None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images to train on and to test on, drawn apart where they do not come apart.

    Args:
      source: where images come from.
      train: how many are to train on.
      test: how many are to test on; where there are too few for both, as large a
        share.
      seed: of what is drawn.
      image_size: pixels.
      resize: of the short side, before the center is cut out.

    Returns:
      `image`, `label` and `id`, twice.
    """
    read = functools.partial(data.load, source, image_size=image_size, resize=resize)
    if sources.usual_split(source) == "test":
        return read("train", limit=train, seed=seed), read("test", limit=test)
    found = read("all", limit=train + test, seed=seed)
    order = np.random.default_rng(seed).permutation(len(found["label"]))
    count = max(1, round(test / (train + test) * len(order)))
    first, second = (
        {name: values[np.sort(places)] for name, values in found.items()}
        for places in (order[count:], order[:count])
    )
    return first, second


def mapped(fn: Fn, *, chunk: int = 64) -> Callable[[PyTree, Any], Any]:
    """`(weights, examples) -> ` what a function makes of each example."""

    def each(weights: PyTree, examples: PyTree) -> PyTree:
        one = functools.partial(fn, weights)
        return jax.lax.map(one, examples, batch_size=chunk)

    compiled = jax.jit(lowering.canonical(each))
    return lambda *given: jax.tree.map(np.asarray, compiled(*given))


def shuffled(weights: PyTree, key: Key) -> PyTree:
    """Kernels with their entries in another order: the same sizes, nothing learned."""
    leaves, tree = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves))
    mixed = [
        jax.random.permutation(k, leaf.ravel()).reshape(leaf.shape)
        if leaf.ndim > 1
        else leaf
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, mixed)


def expand(source: str) -> str:
    """The name of a source of images, PROTOJAX_DATA replaced by the folder it names."""
    if "PROTOJAX_DATA" not in source:
        return source
    return source.replace("PROTOJAX_DATA", str(folder()))


def folder() -> pathlib.Path:
    """Where the pretrained networks and their images lie."""
    named = os.environ.get("PROTOJAX_DATA")
    if not named:
        raise FileNotFoundError(
            "the pretrained networks are read from the folder that PROTOJAX_DATA names,"
            " which is not set; `--model parts` needs none"
        )
    return pathlib.Path(named)


def _imagenet(
    loader: Callable[..., tuple[nn.Module, PyTree]], file: str, size: int
) -> Callable[[], Network]:
    def load() -> Network:
        model, weights = loader(folder() / file)
        images = f"folder:{folder() / 'imagenet_samples'}"
        return Network(model.apply, weights, images, size, 256)

    return load


def _squeezenet_authors() -> Network:
    """As Ghorbani et al. had it: 227 pixels, and no pool reaches over the edge."""
    model, weights = pretrained.squeezenet1_1(folder() / "imagenet_squeezenet1_1.npz")
    images = f"folder:{folder() / 'imagenet_samples'}"
    return Network(model.clone(ceil_mode=False).apply, weights, images, 227, 256)


def _mobilenet_v1() -> Network:
    model, weights = pretrained.mobilenet_v1_025(
        folder() / "imagenet_mobilenet_v1_025.npz"
    )

    def fn(weights: PyTree, x: Array) -> Array:
        small = jax.image.resize(x, (128, 128, 3), "bilinear", antialias=True)
        return model.apply(weights, small)

    images = f"folder:{folder() / 'imagenet_samples'}"
    return Network(fn, weights, images, 224, 256)


def _cifar(depth: int) -> Callable[[], Network]:
    def load() -> Network:
        file = folder() / f"cifar10_resnet{depth}.npz"
        model, weights = pretrained.cifar10_resnet(file, depth=depth)
        return Network(model.apply, weights, f"npz:{folder() / 'cifar10.npz'}", 32)

    return load


def _birds(name: str) -> Callable[[], Network]:
    def load() -> Network:
        config = classifier.CONFIGS[BIRDS[name]]
        model, weights = classifier.trained(config)
        return Network(model.apply, weights, "parts:200", config.image_size)

    return load


def _own(name: str) -> tuple[Fn, PyTree]:
    module, _, function = name.partition(":")
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"`model` is {name!r}, and cannot be imported ({error}): is the module on"
            " PYTHONPATH?"
        ) from error
    made = build()
    if not (isinstance(made, tuple) and len(made) == 2 and callable(made[0])):
        raise ValueError(
            f"`model` is {name!r}, which must return (fn, weights) with"
            f" fn(weights, image) -> logits; it returned {type(made).__name__}: of an"
            " NNX module return (lambda net, x: net(x), net)"
        )
    return made


def _check_logits(name: str, network: Network) -> None:
    """Hold a user's network to the contract: one image in, logits `[K]` out."""
    shape = (network.image_size, network.image_size, 3)
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        made = jax.eval_shape(network.fn, network.weights, image)
    except (TypeError, ValueError) as error:
        error.add_note(f"`model` was given an image {list(shape)}: see `--image-size`")
        raise
    if getattr(made, "ndim", None) == 1 and jnp.issubdtype(made.dtype, jnp.floating):
        return
    what = (
        f"{made.dtype} {list(made.shape)}"
        if isinstance(made, jax.ShapeDtypeStruct)
        else type(made).__name__
    )
    raise ValueError(
        f"`model` is {name!r}, which makes {what} of an image {list(shape)} where it"
        " must make logits `[K]`: of a network that takes batches write"
        " model(x[None])[0], and of one that returns more its logits alone"
    )


BIRDS = {"parts": "default", "parts_small": "small", "parts_local": "local"}
"""The networks that are trained here, by the configuration of `experiments.classifier`
that says how."""

NAMES: dict[str, Callable[[], Network]] = {
    **{name: _birds(name) for name in BIRDS},
    "squeezenet1_1": _imagenet(
        pretrained.squeezenet1_1, "imagenet_squeezenet1_1.npz", 224
    ),
    "squeezenet1_1_authors": _squeezenet_authors,
    "mobilenet_v2": _imagenet(
        pretrained.mobilenet_v2, "imagenet_mobilenet_v2.npz", 224
    ),
    "mobilenet_v1_025": _mobilenet_v1,
    "resnet18": _imagenet(
        functools.partial(pretrained.imagenet_resnet, depth=18),
        *("imagenet_resnet18.pth", 224),
    ),
    "inception_v1": _imagenet(
        pretrained.inception_v1, "imagenet_inception_v1.pth", 224
    ),
    "cifar10_resnet20": _cifar(20),
    "cifar10_resnet56": _cifar(56),
}
"""What `load` knows."""
