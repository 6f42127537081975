"""What the benchmarks of `prototypes` time: works of ours on a ProtoPNet."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import timing, works
from protojax.mechanisms import ascent, lowering
from protojax.methods import objectives, prototypes
from protojax.models import protopnet

Array = jax.Array

RADIUS, STEP_SIZE = 8 / 255, 2 / 255
RATES = {"backbone": 1e-4, "add_on": 3e-3, "prototypes": 3e-3}
DECAY = 1e-3
MODEL = works.MODEL
FEATURES = protopnet.features(MODEL.apply, "fire9")

FLOORS = {
    "push": "latent maps of the images",
    "attack step": "a forward and a backward pass to the latent map",
}
"""The least that a work takes, measured as a part of it that cannot be left out."""


def whole(fn: Callable, *args: Any) -> timing.Program:
    """Compile a function of batches."""
    return timing.compiled(lowering.canonical(fn), *args)


def latent(net: protopnet.PrototypeHead, params: Any, x: Array) -> Array:
    """What prototypes are compared with, of one image: `[h, w, D]`."""
    return protopnet.attach(net, FEATURES, method="latent")(params, x)


def latents(net: protopnet.PrototypeHead, params: Any, x: Array) -> Array:
    """The same of many."""
    return jax.vmap(functools.partial(latent, net, params))(x)


def head(net: protopnet.PrototypeHead, params: Any, z: Array) -> Array:
    """Logits of one latent map, by distances and similarities."""
    return net.clone(add_on=_nothing).apply({"params": params}, z)


def _nothing(*_: Any) -> tuple:
    return ()


def trained(
    net: protopnet.PrototypeHead, params: Any, state: Any, x: Array, y: Array
) -> tuple[Array, Array, Any, Any]:
    """A step of joint training: the loss before it, how the prototypes moved, and all.

    Returns:
      The loss, the change of the prototypes, parameters and state after the step.
    """
    value, slope = jax.value_and_grad(functools.partial(loss, net))(params, x, y)
    updates, state = joint().update(slope, state, params)
    moved = updates["head"]["prototypes"]
    return value, moved, optax.apply_updates(params, updates), state


def joint() -> optax.GradientTransformation:
    """What the joint stage trains, and how: the last layer stands still."""

    def adam(rate: float, decay: float = 0.0) -> optax.GradientTransformation:
        decayed = optax.add_decayed_weights(decay)
        return optax.chain(decayed, optax.scale_by_adam(), optax.scale(-rate))

    groups = {
        "backbone": adam(RATES["backbone"], DECAY),
        "add_on_layers": adam(RATES["add_on"], DECAY),
        "prototypes": adam(RATES["prototypes"]),
        "last_layer": optax.set_to_zero(),
    }
    head = {name: name for name in list(groups)[1:]}
    return optax.partition(groups, {"backbone": "backbone", "head": head})


def loss(net: protopnet.PrototypeHead, params: Any, x: Array, y: Array) -> Array:
    """Cross-entropy, cluster, separation and L1 terms, weighted as published."""
    owners = jnp.asarray(net.owners)
    distances = protopnet.attach(net, FEATURES, method="distances")

    def one(x: Array, y: Array) -> Array:
        nearest = prototypes.min_distances(distances(params, x))
        logits = net.apply({"params": params["head"]}, nearest, method="classify")
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        cluster = prototypes.cluster(nearest, y, owners)
        return (
            entropy + 0.8 * cluster - 0.08 * prototypes.separation(nearest, y, owners)
        )

    l1 = prototypes.off_class_l1(params["head"]["last_layer"], owners)
    return jnp.mean(jax.vmap(one)(x, y)) + 1e-4 * l1


def pushed(net: protopnet.PrototypeHead, params: Any, x: Array, y: Array) -> Array:
    """The nearest patch of each prototype's class, zero where there is no image."""
    found = prototypes.nearest(
        latents(net, params, x),
        params["head"]["prototypes"],
        y,
        jnp.arange(len(y)),
        k=1,
        owners=net.owners,
    )
    return found.patch[:, 0]


def attacked(
    net: protopnet.PrototypeHead,
    params: Any,
    x: Array,
    regions: Mapping[str, Array],
    *,
    steps: int,
) -> Array:
    """Bare steps on one image: gradient, sign, projection.

    Only the prototype that is attacked is looked at.
    """
    vector = params["head"]["prototypes"][regions["prototype"]][None]

    def similarity(z: Array) -> Array:
        distances = prototypes.squared_distances(latent(net, params, z), vector)
        return prototypes.similarity(distances)

    objective = objectives.prototype_moved(
        similarity, prototype=0, target=regions["target"], source=regions["source"]
    )
    project = ascent.within(x, RADIUS, mask=regions["mask"][..., None])
    climb = lowering.canonical(jax.grad(objective))

    def step(z: Array, _: None) -> tuple[Array, None]:
        return project(z + STEP_SIZE * jnp.sign(climb(z))), None

    return jax.lax.scan(step, x, None, length=steps)[0]


def passes(net: protopnet.PrototypeHead, params: Any, x: Array) -> Array:
    """The gradient of a sum over latent maps: what an attack step cannot do without."""
    return jax.grad(lambda x: jnp.sum(latents(net, params, x)))(x)
