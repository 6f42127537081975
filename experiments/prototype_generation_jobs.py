"""How pictures of classes are made, and what the network itself says of them."""

import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import prototype_generation_setup, studies
from protojax import generation, images, objectives
from protojax.contracts import Array, Fn, Key, PyTree, Score, Transform
from protojax.scale import report

if TYPE_CHECKING:
    from experiments.prototype_generation import Config

Setup = prototype_generation_setup.Setup


def baseline(
    fn: Fn, config: "Config", weights: PyTree, example: dict[str, Array], key: Key
) -> dict[str, Array]:
    """Stage one: a random image that is no class more than another."""
    model = functools.partial(fn, weights)
    out = stage_one(config, model, jax.random.uniform(key, example["like"].shape))
    logits = model(out.x)
    probabilities = jax.nn.softmax(logits)
    uneven = jnp.max(jnp.abs(len(probabilities) * probabilities - 1))
    return {
        "variance": generation.probability_variance(logits),
        "uneven": uneven,
        "met_at": out.step,
        "stalled": out.stalled,
        "image": out.x,
    }


def stage_one(config: "Config", model: Fn, x0: Array) -> generation.Generated:
    """The baseline of a network, from an image."""
    return generation.baseline(
        model,
        x0,
        steps=config.baseline_steps,
        optimizer=generation.adam(config.rate),
    )


def transform_of(config: "Config", color: Array) -> Transform:
    """The random affine maps, with the mean color around the image."""
    return functools.partial(generation.PRESETS[config.transform], fill=color)


def picture(
    method: str,
    config: "Config",
    score: Score,
    weights: PyTree,
    key: Key,
    *,
    redirect: int = 0,
) -> tuple[generation.Generated, Array]:
    """What a method shows of a score, and the same at the size that the network takes.

    Args:
      method: one of `prototype_generation_setup.METHODS`.
      config: the configuration.
      score: what is climbed.
      weights: with the `baseline`, the mean `color` and the magnitudes of natural
        images (`template`).
      key: consumed.
      redirect: steps of distill in which ReLUs let a gradient through.
    """
    start = weights["baseline"]
    match method:
        case "prototype":
            out = generation.prototype(
                score,
                start,
                key=key,
                steps=config.steps,
                transform=transform_of(config, weights["color"]),
                roughness=config.hf_weight,
                learning_rate=config.rate,
            )
        case "distill":
            out = generation.distill(
                score,
                start,
                key=key,
                steps=config.distill_steps,
                redirect=redirect,
            )
        case _:
            out = generation.maco(
                score,
                start,
                key=key,
                steps=config.maco_steps,
                template=weights["template"],
                crops=config.crops,
            )
    if out.x.shape == start.shape:
        return out, out.x
    return out, images.resize(out.x, start.shape[:2])


def one(
    fn: Fn,
    config: "Config",
    classes: tuple[int, ...],
    redirect: int,
    weights: PyTree,
    example: dict[str, Array],
    key: Key,
    *,
    method: str,
) -> dict[str, Array]:
    """Make the picture of a class, and look at it with the network as it is."""
    made_key, seen_key = jax.random.split(key)
    model, y = functools.partial(fn, weights["network"]), example["label"]
    score = objectives.logit(model, y)
    out, x = picture(method, config, score, weights, made_key, redirect=redirect)
    logits = model(x)
    entangled = generation.class_entanglement(
        model,
        x,
        baseline=weights["baseline"],
        transform=transform_of(config, weights["color"]),
        key=seen_key,
        samples=config.samples,
    )
    return {
        "label": y,
        "seed": example["seed"],
        "probability": jax.nn.softmax(logits)[y],
        "sure": jax.nn.softmax(logits)[y] >= 0.99,
        "moved": entangled.probability[y],
        "logit": logits[y],
        "margin": objectives.margin(model, y)(x),
        "roughness": generation.high_frequency(x),
        "stalled": out.stalled,
        "image": x,
        "trace": out.trace,
        "entangled_probability": entangled.probability[jnp.asarray(classes)],
        "entangled_logit": entangled.logit[jnp.asarray(classes)],
    }


def baseline_study(config: "Config", setup: Setup) -> studies.Study:
    """Stage one, once for the network."""
    examples = {"id": np.zeros(1, int), "like": setup.natural[0, :1]}
    return studies.Study(
        functools.partial(baseline, setup.network.fn, config),
        [{}],
        examples,
        setup.network.weights,
        keep=[0],
        chunk=1,
    )


def weights_of(setup: Setup, start: np.ndarray) -> dict[str, PyTree]:
    """What all methods need besides a score; magnitudes are of four images a class."""
    natural = setup.natural[:, :4].reshape(-1, *start.shape)
    return needed(setup.network.weights, start, setup.color, natural)


def needed(
    network: PyTree, start: Array, color: np.ndarray, natural: Array
) -> dict[str, PyTree]:
    """The same of weights, a baseline, a mean color and natural images."""
    return {
        "network": network,
        "baseline": jnp.asarray(start),
        "color": jnp.asarray(color),
        "template": _template(natural),
    }


@jax.jit
def _template(natural: Array) -> Array:
    """Magnitudes of natural images `[N, H, W, 3]` at the size of MaCo's canvas."""
    size = generation.maco_size(natural.shape[1:3])
    return generation.template(jax.lax.map(lambda x: images.resize(x, size), natural))


def study(
    config: "Config",
    setup: Setup,
    weights: PyTree,
    methods: Sequence[str],
    classes: Sequence[int],
) -> studies.Study:
    """Jobs: some methods, of some classes, with every seed."""
    examples = jobs(config, classes)
    return studies.Study(
        functools.partial(
            *(one, setup.network.fn, config, setup.classes),
            config.redirect if setup.has_relu else 0,
        ),
        [{"method": method} for method in methods],
        examples,
        weights,
        keep=examples["id"].tolist(),
    )


def jobs(config: "Config", classes: Sequence[int]) -> dict[str, np.ndarray]:
    """One for each class and seed. Its id says which, whatever else is made."""
    pairs = [(label, seed) for label in classes for seed in range(config.seeds)]
    label, seed = np.asarray(pairs, np.int32).T
    return {
        "id": np.int64(label) * prototype_generation_setup.ROOM + seed,
        "label": label,
        "seed": seed,
    }


def collected(
    setup: Setup, *folders: pathlib.Path
) -> dict[str, list[tuple[int, int, np.ndarray]]]:
    """The pictures of finished jobs: place of the class, seed, picture; by method."""
    found: dict[str, list[tuple[int, int, np.ndarray]]] = {}
    for kept in report.arrays(*folders):
        label, seed = divmod(kept["id"], prototype_generation_setup.ROOM)
        found.setdefault(kept["method"], []).append(
            (setup.classes.index(label), seed, kept["image"])
        )
    return found


def blank(
    setup: Setup, made: Iterable[studies.Study], picture: np.ndarray
) -> dict[str, list[tuple[int, int, np.ndarray]]]:
    """The same, before there are any: one picture in the place of all."""
    return {
        setting["method"]: [
            (setup.classes.index(label), seed, picture)
            for label, seed in zip(
                *(each.examples[n].tolist() for n in ("label", "seed")), strict=True
            )
        ]
        for each in made
        for setting in each.settings
    }


def matrices(
    setup: Setup, kept: Sequence[dict[str, Any]], method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Entanglement of the classes, means over seeds: probabilities and risen logits.

    Rows are the classes that pictures stand for; classes without any are NaN.
    """
    size, room = len(setup.classes), prototype_generation_setup.ROOM
    found = np.full((2, size, size), np.nan)
    for place, label in enumerate(setup.classes):
        of_class = [k for k in kept if k["id"] // room == label]
        mine = [k for k in of_class if k["method"] == method]
        if mine:
            found[0, place] = np.mean([k["entangled_probability"] for k in mine], 0)
            found[1, place] = np.mean([k["entangled_logit"] for k in mine], 0)
    return found[0], found[1]
