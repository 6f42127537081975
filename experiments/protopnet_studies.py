"""What is asked of a trained ProtoPNet: of each test image, and of each prototype."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import protopnet_analysis, protopnet_setup, studies
from experiments.protopnet_network import Network, Weights
from experiments.protopnet_training import NEIGHBORS, Trained
from protojax import attacks, metrics, prototypes
from protojax.contracts import Array, Key, PyTree

if TYPE_CHECKING:
    from experiments.protopnet import Config

RADIUS, STEPS = 23 / 255, 40
"""Of the attack elsewhere, as published: 0.4 after normalization is about 23 levels."""
MARGIN = 10
"""Pixels of 224 around what a prototype looks at that the attack leaves alone too."""


def of_images(
    network: Network, weights: Weights, example: dict[str, Array], key: Key
) -> dict[str, Array]:
    """What the network sees in one test image, and where, if the truth is known."""
    del key
    x = example["image"]
    maps = network.apply("similarities")(weights, x)
    owners, votes = jnp.asarray(network.head.owners), weights[0]["head"]["last_layer"]
    similar = jnp.max(maps, axis=(0, 1))
    logits = similar @ votes
    y, top = jnp.argmax(logits), jnp.argmax(similar)
    row = {
        "label": example["label"],
        "guess": y,
        "correct": y == example["label"],
        "confidence": jax.nn.softmax(logits)[y],
        "top": top,
        "top_own": owners[top] == y,
        "similarity": similar[top],
        "size": metrics.explanation_size(jnp.maximum(similar * votes[:, y], 0)),
    }
    if "plain" in example:
        row["plain_correct"] = example["plain"] == example["label"]
    if "others" in example:
        summed = jnp.argmax(logits + example["others"])
        row["together_correct"] = summed == example["label"]
    highest = jnp.maximum(prototypes.enlarge(maps[..., top], x.shape[:2]), 0)
    for name in ("object", "head"):
        if name in example:
            row |= located(name, highest, example[name])
    return row | {"image": x, "maps": maps, "logits": logits}


def located(name: str, a: Array, inside: Array) -> dict[str, Array]:
    """How a map lies to a mask; nothing where the mask is empty."""
    found = {
        "pointing": metrics.pointing_game(a, inside),
        "energy": metrics.pointing_energy(a, inside),
        "precision": metrics.activation_precision(a, inside),
        "oirr": metrics.outside_inside_ratio(a, inside),
        "ior": metrics.inside_outside_difference(a, inside),
    }
    there = jnp.any(inside)
    return {f"{name}_{k}": jnp.where(there, v, jnp.nan) for k, v in found.items()}


def elsewhere(
    network: Network, weights: Weights, example: dict[str, Array], key: Key
) -> dict[str, Array]:
    """Lower the most similar prototype by changes outside of where it looks."""
    del key
    x = example["image"]
    size = x.shape[:2]
    similarities = functools.partial(network.apply("similarities"), weights)
    logits = functools.partial(network.apply(), weights)
    before = similarities(x)
    top = jnp.argmax(jnp.max(before, axis=(0, 1)))
    crop = prototypes.high_crop(prototypes.enlarge(before[..., top], size))
    found = attacks.pgd(
        lambda z: -jnp.max(similarities(z)[..., top]),
        x,
        radius=RADIUS,
        step_size=RADIUS / STEPS,
        steps=STEPS,
        mask=~widened(crop, size, round(MARGIN * size[0] / 224)),
    )
    after = similarities(found.x)
    s, t = (jnp.max(maps, axis=(0, 1)) for maps in (before, after))
    large = [
        jax.image.resize(maps[..., top], size, "bilinear") for maps in (before, after)
    ]
    right = [jnp.argmax(logits(z)) == example["label"] for z in (x, found.x)]
    return {
        "plc": metrics.location_change(*large),
        "pac": metrics.activation_change(s[top], t[top]),
        "prc": metrics.rank_change(s, t, top, jnp.asarray(network.head.owners)),
        "ac": 100 * (right[0].astype(x.dtype) - right[1]),
        "stalled": found.stalled,
    }


def widened(crop: Array, size: tuple[int, ...], by: int) -> Array:
    """The pixels of a rectangle and of a margin around it, bool `[H, W]`."""
    row, column = jnp.arange(size[0]), jnp.arange(size[1])
    rows = (row >= crop[0] - by) & (row < crop[1] + by)
    columns = (column >= crop[2] - by) & (column < crop[3] + by)
    return rows[:, None] & columns[None]


def of_prototypes(weights: PyTree, example: dict[str, Array], key: Key) -> dict:
    """Where one prototype comes from, what looks like it, and what it is found on.

    Args:
      weights: `labels` `[N]` of the test images and `visible` `[N, K]`, if parts are
        known.
      example: of `described`.
      key: not used.
    """
    del key
    owner = example["owner"]
    names = ("image", "row", "column", "distance", "duplicate")
    row = {"class": owner, **{name: example[name] for name in names}}
    row["neighbors"] = jnp.sum(example["labels"][:NEIGHBORS] == owner)
    if "train_hits" in example:
        on = example["train_hits"], example["train_visible"]
        row["purity"] = metrics.purity(*on)
        row["part"] = jnp.argmax(metrics.part_rates(*on))
    if "hits" in example:
        hits, noisy = (example[name][:, None] for name in ("hits", "noisy"))
        labels, own = weights["labels"], owner[None]
        consistent = metrics.consistency(hits, weights["visible"], labels, own)
        row["consistent"] = consistent > 0
        row["stability"] = metrics.stability(hits, noisy, labels, own)
        nowhere = ~jnp.any(example["hits"], axis=1) & (labels == owner)
        row["nowhere"] = jnp.sum(nowhere) / jnp.sum(labels == owner)
    return row


def described(
    config: "Config",
    setup: protopnet_setup.Setup,
    trained: Trained,
    near: protopnet_analysis.Near,
) -> dict[str, np.ndarray]:
    """The prototypes as examples of `of_prototypes`."""
    vectors = trained.weights[0]["head"]["prototypes"]
    found: dict[str, Any] = {
        "id": np.arange(len(vectors)),
        "owner": np.asarray(trained.network.head.owners),
        "image": near.own.image[:, 0],
        "row": near.own.cell[:, 0, 0],
        "column": near.own.cell[:, 0, 1],
        "distance": near.own.distance[:, 0],
        "duplicate": metrics.duplicates(vectors),
        "labels": near.train.label,
    }
    if "points" in setup.truth:
        images, key = setup.examples.test["image"], jax.random.key(config.seed)
        hits, noisy = protopnet_analysis.found_on(trained, images, setup.truth, key)
        found |= {"hits": np.swapaxes(hits, 0, 1), "noisy": np.swapaxes(noisy, 0, 1)}
        on = protopnet_analysis.found_on_training(config, setup.network, near.train)
        found |= {"train_hits": on[0], "train_visible": on[1]}
    return {name: np.asarray(values) for name, values in found.items()}


def of(
    config: "Config",
    setup: protopnet_setup.Setup,
    trained: Trained,
    near: protopnet_analysis.Near,
) -> dict[str, studies.Study]:
    """The sweeps over test images and prototypes, by folder."""
    network, weights = trained.network, trained.weights
    test = dict(setup.examples.test)
    truth = setup.truth
    images = test | {name: truth[name] for name in ("object", "head") if name in truth}
    guesses = protopnet_analysis.plain(config, setup)
    if guesses is not None:
        images["plain"] = guesses
    if config.also:
        images["others"] = protopnet_setup.others(config, setup)
    parts = {"labels": test["label"], "visible": truth.get("visible", ())}
    found = {
        "": studies.Study(
            functools.partial(of_images, network),
            [{}],
            images,
            weights,
            keep=shown(test),
            chunk=50,
        ),
        "prototypes": studies.Study(
            of_prototypes,
            [{}],
            described(config, setup, trained, near),
            parts,
            chunk=50,
        ),
    }
    if config.attacked:
        few = {name: values[: config.attacked] for name, values in test.items()}
        attack = functools.partial(elsewhere, network)
        found["elsewhere"] = studies.Study(attack, [{}], few, weights, chunk=16)
    return found


def shown(test: dict[str, np.ndarray]) -> list[int]:
    """The ids of test images that are shown: one of each of four classes."""
    _, first = np.unique(test["label"], return_index=True)
    return test["id"][np.sort(first)[:4]].tolist()
