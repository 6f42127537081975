"""What is done with decoders in `experiments.cladec`: measured, attacked, mapped."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from protojax import attacks, attributions, cladec, images, metrics, objectives
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.mechanisms import ascent

Explain = Callable[[PyTree, PyTree, Array], Array]
"""`(weights of the classifier, parameters of a decoder, x) -> [H, W, C]`."""

ATTACKS = ("pgd", "eigenvector", "random_best")
"""`pgd` climbs away from the explanation before, and back where the label is lost;
`eigenvector` follows the Hessian of the same distance; `random_best` is the best of as
many random signs as `pgd` takes steps. All keep the label, and are judged by the
distance."""

DECODED = {"agreement": ("cladec",), "kept_by_layer": ("cladec", "reference")}
"""Relevance maps of what was decoded from a layer, and by which decoders."""

SALIENCY = ("gradient", "integrated_gradients", "grad_cam")
"""Maps that know nothing of it; Grad-CAM is at the last feature map of the layers."""

MAPS = (*DECODED, *SALIENCY)
"""All of them."""


def judged(
    explain: Explain,
    fn: Fn,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    layer: str,
    kind: str,
) -> dict[str, Array]:
    """Measure one decoder on the test images.

    `weights` has the classifier's (`network`), `image` and `label`; `example` the
    parameters, and what they are of.
    """
    del key, layer, kind

    def one(given: tuple[Array, Array]) -> dict[str, Array]:
        x, y = given
        decoded = explain(weights["network"], example["params"], x)
        logits = fn(weights["network"], decoded)
        gray = [jnp.mean(each, axis=-1) for each in (x, decoded)]
        return {
            "rec": jnp.mean((x - decoded) ** 2),
            "rec_sum": jnp.sum((x - decoded) ** 2),
            "ssim": metrics.ssim(*gray, data_range=1.0),
            "ce": optax.softmax_cross_entropy_with_integer_labels(logits, y),
            "accuracy": jnp.argmax(logits) == y,
            "same_label": jnp.argmax(logits) == jnp.argmax(fn(weights["network"], x)),
        }

    each = jax.lax.map(one, (weights["image"], weights["label"]), batch_size=16)
    facts = {"alpha": example["alpha"], "evaluated": example["evaluated"]}
    means = {
        name: jnp.mean(values.astype(jnp.float32)) for name, values in each.items()
    }
    return {"seed": example["seed"], "stalled": example["diverged"], **facts, **means}


def attacked(
    explains: dict[str, Explain],
    fn: Fn,
    steps: int,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    layer: str,
    attack: str,
    alpha: Array,
    radius: Array,
) -> dict[str, Array]:
    """Attack what is decoded of one image, the label kept.

    `weights` has the classifier's (`network`), the `alphas` that there are, and by
    layer a decoder of each, `[A, ...]`: its `params`, and whether it `diverged`.
    """
    x, network = example["image"], weights["network"]
    place = jnp.argmin(jnp.abs(weights["alphas"] - alpha))
    decoder = jax.tree.map(lambda leaf: leaf[place], weights[layer])
    explain = lambda z: explains[layer](network, decoder["params"], z)  # noqa: E731
    model = functools.partial(fn, network)
    before = explain(x)
    away = lambda z: jnp.mean((explain(z) - before) ** 2)  # noqa: E731
    found = search(attack, away, model, x, radius=radius, steps=steps, key=key)
    after, other = explain(found.x), explain(example["other"])
    root = lambda a, b: jnp.sqrt(jnp.mean((a - b) ** 2))  # noqa: E731
    return {
        "label": example["label"],
        "moved": root(before, after),
        "relative": root(before, after) / root(before, other),
        "image_moved": root(x, found.x),
        "rec_before": root(x, before),
        "rec_after": root(found.x, after),
        "decoded_label_kept": jnp.argmax(model(before)) == jnp.argmax(model(after)),
        "label_kept": jnp.argmax(model(found.x)) == jnp.argmax(model(x)),
        "linf": metrics.linf(x, found.x),
        "found": found.step > 0,
        "stalled": found.stalled | decoder["diverged"],
        "image": x,
        "perturbed": found.x,
        "before": before,
        "after": after,
    }


def search(
    name: str, away: Fn, model: Fn, x: Array, *, radius: Array, steps: int, key: Key
) -> ascent.Ascent:
    """Run one of `ATTACKS` on a distance that is zero at the image."""
    kept = objectives.label_kept(away, model, x)
    if name == "pgd":  # from a random point: at the image there is nothing to climb
        knobs = {"step_size": radius / 4, "steps": steps, "key": key}
        climbed = objectives.label_regained(away, model, x)
        return attacks.pgd(climbed, x, radius=radius, select=kept, **knobs)
    if name == "eigenvector":
        margin = objectives.margin(model, jnp.argmax(model(x)))
        return attacks.eigenvector(
            kept, x, score=away, radius=radius, key=key, keep=margin, steps=16
        )
    if name == "random_best":
        return attacks.random_sign(kept, x, radius=radius, key=key, samples=steps)
    raise ValueError(f"`attacks` has {name!r}: choose from {', '.join(ATTACKS)}")


def mapped(
    explains: dict[str, dict[str, Explain]],
    fn: Fn,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    layer: str,
    map_by: str,
) -> dict[str, Array]:
    """Judge one relevance map of one image by deletion and insertion.

    `weights` has the classifier's (`network`), and by layer and kind a decoder: its
    `params`, and whether it `diverged`.
    """
    del key
    x, network = example["image"], weights["network"]
    model = functools.partial(fn, network)
    y = jnp.argmax(model(x))
    score = lambda z: model(z)[y]  # noqa: E731
    decoded = {
        kind: explain(network, weights[layer][kind]["params"], x)
        for kind, explain in explains[layer].items()
    }
    if map_by == "agreement":
        a = cladec.agreement(x, decoded["cladec"])
    elif map_by == "kept_by_layer":
        a = cladec.kept_by_layer(x, decoded["cladec"], decoded["reference"])
    else:
        knobs = {"layer": layer} if map_by == "grad_cam" else {}
        found = getattr(attributions, map_by)(score, x, **knobs)
        sizes = jnp.sum(jnp.abs(found), axis=-1, keepdims=True)
        a = images.gaussian_blur(sizes, sigma=1.0)[..., 0]
    needed = DECODED.get(map_by, ())
    diverged = [weights[layer][kind]["diverged"] for kind in needed]
    blurred = images.gaussian_blur(x, sigma=max(x.shape[:2]) / 8)
    knobs = {"baseline": blurred, "steps": 16}
    return {
        "label": example["label"],
        "deletion": metrics.deletion(model, x, a, y, **knobs).area,
        "insertion": metrics.insertion(model, x, a, y, **knobs).area,
        "stalled": jnp.any(jnp.asarray(diverged, bool)),
        "image": x,
        "map": a,
        **decoded,
    }
