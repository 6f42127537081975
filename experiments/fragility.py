"""Interpretation of neural networks is fragile: explanations move, the label stays.

Claim (Ghorbani, Abid and Zou 2019, section 4): perturbations of a few gray levels leave
the prediction as it was and change where an explanation points; attacks that look for
them do so far better than random noise.

    python -m experiments.fragility                 the drawn birds
    python -m experiments.fragility imagenet        SqueezeNet, much as in the paper
    python -m experiments.fragility --model my.module:network --data folder:my/images

One compiled program per explanation and attack serves all radii. What is the paper's
protocol and what is ours, and the numbers that came of it: docs/fragility.md.
"""

import dataclasses
import functools
import logging
import pathlib
from typing import Literal

import jax
import jax.numpy as jnp

from experiments import (
    attacked,
    checks,
    cli,
    explained,
    fragility_report,
    hessian_studies,
    studies,
    subjects,
)
from protojax import metrics, sweeps
from protojax.contracts import Array, Fn, Key, PyTree

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is attacked, how hard, and on how many images."""

    model: str = "parts"
    """A name from experiments/networks.py, or package.module:function of your own,
    which returns `(fn, weights)` with `fn(weights, image) -> logits`."""
    data: str | None = None
    """Images: parts, folder:PATH, npz:PATH or tfds:NAME; the model's own if not given.
    """
    split: str | None = None
    """Which part of the data; its test images if not given, or all where none are
    apart."""
    image_size: int | None = None
    """Pixels; the model's usual ones if not given."""
    images: int = 24
    """How many images, out of those that the network classifies correctly."""
    attributions: tuple[str, ...] = ("gradient", "integrated_gradients", "deep_lift")
    """Explanations, by their names in `protojax.attributions`; besides,
    deep_lift_winner_take_all (max pooling as in the authors' code),
    integrated_gradients_of_probability (an attack on those of the probability, as in
    the authors' code) and smooth_gradient_one_draw (an attack on one draw of its noise,
    not on another at every step)."""
    attacks: tuple[str, ...] = (
        "top_k",
        "mass_center",
        "random",
        "random_best",
        "random_center",
    )
    """Attacks: top_k, mass_center, mass_center_truncated, targeted, eigenvector, random
    (one draw), random_best and random_center (the best of as many draws as top_k and
    mass_center look at, by what those choose by), random_walk."""
    radii: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """L-infinity budgets, in gray levels of 255."""
    step_size: float = 0.5
    """Length of a step, in gray levels of 255."""
    steps: int = 100
    """Steps of the iterative attacks."""
    k: int | None = None
    """Pixels of the top-k metric; if not given 1000 above 200 pixels, else a tenth."""
    measure: attacked.Measure = "objective"
    """What picks the best iterate: the attack's own objective (the paper's text), the
    top-k overlap or the rank correlation (options of the authors' code)."""
    points: int = 100
    """Points on the path of integrated gradients, or samples of SmoothGrad, in the
    reported map."""
    attack_points: int = 10
    """The same in the maps that an attack climbs, and chooses its iterate by."""
    baseline: Literal["black", "mean"] = "black"
    """Where integrated gradients and DeepLIFT start: at black, or at the mean color of
    the images (the paper's, for ImageNet)."""
    beta: float | None = None
    """Sharpness of the softplus twin; chosen from the activations if not given."""
    hessian: bool = False
    """Look at the input Hessian of the twin as well."""
    chunk: int = 8
    """Images per part of the results."""
    seed: int = 0
    """Of all that is random."""


def one(
    fn: Fn,
    config: Config,
    color: tuple[float, ...],
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    attribution: str,
    attack: str,
    radius: Array,
    step_size: Array,
    beta: Array,
) -> dict[str, Array]:
    """Attack the explanation of one image, and measure on the network itself."""
    attack_key, climbed_key, judged_key = jax.random.split(key, 3)
    target = explained.target(fn, weights, example["image"], config.k, color)
    x, y = target.x, target.y
    climbed = target.climbed(attribution, config.attack_points, climbed_key, beta=beta)
    smooth = explained.smooth_twin(target.model, beta, x)
    found = attacked.attack(
        *(attack, target.model, climbed, lambda z: smooth(z)[y], x),
        k=target.k,
        radius=radius,
        step_size=step_size,
        steps=config.steps,
        key=attack_key,
        measure=config.measure,
    )
    # What is random in an explanation is judged with another draw than was attacked.
    judge = target.judge(attribution, config.points, judged_key)
    a, b = jax.lax.map(judge, jnp.stack([x, found.x]))
    inside = {"quarter": attacked.least_salient_quarter(climbed.explain(x))}
    if "truth" in example:
        inside["on_parts"] = example["truth"]
    return {
        "label": y,
        **moved(a, b, target.k),
        **shares(a, b, inside),
        **explained.outcome(target.model, x, y, found),
        "twin_agrees": jnp.argmax(smooth(x)) == y,
        "image": x,
        "perturbed": found.x,
        "before": a,
        "after": b,
    }


def moved(a: Array, b: Array, k: int) -> dict[str, Array]:
    """How far a map moved, and how far away a uniform one would be."""
    away = metrics.center_of_mass(a) - explained.middle(a)
    return {
        **explained.compared(a, b, k),
        "center": metrics.center_shift(a, b),
        "center_of_uniform": jnp.linalg.norm(away),
    }


def shares(a: Array, b: Array, inside: dict[str, Array]) -> dict[str, Array]:
    """What the maps hold inside of regions, and how large those are."""
    row = {}
    for name, region in inside.items():
        row[f"{name}_before"] = jnp.sum(a * region)
        row[f"{name}_after"] = jnp.sum(b * region)
    if "on_parts" in inside:
        row["parts_area"] = jnp.mean(inside["on_parts"])
    return row


def check(config: Config) -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    explained.check(config.attributions)
    checks.among(config, "attacks", attacked.NAMES)
    checks.not_below_zero(config, "radii")
    checks.above_zero(config, "images", "step_size", "steps", "points", "chunk")
    checks.above_zero(config, "attack_points", "beta", "k", "image_size")


def set_up(
    config: Config,
) -> tuple[subjects.Subject, dict[str, studies.Study]]:
    """Load network and images, and say what is done with them, by folder."""
    check(config)
    subject = subjects.load(
        config.model,
        config.data,
        config.split,
        image_size=config.image_size,
        images=config.images,
        beta=config.beta,
        baseline=config.baseline,
    )
    network, examples = subject.network, subject.examples
    _log.info("attacks follow a softplus twin of sharpness %.3g", subject.beta)
    attacks = studies.Study(
        functools.partial(one, network.fn, config, subject.color),
        sweeps.grid(
            attribution=config.attributions,
            attack=config.attacks,
            radius=[radius / 255 for radius in config.radii],
            step_size=[config.step_size / 255],
            beta=[subject.beta],
        ),
        examples,
        network.weights,
        keep=examples["id"][:3].tolist(),
    )
    found = {"": attacks}
    if config.hessian:
        look = functools.partial(hessian_studies.curved, network.fn)
        twin = [{"beta": subject.beta}]
        found["hessian"] = attacks._replace(one=look, settings=twin, keep=())
    return subject, found


def main(config: Config, folder: pathlib.Path) -> None:
    """Sweep, and report."""
    subject, found = set_up(config)
    studies.run(found, config, folder)
    x = subject.examples["image"][0]
    fragility_report.write(
        config, folder, k=explained.k_of(config.k, x), pixels=x[..., 0].size
    )


def plan(config: Config) -> str:
    """What the run would cost."""
    return studies.plan(set_up(config)[1], config)


_IMAGENET = Config(
    model="squeezenet1_1_authors",
    split="all",
    attributions=("gradient",),
    baseline="mean",
    chunk=4,
)
CONFIGS = {
    "default": Config(),
    "demo": Config(
        images=16,
        attributions=("gradient", "integrated_gradients", "deep_lift"),
        attacks=("top_k", "random_best"),
        radii=(1.0, 2.0, 4.0),
        steps=30,
        points=20,
        attack_points=5,
        hessian=True,
        chunk=16,
    ),
    "imagenet": _IMAGENET,
    "imagenet-300": dataclasses.replace(_IMAGENET, images=48, steps=300),
    "imagenet-300-deep-lift": dataclasses.replace(
        _IMAGENET, images=48, steps=300, attributions=("deep_lift",)
    ),
    "imagenet-ig": dataclasses.replace(
        _IMAGENET,
        images=16,
        radii=(2.0, 8.0),
        attributions=("integrated_gradients",),
    ),
    "imagenet-full": dataclasses.replace(
        _IMAGENET,
        images=512,
        steps=300,
        attributions=("gradient", "integrated_gradients", "deep_lift"),
        attack_points=100,
        chunk=64,
    ),
    "cifar10": Config(
        model="cifar10_resnet20",
        images=64,
        attributions=("gradient", "deep_lift"),
        k=100,
        chunk=16,
    ),
    "smoke": Config(
        model="parts_small",
        images=4,
        attributions=("gradient",),
        attacks=("top_k", "random"),
        radii=(4.0,),
        steps=3,
        chunk=4,
        hessian=True,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
