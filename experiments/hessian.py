"""The curvature behind fragile explanations: where gradients turn, and what it buys.

Claim (Ghorbani, Abid and Zou 2019, section 5): explanations move while predictions stay
because the gradient of the score turns fastest along the leading eigenvector of the
input Hessian, which is nearly orthogonal to the gradient; and this gets worse with the
dimension of the input. Five questions:

- What are the eigenvalues of input Hessians, and of the parameter Hessian?
- Is the angle of gradient and eigenvector nearer to 90 degrees than chance?
- How far does the Hessian predict what really moves, and does a normalized map?
- What is an attack along its leading vectors worth, at equal budget?
- What does the dimension do, in networks small enough to know it in closed form?

    python -m experiments.hessian                   the drawn birds
    python -m experiments.hessian cifar10           ResNet-20, angles on 1000 images
    python -m experiments.hessian --model my.module:network --data folder:my/images

What is done to one image is in experiments/hessian_studies.py, the small networks are
in experiments/hessian_analytic.py, and what came of it is in docs/hessian.md.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments import (
    checks,
    cli,
    explained,
    hessian_analytic,
    hessian_attacks,
    hessian_report,
    hessian_studies,
    networks,
    studies,
    subjects,
)
from protojax import sweeps

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is looked at, how closely, and on how many images."""

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
    few: int = 8
    """How many images, out of those that the network classifies correctly, for all but
    the angles."""
    images: int = 100
    """How many images for the angles of gradient and leading eigenvector."""
    angle_split: str | None = None
    """Which part of the data these are from, if another one."""
    shuffled: int = 50
    """How many of them are seen by the network with its weights shuffled, a null."""
    steps: int = 24
    """Steps of Lanczos for a leading pair."""
    sharpness: tuple[float, ...] = (5.0, 20.0, 80.0)
    """How much sharper the twin's softplus is than the typical unit's scale, where this
    is varied; 20 everywhere else."""
    values: int = 8
    """Leading eigenvalues of each input Hessian."""
    quadrature: int = 32
    """Steps of Lanczos for a density of eigenvalues."""
    probes: int = 4
    """Random directions for it."""
    loss_images: int = 64
    """How many images the loss is over whose parameter Hessian is looked at."""
    lengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Lengths of the steps whose effect is predicted: the root mean square change of a
    pixel, in gray levels of 255."""
    attributions: tuple[str, ...] = ("gradient", "integrated_gradients", "deep_lift")
    """Explanations that are attacked, by their names in `protojax.attributions`."""
    attacks: tuple[str, ...] = hessian_attacks.NAMES
    """Attacks: hessian (along the leading eigenvectors of the twin's logit), jacobian
    (along the leading singular vectors of the map), jacobian_across (the same, across
    the gradient of the margin to the next class), gradient (signs of the logit's, both
    ways), random (one draw), random_best (the best of `budget` draws), top_k."""
    radii: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """L-infinity budgets, in gray levels of 255."""
    budget: int = 60
    """Products with an operator, or steps of top_k, that an attack may spend."""
    step_size: float = 0.5
    """Length of a step of top_k, in gray levels of 255."""
    k: int | None = None
    """Pixels of the top; if not given 1000 above 200 pixels, else a tenth."""
    points: int = 50
    """Points of integrated gradients in the maps that are judged."""
    attack_points: int = 10
    """The same in the maps that are attacked."""
    dimensions: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    """Input dimensions of the small networks."""
    units: tuple[int, ...] = (1, 10, 100, 1000)
    """Units of untrained networks of two layers on as many inputs as images have."""
    draws: int = 32
    """How often each small network is drawn."""
    chunk: int = 8
    """Images per part of the results."""
    seed: int = 0
    """Of all that is random."""


def check(config: Config) -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    explained.check(config.attributions)
    checks.among(config, "attacks", hessian_attacks.NAMES)
    checks.not_below_zero(config, "radii")
    checks.above_zero(config, "few", "shuffled", "loss_images", "lengths", "steps")
    checks.above_zero(config, "sharpness", "values", "quadrature", "step_size", "k")
    checks.above_zero(config, "points", "attack_points", "dimensions", "units")
    checks.above_zero(config, "draws", "chunk", "image_size")
    checks.at_least(config, 2, "images", "probes")  # another image, and an error
    checks.at_least(config, hessian_attacks.SPENT + 2, "budget")
    if config.values > 2 * config.steps:
        raise ValueError(
            f"`values` is {config.values}: choose at most twice `steps`, of which that"
            f" many are taken for them ({2 * config.steps})"
        )
    turning = any(name.startswith("jacobian") for name in config.attacks)
    if turning and "smooth_gradient" in config.attributions:
        raise ValueError(
            "`attributions` has 'smooth_gradient', which is drawn anew at every step"
            " and has no Jacobian to follow: take 'smooth_gradient_one_draw', or other"
            " `attacks`"
        )


def set_up(config: Config) -> dict[str, studies.Study]:
    """Load network and images, and say what is done with them, by folder."""
    check(config)
    subject, angled = load(config)
    network, weights = subject.network, subject.network.weights
    few = first(subject.examples, config.few)
    _log.info("attacks follow a softplus twin of sharpness %.3g", subject.beta)

    def of_images(one: Callable, **axes: Any) -> studies.Study:
        look = functools.partial(one, network.fn, config)
        return studies.Study(look, sweeps.grid(**axes), few, weights)

    typical = {"beta": [subject.beta]}
    sharper = [c / explained.SHARPNESS * subject.beta for c in config.sharpness]
    mixed = network._replace(
        weights=networks.shuffled(weights, jax.random.key(config.seed))
    )
    beta = subjects.typical_sharpness(mixed, few["image"])
    angles = of_images(hessian_studies.angles, **typical)._replace(examples=angled)
    attacked = of_images(
        hessian_attacks.equal_budget,
        attribution=config.attributions,
        attack=config.attacks,
        radius=[radius / 255 for radius in config.radii],
        step_size=[config.step_size / 255],
        **typical,
    )
    losses = first(subject.examples, config.loss_images)
    probes, draws = ({"id": np.arange(n)} for n in (config.probes, config.draws))
    return {
        "": angles,
        "shuffled": angles._replace(
            settings=[{"beta": beta}],
            examples=first(angled, config.shuffled),
            weights=mixed.weights,
        ),
        "sharpness": angles._replace(
            settings=sweeps.grid(beta=sharper), examples=first(angled, config.few)
        ),
        "spectra": of_images(hessian_studies.spectra, **typical)._replace(
            keep=few["id"].tolist()
        ),
        "parameters": of_images(hessian_studies.parameters)._replace(
            examples=probes,
            weights={"weights": weights, **losses},
            keep=range(config.probes),
            chunk=1,
        ),
        "turned": of_images(
            hessian_studies.turned, operator=("hessian", "jacobian"), **typical
        ),
        "equal_budget": attacked._replace(keep=few["id"][:1].tolist()),
        "widths": studies.Study(
            hessian_analytic.widths,
            sweeps.grid(units=config.units, dimension=[few["image"][0].size]),
            draws,
        ),
        "grown": studies.Study(
            hessian_analytic.grown,
            sweeps.grid(
                net=("neuron", "two_layers", "loss"),
                dimension=config.dimensions,
                radius=[1 / 255],
            ),
            draws,
        ),
    }


def load(config: Config) -> tuple[subjects.Subject, dict[str, np.ndarray]]:
    """The network with its images, and those for the angles, each beside another."""
    many, apart = max(config.few, config.loss_images), config.angle_split is not None
    subject = subjects.load(
        config.model,
        config.data,
        config.split,
        image_size=config.image_size,
        images=many if apart else max(many, config.images),
    )
    examples = subject.examples
    if apart:
        examples = networks.correct(
            subject.network, config.data, config.angle_split, count=config.images
        )
    angled = first(examples, config.images)
    return subject, {**angled, "other": np.roll(angled["image"], 1, axis=0)}


def first(examples: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The first of some examples, without what is not looked at."""
    return {
        name: values[:count] for name, values in examples.items() if name != "truth"
    }


def main(config: Config, folder: pathlib.Path) -> None:
    """Sweep once for each study, and report."""
    found = set_up(config)
    studies.run(found, config, folder)
    image = found["equal_budget"].examples["image"][0]
    hessian_report.write(config, folder, list(found), shape=image.shape)


def plan(config: Config) -> str:
    """What the run would cost."""
    return studies.plan(set_up(config), config)


CONFIGS = {
    "default": Config(),
    "cifar10": Config(
        model="cifar10_resnet20",
        few=16,
        images=1000,
        angle_split="train",
        shuffled=200,
        k=100,
        points=25,
        attack_points=5,
        loss_images=128,
        chunk=16,
    ),
    "imagenet": Config(
        model="squeezenet1_1_authors",
        split="all",
        few=4,
        images=24,
        shuffled=8,
        quadrature=24,
        probes=2,
        loss_images=16,
        attributions=("gradient",),
        radii=(1.0, 4.0),
        chunk=4,
    ),
    "smoke": Config(
        model="parts_small",
        few=2,
        images=2,
        shuffled=2,
        steps=4,
        sharpness=(5.0,),
        values=2,
        quadrature=4,
        probes=2,
        loss_images=2,
        lengths=(0.1, 1.0),
        attributions=("gradient",),
        attacks=("hessian",),
        radii=(4.0,),
        budget=12,
        points=2,
        attack_points=2,
        dimensions=(8,),
        units=(4,),
        draws=2,
        chunk=2,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
