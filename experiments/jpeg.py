"""This looks like that... if both are JPEGs: prototypes of compression artefacts.

Claim (Hoffmann et al. 2021): where every other class of the training images went
through strong compression, prototypes take up the artefacts. Clean images are then told
worse, and look much less like the same prototypes, though to the eye they are the same.
Training on images that are compressed at random takes that away.

    python -m experiments.jpeg                    the drawn birds, three seeds
    python -m experiments.jpeg cub                as published, for a GPU

What is whose, and the numbers that came of it: docs/this_looks_like_that.md.
"""

import dataclasses
import functools
import logging
import pathlib
from typing import Literal

import jax
import jax.numpy as jnp

from experiments import (
    checks,
    cli,
    jpeg_report,
    protopnet,
    protopnet_data,
    protopnet_setup,
    protopnet_training,
    remedies,
    repeated,
    studies,
)
from experiments.protopnet_network import Network, Weights
from experiments.protopnet_training import Trained
from protojax import images, prototypes, sweeps
from protojax.contracts import Array, Key

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compressed, and which networks are trained on it."""

    network: protopnet.Config = dataclasses.field(default_factory=protopnet.Config)
    """How the networks are made: knobs of experiments/protopnet.py."""
    trained: tuple[Literal["clean", "artefacts", "remedy"], ...] = (
        "clean",
        "artefacts",
        "remedy",
    )
    """Trainings: on images as they are; on images of which every odd class is
    compressed; on images that are compressed at random."""
    repeats: int = 3
    """Networks of each training; their seeds count up from `network.seed`."""
    quality: int = 20
    """Of the compression, from 1 to 100."""
    share: float = 0.5
    """Of the images that the remedy compresses."""
    qualities: tuple[float, ...] = (5.0, 10.0, 20.0, 35.0, 50.0, 75.0, 95.0)
    """At which it is asked how similar the most similar prototype still is."""
    shown: int = 6
    """Images of odd classes that the report looks at."""
    chunk: int = 50
    """Images per part of the results."""


def seen(
    network: Network, weights: Weights, example: dict[str, Array], key: Key
) -> dict[str, Array]:
    """What a network makes of one image, as it is and compressed."""
    del key
    classify = functools.partial(network.apply(), weights)
    similarities = functools.partial(network.apply("similarities"), weights)
    owners, y = jnp.asarray(network.head.owners), example["label"]
    pair = jnp.stack([example["image"], example["compressed"]])
    logits, maps = jax.vmap(classify)(pair), jax.vmap(similarities)(pair)
    similar = jnp.max(maps, axis=(1, 2))
    odd_classes = jnp.arange(logits.shape[-1]) % 2 == 1
    told_odd = jnp.sum(jnp.where(odd_classes, jax.nn.softmax(logits), 0), axis=-1)
    right = jnp.argmax(logits, axis=-1) == y
    top = jnp.argmax(similar[1])
    odd = y % 2 == 1
    return {
        "label": y,
        "odd": odd,
        "correct_clean": right[0],
        "correct_compressed": right[1],
        "correct_half": jnp.where(odd, right[1], right[0]),
        "top": top,
        "top_odd": owners[top] % 2 == 1,
        "similarity_clean": similar[0, top],
        "similarity_compressed": similar[1, top],
        "kept": similar[0, top] / similar[1, top],
        "rank_clean": prototypes.rank(similar[0], top),
        "told_odd_clean": told_odd[0],
        "told_odd_compressed": told_odd[1],
        "image": pair[0],
        "compressed": pair[1],
        "similar": similar,
        "owners": owners,
        "map_clean": maps[0, :, :, top],
        "map_compressed": maps[1, :, :, top],
    }


def at_quality(
    network: Network,
    weights: Weights,
    example: dict[str, Array],
    key: Key,
    *,
    quality: Array,
) -> dict[str, Array]:
    """How similar one image is, at a quality, to what it is most similar to as it is.

    In the place of the codec stands the differentiable one, within a gray level of it.
    """
    del key
    x, y = example["image"], example["label"]
    maps = functools.partial(network.apply("similarities"), weights)
    top = jnp.argmax(jnp.max(maps(x), axis=(0, 1)))
    back = images.jpeg(x, quality=quality)
    logits = network.apply()(weights, back)
    return {
        "label": y,
        "odd": y % 2 == 1,
        "similarity": jnp.max(maps(back)[..., top]),
        "correct": jnp.argmax(logits) == y,
    }


def check(config: Config) -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    protopnet_setup.check(config.network)
    remedies.check(config.network)
    checks.among(config, "trained", ("clean", "artefacts", "remedy"))
    checks.above_zero(config, "repeats", "shown", "chunk")
    checks.at_least(config, 1, "quality", "qualities")
    if max(config.quality, *config.qualities) > 100:
        raise ValueError(
            f"`quality` is {config.quality} and `qualities` are {config.qualities}: "
            "JPEG's are from 1 to 100"
        )
    if not 0 <= config.share <= 1:
        raise ValueError(f"`share` is {config.share}: pass a probability from 0 to 1")


def changed(
    config: Config, name: str, examples: protopnet_data.Examples, seed: int
) -> protopnet_data.Examples:
    """What a training of this name learns from."""
    match name:
        case "artefacts":
            return remedies.planted(examples, quality=config.quality)
        case "remedy":
            knobs = {"quality": config.quality, "share": config.share}
            return remedies.at_random(examples, seed=seed, **knobs)
    return examples


def set_up(config: Config, seed: int) -> tuple[protopnet.Config, protopnet_setup.Setup]:
    """Networks of images, for one seed."""
    knobs = dataclasses.replace(config.network, seed=seed)
    return knobs, protopnet_setup.set_up(knobs)


def asked(
    config: Config, setup: protopnet_setup.Setup, trained: Trained
) -> dict[str, studies.Study]:
    """The sweeps of one network, by folder."""
    test = dict(setup.examples.test)
    test["compressed"] = remedies.everything(test, quality=config.quality)["image"]
    odd = test["id"][test["label"] % 2 == 1]
    look, at = (functools.partial(one, trained.network) for one in (seen, at_quality))
    both = studies.Study(look, [{}], test, trained.weights, chunk=config.chunk)
    return {
        "seen": both._replace(keep=odd[: config.shown].tolist()),
        "quality": both._replace(
            one=at, settings=sweeps.grid(quality=config.qualities)
        ),
    }


def main(config: Config, folder: pathlib.Path) -> None:
    """Train, compress, and report."""
    check(config)
    for seed in repeated.seeds(config):
        knobs, setup = set_up(config, seed)
        for name in config.trained:
            _log.info("%s, seed %d", name, seed)
            here = folder / f"{name}-{seed}"
            lessons = changed(config, name, setup.lessons, seed)
            trained = protopnet_setup.fitted(
                knobs, setup._replace(lessons=lessons), here / "training"
            )
            studies.run(asked(config, setup, trained), knobs, here)
    jpeg_report.write(config, folder)


def plan(config: Config) -> str:
    """What training and sweeps would cost."""
    check(config)
    if config.network.train.startswith("tfds:"):
        return protopnet.plan(config.network)
    knobs, setup = set_up(config, config.network.seed)
    untrained, seconds = protopnet_training.tried(setup.learner, knobs, setup.lessons)
    sweeps_of_one = studies.plan(asked(config, setup, untrained), config)
    count = config.repeats * len(config.trained)
    return (
        f"{count} networks. Training: about {seconds / 60:.1f} min each, without the "
        f"time that compression takes. The sweeps of each:\n\n{sweeps_of_one}"
    )


CONFIGS = {
    "default": Config(),
    "cub": Config(
        network=dataclasses.replace(
            protopnet.CONFIGS["cub-resnet34"], augmentation=40, elastic=True
        ),
        repeats=1,
    ),
    "cub-vgg19": Config(
        network=dataclasses.replace(
            protopnet.CONFIGS["cub-vgg19"], augmentation=40, elastic=True
        ),
        repeats=1,
    ),
    "cars": Config(
        network=dataclasses.replace(
            protopnet.CONFIGS["cars-resnet34"], augmentation=40, elastic=True
        ),
        repeats=1,
    ),
    "smoke": Config(
        network=protopnet.CONFIGS["smoke"],
        repeats=1,
        qualities=(20.0,),
        shown=2,
        chunk=16,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
