"""What `prototype_attacks` does to one image, and what comes of it.

The one that is attacked is always the network itself, and success is looked for in the
attacked image anew.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import attacked, protopnet_studies
from experiments.protopnet_network import Network, Weights
from protojax import attacks, images, metrics, objectives, prototypes
from protojax.contracts import Array, Key, Objective, Transform
from protojax.mechanisms import ascent

if TYPE_CHECKING:
    from experiments.prototype_attacks import Config

Row = dict[str, Array]


class Aim(NamedTuple):
    """Which prototype is attacked, and where it is to be found.

    Attributes:
      prototype: `[]`.
      source: bool `[h, w]` where it is found on the image as it is.
      target: bool `[h, w]`.
      on_head: `[]` whether it is found on the head, if that is known.
    """

    prototype: Array
    source: Array
    target: Array
    on_head: Array

    @property
    def worth(self) -> Array:
        """Whether there is something to ask: it is on the head, and can leave it."""
        return self.on_head & jnp.any(self.target)


def aimed(network: Network, example: dict[str, Array], maps: Array, y: Array) -> Aim:
    """The most similar prototype of a class, if possible one that is found on the head.

    Args:
      network: the network.
      example: with the pixels of `head` and `stomach` if they are known, of which a
        place must be covered by half, and by a quarter; else the stomach is the quarter
        of the map where the prototype is found least.
      maps: `[h, w, P]` similarities.
      y: the class.
    """
    grid, size = maps.shape[:2], example["image"].shape[:2]
    similar = jnp.max(maps, axis=(0, 1))
    own = jnp.asarray(network.head.owners) == y
    on_head = jnp.ones_like(own)
    if "head" in example:
        head = prototypes.covered_cells(example["head"], grid, share=0.5)
        on_head = jnp.max(maps, axis=(0, 1), where=head[..., None], initial=-jnp.inf)
        on_head = on_head >= similar
    worth = jnp.where(own, similar, -jnp.inf) + jnp.where(on_head, 1e3, 0)
    j = jnp.argmax(worth)
    a = maps[..., j]
    source = shown(a, size)
    if "stomach" in example:
        target = prototypes.covered_cells(example["stomach"], grid, share=0.25)
    else:
        target = attacked.least_salient_quarter(a) > 0
    return Aim(j, source, target & ~source, on_head[j])


def aims(
    network: Network, weights: Weights, example: dict[str, Array], key: Key
) -> Row:
    """Whether there is a head to be moved in an image, and where to."""
    del key
    x = example["image"]
    y = jnp.argmax(network.apply()(weights, x))
    aim = aimed(network, example, network.apply("similarities")(weights, x), y)
    return {
        "label": y,
        "prototype": aim.prototype,
        "on_head": aim.on_head,
        "cells": jnp.sum(aim.target),
        "worth": aim.worth,
    }


def shown(a: Array, size: tuple[int, ...], *, margin: int = 1) -> Array:
    """The cells that a prototype's crop, which is shown of an image, reaches into."""
    crop = prototypes.high_crop(prototypes.enlarge(a, size))
    return prototypes.crop_cells(crop, a.shape, size, margin=margin)


def search(
    config: "Config",
    attack: str,
    objective: Objective,
    x: Array,
    *,
    mask: Array,
    radius: Array,
    step_size: Array,
    key: Key,
) -> ascent.Ascent:
    """Climb, through compression if that is asked for, or draw as many random signs."""
    if attack == "random":
        masked = lambda z: objective(jnp.where(mask[..., None], z, x))  # noqa: E731
        draws = config.steps * config.restarts
        found = attacks.random_sign(masked, x, radius=radius, key=key, samples=draws)
        return found._replace(x=jnp.where(mask[..., None], found.x, x))
    transform: Transform | None = None
    if attack == "through_jpeg":
        transform = functools.partial(
            images.random_jpeg, low=config.qualities[0], high=config.qualities[1]
        )

    def climb(key: Key) -> ascent.Ascent:
        return attacks.pgd(
            objective,
            x,
            radius=radius,
            step_size=step_size,
            steps=config.steps,
            norm=config.norm,
            mask=mask,
            transform=transform,
            key=key,
        )

    found = jax.lax.map(climb, jax.random.split(key, config.restarts))
    best = jnp.argmax(found.value)
    return jax.tree.map(lambda leaf: leaf[best], found)


def head_on_stomach(
    network: Network,
    config: "Config",
    weights: Weights,
    example: dict[str, Array],
    key: Key,
    *,
    attack: str,
    radius: Array,
    step_size: Array,
) -> Row:
    """Attack 1 as it ought to be asked: only the target's pixels may change.

    Success is that the prototype is found in the target, at least as well as it was,
    and the prediction stays. Where no prototype is on the head, or no target is left,
    nothing can be said, and the row is stalled.
    """
    x = example["image"]
    fn = functools.partial(network.apply(), weights)
    similarity = functools.partial(network.apply("similarities"), weights)
    maps, y = similarity(x), jnp.argmax(fn(x))
    aim = aimed(network, example, maps, y)
    objective = objectives.prototype_moved(
        similarity, prototype=aim.prototype, target=aim.target, source=aim.source
    )
    found = search(
        config,
        attack,
        objective,
        x,
        mask=prototypes.cell_pixels(aim.target, x.shape[:2]),
        radius=radius,
        step_size=step_size,
        key=key,
    )
    judged = functools.partial(
        _judged, fn, similarity, aim, maps[..., aim.prototype], y
    )
    outcome = judged(found.x)
    again = judged(images.jpeg(found.x, quality=config.judged_quality))
    return {
        "label": y,
        "prototype": aim.prototype,
        "cells": jnp.sum(aim.target),
        **outcome,
        "success_compressed": again["success"],
        "linf": metrics.linf(x, found.x),
        "stalled": found.stalled | ~aim.worth,
        "image": x,
        "perturbed": found.x,
        "map_before": maps[..., aim.prototype],
        "map_after": similarity(found.x)[..., aim.prototype],
        "source": aim.source,
        "target": aim.target,
    }


def _judged(
    fn: Any, similarity: Any, aim: Aim, before: Array, y: Array, z: Array
) -> Row:
    after = similarity(z)[..., aim.prototype]
    outcome = prototypes.moved(before, after, source=aim.source, target=aim.target)
    kept = jnp.argmax(fn(z)) == y
    success = outcome.arrived & outcome.kept & kept
    return {**outcome._asdict(), "label_kept": kept, "success": success}


def literal(
    network: Network,
    config: "Config",
    weights: Weights,
    example: dict[str, Array],
    key: Key,
    *,
    attack: str,
    protocol: str,
    radius: Array,
    step_size: Array,
) -> Row:
    """Attack 1 as the authors' code counts it, of April or of May 2021.

    Whatever prototypes are the most similar are to be found anywhere but where they
    are; the target is closed to a rectangle, which is mostly the whole map, and its
    pixels, mostly the whole image, may change. Success is that the largest similarity
    has left the source. April tries one prototype and leaves the last row and column
    out of the source; May tries several until one succeeds, and takes the source of
    each but the first from the image that was made for the one before it.
    """
    x, size = example["image"], example["image"].shape[:2]
    tries, margin = (1, 0) if protocol == "april" else (config.tries, 1)
    fn = functools.partial(network.apply(), weights)
    similarity = functools.partial(network.apply("similarities"), weights)
    maps, y = similarity(x), jnp.argmax(fn(x))
    tries = min(tries, maps.shape[-1])
    _, chosen = jax.lax.top_k(jnp.max(maps, axis=(0, 1)), tries)

    def one(j: Array, key: Key) -> tuple[Array, ...]:
        source = shown(maps[..., j], size, margin=margin)
        target = prototypes.closed(~source)
        objective = objectives.prototype_moved(
            similarity, prototype=j, target=target, source=source
        )
        found = search(
            config,
            attack,
            objective,
            x,
            mask=prototypes.cell_pixels(target, size),
            radius=radius,
            step_size=step_size,
            key=key,
        )
        return similarity(found.x), jnp.argmax(fn(found.x)), source, target

    keys = jax.random.split(key, tries)
    after, labels, sources, targets = jax.lax.map(lambda xs: one(*xs), (chosen, keys))
    own = after[jnp.arange(tries), :, :, chosen]
    if tries > 1:  # the map of each prototype on the image made for the one before
        overwritten = after[jnp.arange(tries - 1), :, :, chosen[1:]]
        later = jax.vmap(lambda a: shown(a, size, margin=margin))(overwritten)
        sources = jnp.concatenate([sources[:1], later])
    there = jnp.max(own, axis=(1, 2), where=sources, initial=-jnp.inf)
    left = jnp.max(own, axis=(1, 2)) > there
    first = jnp.argmax(left)  # the first success, else the first try
    return {
        "success": jnp.any(left),
        "label_kept": labels[first] == y,
        "kept": jnp.max(own[first]) >= jnp.max(maps[..., chosen[first]]),
        "whole": jnp.all(targets[first]),
        "stalled": ~jnp.any(sources[0]) | ~jnp.any(targets[0]),
    }


def disappearance(
    network: Network,
    config: "Config",
    weights: Weights,
    example: dict[str, Array],
    key: Key,
    *,
    attack: str,
    radius: Array,
    step_size: Array,
) -> Row:
    """Attack 3: nothing looks like the most similar prototype any more.

    Only the pixels of the crop that is shown of it may change.
    """
    x, size = example["image"], example["image"].shape[:2]
    fn = functools.partial(network.apply(), weights)
    similarity = functools.partial(network.apply("similarities"), weights)
    maps, y = similarity(x), jnp.argmax(fn(x))
    j = jnp.argmax(jnp.max(maps, axis=(0, 1)))
    crop = prototypes.high_crop(prototypes.enlarge(maps[..., j], size))
    inside = protopnet_studies.widened(crop, size, 0)
    objective = objectives.prototype_absent(similarity, prototype=j)
    found = search(
        config,
        attack,
        objective,
        x,
        mask=inside,
        radius=radius,
        step_size=step_size,
        key=key,
    )
    after = similarity(found.x)
    rank = prototypes.rank(jnp.max(after, axis=(0, 1)), j)
    kept = jnp.argmax(fn(found.x)) == y
    return {
        "label": y,
        "prototype": j,
        "before": jnp.max(maps[..., j]),
        "after": jnp.max(after[..., j]),
        "rank": rank,
        "gone": rank > config.shown,
        "label_kept": kept,
        "gone_label_kept": (rank > config.shown) & kept,
        "linf": metrics.linf(x, found.x),
        "stalled": found.stalled,
        "image": x,
        "perturbed": found.x,
        "map_before": maps[..., j],
        "map_after": after[..., j],
        "source": inside,
    }


def accuracy(
    network: Network,
    config: "Config",
    weights: Weights,
    example: dict[str, Array],
    key: Key,
    *,
    radius: Array,
    step_size: Array,
) -> Row:
    """Whether an image is told right, as it is and under an attack on the label.

    Ten steps, untargeted, from a random start; the iterate that is furthest on the
    wrong side is looked at, so that one that was wrong at any time counts.
    """
    del config
    x, y = example["image"], example["label"]
    fn = functools.partial(network.apply(), weights)
    margin = objectives.margin(fn, y)
    found = attacks.pgd(
        objectives.cross_entropy(fn, y),
        x,
        radius=radius,
        step_size=step_size,
        steps=10,
        key=key,
        select=lambda z: -margin(z),
    )
    # where there was no gradient to follow nothing was tried, and nothing is known
    robust = jnp.where(found.stalled, jnp.nan, jnp.argmax(fn(found.x)) == y)
    return {"clean": jnp.argmax(fn(x)) == y, "robust": robust}
