"""What `experiments.cladec` decodes: a classifier, its layers, and images."""

import collections
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import networks, trainings
from protojax import cladec, models, srae, training
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.mechanisms import images

if TYPE_CHECKING:
    from experiments.cladec import Config

_log = logging.getLogger(__name__)

SMALL, AUTHORS = "small", "authors"
"""Models that are trained here, on the images themselves: the classifier of the
reproduction, and that of the authors, for 32 pixels."""


_COLORED = 0.05
"""Difference of the channels beyond what compression leaves in gray images."""


class Setup(NamedTuple):
    """What a configuration comes to.

    Attributes:
      fn: the classifier, `(weights, x) -> logits`.
      weights: its weights.
      classes: how many logits.
      shapes: of the code of each layer.
      train: `image`, `label` of the images that decoders learn from, and whether the
        classifier is `right`.
      test: the same of those that all numbers are of, with `id`.
      accuracy: of the classifier on these.
    """

    fn: Fn
    weights: PyTree
    classes: int
    shapes: dict[str, tuple[int, ...]]
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    accuracy: float


def load(config: "Config", folder: pathlib.Path | None) -> Setup:
    """Load the images, and load or train the classifier.

    Where there is no folder, to plan, a classifier that would be trained is not.
    """
    network = None
    if config.model not in (SMALL, AUTHORS):
        network = networks.load(config.model, image_size=config.image_size)
    train, test = both_splits(config, network)
    image = train["image"][0]
    if network is None:
        kind = models.SmallClassifier if config.model == SMALL else models.StridedVGG
        model = kind(int(train["label"].max()) + 1)
        fn, weights = model.apply, own(config, model, train, folder)
        classes = model.classes
    else:
        fn, weights = network.fn, network.weights
        classes = len(jax.eval_shape(fn, weights, image))
    at = functools.partial(fn, weights)
    shapes = {name: cladec.code_shape(at, name, image) for name in config.layers}
    given, look = config.labels == "given", networks.mapped(fn, chunk=16)
    for part in (train, test):
        logits = look(weights, part["image"])
        guess = networks.guesses(logits, part["label"] if given else None)
        part["label"] = part["label"] if given else guess.astype(np.int32)
        part["right"] = guess == part["label"]
    accuracy = float(np.mean(test["right"]))
    _log.info("the classifier has %.1f %% right", 100 * accuracy)
    return Setup(fn, weights, classes, shapes, train, test, accuracy)


def both_splits(
    config: "Config", network: networks.Network | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images to train on and to test on; of gray ones a single channel is kept.

    The authors enlarge theirs by taking pixels twice.
    """
    default = network.images if network else "parts"
    source = networks.expand(config.data or default)
    size = config.image_size or (network.image_size if network else 32)
    resize = network.resize if network else None
    train, test = networks.both_splits(
        source,
        train=config.train,
        test=config.test,
        seed=config.seed,
        image_size=size,
        resize=resize,
    )
    for part in (train, test):
        if config.gray:
            if np.max(np.ptp(part["image"], axis=-1)) > _COLORED:
                raise ValueError(
                    f"`gray` keeps one channel, and {source!r} has images with colors:"
                    " leave it out"
                )
            part["image"] = part["image"][..., :1]
        if config.enlarged is not None:
            square = (config.enlarged, config.enlarged)
            larger = functools.partial(images.resize_nearest, size=square)
            part["image"] = np.asarray(jax.vmap(larger)(part["image"]))
    return train, test


def own(
    config: "Config",
    model: nn.Module,
    train: dict[str, np.ndarray],
    folder: pathlib.Path | None,
) -> PyTree:
    """Train a classifier, or read it."""
    key = jax.random.key(config.seed)
    if folder is None:
        return model.init(key, train["image"][0])
    file = folder / "classifier.npz"
    if not trainings.comes(file.exists):
        _log.info("training the classifier on %d images", len(train["label"]))
        if config.model == AUTHORS:
            weights = strided(config, model, train, key)
        else:
            given = (jnp.asarray(train[name]) for name in ("image", "label"))
            run = jax.jit(functools.partial(classifier, config, model))
            weights = run(*given, key).best
        trainings.write(file, weights)
    return jax.tree.map(jnp.asarray, trainings.read(file))


def strided(
    config: "Config", model: nn.Module, train: dict[str, np.ndarray], key: Key
) -> PyTree:
    """The authors' classifier, its batch norms live, by their optimizer and rates."""
    live = model.clone(batch_axis="batch")
    count = len(train["label"])
    size, epochs = min(config.batch, count), config.classifier_epochs
    rate = cladec.step_rate(0.1, epochs=epochs, steps=count // size)
    optimizer = optax.chain(
        optax.add_decayed_weights(1e-4), optax.sgd(rate, momentum=0.9)
    )

    def loss(params: PyTree, stats: PyTree, batch: PyTree, key: Key) -> tuple:
        del key
        weights = {"params": params, "batch_stats": stats}
        one = functools.partial(live.apply, mutable=["batch_stats"])
        each = jax.vmap(one, (None, 0), (0, None), axis_name="batch")
        logits, moved = each(weights, batch["image"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.mean(losses), (moved["batch_stats"], {})

    def batches() -> Iterator[PyTree]:
        shuffled = srae.shuffled(count, size=size)
        for epoch in range(epochs):
            for rows in np.asarray(shuffled(jax.random.fold_in(key, epoch))):
                yield {name: train[name][rows] for name in ("image", "label")}

    start = jax.jit(model.init)(key, train["image"][0])
    state = training.init(
        start["params"], optimizer, key=key, extra=start["batch_stats"]
    )
    steps = training.train(loss, state, batches(), optimizer)
    last, _ = collections.deque(steps, maxlen=1).pop()
    return {"params": last.params, "batch_stats": last.extra}


def classifier(
    config: "Config", model: nn.Module, images: Array, labels: Array, key: Key
) -> srae.Member:
    """A classifier, trained from scratch; also the independent one that judges."""
    first, second = jax.random.split(key)
    optimizer = optax.adam(config.classifier_rate)

    def loss(variables: PyTree, batch: Array, key: Key) -> Array:
        del key
        logits = jax.vmap(model.apply, (None, 0))(variables, images[batch])
        return jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch])
        )

    start = srae.member(
        model.init(first, images[0]), optimizer, rounds=config.classifier_epochs
    )
    batches = srae.shuffled(len(images), size=min(config.batch, len(images)))
    return srae.train(loss, start, optimizer, batches=batches, key=second)


def coder(setup: Setup, layer: str) -> Callable[[PyTree, Any], np.ndarray]:
    """`(weights, images) -> ` the codes of a layer, of many images."""
    return networks.mapped(functools.partial(code, setup.fn, layer), chunk=32)


def code(fn: Fn, layer: str, weights: PyTree, x: Array) -> Array:
    """The code of a layer, of one image."""
    return srae.attached(functools.partial(fn, weights), layer, lambda h: h)(x)


def facts(setup: Setup) -> dict[str, Any]:
    """For the report."""
    return {
        "train": len(setup.train["label"]),
        "test": len(setup.test["label"]),
        "accuracy": setup.accuracy,
        "shapes": setup.shapes,
    }
