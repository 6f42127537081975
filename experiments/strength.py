"""How strong is the top-k attack on explanations really, and what does it reach?

Claim: an attack must be shown to be strong before what withstands it is called robust
(Carlini et al., On evaluating adversarial robustness, 2019). Three questions:

- Do more steps, random starts or a sharper softplus twin find more damage?
- Does an attack on one explanation move the others, more than random signs do?
- Does an attack on SmoothGrad survive noise that it has not seen, and does it help to
  draw new noise at every step?

    python -m experiments.strength                  the drawn birds
    python -m experiments.strength cifar10          ResNet-20, the top 100 pixels
    python -m experiments.strength --model my.module:network --data folder:my/images

What is done to one image in each of them is in experiments/strength_studies.py, what is
attacked and judged is as in experiments/fragility.py, and what came of it is in
docs/strength.md.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

from experiments import (
    checks,
    cli,
    explained,
    strength_report,
    strength_studies,
    studies,
    subjects,
)
from protojax import sweeps

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Config:
    """Which attack is varied, how, and on how many images."""

    model: str = "parts"
    """A name from experiments/networks.py, or package.module:function of your own."""
    data: str | None = None
    """Images: parts, folder:PATH, npz:PATH or tfds:NAME; the model's own if not given.
    """
    split: str | None = None
    """Which part of the data; its test images if not given, or all where none are
    apart."""
    image_size: int | None = None
    """Pixels; the model's usual ones if not given."""
    images: int = 16
    """How many images, out of those that the network classifies correctly."""
    k: int | None = None
    """Pixels of the top; if not given 1000 above 200 pixels, else a tenth."""
    radius: float = 2.0
    """L-infinity budget, in gray levels of 255."""
    step_size: float = 0.5
    """Length of a step, in gray levels of 255."""
    attribution: str = "gradient"
    """The explanation on which steps, starts and sharpness are varied."""
    steps: tuple[int, ...] = (10, 30, 100, 300)
    """Steps of the attack from the image itself."""
    climb: int = 100
    """Steps wherever something else is varied."""
    starts: int = 4
    """Random starts, of which the best is taken."""
    sharpness: tuple[float, ...] = (5.0, 10.0, 20.0, 50.0, 100.0)
    """How much sharper the twin's softplus is than the typical unit's scale."""
    attributions: tuple[str, ...] = (
        "gradient",
        "integrated_gradients",
        "smooth_gradient",
        "deep_lift",
        "input_x_gradient",
    )
    """Explanations that are attacked in turn, and judged all."""
    bystanders: tuple[str, ...] = ("guided_gradient",)
    """Explanations that are judged, and never attacked."""
    points: int = 50
    """Points on the path of integrated gradients, or samples of SmoothGrad, in the
    maps that are judged."""
    attack_points: int = 10
    """The same in the maps that an attack climbs."""
    noise_samples: tuple[int, ...] = (4, 16)
    """Samples of SmoothGrad in the attacks that are judged with other noise."""
    chunk: int = 8
    """Images per part of the results."""
    seed: int = 0
    """Of all that is random."""


def check(config: Config) -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    explained.check((config.attribution,), knob="attribution")
    explained.check(config.attributions)
    if config.bystanders:
        explained.check(config.bystanders, knob="bystanders", refused=explained.UNSEEN)
    checks.not_below_zero(config, "radius", "starts")
    checks.above_zero(config, "images", "k", "step_size", "steps", "climb", "chunk")
    checks.above_zero(config, "sharpness", "points", "attack_points", "noise_samples")
    checks.above_zero(config, "image_size")


def set_up(config: Config) -> tuple[subjects.Subject, dict[str, studies.Study]]:
    """Load network and images, and say what is done with them, by folder."""
    check(config)
    subject = subjects.load(
        config.model,
        config.data,
        config.split,
        image_size=config.image_size,
        images=config.images,
    )
    _log.info("attacks follow a softplus twin of sharpness %.3g", subject.beta)
    beta = subject.beta
    ball = {"radius": [config.radius / 255], "step_size": [config.step_size / 255]}
    usual = explained.SHARPNESS
    alone = [
        {"steps": steps, "starts": 0, "sharpness": usual} for steps in config.steps
    ]
    alone += [
        {"steps": config.climb, "starts": 0, "sharpness": sharpness}
        for sharpness in (usual, *config.sharpness)
    ]
    alone.append({"steps": config.climb, "starts": config.starts, "sharpness": usual})
    once = list({tuple(setting.items()): setting for setting in alone}.values())
    (fixed,) = sweeps.grid(unit=[beta / usual], **ball)

    def study(one: Callable, settings: list[dict[str, Any]]) -> studies.Study:
        of_network = functools.partial(one, subject.network.fn, config)
        weights = subject.network.weights
        return studies.Study(of_network, settings, subject.examples, weights)

    across = sweeps.grid(
        attack_on=(*config.attributions, strength_studies.RANDOM), beta=[beta], **ball
    )
    noisy = sweeps.grid(
        attack_on=("smooth_gradient_one_draw", "smooth_gradient"),
        samples=config.noise_samples,
        beta=[beta],
        **ball,
    )
    first = subject.examples["id"][:1].tolist()
    return subject, {
        "": study(strength_studies.varied, [{**setting, **fixed} for setting in once]),
        "transfer": study(strength_studies.transferred, across)._replace(keep=first),
        "noise": study(strength_studies.seeded, noisy),
    }


def main(config: Config, folder: pathlib.Path) -> None:
    """Sweep three times, and report."""
    subject, found = set_up(config)
    studies.run(found, config, folder)
    x = subject.examples["image"][0]
    k = explained.k_of(config.k, x)
    strength_report.write(config, folder, k=k, pixels=x[..., 0].size)


def plan(config: Config) -> str:
    """What the run would cost."""
    return studies.plan(set_up(config)[1], config)


CONFIGS = {
    "default": Config(),
    "cifar10": Config(
        model="cifar10_resnet20",
        k=100,
        climb=30,
        points=25,
        attack_points=5,
        noise_samples=(8,),
        chunk=16,
    ),
    "imagenet": Config(model="squeezenet1_1_authors", split="all", chunk=4),
    "smoke": Config(
        model="parts_small",
        images=2,
        steps=(2,),
        climb=2,
        starts=2,
        sharpness=(20.0, 50.0),
        attributions=("gradient",),
        bystanders=("input_x_gradient",),
        points=2,
        attack_points=2,
        noise_samples=(2,),
        chunk=4,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
