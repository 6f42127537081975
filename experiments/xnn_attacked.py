"""Attack the contributions of x-features, for `experiments.xnn`."""

import functools

import jax
import jax.numpy as jnp

from experiments import xnn_judged, xnn_methods
from protojax import activations, attacks, metrics, objectives, srae
from protojax.contracts import Array, Explain, Fn, Key, PyTree
from protojax.mechanisms import ascent

ATTACKS = ("top", "singular_vector", "eigenvector", "random_best")
"""`top` climbs away from the largest contribution, and back where the label is lost;
`singular_vector` follows the Jacobian of the contributions' shares, and `eigenvector`
the Hessian of the explanation network's score (of a smooth twin); `random_best` is the
best of as many random signs as `top` takes steps. All are judged by the same: the share
of the largest contribution that is gone, the label kept."""


def shares(parts: Array) -> Array:
    """Contributions as shares of their absolute sum; alike where all are zero."""
    sign = jnp.sign(jax.lax.stop_gradient(parts))
    sizes = parts * sign
    total = jnp.sum(sizes)
    none = total == 0
    return jnp.where(none, 1 / len(parts), sizes / jnp.where(none, 1, total))


def attack(
    name: str,
    fn: Fn,
    explain: Explain,
    score: Fn,
    x: Array,
    *,
    radius: Array,
    steps: int,
    beta: Array,
    key: Key,
) -> ascent.Ascent:
    """Run one of `ATTACKS`.

    `explain` gives the shares `[F]` of an image's contributions, `score` what the
    explanation network takes the logit for.
    """
    y = jnp.argmax(fn(x))
    away = objectives.top_k(explain, explain(x), k=1)
    kept = objectives.label_kept(away, fn, x)
    margin = objectives.margin(fn, y)
    if name == "top":
        knobs = {"radius": radius, "step_size": radius / 4, "steps": steps}
        climbed = objectives.label_regained(away, fn, x)
        return attacks.pgd(climbed, x, select=kept, **knobs)
    along = {"radius": radius, "keep": margin, "key": key, "steps": 16}
    if name == "singular_vector":
        return attacks.singular_vector(kept, x, explain=explain, **along)
    if name == "eigenvector":
        smooth = activations.replace(score, activations.softplus(beta))
        return attacks.eigenvector(kept, x, score=smooth, **along)
    if name == "random_best":
        return attacks.random_sign(kept, x, radius=radius, key=key, samples=steps)
    raise ValueError(f"`attacks` has {name!r}: choose from {', '.join(ATTACKS)}")


def one(
    layer: xnn_judged.Layer,
    reader: xnn_methods.Reader,
    steps: int,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    attack_by: str,
    radius: Array,
    beta: Array,
) -> dict[str, Array]:
    """Attack the contributions to the predicted class of one image.

    `weights` has the classifier's (`network`) and, for every class that is explained,
    the parameters, the column of its read-out, and whether its training diverged
    (`members`, `columns`, `diverged`, `[K, ...]`); `example` the image, another one of
    its class, and the place of the class.
    """
    x, c = example["image"], example["place"]
    params = jax.tree.map(lambda leaf: leaf[c], weights["members"])
    column = weights["columns"][c]
    readout = jnp.take(params["readout"]["kernel"], column, axis=1)
    fn = functools.partial(layer.fn, weights["network"])

    def contributions(z: Array) -> Array:
        features = xnn_judged.x_features(layer, reader, weights["network"], params, z)
        return srae.contributions(features, readout)

    found = attack(
        attack_by,
        fn,
        lambda z: shares(contributions(z)),
        lambda z: jnp.sum(contributions(z)),
        x,
        radius=radius,
        steps=steps,
        beta=beta,
        key=key,
    )
    a, b = contributions(x), contributions(found.x)
    row = {
        **moved(a, b),
        **{
            f"{k}_other": v
            for k, v in moved(a, contributions(example["other"])).items()
        },
        "score_before": jnp.sum(a),
        "score_after": jnp.sum(b),
        "logit_before": fn(x)[example["label"]],
        "logit_after": fn(found.x)[example["label"]],
        "label_kept": jnp.argmax(fn(found.x)) == jnp.argmax(fn(x)),
        "linf": metrics.linf(x, found.x),
        "found": found.step > 0,
        "stalled": found.stalled | weights["diverged"][c],
        "image": x,
        "perturbed": found.x,
        "before": a,
        "after": b,
    }
    return {"label": example["label"], **row}


def moved(a: Array, b: Array) -> dict[str, Array]:
    """How far contributions have moved."""
    first, second = srae.significant(a), srae.significant(b)
    lengths = jnp.linalg.norm(a) * jnp.linalg.norm(b)
    return {
        "cosine": jnp.sum(a * b) / lengths,
        "top_share": shares(b)[jnp.argmax(jnp.abs(a))],
        "top_kept": jnp.argmax(jnp.abs(a)) == jnp.argmax(jnp.abs(b)),
        "overlap": jnp.sum(first & second) / jnp.maximum(jnp.sum(first | second), 1),
        "change": jnp.sum(jnp.abs(a - b)) / jnp.sum(jnp.abs(a)),
    }
