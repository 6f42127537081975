"""What a ProtoPNet is trained on: images, or what a backbone makes of them."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments import backbones, networks
from protojax import data
from protojax.scale import sources

if TYPE_CHECKING:
    from experiments.protopnet import Config

Batch = dict[str, np.ndarray]

KEPT = 2**30
"""Bytes of training images up to which all are read once and stay in memory."""


class Examples(NamedTuple):
    """What a training learns from, and is tested on.

    Attributes:
      batches: `start -> ` shuffled training batches without end, from that one on.
      in_order: `() -> ` the training images once, as they are, for push and prune.
      test: `image` `[N, ...]`, `label` `[N]` and `id` `[N]`.
      epoch: training steps in an epoch.
    """

    batches: Callable[[int], Iterator[Batch]]
    in_order: Callable[[], Iterable[Batch]]
    test: Batch
    epoch: int


def from_source(config: "Config", size: int) -> tuple[Examples, tuple[str, ...]]:
    """Images of a size, and the names of their classes.

    Labels become 0, 1, ... in the order of those that the test images have.
    """
    name, split = networks.expand(config.train), config.train_split
    knobs = {"image_size": size, "resize": config.resize}
    found = sources.find(name, split, image_size=size)
    judged = networks.expand(config.test), config.test_split
    names = sources.find(*judged, image_size=size).classes
    if found.classes and names and found.classes != names:
        raise ValueError(
            f"`train` {config.train!r} has the classes {_few(found.classes)}, and"
            f" `test` {config.test!r} {_few(names)}: their labels would not mean the"
            " same; take both from the same classes"
        )
    test = data.load(*judged, **knobs)
    known = np.unique(test["label"])
    classes = found.classes or tuple(f"class {label}" for label in known)
    relabel = functools.partial(
        _relabeled, known=np.arange(len(classes)) if found.classes else known
    )
    if found.num < config.batch:
        raise ValueError(
            f"`batch` is {config.batch}, and there are {found.num} training images: "
            "choose no more"
        )
    if 12 * found.num * size**2 <= KEPT:
        train = relabel(data.load(name, split, **knobs))
        return held(config, train, relabel(test)), classes
    shuffled = functools.partial(data.batches, name, split, seed=config.seed, **knobs)
    in_order = functools.partial(data.in_order, name, split, **knobs)
    examples = Examples(
        batches=lambda start: map(relabel, shuffled(size=config.batch, start=start)),
        in_order=lambda: map(relabel, in_order(size=config.push_batch)),
        test=relabel(test),
        epoch=_epoch(config, found.num),
    )
    return examples, classes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + ", ..." * (len(names) > 6)


def held(config: "Config", train: Batch, test: Batch) -> Examples:
    """Examples that are in memory."""
    return Examples(
        batches=lambda start: _shuffled(train, config.batch, config.seed, start),
        in_order=lambda: in_parts(train, config.push_batch),
        test=test,
        epoch=_epoch(config, len(train["label"])),
    )


def features(
    config: "Config", backbone: backbones.Backbone, examples: Examples
) -> Examples:
    """What a backbone makes of all images, computed once, in their place."""
    weights = backbones.merged(backbone.weights, backbone.stats)
    of = functools.partial(networks.mapped(backbone.features), weights)
    batches = [{**b, "image": of(b["image"])} for b in examples.in_order()]
    train = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    test = {**examples.test, "image": of(examples.test["image"])}
    return held(config, train, test)


def in_parts(arrays: Mapping[str, np.ndarray], size: int) -> Iterator[Batch]:
    """Arrays batch by batch, in order."""
    for first in range(0, len(arrays["label"]), size):
        yield {name: values[first : first + size] for name, values in arrays.items()}


def _epoch(config: "Config", count: int) -> int:
    return max(1, config.augmentation) * (count // config.batch)


def _relabeled(batch: Batch, *, known: np.ndarray) -> Batch:
    place = np.searchsorted(known, batch["label"]).clip(0, len(known) - 1)
    if strange := sorted(set(batch["label"][known[place] != batch["label"]].tolist())):
        raise ValueError(
            f"`train` has images of class {strange[0]}, and `test` has none: test on"
            " images of every class"
        )
    return {**batch, "label": place.astype(np.int32)}


def _shuffled(
    arrays: Mapping[str, np.ndarray], size: int, seed: int, start: int
) -> Iterator[Batch]:
    """The batches that `data.batches` makes, of arrays."""
    count = len(arrays["label"])
    epoch, first = divmod(start, count // size)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(count)
        for batch in range(first, count // size):
            chosen = order[batch * size : (batch + 1) * size]
            yield {name: values[chosen] for name, values in arrays.items()}
        epoch, first = epoch + 1, 0
