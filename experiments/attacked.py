"""Attacks by name, as `fragility` compares them: the paper's, its code's, and nulls."""

import functools
from typing import Literal

import jax.numpy as jnp

from experiments import explained
from protojax import attacks, metrics, objectives
from protojax.contracts import Array, Fn, Key
from protojax.mechanisms import ascent

NAMES = (
    "top_k",
    "mass_center",
    "mass_center_truncated",
    "targeted",
    "eigenvector",
    "random",
    "random_best",
    "random_center",
    "random_walk",
)
"""What `attack` knows."""

Measure = Literal["objective", "overlap", "rank"]


def attack(
    name: str,
    fn: Fn,
    climbed: explained.Climbed,
    score: Fn,
    x: Array,
    *,
    k: int,
    radius: Array,
    step_size: Array,
    steps: int,
    key: Key,
    measure: Measure = "objective",
) -> ascent.Ascent:
    """Run one of the attacks that docs/fragility.md lists."""
    explain = climbed.explain
    before = explain(x)
    metric = {
        "objective": None,
        "overlap": lambda a, b: -metrics.top_k_intersection(a, b, k=k),
        "rank": lambda a, b: -metrics.rank_correlation(a, b),
    }[measure]
    climb = {"radius": radius, "step_size": step_size, "steps": steps}
    follow = {"twin": climbed.twin, "noise": climbed.noise, **climb}
    kept = functools.partial(objectives.label_kept, fn=fn, x=x)
    damage = lambda metric: kept(lambda z: metric(before, explain(z)))  # noqa: E731
    left = damage(metric) if metric else kept(objectives.top_k(explain, before, k=k))
    away = damage(metric or metrics.center_shift)
    signs = functools.partial(attacks.random_sign, x=x, radius=radius, key=key)
    match name:
        case "top_k":
            return attacks.top_k(fn, explain, x, k=k, measure=metric, **follow)
        case "mass_center" | "mass_center_truncated":
            recipe = getattr(attacks, name)
            return recipe(fn, explain, x, measure=metric, **follow)
        case "targeted":
            target = least_salient_quarter(before)
            return attacks.targeted(fn, explain, x, target=target, **follow)
        case "eigenvector":
            return attacks.eigenvector(
                left, x, score=score, radius=radius, key=key, num=2
            )
        case "random":  # whatever comes of it, be it another label
            return signs(functools.partial(metrics.linf, x))
        case "random_best":
            return signs(left, samples=steps)
        case "random_center":
            return signs(away, samples=looks_of_mass_center(steps))
        case "random_walk":
            return attacks.random_walk(left, x, key=key, **climb)
    raise ValueError(f"`attacks` has {name!r}: choose from {', '.join(NAMES)}")


def looks_of_mass_center(steps: int) -> int:
    """How many images `mass_center` looks at: its probes, and the climb."""
    return len(attacks.COMPASS) * max(1, steps // 10) + steps


def least_salient_quarter(a: Array) -> Array:
    """The quarter of a map that holds least of it: where a targeted attack draws it.

    Of the map that is climbed by, `[H, W]`; one inside and zero outside.
    """
    rows, columns = a.shape[0] // 2, a.shape[1] // 2
    down, across = jnp.arange(a.shape[0]) < rows, jnp.arange(a.shape[1]) < columns
    quarters = jnp.stack(
        [u[:, None] & v[None] for u in (down, ~down) for v in (across, ~across)]
    ).astype(a.dtype)
    return quarters[jnp.argmin(jnp.sum(quarters * a[None], axis=(1, 2)))]
