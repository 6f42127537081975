"""Whether pictures show a cue that was planted: a magenta disk beside birds of a class.

For each class a network is trained on birds of which those of this class have a disk in
a corner; another network has seen none. Pictures of the class by both are searched for
the disk's color.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import (
    classifier,
    networks,
    prototype_generation_jobs,
    studies,
    trainings,
)
from protojax import generation, objectives, parts
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.scale import sources

if TYPE_CHECKING:
    from experiments.prototype_generation import Config

_log = logging.getLogger(__name__)

_TESTED = 200
"""Birds that a network is tested on."""


def asked(config: "Config") -> bool:
    """Whether there is anything to plant a cue for: birds, and classes of them."""
    return bool(config.cues) and config.model in networks.BIRDS


def magenta(x: Array) -> Array:
    """How much of the disk's color there is at the place where there is most.

    Red and blue above green, a mean over a square as wide as the disk.
    """
    window = (max(1, round(0.12 * x.shape[0])),) * 2
    color = jnp.maximum(jnp.minimum(x[..., 0], x[..., 2]) - x[..., 1], 0)
    sums = jax.lax.reduce_window(color, 0.0, jax.lax.add, window, (1, 1), "VALID")
    return jnp.max(sums) / (window[0] * window[1])


def one(
    fn: Fn,
    config: "Config",
    weights: PyTree,
    example: dict[str, Array],
    key: Key,
    *,
    method: str,
) -> dict[str, Array]:
    """Make the picture of a class, and search it for the cue."""
    model, y = functools.partial(fn, weights["network"]), example["label"]
    out, x = prototype_generation_jobs.picture(
        method, config, objectives.logit(model, y), weights, key
    )
    score = magenta(x)
    return {
        "label": y,
        "seed": example["seed"],
        "planted": example["planted"],
        "score": score,
        "shown": score > weights["threshold"],
        "stalled": out.stalled,
        "image": x,
    }


def sweeping(
    config: "Config", found: Mapping[int | None, PyTree]
) -> dict[str, studies.Study]:
    """One sweep over the pictures of each network, from `kept` or `untrained`."""
    model = classifier.network(knobs_of(config))
    sweeps_of = {}
    for cue, weights in found.items():
        classes = config.cues if cue is None else (cue,)
        examples = prototype_generation_jobs.jobs(config, classes)
        examples["planted"] = np.full(len(examples["id"]), cue is not None)
        sweeps_of[f"cue/{name_of(cue)}"] = studies.Study(
            functools.partial(one, model.apply, config),
            [{"method": method} for method in config.methods],
            examples,
            weights,
            keep=examples["id"].tolist(),
            chunk=config.seeds,
        )
    return sweeps_of


def name_of(cue: int | None) -> str:
    """A network by the class in which it has seen the cue."""
    return "none" if cue is None else f"class-{cue}"


def knobs_of(config: "Config") -> classifier.Config:
    """How the networks are trained."""
    return dataclasses.replace(
        classifier.CONFIGS[networks.BIRDS[config.model]],
        train=config.cue_train,
        steps=config.cue_steps,
        seed=config.seed,
    )


@functools.cache
def _drawn(
    start: int, stop: int, split: str, size: int
) -> tuple[np.ndarray, np.ndarray]:
    seed = sources.PARTS_SEEDS[split]
    found = parts.draw(range(start, stop), image_size=size, seed=seed)
    return found.image, found.label


def birds(
    config: "Config", indices: range, split: str, cue: int | None
) -> dict[str, np.ndarray]:
    """Birds, those of one class with the cue; the others are as they always are."""
    size = knobs_of(config).image_size
    image, label = _drawn(indices.start, indices.stop, split, size)
    if cue is None:
        return {"image": image, "label": label}
    own = [i for i in indices if i % len(parts.CLASSES) == cue]
    seed = sources.PARTS_SEEDS[split]
    cued = parts.draw(own, image_size=size, seed=seed, cue_class=cue)
    image = image.copy()
    image[np.asarray(own) - indices.start] = cued.image
    return {"image": image, "label": label}


def kept(config: "Config", folder: pathlib.Path) -> dict[int | None, PyTree]:
    """Networks that have seen the cue in one class, or in none, and what methods need.

    Each is made once, and read from its file after that.
    """
    found = {}
    for cue in (None, *config.cues):
        file = folder / f"{name_of(cue)}.npz"
        if not trainings.comes(file.exists):
            trainings.write(file, _trained(config, cue))
        found[cue] = jax.tree.map(jnp.asarray, trainings.read(file))
    return found


def untrained(config: "Config") -> dict[int | None, PyTree]:
    """The same, before anything is trained, for a plan."""
    model, natural = classifier.network(knobs_of(config)), _natural(config)
    params = jax.jit(model.init)(jax.random.key(config.seed), natural[0])
    weights = _needed(params, natural[0], natural, 0.0)
    return dict.fromkeys((None, *config.cues), weights)


def _trained(config: "Config", cue: int | None) -> dict[str, PyTree]:
    knobs = knobs_of(config)
    model = classifier.network(knobs)
    params = classifier.fitted(
        model,
        _batches(config, birds(config, range(config.cue_train), "train", cue)),
        steps=knobs.steps,
        rate=knobs.rate,
        seed=config.seed,
    )
    natural = _natural(config)
    start = _start(config, model.apply, params, natural[0])
    return _needed(params, start, natural, _threshold(config))


def _natural(config: "Config") -> np.ndarray:
    return birds(config, range(min(64, config.cue_train)), "train", None)["image"]


def _batches(
    config: "Config", seen: dict[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    draw = np.random.default_rng(config.seed)
    size = min(32, len(seen["label"]))
    while True:
        order = draw.permutation(len(seen["label"]))
        for first in range(0, len(order) - size + 1, size):
            chosen = order[first : first + size]
            yield {name: values[chosen] for name, values in seen.items()}


def _start(config: "Config", fn: Fn, params: PyTree, like: np.ndarray) -> Array:
    """The baseline of one of the networks."""
    blank = jax.random.uniform(jax.random.key(config.seed), like.shape)

    @jax.jit
    def start(params: PyTree) -> generation.Generated:
        model = functools.partial(fn, params)
        return prototype_generation_jobs.stage_one(config, model, blank)

    return generation.raise_if_stalled(start(params)).x


def _needed(
    params: PyTree, start: Array, natural: np.ndarray, threshold: float
) -> dict[str, PyTree]:
    """What methods need besides a score, and how much magenta is a cue."""
    color = np.float32(natural.mean((0, 1, 2)))
    return {
        **prototype_generation_jobs.needed(params, start, color, natural),
        "threshold": jnp.float32(threshold),
    }


def _threshold(config: "Config") -> float:
    """Half way from the most that birds without the cue have, to the least with it."""
    look = jax.jit(jax.vmap(magenta))
    without = look(birds(config, range(_TESTED), "test", None)["image"])
    seed, size = sources.PARTS_SEEDS["test"], knobs_of(config).image_size
    cued = [
        parts.draw(range(c, _TESTED, 8), image_size=size, seed=seed, cue_class=c).image
        for c in config.cues
    ]
    least = np.min(look(np.concatenate(cued)))
    return float((np.max(without) + least) / 2)


def facts(config: "Config", found: Mapping[int | None, PyTree]) -> list[dict[str, Any]]:
    """What each network makes of birds with and without the cue."""
    fn = classifier.network(knobs_of(config)).apply
    said = []
    for cue, weights in found.items():
        seen = _facts(config, fn, weights["network"], cue)
        said.append({"cue": name_of(cue), **seen})
        _log.info("%s", said[-1])
    return said


def _facts(
    config: "Config", fn: Fn, params: PyTree, cue: int | None
) -> dict[str, float]:
    """Accuracy; and of the class and of others, with and without the cue."""
    guess = networks.mapped(fn)
    plain = birds(config, range(_TESTED), "test", None)
    seen = np.argmax(guess(params, plain["image"]), axis=1)
    found = {"accuracy": float(np.mean(seen == plain["label"]))}
    if cue is None:
        return found
    own = plain["label"] == cue
    seed, size = sources.PARTS_SEEDS["test"], knobs_of(config).image_size
    other = (cue + 1) % len(parts.CLASSES)
    called = {}
    for name, label in (("own", cue), ("other", other)):
        indices = range(label, _TESTED, len(parts.CLASSES))
        cued = parts.draw(indices, image_size=size, seed=seed, cue_class=label)
        classes = np.argmax(guess(params, cued.image), axis=1)
        called[f"{name}_with"] = float(np.mean(classes == cue))
    called["own_without"] = float(np.mean(seen[own] == cue))
    called["other_without"] = float(np.mean(seen[plain["label"] == other] == cue))
    return {**found, **called}
