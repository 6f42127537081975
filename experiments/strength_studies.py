"""What `strength` does to one image in each of its three studies."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from experiments import explained
from protojax import attacks, metrics, objectives
from protojax.contracts import Array, Explain, Fn, Key, PyTree
from protojax.mechanisms import ascent

if TYPE_CHECKING:
    from experiments.strength import Config

RANDOM = "random"
"""What stands in the transfer matrix for no attack at all: one draw of signs."""


def varied(
    fn: Fn,
    config: "Config",
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    steps: int,
    starts: int,
    sharpness: Array,
    unit: Array,
    radius: Array,
    step_size: Array,
) -> dict[str, Array]:
    """Attack one explanation from the image itself (no starts), or from random ones."""
    target = explained.target(fn, weights, example["image"], config.k)
    start_key, climbed_key, judged_key = jax.random.split(key, 3)
    beta = sharpness * unit
    climbed = target.climbed(
        config.attribution, config.attack_points, climbed_key, beta=beta
    )
    climb = {"radius": radius, "step_size": step_size, "steps": steps}
    attack = lambda start: top_k(target, climbed, key=start, **climb)  # noqa: E731
    if starts:
        each = jax.vmap(attack)(jax.random.split(start_key, starts))
    else:
        each = jax.tree.map(lambda leaf: leaf[None], attack(None))
    judge = target.judge(config.attribution, config.points, judged_key)
    found = {"best": each.x[jnp.argmax(each.value)], "first": each.x[0]}
    images = jnp.stack([target.x, *found.values()])
    before, *after = jax.lax.map(judge, images)
    smooth = explained.smooth_twin(target.model, beta, target.x)
    row = {
        "beta": beta,
        "stalled": jnp.all(each.stalled),
        "twin_agrees": jnp.argmax(smooth(target.x)) == target.y,
    }
    for (name, z), a in zip(found.items(), after, strict=True):
        same = explained.compared(before, a, target.k)
        row |= {f"{name}_{what}": m for what, m in same.items()}
        row[f"{name}_found"] = jnp.any(z != target.x)
    return row


def transferred(
    fn: Fn,
    config: "Config",
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    attack_on: str,
    beta: Array,
    radius: Array,
    step_size: Array,
) -> dict[str, Array]:
    """Attack one explanation, and see how far each of them moved."""
    target = explained.target(fn, weights, example["image"], config.k)
    x, k = target.x, target.k
    attack_key, judged_key = jax.random.split(key)
    if attack_on == RANDOM:
        distance = functools.partial(metrics.linf, x)
        any_kept = objectives.label_kept(distance, target.model, x)
        found = attacks.random_sign(any_kept, x, radius=radius, key=attack_key)
    else:
        climbed = target.climbed(attack_on, config.attack_points, attack_key, beta=beta)
        climb = {"radius": radius, "step_size": step_size, "steps": config.climb}
        found = top_k(target, climbed, **climb)
    row = {"found": jnp.any(found.x != x), "stalled": found.stalled}
    maps = {"before": [], "after": []}
    for name in (*config.attributions, *config.bystanders):
        judge = target.judge(name, config.points, judged_key)
        a, b = jax.lax.map(judge, jnp.stack([x, found.x]))
        row |= {f"{what}_{name}": m for what, m in explained.compared(a, b, k).items()}
        maps["before"].append(a)
        maps["after"].append(b)
    pictures = {name: jnp.stack(each) for name, each in maps.items()}
    return {**row, **pictures, "image": x, "perturbed": found.x}


def seeded(
    fn: Fn,
    config: "Config",
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    attack_on: str,
    samples: int,
    beta: Array,
    radius: Array,
    step_size: Array,
) -> dict[str, Array]:
    """Attack SmoothGrad with noise of its own; judge it with that and with other."""
    target = explained.target(fn, weights, example["image"], config.k)
    x = target.x
    own, *others = jax.random.split(key, 3)
    climbed = target.climbed(attack_on, samples, own, beta=beta)
    climb = {"radius": radius, "step_size": step_size, "steps": config.climb}
    found = top_k(target, climbed, **climb)

    def maps(explain: Explain) -> Array:
        """Before and after."""
        return jax.lax.map(explain, jnp.stack([x, found.x]))

    def drawn(noise: Key) -> Array:
        return maps(target.judge(attack_on, samples, noise))

    other, another = jax.lax.map(drawn, jnp.stack(others))
    row = {"found": jnp.any(found.x != x), "stalled": found.stalled}
    pairs = {
        "own": maps(climbed.explain),
        "other": other,
        "many": maps(target.judge(attack_on, config.points, others[0])),
        "floor": (other[0], another[0]),
    }
    for name, (a, b) in pairs.items():
        same = explained.compared(a, b, target.k)
        row |= {f"{what}_{name}": m for what, m in same.items()}
    return row


def top_k(
    target: explained.Target, climbed: explained.Climbed, **climb: Any
) -> ascent.Ascent:
    """Run the top-k attack on an explanation."""
    follow = {"twin": climbed.twin, "noise": climbed.noise, "k": target.k, **climb}
    return attacks.top_k(target.model, climbed.explain, target.x, **follow)
