"""Influence functions are fragile: which training images help changes, the label stays.

Claim (Ghorbani, Abid and Zou 2019, sections 3 and 4): which training images a
prediction leans on, by influence functions, changes with a change of the test image of
a few gray levels, and far more if that is made to attack them than if it is random.

    python -m experiments.influence                 two kinds of the drawn birds
    python -m experiments.influence pets            cats and dogs, on MobileNetV2
    python -m experiments.influence --data folder:my/images --model squeezenet1_1

A network gives features; a last layer of two classes is trained on them to the
optimum, where influences are exact, and held against leaving images out. What is the
paper's protocol and what is ours, and the numbers that came of it: docs/influence.md.
"""

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from experiments import (
    cli,
    explained,
    influence_head,
    influence_report,
    influence_setup,
    studies,
)
from protojax import attacks, influence, metrics, objectives, sweeps
from protojax.contracts import Array, Explain, Fn, Key, PyTree
from protojax.mechanisms import ascent

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained on what, what is attacked, and how hard."""

    model: str = "parts"
    """Whose features: a name from experiments/networks.py, or package.module:function
    of your own."""
    data: str | None = "parts:1600"
    """Images: parts, folder:PATH, npz:PATH or tfds:NAME; in a path, PROTOJAX_DATA
    is the folder that the environment variable names."""
    split: str | None = None
    """Which part of the data; its test images if not given, or all where none are
    apart. Training and test images are both taken from it."""
    classes: tuple[int, int] = (0, 1)
    """The two classes."""
    image_size: int | None = None
    """Pixels; the model's usual ones if not given."""
    layer: str | None = None
    """Whose mean over positions are the features; the last before the logits if not
    given."""
    train: int = 200
    """Images to train the last layer on, of both classes."""
    images: int = 32
    """Test images, out of those that are classified correctly."""
    l2: float = 1e-3
    """Penalty of the training: l2 / 2 times the squared length of the weights, for
    features whose mean length is one. It is part of the Hessian."""
    damping: float = 0.0
    """Added to the Hessian besides."""
    attacks: tuple[str, ...] = influence_setup.ATTACKS
    """Attacks: gradient_sign (the paper's formula), feature_steps (the authors' code),
    iterated (many steps on the influences as a vector of length one), random (one draw
    of signs), random_best (the best of as many draws as iterated takes steps)."""
    radii: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    """L-infinity budgets, in gray levels of 255."""
    k: int = 3
    """Training images whose influence is attacked, the most helpful ones."""
    top: int = 5
    """Most helpful training images that are compared before and after."""
    steps: int = 20
    """Steps of the iterated attack, each of a quarter of the radius."""
    leave_out: int = 50
    """Training images that are left out in turn, to hold the influences against."""
    dampings: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Damping, that of the training included, at which they are held against it."""
    pairs: tuple[int, ...] = (4, 16, 64)
    """Leading eigenpairs of the Hessian with which they are, where all are too many."""
    chunk: int = 8
    """Images per part of the results."""
    seed: int = 0
    """Of all that is random."""


def attack_by_name(
    name: str,
    fn: Fn,
    features: Fn,
    explain: Explain,
    weights: PyTree,
    x: Array,
    *,
    config: Config,
    radius: Array,
    key: Key,
) -> ascent.Ascent:
    """Run one of the attacks that `Config.attacks` lists, on the influences of `x`."""
    y, before = jnp.argmax(fn(x)), explain(x)
    unit = lambda z: (v := explain(z)) / jnp.linalg.norm(v)  # noqa: E731
    kept = functools.partial(objectives.label_kept, fn=fn, x=x)
    signs = functools.partial(attacks.random_sign, x=x, radius=radius, key=key)
    one = {"radius": radius, "step_size": radius, "steps": 1}
    match name:
        case "gradient_sign":
            along = directions(weights, jax.lax.top_k(before, config.k)[1], config)
            all_k = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), along)
            loss = of_image(features)
            objective = influence.suppressed(loss, weights["head"], all_k, y)
            return attacks.pgd(objective, x, select=kept(objective), **one)
        case "feature_steps":
            each = directions(weights, jax.lax.top_k(before, config.k)[1], config)
            objective = influence.feature_steps(
                features,
                influence.softmax_loss,
                weights["head"],
                each,
                x,
                y,
                step_size=0.01 * jnp.mean(jnp.abs(weights["train"]["features"])),
            )
            return attacks.pgd(objective, x, select=kept(objective), **one)
        case "iterated":
            climb = {"step_size": radius / 4, "steps": config.steps}
            return attacks.top_k(fn, unit, x, k=config.k, radius=radius, **climb)
        case "random":  # whatever comes of it, be it another label
            return signs(functools.partial(metrics.linf, x))
        case "random_best":
            left = kept(objectives.top_k(unit, unit(x), k=config.k))
            return signs(left, samples=config.steps)
    known = ", ".join(influence_setup.ATTACKS)
    raise ValueError(f"`attacks` has {name!r}: choose from {known}")


def directions(weights: PyTree, chosen: Array, config: Config) -> PyTree:
    """What each of some training images does to test losses, one by one."""
    inverse = influence_setup.inverse_of(weights, config.l2 + config.damping)
    of = functools.partial(
        influence.direction, influence.softmax_loss, weights["head"], weights["train"]
    )
    return jax.lax.map(lambda place: of(place[None], inverse).x, chosen)


def of_image(features: Fn) -> Fn:
    """The last layer's loss as one of images."""

    def loss(head: PyTree, example: PyTree) -> Array:
        seen = {"features": features(example["image"]), "label": example["label"]}
        return influence.softmax_loss(head, seen)

    return loss


def one(
    fn: Fn,
    layer: str,
    config: Config,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    attack: str,
    radius: Array,
) -> dict[str, Array]:
    """Attack the influences on one test image, and see what became of them."""
    x = example["image"]

    def features(z: Array) -> Array:
        found = influence_head.features(fn, layer, weights["network"], z)
        return found / weights["scale"]

    model = lambda z: influence.softmax_logits(weights["head"], features(z))  # noqa: E731
    y = jnp.argmax(model(x))
    at = functools.partial(
        influence_setup.influences, weights, y=y, damping=config.l2 + config.damping
    )
    found = attack_by_name(
        attack,
        model,
        features,
        lambda z: at(features(z)).values,
        weights,
        x,
        config=config,
        radius=radius,
        key=key,
    )
    start = at(features(x))
    row = explained.outcome(model, x, y, found)
    return {
        "label": y,
        **row,
        **changed(start.values, at(features(found.x)).values, config),
        **likened(start.values, at(example["other"]).values, config),
        "stalled": row["stalled"] | ~start.converged,
        "residual": start.residual,
        "image": x,
        "perturbed": found.x,
    }


def changed(a: Array, b: Array, config: Config) -> dict[str, Array]:
    """What became of the influences `a`, which are `b` after an attack."""
    (size_a, top_a), (_, top_b) = (jax.lax.top_k(v, config.k) for v in (a, b))
    length_a, length_b = (jnp.linalg.norm(v) for v in (a, b))
    return {
        "rank": metrics.rank_correlation(a, b),
        "overlap": metrics.top_k_intersection(a, b, k=config.top),
        "size": length_b / length_a,
        "top_before": jnp.sum(size_a) / length_a,
        "top_after": jnp.sum(b[top_a]) / length_b,
        "helpful_before": top_a,
        "helpful_after": top_b,
        "values_before": size_a / length_a,
        "values_after": b[top_b] / length_b,
        "place_before": 1 + jnp.sum(a[None] > a[top_b][:, None], axis=1),
    }


def likened(a: Array, other: Array, config: Config) -> dict[str, Array]:
    """How alike the influences on another image of the class are."""
    return {
        "rank_other": metrics.rank_correlation(a, other),
        "overlap_other": metrics.top_k_intersection(a, other, k=config.top),
    }


def left_out(
    weights: PyTree, example: dict, key: Key, *, damping: Array, pairs: int
) -> dict[str, Array]:
    """Hold the influences on one test image against leaving training images out.

    They are those through the leading `pairs` of the Hessian.
    """
    del key
    test = {"features": example["features"], "label": example["label"]}
    leading = jax.tree.map(lambda leaf: leaf[:pairs], weights["pairs"])
    found = influence_setup.influences(
        {**weights, "pairs": leading}, test["features"], test["label"], damping
    )
    predicted = found.values[weights["left_out"]] / len(found.values)
    loss = influence.softmax_loss
    with jax.default_matmul_precision("highest"):
        anew = jax.vmap(loss, (0, None))(weights["without"], test)
        actual = anew - loss(weights["head"], test)
    return {
        "correlation": jnp.corrcoef(predicted, actual)[0, 1],
        "rank": metrics.rank_correlation(predicted, actual),
        "slope": jnp.sum(predicted * actual) / jnp.sum(predicted**2),
        "outside": found.residual,
        "stalled": ~found.converged,
    }


def inverses(config: Config, every: int) -> list[dict[str, Any]]:
    """All pairs at every damping, and fewer at that of the training."""
    dampings = sorted({config.l2, *config.dampings})
    fewer = sorted(count for count in config.pairs if count < every)
    return sweeps.grid(damping=dampings, pairs=[every]) + sweeps.grid(
        damping=[config.l2], pairs=fewer
    )


def set_up(
    config: Config,
) -> tuple[influence_setup.Setup, dict[str, studies.Study]]:
    """Train the last layer, and say what is done with it, by folder."""
    setup = influence_setup.set_up(config)
    _log.info(
        "last layer on %s, %d features; largest gradient %.1e",
        *(setup.layer, setup.facts["features"], setup.facts["slope"]),
    )
    last = {name: leaf for name, leaf in setup.weights.items() if name != "network"}
    return setup, {
        "": studies.Study(
            functools.partial(one, setup.network.fn, setup.layer, config),
            sweeps.grid(
                attack=config.attacks, radius=[radius / 255 for radius in config.radii]
            ),
            setup.examples,
            setup.weights,
            keep=setup.examples["id"][:3].tolist(),
        ),
        "leaving_out": studies.Study(
            left_out, inverses(config, len(last["pairs"].values)), setup.examples, last
        ),
    }


def main(config: Config, folder: pathlib.Path) -> None:
    """Train, sweep, hold against leaving out, and report."""
    setup, found = set_up(config)
    studies.run(found, config, folder)
    influence_report.write(config, folder, setup.facts, setup.train)


def plan(config: Config) -> str:
    """What the run would cost."""
    return studies.plan(set_up(config)[1], config)


CONFIGS = {
    "default": Config(),
    "pets": Config(
        model="mobilenet_v2",
        data="folder:PROTOJAX_DATA/pets3",
        classes=(0, 2),
        images=16,
        radii=(1.0, 2.0, 4.0, 8.0),
    ),
    "cifar10": Config(
        model="cifar10_resnet20",
        data="npz:PROTOJAX_DATA/cifar10.npz",
        split="train",
        classes=(3, 5),
        train=300,
        images=48,
    ),
    "smoke": Config(
        model="parts_small",
        data="parts:160",
        train=24,
        images=4,
        attacks=("gradient_sign", "random"),
        radii=(4.0,),
        steps=2,
        leave_out=3,
        dampings=(1e-2,),
        pairs=(4,),
        chunk=4,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
