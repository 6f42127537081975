"""Attacks along leading vectors beside others of equal budget: a study of `hessian`."""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from experiments import attacked, explained, hessian_studies
from protojax import attacks, metrics, objectives
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.mechanisms import ascent

if TYPE_CHECKING:
    from experiments.hessian import Config

NAMES = (
    "hessian",
    "jacobian",
    "jacobian_across",
    "gradient",
    "random",
    "random_best",
    "top_k",
)
"""What `search` knows, and holds to a budget."""

ROUNDS = 2
"""Rounds of the fixed point in a box, for each sign of a leading vector."""

SPENT = 4 * ROUNDS + 2
"""Products in these rounds, and beside the steps of Lanczos. (Of the latter there are
two more where a product with the transpose comes with each.)"""


def equal_budget(
    fn: Fn,
    config: "Config",
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    attribution: str,
    attack: str,
    radius: Array,
    step_size: Array,
    beta: Array,
) -> hessian_studies.Row:
    """Attack the explanation of one image, and measure on the network itself."""
    seen = hessian_studies.see(fn, weights, example["image"], beta)
    attack_key, climbed_key, judged_key = jax.random.split(key, 3)
    k, x = explained.k_of(config.k, seen.x), seen.x
    climbed = explained.climbed(
        *(attribution, config.attack_points, climbed_key, seen.model, seen.y, x),
        beta=beta,
    )
    find = functools.partial(search, attack, seen, climbed, config.budget, k=k)
    found = find(radius=radius, step_size=step_size, key=attack_key)
    judge = functools.partial(
        explained.explanation,
        *(attribution, config.points, judged_key, seen.model, seen.y),
    )
    a, b = jax.lax.map(judge, jnp.stack([x, found.x]))
    return {
        **explained.compared(a, b, k),
        "center": metrics.center_shift(a, b),
        "moved": jnp.sum(jnp.abs(a - b)) / 2,
        **explained.outcome(seen.model, x, seen.y, found),
        "image": x,
        "perturbed": found.x,
        "before": a,
        "after": b,
    }


def search(
    name: str,
    seen: hessian_studies.Seen,
    climbed: explained.Climbed,
    budget: int,
    *,
    k: int,
    radius: Array,
    step_size: Array,
    key: Key,
) -> ascent.Ascent:
    """Run an attack with a budget of products with an operator, of steps, or of draws.

    All but `random` choose by the saliency that leaves the top k, among those images
    that keep the label.
    """
    x, model, before = seen.x, seen.model, climbed.explain(seen.x)
    left = objectives.label_kept(
        objectives.top_k(climbed.explain, before, k=k), model, x
    )
    follow = {"radius": radius, "key": key, "rounds": ROUNDS}
    match name:
        case "hessian":
            steps = budget - SPENT
            return attacks.eigenvector(left, x, score=seen.score, steps=steps, **follow)
        case "jacobian" | "jacobian_across":
            margin = objectives.margin(model, seen.y)
            return attacks.singular_vector(
                left,
                x,
                explain=climbed.twin,
                steps=(budget - SPENT) // 2,  # each with the transpose
                keep=margin if name == "jacobian_across" else None,
                **follow,
            )
        case "gradient":
            once = {"radius": radius, "step_size": radius, "steps": 1, "select": left}
            up = objectives.logit(model, seen.y)
            down = lambda z: -up(z)  # noqa: E731
            one, other = (attacks.pgd(way, x, **once) for way in (up, down))
            return jax.tree.map(
                functools.partial(jnp.where, one.value >= other.value), one, other
            )
    return attacked.attack(
        name,
        model,
        climbed,
        seen.score,
        x,
        k=k,
        radius=radius,
        step_size=step_size,
        steps=budget,
        key=key,
    )
