"""This looks like that... does it? Prototypes are found where an attack wants them.

Claim (Hoffmann et al. 2021): noise of a few gray levels makes a prototype of a head be
found on the stomach, or nowhere, and the prediction stays; similarity in latent space
is not similarity to the eye. Adversarial training makes it harder, and costs accuracy.

    python -m experiments.prototype_attacks           the drawn birds, three seeds
    python -m experiments.prototype_attacks local     birds whose heads have prototypes
    python -m experiments.prototype_attacks pets      cats and dogs, on MobileNetV2
    python -m experiments.prototype_attacks cub       as published, for a GPU

Success is counted as in the authors' code, and as it ought to be. What is whose, and
the numbers that came of it: docs/this_looks_like_that.md.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from experiments import (
    checks,
    cli,
    networks,
    protopnet,
    protopnet_network,
    protopnet_pictures,
    protopnet_setup,
    protopnet_training,
    prototype_attacks_report,
    prototype_attacks_studies,
    remedies,
    repeated,
    studies,
    truths,
)
from experiments.protopnet_stages import Prepare
from experiments.protopnet_training import Trained
from protojax import parts, report, sweeps

_log = logging.getLogger(__name__)

Examples = dict[str, np.ndarray]

PARTS = {"head": ("head", "beak", "eye"), "stomach": ("belly", "breast")}
"""Of the drawn birds: what prototypes are moved from, and to."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Which networks are attacked, how hard, and on how many images."""

    network: protopnet.Config = dataclasses.field(default_factory=protopnet.Config)
    """How the networks are made: knobs of experiments/protopnet.py."""
    trained: tuple[Literal["standard", "adversarial"], ...] = (
        "standard",
        "adversarial",
    )
    """Trainings: as they are, and with one signed step on every batch (FGSM)."""
    repeats: int = 3
    """Networks of each training; their seeds count up from `network.seed`."""
    images: int = 100
    """Test images that are attacked, out of those that all networks of a seed classify
    correctly; to move a head, only those in which a prototype is found on it."""
    attacks: tuple[Literal["search", "through_jpeg", "random"], ...] = (
        "search",
        "through_jpeg",
        "random",
    )
    """Projected gradient ascent; the same through compression of random quality; the
    best of as many random signs as it takes steps."""
    radius: float = 8.0
    """L-infinity (or L2) budget, in gray levels of 255."""
    step_size: float = 2.0
    """Length of a step, in gray levels of 255."""
    steps: int = 40
    """Steps of each attack."""
    restarts: int = 1
    """Random starts of each attack, of which the best counts."""
    norm: Literal["linf", "l2"] = "linf"
    """Of the ball."""
    tries: int = 5
    """Most similar prototypes that the authors' protocol of May 2021 tries."""
    shown: int = 10
    """A prototype is gone if so many others are more similar: those that ProtoPNet's
    explanation shows."""
    qualities: tuple[int, int] = (20, 95)
    """Lowest and highest quality of the compression that is attacked through."""
    judged_quality: int = 75
    """Quality at which it is asked whether a success outlives compression."""
    against: tuple[float, float] = (8.0, 10.0)
    """Ball and step of adversarial training, in gray levels of 255; attacks on the
    label are within the same ball."""
    chunk: int = 20
    """Images per part of the results."""


def check(config: Config) -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    protopnet_setup.check(config.network)
    checks.among(config, "trained", ("standard", "adversarial"))
    if "adversarial" in config.trained:
        remedies.check(config.network)
    checks.among(config, "attacks", ("search", "through_jpeg", "random"))
    checks.above_zero(config, "repeats", "images", "radius", "step_size", "steps")
    checks.above_zero(config, "restarts", "tries", "shown", "against", "chunk")
    low, high = config.qualities
    if not 1 <= low <= high <= 100 or not 1 <= config.judged_quality <= 100:
        raise ValueError(
            f"`qualities` are {config.qualities} and `judged_quality` is "
            f"{config.judged_quality}: JPEG's are from 1 to 100, the lowest first"
        )
    if "search" not in config.attacks:
        raise ValueError(
            f"`attacks` is {config.attacks}: add search, which all are compared with"
        )
    if config.norm == "l2" and "random" in config.attacks:
        raise ValueError("`attacks` has random signs, which are of the L-infinity ball")


def prepared(config: Config, name: str) -> Prepare | None:
    """What a training of this name makes of each batch, if anything."""
    if name == "standard":
        return None
    radius, step_size = (length / 255 for length in config.against)
    return remedies.adversarial(radius=radius, step_size=step_size)


def regions(config: Config, ids: np.ndarray, image_size: int) -> Examples:
    """Where heads and stomachs are, bool `[N, S, S]`, if it is known.

    Where a head box and a segmentation are known, the head is what of the animal lies
    in the box, and the stomach the rest of it.
    """
    source, split = config.network.test, config.network.test_split
    resize = config.network.resize
    if source.partition(":")[0] == "parts":
        masks = truths.birds(source, split, ids, image_size=image_size).masks
        return {
            name: masks[:, [parts.PARTS.index(part) for part in of]].any(1)
            for name, of in PARTS.items()
        }
    known = truths.known(source, split, ids, image_size=image_size, resize=resize)
    if "head" not in known or "object" not in known:
        return {}
    head, animal = known["head"], known["object"]
    return {"head": head & animal, "stomach": animal & ~head}


def candidates(
    config: Config, setup: protopnet_setup.Setup, nets: Mapping[str, Trained]
) -> Examples:
    """All test images that all networks classify correctly, with their regions."""
    test = setup.examples.test
    right = np.ones(len(test["label"]), bool)
    for trained in nets.values():
        logits = networks.mapped(trained.network.apply())
        right &= logits(trained.weights, test["image"]).argmax(1) == test["label"]
    where = regions(config, test["id"], setup.network.backbone.image_size)
    for mask in where.values():
        right &= mask.any((1, 2))
    chosen = np.flatnonzero(right)
    if not len(chosen):
        raise ValueError(
            "no test image is classified correctly by all networks: train longer"
        )
    return _some(test | where, chosen)


def aims(config: Config, trained: Trained, examples: Examples) -> studies.Study:
    """Whether there is something to ask of each image."""
    look = functools.partial(prototype_attacks_studies.aims, trained.network)
    return studies.Study(look, [{}], examples, trained.weights, chunk=config.chunk)


def worth(config: Config, examples: Examples, folder: pathlib.Path) -> Examples:
    """The first images in which a prototype is on the head and can leave it.

    If there are none one image stands for them, with a row that says so.
    """
    ids = [row["id"] for row in report.read(folder / "aims") if row["worth"]]
    chosen = np.flatnonzero(np.isin(examples["id"], ids or examples["id"][:1]))
    return _some(examples, chosen[: config.images])


def _some(examples: Examples, places: Any) -> Examples:
    return {name: values[places] for name, values in examples.items()}


def asked(
    config: Config,
    setup: protopnet_setup.Setup,
    trained: Trained,
    examples: Examples,
    heads: Examples,
) -> dict[str, studies.Study]:
    """The sweeps of one network, by folder: of all images, and of those with heads."""
    few = _some(examples, slice(config.images))

    def of(one: Callable, radius: float, step_size: float, **axes) -> studies.Study:
        settings = sweeps.grid(
            **axes, radius=[radius / 255], step_size=[step_size / 255]
        )
        look = functools.partial(one, trained.network, config)
        weights, chunk = trained.weights, config.chunk
        return studies.Study(look, settings, few, weights, chunk=chunk)

    ball = (config.radius, config.step_size)
    kinds = [kind for kind in config.attacks if kind != "through_jpeg"]
    keep = [images["id"][:4].tolist() for images in (heads, few)]
    look = prototype_attacks_studies
    moved = of(look.head_on_stomach, *ball, attack=config.attacks)
    absent = of(look.disappearance, *ball, attack=kinds)
    told = of(look.accuracy, config.against[0], 2.0)
    return {
        "moved": moved._replace(examples=heads, keep=keep[0]),
        "absent": absent._replace(keep=keep[1]),
        "literal": of(look.literal, *ball, protocol=["april", "may"], attack=kinds),
        "accuracy": told._replace(examples=dict(setup.examples.test)),
    }


def patches(
    config: protopnet.Config,
    setup: protopnet_setup.Setup,
    trained: Trained,
    folder: pathlib.Path,
) -> dict[int, np.ndarray]:
    """What attacked prototypes are: training images, with the box shown of them."""
    rows = [row for kind in ("moved", "absent") for row in report.read(folder / kind)]
    chosen = sorted({row["prototype"] for row in rows})
    network, weights = setup.for_lessons(trained)
    found = protopnet_network.nearest(
        network, weights, setup.lessons.in_order(), k=1, own=True
    )
    place = {j: int(found.image[j, 0]) for j in chosen}
    album = protopnet_pictures.album(
        config, trained, (), setup.classes, setup.examples.test["image"]
    )
    images = album.training(list(place.values()))
    seen = {j: album.look(images[place[j]], j) for j in chosen}
    return {j: protopnet_pictures.boxed(s.image, s.box) for j, s in seen.items()}


def main(config: Config, folder: pathlib.Path) -> None:
    """Train, attack, and report."""
    check(config)
    pictured: dict[int, np.ndarray] = {}
    for seed in repeated.seeds(config):
        knobs = dataclasses.replace(config.network, seed=seed)
        setup, nets = protopnet_setup.set_up(knobs), {}
        for name in config.trained:
            _log.info("%s training, seed %d", name, seed)
            nets[name] = protopnet_setup.fitted(
                *(knobs, setup, folder / f"{name}-{seed}" / "training"),
                prepare=prepared(config, name),
            )
        examples = candidates(config, setup, nets)
        for name, trained in nets.items():
            here = folder / f"{name}-{seed}"
            studies.run({"aims": aims(config, trained, examples)}, knobs, here)
            heads = worth(config, examples, here)
            studies.run(asked(config, setup, trained, examples, heads), knobs, here)
            pictured = pictured or patches(knobs, setup, trained, here)
    prototype_attacks_report.write(config, folder, pictured)


def plan(config: Config) -> str:
    """What training and attacks would cost."""
    check(config)
    if config.network.train.startswith("tfds:"):
        return protopnet.plan(config.network)
    setup = protopnet_setup.set_up(config.network)
    costs, trained = [], None
    for name in config.trained:
        untrained, seconds = protopnet_training.tried(
            *(setup.learner, config.network, setup.lessons),
            prepare=prepared(config, name),
        )
        costs.append(f"{name} {seconds / 60:.1f} min")
        trained = setup.of_images(untrained)
    test = setup.examples.test
    where = regions(config, test["id"], setup.network.backbone.image_size)
    few = _some(test | where, slice(config.images))
    sweeps_of_one = studies.plan(asked(config, setup, trained, few, few), config)
    return (
        f"{config.repeats} of each training: {', '.join(costs)} each, about.\n\n"
        f"The sweeps of each of {config.repeats * len(costs)} networks:\n\n"
        f"{sweeps_of_one}"
    )


_REAL = Config(trained=("standard",), repeats=1, images=40, chunk=4)

CONFIGS = {
    "default": Config(
        network=dataclasses.replace(protopnet.Config(), layer="stage3", batch=40)
    ),
    "local": Config(
        network=protopnet.CONFIGS["local"], trained=("standard",), repeats=1
    ),
    "pets": dataclasses.replace(_REAL, network=protopnet.CONFIGS["pets"]),
    "birds": dataclasses.replace(_REAL, network=protopnet.CONFIGS["birds"]),
    "cub": Config(
        network=dataclasses.replace(
            protopnet.CONFIGS["cub-resnet34"], augmentation=40, elastic=True
        ),
        repeats=1,
        images=200,
    ),
    "cars": Config(
        network=dataclasses.replace(
            protopnet.CONFIGS["cars-resnet34"], augmentation=40, elastic=True
        ),
        repeats=1,
        images=200,
    ),
    "smoke": Config(
        network=dataclasses.replace(
            protopnet.CONFIGS["smoke"],
            train="parts:160",
            test="parts:64",
            depth=32,
            rate=0.03,
            epochs=8,
            warm_epochs=7,
            pushes=(8,),
            needed=0,
        ),
        trained=("standard",),
        repeats=1,
        images=4,
        attacks=("search", "through_jpeg"),
        steps=2,
        tries=2,
        shown=2,
        chunk=16,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
