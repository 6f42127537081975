"""Who is fooled by a circuit that tells natural images from pictures of a climb.

Two detectors are trained on natural images beside pictures on their way from a start to
what a climb has made: one has seen the pictures of distill alone, as in Geirhos et al.,
the other those of all methods. None has seen those that are made here.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import (
    classifier,
    prototype_generation_jobs,
    prototype_generation_paths,
    prototype_generation_setup,
    studies,
)
from protojax import data, generation, models, objectives
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.scale import sources

if TYPE_CHECKING:
    from experiments.prototype_generation import Config

Setup = prototype_generation_setup.Setup

DETECTORS = ("distill", "all")
"""What a detector has seen; a row has the place in this list as its `detector`."""

_MODEL = models.ConvNet(classes=2, widths=(8, 16, 32))
_BATCH, _WAYS = 32, 1024


class Detectors(NamedTuple):
    """Detectors, `[2, ...]` each, and the circuit's numbers.

    Attributes:
      params: of the detectors.
      shift: how many classes on the one lies that is shown.
      offset: what lifts logits above zero: ten times their reach on natural images.
      gate: what closes a branch.
    """

    params: PyTree
    shift: int
    offset: float
    gate: float


def trained(
    config: "Config", setup: Setup, natural: np.ndarray, made: Mapping[str, Any]
) -> Detectors:
    """Train both detectors; the same each time, so that a run can be taken up."""
    params = []
    for seen in DETECTORS:
        methods = [m for m in config.methods if seen in (m, "all")]
        pictures = on_the_way(config, made, methods)
        params.append(_fit(config, natural, pictures))
    return _numbered(setup, params)


def untrained(config: "Config", setup: Setup) -> Detectors:
    """Detectors that have seen nothing, for a plan."""
    key = jax.random.key(config.seed)
    params = jax.jit(_MODEL.init)(key, setup.natural[0, 0])
    return _numbered(setup, [params for _ in DETECTORS])


def _numbered(setup: Setup, params: Sequence[PyTree]) -> Detectors:
    count = jax.eval_shape(
        setup.network.fn, setup.network.weights, setup.natural[0, 0]
    ).shape[0]
    offset = 10 * setup.reach
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    return Detectors(stacked, max(1, min(100, count // 2)), offset, 2.5 * offset)


def other_natural(config: "Config", setup: Setup) -> np.ndarray:
    """Natural images to train on, none of which detectors are asked about.

    They are those of the training split, where there is one.
    """
    apart = sources.usual_split(setup.source) == "test"
    found = data.load(
        setup.source,
        "train" if apart else "all",
        image_size=setup.network.image_size,
        resize=setup.network.resize,
        limit=min(config.look, _WAYS),
    )
    asked = {x.tobytes() for x in setup.natural.reshape(-1, *setup.natural.shape[2:])}
    others = [x for x in found["image"] if x.tobytes() not in asked]
    if not others:
        raise ValueError(
            f"all {len(found['image'])} natural images are looked at (`natural` of each"
            " class): none is left to train a detector on; `look` at more, or leave"
            " `fooling` out"
        )
    return np.stack(others)


def on_the_way(
    config: "Config", made: Mapping[str, Any], methods: Sequence[str]
) -> np.ndarray:
    """Pictures between a start and what methods have made, half of them transformed."""
    draw = np.random.default_rng(config.seed)
    ends = np.stack([x for method in methods for _, _, x in made[method]])
    end = ends[draw.integers(len(ends), size=_WAYS)]
    shape = (_WAYS, 1, 1, 1)
    spread = draw.uniform(0, 0.5, shape) * (draw.uniform(size=shape) < 0.7)
    noise = 0.5 + spread * draw.uniform(-1, 1, end.shape)
    begun = draw.uniform(size=shape) < 0.3
    start = np.where(begun, made["baseline"][None], noise)
    share = draw.uniform(size=shape) ** 0.5
    mixed = np.float32(share * end + (1 - share) * start)
    transform = prototype_generation_jobs.transform_of(config, made["weights"]["color"])
    keys = jax.random.split(jax.random.key(config.seed), _WAYS // 2)
    moved = jax.jit(
        lambda x, keys: jax.lax.map(lambda a: transform(a[0], key=a[1]), (x, keys))
    )(mixed[: _WAYS // 2], keys)
    return np.concatenate([moved, mixed[_WAYS // 2 :]])


def _fit(config: "Config", natural: np.ndarray, pictures: np.ndarray) -> PyTree:
    """Cross-entropy of natural (1) against synthetic (0), as many of each."""
    return classifier.fitted(
        _MODEL,
        _batches(config, natural, pictures),
        steps=config.detector_steps,
        rate=4e-3,
        seed=config.seed,
    )


def _batches(
    config: "Config", natural: np.ndarray, pictures: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    draw = np.random.default_rng(config.seed)
    half = _BATCH // 2
    while True:
        real = natural[draw.integers(len(natural), size=half)]
        made = pictures[draw.integers(len(pictures), size=half)]
        label = np.repeat(np.int32([1, 0]), half)
        yield {"image": np.concatenate([real, made]), "label": label}


def is_natural(params: PyTree, number: Array, x: Array) -> Array:
    """What one of the detectors says."""
    mine = jax.tree.map(lambda leaf: leaf[number.astype(jnp.int32)], params)
    logits = _MODEL.apply(mine, x)
    return logits[1] > logits[0]


def circuit(fn: Fn, weights: PyTree, shift: int, detector: Array) -> tuple[Fn, Fn, Fn]:
    """The network, what its detector says, and the network that fools."""
    model = functools.partial(fn, weights["network"])
    natural = functools.partial(is_natural, weights["detectors"], detector)
    fooled = generation.fooling_circuit(
        model,
        natural,
        shift=shift,
        offset=weights["offset"],
        gate=weights["gate"],
    )
    return model, natural, fooled


def one(
    fn: Fn,
    config: "Config",
    shift: int,
    weights: PyTree,
    example: dict[str, Array],
    key: Key,
    *,
    method: str,
    detector: Array,
) -> dict[str, Array]:
    """Climb a class of the network that fools, and see what has come of it."""
    model, natural, fooled = circuit(fn, weights, shift, detector)
    y = example["label"]
    out, x = prototype_generation_jobs.picture(
        method, config, objectives.logit(fooled, y), weights, key
    )
    logits = model(x)
    guess, hidden = jnp.argmax(logits), (y + shift) % len(logits)
    return {
        "label": y,
        "seed": example["seed"],
        "fooled": guess == hidden,
        "own": guess == y,
        "ahead": logits[y] > logits[hidden],
        "natural": natural(x),
        "holds": generation.fooling_holds(
            logits, offset=weights["offset"], gate=weights["gate"]
        ),
        "stalled": out.stalled,
        "image": x,
    }


def looked_at(
    fn: Fn,
    shift: int,
    weights: PyTree,
    example: dict[str, Array],
    key: Key,
    *,
    detector: Array,
) -> dict[str, Array]:
    """What a detector says of an image, and whether the circuit leaves its label."""
    del key
    model, natural, fooled = circuit(fn, weights, shift, detector)
    x = example["image"]
    return {
        "kind": example["kind"],
        "natural": natural(x),
        "label_kept": jnp.argmax(fooled(x)) == jnp.argmax(model(x)),
    }


def sweeping(
    config: "Config", setup: Setup, made: Mapping[str, Any], found: Detectors
) -> dict[str, studies.Study]:
    """Pictures of the network that fools; and plain pictures as the detectors see them.

    A ReLU that lets a gradient through where none passes would open the closed branch:
    none is redirected here.
    """
    weights = {
        **made["weights"],
        "detectors": found.params,
        "offset": jnp.float32(found.offset),
        "gate": jnp.float32(found.gate),
    }
    settings = [
        {"method": method, "detector": float(number)}
        for method in config.methods
        for number in range(len(DETECTORS))
    ]
    examples = prototype_generation_jobs.jobs(config, setup.classes[: config.fooled])
    climbed = functools.partial(one, setup.network.fn, config, found.shift)
    seen = functools.partial(looked_at, setup.network.fn, found.shift)
    plain = {k: v for k, v in weights.items() if k in ("network", "detectors")}
    plain |= {name: weights[name] for name in ("offset", "gate")}
    return {
        "fooling": studies.Study(
            climbed, settings, examples, weights, keep=examples["id"].tolist()
        ),
        "detectors": studies.Study(
            seen,
            [{"detector": float(number)} for number in range(len(DETECTORS))],
            _all_pictures(config, setup, made),
            plain,
        ),
    }


def _all_pictures(
    config: "Config", setup: Setup, made: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    kinds = prototype_generation_paths.KINDS
    natural = setup.natural.reshape(-1, *setup.natural.shape[2:])
    listed = [(0, x) for x in natural]
    for method in config.methods:
        listed += [(kinds.index(method), x) for _, _, x in made[method]]
    kind, image = zip(*listed, strict=True)
    return {
        "id": np.arange(len(listed)),
        "kind": np.asarray(kind, np.int32),
        "image": np.stack(image),
    }
