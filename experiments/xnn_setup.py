"""What `experiments.xnn` explains: a network, its layer, and units of many images."""

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import networks, subjects, xnn_judged, xnn_methods, xnn_training
from protojax import activations, parts, srae
from protojax.contracts import Array, PyTree
from protojax.scale import sources

if TYPE_CHECKING:
    from experiments.xnn import Config

_log = logging.getLogger(__name__)


class Setup(NamedTuple):
    """What a configuration comes to.

    Attributes:
      network: that is explained.
      layer: of it, and where maps are read.
      classes: that are explained, by their places among the logits.
      shape: of the feature map that the units are; one line of them where they are not.
      data: what explanation networks are trained on.
      test: `image`, `label` (of the class, as `Config.labels` says), `id`, `logits`.
      judges: what `xnn_judged.judged` measures with.
      attacked: the images that are attacked.
      beta: sharpness of the classifier's softplus twin.
      known: whether parts are known: those of the eight kinds of birds.
      facts: for the report.
    """

    network: networks.Network
    layer: xnn_judged.Layer
    classes: tuple[int, ...]
    shape: tuple[int, ...]
    data: xnn_training.Data
    test: dict[str, np.ndarray]
    judges: dict[str, Array]
    attacked: dict[str, np.ndarray]
    beta: float
    known: bool
    facts: dict[str, Any]


def load(config: "Config") -> Setup:
    """Load the network and images, and record the units."""
    network = networks.load(config.model, image_size=config.image_size)
    source = networks.expand(config.data or network.images)
    train, test = networks.both_splits(
        source,
        train=config.train,
        test=config.test,
        seed=config.seed,
        image_size=network.image_size,
        resize=network.resize,
    )
    layer, shape = layer_of(config, network, train["image"][0])
    z, logits = recorded(network, layer, train["image"])
    z_test, logits_test = recorded(network, layer, test["image"])
    given = config.labels == "given"
    for part, seen in ((train, logits), (test, logits_test)):
        guess = networks.guesses(seen, part["label"] if given else None)
        part["label"] = part["label"] if given else guess
    classes = classes_of(config, logits, test["label"])
    check_learned_from(classes, train["label"])
    kept, size = kept_units(config, z)
    xnn_methods.check(config.methods, z)
    layer = layer._replace(units=functools.partial(_units, config.grid, kept, size))
    if kept is not None:
        shape, z, z_test = (1, 1, len(kept)), z[:, kept], z_test[:, kept]
    z, z_test = z / size, z_test / size
    scores = logits[:, classes]
    scale = config.spread / max(float(np.std(scores)), 1e-12)
    own = train["label"][:, None] == np.asarray(classes)
    shuffled = np.random.default_rng(config.seed).permutation(len(z))
    held = np.sort(shuffled[: max(1, len(z) // 10)])
    known = source.partition(":")[0] == "parts" and "#" not in source
    judges = {
        "z": jnp.asarray(z_test),
        "logits": jnp.asarray(logits_test),
        "labels": jnp.asarray(test["label"], jnp.int32),
        "scale": jnp.float32(scale),
        "network": network.weights,
    }
    if known:
        judges |= known_parts(config, network, test)
    test["logits"] = logits_test
    accuracy = float(np.mean(logits_test.argmax(1) == test["label"]))
    _log.info(
        "%s: %d units of %d images; %.1f %% of %d test images are right",
        *(layer.name, z.shape[1], len(z), 100 * accuracy, len(z_test)),
    )
    return Setup(
        network=network,
        layer=layer,
        classes=classes,
        shape=shape,
        data=xnn_training.Data(*map(jnp.asarray, (z, scale * scores, own, held))),
        test=test,
        judges=judges,
        attacked=to_attack(config, classes, test),
        beta=subjects.typical_sharpness(network, test["image"]),
        known=known,
        facts={
            "units": z.shape[1],
            "train": len(z),
            "test": len(z_test),
            "accuracy": accuracy,
            "score_std": float(np.std(scores)),
            "dead_units": int(np.sum(np.ptp(z, axis=0) == 0)),
        },
    )


def layer_of(
    config: "Config", network: networks.Network, x: np.ndarray
) -> tuple[xnn_judged.Layer, tuple[int, ...]]:
    """The layer that is explained, and the shape that its units are."""
    fn = functools.partial(network.fn, network.weights)
    there = activations.layers(fn, x)
    for knob, name in (("layer", config.layer), ("map_at", config.map_at)):
        if name not in there and not (knob == "map_at" and name in (None, "image")):
            raise ValueError(f"`{knob}` is {name!r}: choose from {', '.join(there)}")
    shape = tuple(there[config.layer].shape)
    if len(shape) > 3:  # a batch of one, as some networks make
        shape = shape[-3:]
    if config.grid is not None and len(shape) == 3 and config.grid < shape[0]:
        shape = (config.grid, config.grid, shape[-1])
    if len(shape) < 3:
        shape = (1, 1, shape[-1])
    at = {None: config.layer, "image": ""}.get(config.map_at, config.map_at)
    units = functools.partial(_units, config.grid, None, 1.0)
    return xnn_judged.Layer(network.fn, config.layer, units, at), shape


def _units(grid: int | None, kept: Any, size: float, h: Array) -> Array:
    """From a layer's value to the units that are explained."""
    if h.ndim > 3:
        h = h.reshape(h.shape[-3:])
    if grid is not None and h.ndim == 3 and grid < min(h.shape[:2]):
        z = srae.pooled(h, size=grid)
    else:
        z = h.ravel()
    return (z if kept is None else z[kept]) / size


def recorded(
    network: networks.Network, layer: xnn_judged.Layer, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Units `[N, S]` and logits `[N, K]` of many images."""

    def one(weights: PyTree, x: Array) -> tuple[Array, Array]:
        run = activations.record(functools.partial(layer.fn, weights), [layer.name])
        logits, found = run(x)
        return layer.units(found[layer.name]), logits

    return networks.mapped(one, chunk=16)(network.weights, images)


def kept_units(config: "Config", z: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Which units are explained, and what they are divided by."""
    kept = None
    if config.units is not None:
        if not config.features < config.units <= z.shape[1]:
            raise ValueError(
                f"`units` is {config.units}: choose more than `features` "
                f"({config.features}), and up to {z.shape[1]}"
            )
        drawn = np.random.default_rng(config.seed).permutation(z.shape[1])
        kept = np.sort(drawn[: config.units])
        z = z[:, kept]
    size = float(np.sqrt(np.mean(np.square(z, dtype=np.float64))))
    if not (np.isfinite(size) and size > 0):
        raise ValueError(
            f"`layer` {config.layer!r} has units of mean square {size:g}: it is dead, "
            "or not finite, on these images"
        )
    return kept, size


def classes_of(
    config: "Config", logits: np.ndarray, labels: np.ndarray
) -> tuple[int, ...]:
    """The classes that are explained, each of which occurs among the test images."""
    count = logits.shape[1]
    if config.classes is not None:
        for c in config.classes:
            if not 0 <= c < count:
                raise ValueError(
                    f"`classes` has {c}, and the network has {count} classes: choose "
                    f"from 0 to {count - 1}"
                )
            if c not in labels:
                seen = sorted(set(labels.tolist()))[:20]
                raise ValueError(
                    f"`classes` has {c}, of which no test image is: there are "
                    f"{', '.join(map(str, seen))} (`labels`, `test`)"
                )
        return tuple(config.classes)
    there = np.bincount(labels, minlength=count)
    if count <= 10:
        return tuple(np.flatnonzero(there).tolist())
    return tuple(np.sort(np.argsort(-there)[: config.most]).tolist())


def check_learned_from(classes: Sequence[int], labels: np.ndarray) -> None:
    """Refuse classes of which there is no image to learn from."""
    for c in classes:
        if c not in labels:
            raise ValueError(
                f"`classes` has {c}, of which there are test images, but none to learn"
                " from: raise `train`, or name others"
            )


def known_parts(
    config: "Config", network: networks.Network, test: dict[str, np.ndarray]
) -> dict[str, Array]:
    """Which variants each test bird has, and some birds of each class with masks."""
    variants = [
        parts.CLASSES[test["label"]][:, p] == v
        for p, name in enumerate(parts.PARTS)
        for v in range(len(parts.VARIANTS[name]))
        if len(parts.VARIANTS[name]) > 1
    ]
    shown, masks = [], []
    for c in range(len(parts.CLASSES)):
        chosen = np.flatnonzero(test["label"] == c)[: config.maps]
        if len(chosen) < config.maps:
            raise ValueError(
                f"`maps` is {config.maps}, and there are {len(chosen)} test images of "
                f"class {c}: raise `test` to {config.maps * len(parts.CLASSES)}"
            )
        birds = parts.draw(
            test["id"][chosen].tolist(),
            image_size=network.image_size,
            seed=sources.PARTS_SEEDS["test"],
        )
        shown.append(birds.image)
        masks.append(birds.masks)
    return {
        "variants": jnp.asarray(np.stack(variants, axis=1), jnp.float32),
        "shown": jnp.asarray(np.stack(shown)),
        "masks": jnp.asarray(np.stack(masks)),
    }


def to_attack(
    config: "Config", classes: tuple[int, ...], test: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Images that are classified correctly, in turn by class, each with another one."""
    right = test["logits"].argmax(1) == test["label"]
    each = [np.flatnonzero(right & (test["label"] == c)) for c in classes]
    each = [places for places in each if len(places) > 1]
    if not each:
        raise ValueError(
            "no class has two test images that are classified correctly: raise `test`, "
            "or name other `classes`"
        )
    longest = max(map(len, each))
    order = [p[i] for i in range(longest) for p in each if i < len(p)]
    chosen = np.sort(order[: config.attacked])
    others = []
    for place in chosen:
        same = next(p for p in each if place in p)
        others.append(same[(np.searchsorted(same, place) + 1) % len(same)])
    label = test["label"][chosen]
    return {
        "id": test["id"][chosen],
        "image": test["image"][chosen],
        "other": test["image"][np.asarray(others)],
        "label": label.astype(np.int32),
        "place": np.asarray([classes.index(c) for c in label], np.int32),
    }
