"""From a configuration of `experiments.protopnet` to networks and images, and back."""

import dataclasses
import functools
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments import (
    backbones,
    checks,
    networks,
    protopnet_data,
    protopnet_training,
    truths,
)
from experiments.protopnet_network import Network, Weights
from experiments.protopnet_stages import Prepare
from experiments.protopnet_training import Trained
from protojax import prototypes
from protojax.models import protopnet
from protojax.scale import storage

if TYPE_CHECKING:
    from experiments.protopnet import Config

SIMILARITIES: dict[str, dict[str, Any]] = {
    "log": {},
    "linear": {"similarity": prototypes.linear_similarity},
    "cosine": {
        "measure": prototypes.cosine_distances,
        "similarity": functools.partial(prototypes.linear_similarity, bound=1.0),
    },
}
"""What `Config.similarity` means for the head."""


class Setup(NamedTuple):
    """What a configuration comes to.

    Attributes:
      network: of images.
      examples: images.
      learner: the network that is trained: the same, or one of the backbone's features.
      lessons: what that is trained on: the same images, or features.
      classes: what the labels are called.
      truth: what is known of the test images besides.
    """

    network: Network
    examples: protopnet_data.Examples
    learner: Network
    lessons: protopnet_data.Examples
    classes: tuple[str, ...]
    truth: truths.Truth

    def for_lessons(self, trained: Trained) -> tuple[Network, Weights]:
        """A trained network and its weights as they are applied to `lessons`."""
        params, stats = trained.weights
        if self.learner.backbone is not self.network.backbone:
            params, stats = {**params, "backbone": {}}, {}
        return self.learner._replace(head=trained.network.head), (params, stats)

    def of_images(self, trained: Trained) -> Trained:
        """What was trained on `lessons` as a network of images."""
        network = self.network._replace(head=trained.network.head)
        params, stats = trained.weights
        if self.learner.backbone is not self.network.backbone:
            params = {**params, "backbone": self.network.backbone.weights}
            stats = self.network.backbone.stats
        return trained._replace(network=network, weights=(params, stats))


def check(config: "Config") -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    checks.above_zero(config, "image_size", "resize", "per_class", "depth", "epochs")
    checks.above_zero(config, "batch", "push_batch", "rate_every", "save_every")
    checks.above_zero(config, "rate", "backbone_rate", "last_rate", "pushes")
    checks.not_below_zero(
        config, "augmentation", "warm_epochs", "last_epochs", "needed"
    )
    checks.not_below_zero(config, "decay", "cluster", "separation", "l1", "attacked")
    checks.not_below_zero(config, "seed")
    if max(config.pushes) != config.epochs:
        raise ValueError(
            f"`pushes` is {config.pushes}: the last must be after epoch "
            f"{config.epochs}, the end of training, or prototypes are no patches"
        )
    if config.needed > protopnet_training.NEIGHBORS:
        raise ValueError(
            f"`needed` is {config.needed}: it is out of the "
            f"{protopnet_training.NEIGHBORS} nearest training images"
        )
    for folder in config.also:
        other(config, folder)


def stands_still(config: "Config") -> bool:
    """Whether the backbone is never trained, and its features stand for the images."""
    fixed = config.warm_epochs >= config.epochs and not config.augmentation
    return fixed and config.batch_norm == "frozen"


def set_up(config: "Config") -> Setup:
    """Load backbone and images; features instead, if the backbone is never trained."""
    check(config)
    backbone = backbones.load(
        config.backbone,
        layer=config.layer,
        weights=config.weights,
        image_size=config.image_size,
    )
    if config.batch_norm == "live" and backbone.live is None:
        raise ValueError(
            f"`batch_norm` is live, and {config.backbone!r} has no batch norms that "
            "could be: set it to frozen"
        )
    examples, classes = protopnet_data.from_source(config, backbone.image_size)
    truth = truths.known(
        *(config.test, config.test_split, examples.test["id"]),
        image_size=backbone.image_size,
        resize=config.resize,
    )
    owners = prototypes.owners(config.per_class * len(classes), len(classes))
    kind = SIMILARITIES[config.similarity]
    head = protopnet.PrototypeHead(len(classes), owners, config.depth, **kind)
    network = learner = Network(backbone, head)
    lessons = examples
    if stands_still(config):
        lessons = protopnet_data.features(config, backbone, examples)
        learner = Network(backbones.at_hand(backbone), head)
    return Setup(network, examples, learner, lessons, classes, truth)


def fitted(
    config: "Config",
    setup: Setup,
    folder: pathlib.Path,
    *,
    prepare: Prepare | None = None,
) -> Trained:
    """Train, or take up training, and return the network of images."""
    found = protopnet_training.fit(
        *(setup.learner, config, setup.lessons, folder), prepare=prepare
    )
    return setup.of_images(found)


def others(config: "Config", setup: Setup) -> np.ndarray:
    """The sum of the logits of other finished runs, for each test image `[N, K]`."""
    total = np.zeros((len(setup.examples.test["label"]), len(setup.classes)))
    for folder in config.also:
        knobs = other(config, folder)
        there = set_up(knobs)
        network, weights = there.for_lessons(fitted(knobs, there, folder / "training"))
        test = there.lessons.test["image"]
        total += networks.mapped(network.apply())(weights, test)
    return total.astype(np.float32)


def other(config: "Config", folder: pathlib.Path) -> "Config":
    """How another run was made, one that is finished and tested on the same images."""
    knobs = storage.config(folder).get("config")
    if knobs is None or not (folder / "report.html").exists():
        raise ValueError(
            f"`also` names {folder}, which is no finished run: give the folders of some"
        )
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in knobs.items()}
    found = dataclasses.replace(config, **lists | {"also": ()})
    if (found.test, found.test_split) != (config.test, config.test_split):
        raise ValueError(
            f"`also` names {folder}, which was tested on {found.test} "
            f"({found.test_split}), and this is on {config.test} "
            f"({config.test_split}): their logits are of other images"
        )
    return found
