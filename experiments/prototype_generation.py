r"""Prototype Generation: a picture of a class, held to the paths of natural images.

Claim (Tagade and Rumbelow 2023): of a class's logit, climbed in pixels from an image
that stands for no class, comes a picture that the network sees as it sees natural
images: in every layer its activations are closer to their mean than those of any single
natural image are.

    python -m experiments.prototype_generation                  the drawn birds
    python -m experiments.prototype_generation cifar10-resnet20
    python -m experiments.prototype_generation --model my.module:network \
        --data folder:my/images

An average of anything is close to a mean. So the same is asked of images that nobody
would call natural, and of other visualizations; besides, whether pictures are fooled by
networks that hide, what else they are taken for, and whether they show a cue that was
planted. What is the paper's and what is ours, and the numbers that came of it:
docs/prototype_generation.md.
"""

import dataclasses
import pathlib
from typing import Literal

import numpy as np

from experiments import (
    cli,
    prototype_generation_cue,
    prototype_generation_fooling,
    prototype_generation_isolated,
    prototype_generation_jobs,
    prototype_generation_paths,
    prototype_generation_report,
    prototype_generation_setup,
    studies,
)
from protojax.scale import report


@dataclasses.dataclass(frozen=True)
class Config:
    """What is shown, how, and what it is compared with."""

    model: str = "parts"
    """A name from experiments/networks.py, or package.module:function of your own,
    which returns `(fn, weights)` with `fn(weights, image) -> logits`."""
    data: str | None = "parts:400"
    """Natural images: parts, folder:PATH, npz:PATH or tfds:NAME; the model's own if not
    given. In a path, PROTOJAX_DATA is the folder that this variable of the environment
    names."""
    split: str | None = None
    """Which part of the data; its test images if not given, or all where none are
    apart."""
    image_size: int | None = None
    """Pixels; the model's usual ones if not given."""
    labels: tuple[int, ...] | None = None
    """The network's class for each label of the images; the same if not given."""
    look: int = 2000
    """Images to look at, at most, for those that are classified correctly."""
    classes: tuple[int, ...] | None = None
    """Classes of the network; if not given the first of which there are images."""
    most: int = 10
    """How many of these."""
    natural: int = 24
    """Natural images of a class, at most; all classes have as many."""
    least: int = 8
    """Natural images without which a class is left out."""
    seeds: int = 3
    """Pictures of each class."""
    methods: tuple[str, ...] = prototype_generation_setup.METHODS
    """prototype, distill (Olah et al. 2017), maco (Fel et al. 2023)."""
    compared: int = 10
    """Classes of which there are pictures by the other methods, too, at most."""
    steps: int = 256
    """Steps of a prototype."""
    baseline_steps: int = 128
    """Steps to the image that stands for no class."""
    rate: float = 0.05
    """Learning rate of Adam for both."""
    hf_weight: float = 30.0
    """Weight of the high-frequency loss: as small as leaves no noise on drawn birds."""
    transform: Literal["s", "m", "l", "xl", "shift_scale"] = "xl"
    """Random affine maps under which prototypes are climbed, by size."""
    distill_steps: int = 512
    """Steps of distill (Lucid's number; the article has 2560)."""
    redirect: int = 16
    """For how many of them ReLUs without a gradient let one through."""
    maco_steps: int = 256
    """Steps of MaCo."""
    crops: int = 4
    """Crops that MaCo looks at in each step (the authors have 32)."""
    samples: int = 16
    """Random maps under which pictures are looked at."""
    layers: tuple[str, ...] | None = None
    """Layers whose activations are compared, by name; all that are named if not given;
    the logits come last in any case."""
    places: int | None = None
    """Places of a layer that are compared, drawn once; all if not given."""
    blur: float = 0.06
    """Standard deviation of the blur of the mean image, as a share of its side."""
    radius: float = 8.0
    """L-infinity budget of adversarial images, in gray levels of 255."""
    adversarial_steps: int = 40
    """Steps of that attack."""
    fooling: bool = True
    """Put a fooling circuit on the network, and see who is fooled."""
    fooled: int = 4
    """Classes of which there are pictures by these networks, at most."""
    detector_steps: int = 300
    """Training steps of the detector that it depends on."""
    cues: tuple[int, ...] = (0, 3, 6)
    """Classes of birds in which a cue is planted, one network for each; none for no
    such study. There is none where the network is another than that of the birds."""
    cue_train: int = 1200
    """Birds that these networks are trained on."""
    cue_steps: int = 500
    """Training steps of each."""
    chunk: int = 8
    """Pictures at once, and for each part of the results."""
    seed: int = 0
    """Of all that is random."""


def main(config: Config, folder: pathlib.Path) -> None:
    """Make pictures, compare their paths, try to fool and to cue, and report."""
    setup = prototype_generation_setup.load(config)
    if config.fooling:  # refused before any picture is made
        others = prototype_generation_fooling.other_natural(config, setup)
    first = prototype_generation_jobs.baseline_study(config, setup)
    studies.run({"baseline": first}, config, folder)
    (start,) = report.arrays(folder / "baseline")
    weights = prototype_generation_jobs.weights_of(setup, start["image"])
    made = jobs(config, setup, weights)
    studies.run(made, config, folder)
    pictures = {
        **prototype_generation_jobs.collected(setup, *(folder / n for n in made)),
        "baseline": start["image"],
        "weights": weights,
    }
    studies.run(looked_at(config, setup, pictures), config, folder)
    if config.fooling:
        detectors = prototype_generation_fooling.trained(
            config, setup, others, pictures
        )
        fooled = prototype_generation_fooling.sweeping(
            config, setup, pictures, detectors
        )
        studies.run(fooled, config, folder)
    facts: list[dict] = []
    if prototype_generation_cue.asked(config):
        cued = prototype_generation_cue.kept(config, folder / "cue")
        facts = prototype_generation_cue.facts(config, cued)
        studies.run(prototype_generation_cue.sweeping(config, cued), config, folder)
    prototype_generation_report.write(config, folder, setup, pictures, facts)


def jobs(
    config: Config, setup: prototype_generation_setup.Setup, weights: dict
) -> dict[str, studies.Study]:
    """The sweeps that make pictures: prototypes of all classes, others of some."""
    groups = {
        "prototypes": (("prototype",), setup.classes),
        "others": (("distill", "maco"), setup.classes[: config.compared]),
    }
    found = {}
    for name, (methods, classes) in groups.items():
        wanted = [method for method in methods if method in config.methods]
        if wanted:
            found[name] = prototype_generation_jobs.study(
                config, setup, weights, wanted, classes
            )
    return found


def looked_at(
    config: Config, setup: prototype_generation_setup.Setup, pictures: dict
) -> dict[str, studies.Study]:
    """The sweeps over pictures and natural images: paths, and masks."""
    totals = prototype_generation_paths.totals(config, setup)
    return {
        "paths": prototype_generation_paths.study(config, setup, pictures, totals),
        "isolated": prototype_generation_isolated.study(
            config, setup, pictures["weights"]
        ),
    }


def plan(config: Config) -> str:
    """What all sweeps would cost; training detectors and networks comes on top.

    Programs are those of a run, with gray pictures and networks that are not trained.
    """
    setup = prototype_generation_setup.load(config)
    blank = np.full_like(setup.natural[0, 0], 0.5)
    weights = prototype_generation_jobs.weights_of(setup, blank)
    made = jobs(config, setup, weights)
    pictures = {
        **prototype_generation_jobs.blank(setup, made.values(), blank),
        "baseline": blank,
        "weights": weights,
    }
    quick = dataclasses.replace(config, adversarial_steps=1)
    found = {"baseline": prototype_generation_jobs.baseline_study(config, setup)}
    found |= made | looked_at(quick, setup, pictures)
    if config.fooling:
        detectors = prototype_generation_fooling.untrained(config, setup)
        found |= prototype_generation_fooling.sweeping(
            config, setup, pictures, detectors
        )
    if prototype_generation_cue.asked(config):
        cued = prototype_generation_cue.untrained(config)
        found |= prototype_generation_cue.sweeping(config, cued)
    return studies.plan(found, config)


_TINY = (1, 145, 207, 281, 323, 386, 779, 849, 817, 879, 963, 978)
"""The classes of ImageNet that the 12 of Tiny ImageNet are."""
_CIFAR = Config(model="cifar10_resnet20", data=None, fooling=False, cues=(), chunk=6)
_IMAGENET = Config(
    model="squeezenet1_1",
    data="npz:PROTOJAX_DATA/tiny_imagenet12.npz",
    split="train",
    labels=_TINY,
    most=12,
    natural=16,
    seeds=3,
    compared=5,
    steps=128,
    baseline_steps=64,
    distill_steps=128,
    maco_steps=64,
    crops=2,
    samples=8,
    places=256,
    fooling=False,
    cues=(),
    chunk=3,
)
CONFIGS = {
    "default": Config(),
    "cifar10-resnet20": _CIFAR,
    "cifar10-resnet56": dataclasses.replace(
        _CIFAR,
        model="cifar10_resnet56",
        steps=256,
        distill_steps=256,
        maco_steps=128,
        places=256,
    ),
    "squeezenet": _IMAGENET,
    "mobilenet": dataclasses.replace(
        _IMAGENET,
        model="mobilenet_v2",
        classes=(1, 145, 323, 779, 963),
        least=4,
        seeds=1,
        compared=2,
    ),
    "resnet18": dataclasses.replace(
        _IMAGENET, model="resnet18", steps=512, seeds=3, chunk=64
    ),
    "inception": dataclasses.replace(
        _IMAGENET, model="inception_v1", steps=512, seeds=3, chunk=64
    ),
    "smoke": Config(
        model="parts_small",
        data="parts:80",
        most=2,
        natural=4,
        least=2,
        seeds=2,
        methods=("prototype",),
        compared=1,
        steps=4,
        baseline_steps=4,
        distill_steps=4,
        redirect=0,
        maco_steps=3,
        crops=2,
        samples=2,
        adversarial_steps=2,
        fooling=False,
        detector_steps=3,
        cues=(),
        cue_train=32,
        cue_steps=2,
        chunk=4,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
