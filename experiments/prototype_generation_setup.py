"""What `experiments.prototype_generation` starts from: natural images by class."""

import functools
import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments import checks, explained, networks
from protojax import activations, data, parts
from protojax.scale import sources

if TYPE_CHECKING:
    from experiments.prototype_generation import Config

METHODS = ("prototype", "distill", "maco")
"""What `prototype_generation_jobs.picture` knows."""

ROOM = 1000
"""Seeds that a class has room for: the id of a job is `ROOM * class + seed`."""

_log = logging.getLogger(__name__)


class Setup(NamedTuple):
    """What a configuration comes to.

    Attributes:
      network: whose classes are shown.
      source: where its natural images come from.
      classes: `[K]` classes that are looked at.
      natural: `[K, n, S, S, 3]` images of each that the network gets right.
      layers: names of what is compared, in order, the logits last.
      confusion: `[K, K]` how often images of a class (rows) are called another.
      accuracy: of the images of these classes.
      color: `[3]` the mean color of the natural images.
      reach: the largest size of a logit on them.
      has_relu: whether there is a ReLU in the network.
    """

    network: networks.Network
    source: str
    classes: tuple[int, ...]
    natural: np.ndarray
    layers: tuple[str, ...]
    confusion: np.ndarray
    accuracy: float
    color: np.ndarray
    reach: float
    has_relu: bool


def load(config: "Config") -> Setup:
    """Load the network, and sort out the images that it gets right."""
    check(config)
    network = networks.load(config.model, image_size=config.image_size)
    source = networks.expand(config.data or network.images)
    found = data.load(
        source,
        config.split or sources.usual_split(source),
        image_size=network.image_size,
        resize=network.resize,
        limit=config.look,
    )
    label = found["label"]
    if config.labels is not None:
        if label.max() >= len(config.labels):
            raise ValueError(
                f"`labels` names {len(config.labels)} classes, and the images have"
                f" labels up to {label.max()}: name one class of the network for each"
            )
        label = np.asarray(config.labels)[label]
    logits = networks.mapped(network.fn, chunk=16)(network.weights, found["image"])
    guess = networks.guesses(logits, label)
    classes = chosen(config, label, guess)
    right = [np.flatnonzero((label == c) & (guess == c)) for c in classes]
    count = min(config.natural, *map(len, right))
    natural = np.stack([found["image"][places[:count]] for places in right])
    inside = np.isin(label, classes)
    setup = Setup(
        network=network,
        source=source,
        classes=classes,
        natural=natural,
        layers=layers_of(config, network, found["image"][0]),
        confusion=confusion(classes, label[inside], guess[inside]),
        accuracy=float(np.mean(guess[inside] == label[inside])),
        color=np.mean(natural, axis=(0, 1, 2, 3), dtype=np.float64).astype(np.float32),
        reach=float(np.abs(logits[inside]).max()),
        has_relu=explained.has_relu(
            functools.partial(network.fn, network.weights), natural[0, 0]
        ),
    )
    seen = (len(classes), count, inside.sum(), 100 * setup.accuracy)
    _log.info("%d classes, %d natural images of each; of %d, %.0f%% right", *seen)
    return setup


def chosen(config: "Config", label: np.ndarray, guess: np.ndarray) -> tuple[int, ...]:
    """The classes of which enough images are classified correctly."""
    counts = {
        int(c): int(np.sum((label == c) & (guess == c))) for c in np.unique(label)
    }
    wanted = config.classes or tuple(
        c for c, count in counts.items() if count >= config.least
    )
    for c in wanted:
        if counts.get(c, 0) < config.least:
            raise ValueError(
                f"`classes` has {c}, of which {counts.get(c, 0)} images are classified"
                f" correctly: {config.least} are needed (`least`); `look` at more"
            )
    if len(wanted) < 2:
        raise ValueError(
            f"of {len(wanted)} classes {config.least} images are classified correctly"
            " (`least`): two are needed; do its labels count the classes as the network"
            " does (`labels`)?"
        )
    return wanted if config.classes else wanted[: config.most]


def confusion(
    classes: tuple[int, ...], label: np.ndarray, guess: np.ndarray
) -> np.ndarray:
    """`[K, K]` share of the images of a class that are called another; rows: labels."""
    rows = [np.mean(guess[label == c][:, None] == classes, axis=0) for c in classes]
    return np.stack(rows)


def layers_of(
    config: "Config", network: networks.Network, x: np.ndarray
) -> tuple[str, ...]:
    """Names of the layers, in the order of evaluation, the logits last."""
    fn = functools.partial(network.fn, network.weights)
    there = activations.layers(fn, x)
    for name in config.layers or ():
        if name not in there:
            raise ValueError(
                f"`layers` has {name!r}, and the network {', '.join(there) or 'none'}"
            )
    return (*(config.layers or there), "logits")


def check(config: "Config") -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    checks.among(config, "methods", METHODS)
    checks.above_zero(config, "seeds", "steps", "baseline_steps", "rate", "chunk")
    checks.above_zero(config, "compared", "places", "samples", "detector_steps")
    checks.above_zero(config, "radius", "adversarial_steps", "look", "fooled")
    checks.above_zero(config, "distill_steps", "maco_steps", "crops", "image_size")
    if config.seeds > ROOM:
        raise ValueError(
            f"`seeds` is {config.seeds}: pictures of a class are numbered up to {ROOM};"
            " for more, run again with another `seed`"
        )
    checks.not_below_zero(config, "hf_weight", "redirect", "blur", "seed")
    checks.at_least(config, 2, "natural", "least", "most")
    if config.fooling and "distill" not in config.methods:
        raise ValueError(
            "`fooling` needs pictures by distill, which one of its detectors has seen:"
            " add it to `methods`, or leave `fooling` out"
        )
    if config.cues:
        checks.above_zero(config, "cue_train", "cue_steps")
    known = range(len(parts.CLASSES))
    if not set(config.cues) <= set(known):
        raise ValueError(
            f"`cues` is {config.cues}: there are birds of the classes 0 to {known[-1]}"
        )
