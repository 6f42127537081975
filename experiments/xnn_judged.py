"""What a trained explanation network is worth, for `experiments.xnn`.

`judged` is a function of one network and one class; a sweep runs it over all of them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import xnn_methods
from protojax import activations, attributions, srae
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.mechanisms import lowering


class Layer(NamedTuple):
    """The layer that is explained, and where maps of its x-features are read.

    Attributes:
      fn: the classifier, `(weights, x) -> logits`.
      name: of the layer.
      units: from its value to units `[S]`.
      map_at: the layer at which maps are read; the image itself if empty.
    """

    fn: Fn
    name: str
    units: Fn
    map_at: str


def x_features(
    layer: Layer, reader: xnn_methods.Reader, weights: PyTree, params: PyTree, x: Array
) -> Array:
    """The x-features of an image, `[F]`."""
    fn = functools.partial(layer.fn, weights)
    return srae.attached(
        fn, layer.name, lambda h: reader.features(params, layer.units(h))
    )(x)


def x_feature(
    layer: Layer, reader: xnn_methods.Reader, weights: PyTree, params: PyTree
) -> Fn:
    """The x-features as a function of the image, before their last non-linearity."""
    fn = functools.partial(layer.fn, weights)
    return srae.attached(fn, layer.name, lambda h: reader.drawn(params, layer.units(h)))


def maps(
    layer: Layer, reader: xnn_methods.Reader, weights: PyTree, params: PyTree, x: Array
) -> Array:
    """Where each x-feature looks, `[F, h, w]`: excitation backprop from its unit."""
    drawn = x_feature(layer, reader, weights, params)
    fn = functools.partial(layer.fn, weights)

    def above(h: Array) -> Array:
        if not layer.map_at:
            return drawn(h)
        if layer.map_at == layer.name:
            return reader.drawn(params, layer.units(h))
        return activations.intervene(drawn, layer.map_at)(x, h)

    at = x
    if layer.map_at:
        at = activations.layer(fn, layer.map_at)(x)
    count = jax.eval_shape(drawn, x).shape[0]

    def one(start: Array) -> Array:
        found = activations.excitation(above, at, start=start)
        return jnp.sum(found.reshape(-1, *found.shape[-3:]), axis=(0, -1))

    return jax.lax.map(lowering.canonical(one), jnp.eye(count, dtype=x.dtype))


KINDS = {
    "excitation backprop": None,
    "gradient": attributions.gradient,
    "integrated gradients": functools.partial(
        attributions.integrated_gradients, steps=16
    ),
    "I-GOS": lambda score, x: attributions.igos(
        score, x, key=jax.random.key(0), size=16, smooth=2.0, points=10
    ),
}
"""Ways to look at one x-feature, for comparison."""


def kinds(
    layer: Layer,
    reader: xnn_methods.Reader,
    weights: PyTree,
    params: PyTree,
    x: Array,
    f: Array,
) -> dict[str, Array]:
    """Where one x-feature looks, by each of `KINDS`: maps `[h, w]`."""
    drawn = x_feature(layer, reader, weights, params)
    size = jnp.maximum(jnp.abs(drawn(x)[f]), 1e-6)

    def score(z: Array) -> Array:
        return jax.nn.relu(drawn(z)[f]) / size

    found = {}
    for name, attribution in KINDS.items():
        if attribution is None:
            found[name] = maps(layer, reader, weights, params, x)[f]
        else:
            found[name] = attributions.heatmap(attribution(score, x))
    return found


def judged(
    layer: Layer,
    reader: xnn_methods.Reader,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    method: str,
) -> dict[str, Array]:
    """Measure one network on held-out images, for one of its classes.

    `weights` has the test set (`z`, `logits`, `labels`, `scale` of the scores,
    `variants`) and images of each class with the masks of their parts (`shown`,
    `masks`), if they are known; `example` the parameters and what they are of.
    """
    del key, method
    params, c, column = example["params"], example["c"], example["column"]
    z, logits, labels = weights["z"], weights["logits"], weights["labels"]
    readout = params["readout"]["kernel"][:, column]
    features = reader.features(params, z)
    parts = srae.contributions(features, readout) / weights["scale"]
    predicted = jnp.sum(parts, axis=1) + (
        params["readout"]["bias"][column] / weights["scale"]
    )
    own = labels == c
    scores = jnp.take(logits, c, axis=1)
    everywhere = srae.regression(predicted, scores)
    inside = srae.regression(predicted, scores, where=own)
    back = srae.classification(logits, predicted, c, labels)
    apart = srae.correlations(parts)
    needed = jax.vmap(srae.significant)(parts)
    decoded = reader.decoded(params, z)
    span = jnp.max(scores) - jnp.min(scores)
    row = {
        "label": c,
        "seed": example["seed"],
        "round": example["round"],
        "accepted": example["accepted"],
        "epochs": example["epochs"],
        "stalled": example["diverged"],
        "r2": everywhere.r2,
        "r2_class": inside.r2,
        "rmse": everywhere.rmse,
        "rmse_share": everywhere.rmse / span,
        "rmse_class_share": inside.rmse / span,
        "mae": everywhere.mae,
        "accuracy_before": back.accuracy_before,
        "accuracy_after": back.accuracy,
        "probability_moved": back.probability,
        "agreement": back.agreement,
        "alive": jnp.sum(apart.alive),
        "shared_variance": srae.shared_variance(apart),
        "redundancy": srae.redundancy(apart),
        "significant": jnp.sum(needed & own[:, None]) / jnp.sum(own),
        "explained_variance": srae.explained_variance(z, decoded),
        "hoyer": jnp.nanmean(srae.hoyer(features)),
        "features": parts,
    }
    if "variants" in weights:
        row |= concepts_known(features, weights["variants"], own)
    if "masks" in weights:
        row |= locality(layer, reader, weights, params, c)
    return row


def concepts_known(features: Array, variants: Array, own: Array) -> dict[str, Array]:
    """How well live x-features follow one variant of one part, or just the class."""
    both = jnp.concatenate([features, variants, own[:, None]], axis=1)
    found = srae.correlations(both)
    count = features.shape[1]
    alive = found.alive[:count]
    alike = jnp.abs(found.matrix[:count, count:])
    total = jnp.maximum(jnp.sum(alive), 1)
    return {
        "variant": jnp.sum(jnp.max(alike[:, :-1], axis=1) * alive) / total,
        "class": jnp.sum(alike[:, -1] * alive) / total,
    }


def locality(
    layer: Layer, reader: xnn_methods.Reader, weights: PyTree, params: PyTree, c: Array
) -> dict[str, Array]:
    """How few parts the x-features of a class look at, over images of the class."""
    shown, masks = weights["shown"][c], weights["masks"][c]

    def one(given: tuple[Array, Array]) -> tuple[Array, Array]:
        x, parts = given
        found = maps(layer, reader, weights["network"], params, x)
        size = x.shape[:2]
        large = jax.vmap(lambda a: jax.image.resize(a, size, "linear"))(found)
        shares = jax.vmap(srae.part_shares, (0, None))(large, parts)
        active = x_features(layer, reader, weights["network"], params, x)
        return shares, (active != 0) & jnp.all(jnp.isfinite(shares), axis=1)

    shares, active = jax.lax.map(one, (shown, masks))
    used = jnp.sum(active, axis=0)
    mean = jnp.sum(jnp.where(active[..., None], shares, 0), axis=0)
    mean = mean / jnp.maximum(used, 1)[:, None]
    each = jax.vmap(srae.spread)(mean)
    alive = used > 0
    total = jnp.sum(alive)

    def over(values: Array) -> Array:
        return jnp.sum(jnp.where(alive, values, 0)) / total

    return {
        "locality": over(each),
        "largest_part": over(jnp.max(mean[:, :-1], axis=1)),
        "on_bird": over(1 - mean[:, -1]),
    }
