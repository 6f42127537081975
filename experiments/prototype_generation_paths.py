"""The pictures whose activation paths are compared, and how natural each of them is."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import networks, prototype_generation_setup, studies
from protojax import attacks, generation, images, objectives
from protojax.contracts import Array, Fn, Key, PyTree

if TYPE_CHECKING:
    from experiments.prototype_generation import Config

Setup = prototype_generation_setup.Setup

KINDS = (
    "natural",
    "other class",
    "prototype",
    "distill",
    "maco",
    "mean image",
    "blurred mean",
    "gray",
    "noise",
    "baseline",
    "adversarial",
)
"""What is compared; a row has the place in this list as its `kind`."""

MEASURES = ("l1", "rank", "centered", "shuffled")
"""Distance; rank correlation as it is, without the channels' levels, without places."""


def one(
    fn: Fn,
    layers: Sequence[str],
    places: int | None,
    weights: PyTree,
    example: dict[str, Array],
    key: Key,
) -> dict[str, Array]:
    """How close the path of a picture comes to the natural mean of its class.

    A natural image of the class (`own` is 1) is taken out of that mean first.
    """
    model = functools.partial(fn, weights["network"])
    path = path_of(model, layers, places)(example["image"])
    own = example["own"]
    rest = {n: v[example["place"]] - own * path[n] for n, v in weights["total"].items()}
    count = weights["count"] - own
    mean = generation.mean_path(generation.Natural(rest, count))
    plain = generation.path_similarity(path, mean)
    centered = generation.path_similarity(
        generation.channel_centered(path), generation.channel_centered(mean)
    )
    mixed = generation.path_similarity(generation.shuffled(path, key=key), mean)
    found = {"l1": plain.l1, "rank": plain.rank}
    found |= {"centered": centered.rank, "shuffled": mixed.rank}
    return {
        "place": example["place"],
        "kind": example["kind"],
        "source": example["source"],
        **{
            column(measure, layer): values[number]
            for measure, values in found.items()
            for number, layer in enumerate(layers)
        },
    }


def column(measure: str, layer: str) -> str:
    """The name of a measure at a layer in the rows."""
    return f"{measure}:{layer}"


def path_of(
    fn: Fn, layers: Sequence[str], places: int | None
) -> Callable[[Array], generation.Path]:
    """The path of a picture, of each layer at most so many places, drawn once."""
    whole = generation.path(fn, layers[:-1])

    def run(x: Array) -> generation.Path:
        found = whole(x)
        return {name: thinned(found[name], places) for name in layers}

    return run


def thinned(layer: Array, places: int | None) -> Array:
    """Some places of a layer with all their channels, in any order but always one."""
    flat = layer.reshape(-1, layer.shape[-1])
    if layer.ndim < 3 or places is None or len(flat) <= places:
        return layer
    return flat[np.random.default_rng(0).permutation(len(flat))[:places]]


def totals(config: "Config", setup: Setup) -> dict[str, PyTree]:
    """What pictures are compared with: sums of natural paths, `[K, ...]` each."""

    def total(weights: PyTree, natural: Array) -> generation.Path:
        run = path_of(
            functools.partial(setup.network.fn, weights), setup.layers, config.places
        )
        return generation.natural_paths(run, natural).total

    add = jax.jit(total)
    each = [add(setup.network.weights, natural) for natural in setup.natural]
    return {
        "network": setup.network.weights,
        "total": jax.tree.map(lambda *leaves: jnp.stack(leaves), *each),
        "count": jnp.float32(setup.natural.shape[1]),
    }


def study(
    config: "Config", setup: Setup, made: Mapping[str, Any], weights: PyTree
) -> studies.Study:
    """The sweep over all pictures."""
    look = functools.partial(one, setup.network.fn, setup.layers, config.places)
    examples = pictures(config, setup, made)
    return studies.Study(look, [{}], examples, weights)


def pictures(
    config: "Config", setup: Setup, made: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """All pictures, with the place of their class, their kind and their source.

    Args:
      config: the configuration.
      setup: what it comes to.
      made: for each method `[(place of the class, seed, picture)]`, and `baseline`.
    """
    classes, count = setup.natural.shape[:2]
    listed: list[tuple[str, int, int, np.ndarray]] = []
    for place, natural in enumerate(setup.natural):
        mean = natural.mean(axis=0)
        listed += [("natural", place, i, x) for i, x in enumerate(natural)]
        others = other_images(setup, place)
        listed += [("other class", place, i, x) for i, x in enumerate(others)]
        blurred = images.gaussian_blur(mean, sigma=config.blur * len(mean))
        listed += [
            ("mean image", place, 0, mean),
            ("blurred mean", place, 0, np.asarray(blurred)),
            ("gray", place, 0, np.full_like(mean, 0.5)),
            ("baseline", place, 0, made["baseline"]),
        ]
        for seed in range(config.seeds):
            draw = np.random.default_rng([config.seed, place, seed])
            noise = draw.uniform(size=mean.shape).astype(np.float32)
            listed.append(("noise", place, seed, noise))
    for method in config.methods:
        listed += [(method, place, seed, x) for place, seed, x in made[method]]
    listed += adversarial(config, setup)
    kind, place, source, image = zip(*listed, strict=True)
    return {
        "id": np.arange(len(listed)),
        "image": np.stack(image),
        "place": np.asarray(place, np.int32),
        "kind": np.asarray([KINDS.index(k) for k in kind], np.int32),
        "source": np.asarray(source, np.int32),
        "own": np.asarray([k == "natural" for k in kind], np.float32),
    }


def other_images(setup: Setup, place: int) -> list[np.ndarray]:
    """As many natural images as a class has, of the other classes in turn."""
    classes, count = setup.natural.shape[:2]
    turn = [(place + 1 + i % (classes - 1)) % classes for i in range(count)]
    return [setup.natural[other, i] for i, other in enumerate(turn)]


def adversarial(
    config: "Config", setup: Setup
) -> list[tuple[str, int, int, np.ndarray]]:
    """Images of other classes, changed by a few gray levels to be seen as this one."""

    def attack(
        weights: dict[str, PyTree], example: dict[str, Array]
    ) -> dict[str, Array]:
        fn = functools.partial(setup.network.fn, weights)
        away = objectives.cross_entropy(fn, example["label"])
        found = attacks.pgd(
            lambda z: -away(z),
            example["image"],
            radius=config.radius / 255,
            step_size=config.radius / 255 / 8,
            steps=config.adversarial_steps,
        )
        return {"image": found.x}

    sources = [
        (place, seed, other_images(setup, place)[seed])
        for place in range(len(setup.classes))
        for seed in range(min(config.seeds, setup.natural.shape[1]))
    ]
    place, seed, image = zip(*sources, strict=True)
    label = np.asarray(setup.classes, np.int32)[list(place)]
    examples = {"image": np.stack(image), "label": label}
    found = networks.mapped(attack, chunk=config.chunk)(setup.network.weights, examples)
    return [
        ("adversarial", *each) for each in zip(place, seed, found["image"], strict=True)
    ]


def judged(rows: Sequence[Mapping[str, Any]], setup: Setup) -> list[dict[str, Any]]:
    """For every picture and layer: how many natural images it beats, and how it scores.

    The id of these rows is the class, which is what intervals are over. A natural image
    is held against the others of its class.

    Returns:
      Rows with `kind`, `layer`, its `number`, the measures, `beats_l1`, `beats_rank`
      and `beats_centered` (shares of natural images), `scaled_l1` (1 for the natural
      images of the class).
    """
    found = []
    for place, label in enumerate(setup.classes):
        of_class = [row for row in rows if row["place"] == place]
        for number, layer in enumerate(setup.layers):
            values = {m: _values(of_class, column(m, layer)) for m in MEASURES}
            kinds = np.array([row["kind"] for row in of_class])
            same = {m: v[kinds == 0] for m, v in values.items()}
            for i, row in enumerate(of_class):
                mine = {m: v[i] for m, v in values.items()}
                keep = np.arange(len(of_class))[kinds == 0] != i
                rivals = {m: v[keep] for m, v in same.items()}
                found.append(
                    {
                        "id": label,
                        "kind": KINDS[row["kind"]],
                        "source": row["source"],
                        "layer": layer,
                        "number": number,
                        **{m: _number(v) for m, v in mine.items()},
                        "beats_l1": _beaten(-mine["l1"], -rivals["l1"]),
                        "beats_rank": _beaten(mine["rank"], rivals["rank"]),
                        "beats_centered": _beaten(mine["centered"], rivals["centered"]),
                        "scaled_l1": _number(mine["l1"] / _mean(same["l1"])),
                    }
                )
    return found


def scored(judged: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every picture means over its layers, from another class to its own.

    Returns:
      Rows with `kind`, and `normal_l1`, `normal_rank`: 0 for what natural images of
      other classes have on average, 1 for those of the class.
    """
    pictures: dict[tuple[int, str, int], list[Mapping[str, Any]]] = {}
    for row in judged:
        pictures.setdefault((row["id"], row["kind"], row["source"]), []).append(row)
    means = {
        key: {n: _mean(_values(rows, n)) for n in ("scaled_l1", "rank")}
        for key, rows in pictures.items()
    }
    ends = {
        (label, kind, name): _mean(
            np.array([m[name] for k, m in means.items() if k[:2] == (label, kind)])
        )
        for label in {key[0] for key in means}
        for kind in ("other class", "natural")
        for name in ("scaled_l1", "rank")
    }
    found = []
    for (label, kind, _), mean in means.items():
        row: dict[str, Any] = {"id": label, "kind": kind}
        for name, value in mean.items():
            other, same = (ends[label, k, name] for k in ("other class", "natural"))
            score = generation.normalized(value, other=other, same=same)
            row[f"normal_{name.removeprefix('scaled_')}"] = _number(float(score))
        found.append(row)
    return found


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """A column; what is not there is NaN."""
    return np.array([np.nan if r[name] is None else r[name] for r in rows], float)


def _beaten(mine: float, rivals: np.ndarray) -> float | None:
    """The share of rivals that are below; of those that have a value."""
    known = rivals[np.isfinite(rivals)]
    if not np.isfinite(mine) or not len(known):
        return None
    return float(np.mean(mine > known))


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.mean(known)) if len(known) else np.nan


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
