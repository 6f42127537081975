"""How a ProtoPNet is trained: its stages, what each of them trains, and the loss."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import augmentation, backbones
from experiments.protopnet_network import Network, Weights
from protojax import prototypes
from protojax.contracts import Array, Key, PyTree

if TYPE_CHECKING:
    from experiments.protopnet import Config

Prepare = Callable[[Network, Weights, Mapping[str, Array], Key], Array]
"""`(network, weights, batch, key) -> images`: what is trained on instead of the images.

The network is that of the stage: after pruning it has fewer prototypes.
"""


class Stage(NamedTuple):
    """A stretch of training.

    Attributes:
      kind: `warm`, `joint`, `push`, `last` or `prune`.
      steps: how many training steps; none in a push.
    """

    kind: str
    steps: int


def stages(config: "Config", epoch: int) -> list[Stage]:
    """The stages of a training, in order, for epochs of so many steps.

    The last layer is trained after every push, unless similarity is linear.
    """
    plan: list[Stage] = []
    last = [Stage("last", config.last_epochs * epoch)]
    if config.similarity == "linear" or not config.last_epochs:
        last = []
    for number in range(1, config.epochs + 1):
        kind = "warm" if number <= config.warm_epochs else "joint"
        before = plan.pop().steps if plan and plan[-1].kind == kind else 0
        plan.append(Stage(kind, before + epoch))
        if number in config.pushes:
            plan += [Stage("push", 0), *last]
    return plan + ([Stage("prune", 0), *last] if config.needed else [])


def optimizers(
    config: "Config", params: PyTree, epoch: int
) -> dict[str, optax.GradientTransformation]:
    """The optimizer of each kind of stage; what a stage does not train is set to zero.

    Weight decay is added to the gradient before Adam sees it, and counts for biases and
    scales too. The rates of joint stages fall by ten every few epochs of them.
    """

    def adam(rate: Any, decay: float = 0.0) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(decay),
            optax.scale_by_adam(),
            optax.scale_by_learning_rate(rate),
        )

    def falling(rate: float) -> Callable[[Any], Any]:
        def at(step: Any) -> Any:
            turns = (step // epoch + config.rate_offset) // config.rate_every
            return rate * 0.1**turns

        return at

    warm = {
        "add_on_layers": adam(config.rate, config.decay),
        "prototypes": adam(config.rate),
    }
    joint = {
        "backbone": adam(falling(config.backbone_rate), config.decay),
        "add_on_layers": adam(falling(config.rate), config.decay),
        "prototypes": adam(falling(config.rate)),
    }
    last = {"last_layer": adam(config.last_rate)}
    labels = {
        "backbone": "backbone",
        "head": {name: name for name in params["head"]},
    }
    return {
        kind: optax.partition(
            dict.fromkeys(["backbone", *params["head"]], optax.set_to_zero()) | groups,
            labels,
        )
        for kind, groups in {"warm": warm, "joint": joint, "last": last}.items()
    }


def in_turn(
    kind: str, config: "Config", params: PyTree, epoch: int
) -> optax.GradientTransformation:
    """The optimizer of a kind of stage, with the memory of all of them."""
    all_of = optimizers(config, params, epoch)

    def init(params: PyTree) -> dict[str, Any]:
        return {name: optimizer.init(params) for name, optimizer in all_of.items()}

    def update(updates, state, params=None):
        updates, after = all_of[kind].update(updates, state[kind], params)
        return updates, {**state, kind: after}

    return optax.GradientTransformation(init, update)


def loss(
    network: Network,
    config: "Config",
    prepare: Prepare | None,
    params: PyTree,
    stats: PyTree,
    batch: Mapping[str, Array],
    key: Key,
) -> tuple[Array, tuple[PyTree, dict[str, Array]]]:
    """Cross-entropy, cluster, separation and L1 terms of a batch.

    Batch norms of a backbone live in every stage where they live at all, as published:
    the warm stage and that of the last layer change their statistics too.
    """
    change, other = jax.random.split(key)
    if config.augmentation:
        keys = jax.random.split(change, len(batch["label"]))
        augment = functools.partial(augmentation.augment, elastic=config.elastic)
        images = jax.vmap(lambda x, key: augment(x, key=key))(batch["image"], keys)
        batch = {**batch, "image": images}
    images = batch["image"]
    if prepare is not None:
        images = prepare(network, (params, stats), batch, other)
    owners = jnp.asarray(network.head.owners)
    head = functools.partial(network.head.apply, {"params": params["head"]})

    def one(x: Array, y: Array) -> tuple[dict[str, Array], PyTree]:
        weights, after = backbones.merged(params["backbone"], stats), stats
        if config.batch_norm == "live":
            features, found = network.backbone.live(weights, x)
            after = {"batch_stats": found}
        else:
            features = network.backbone.features(weights, x)
        distances = head(features, method="distances")
        nearest = prototypes.min_distances(distances)
        logits = head(nearest, method="classify")
        terms = {
            "cross_entropy": optax.softmax_cross_entropy_with_integer_labels(logits, y),
            "cluster": prototypes.cluster(nearest, y, owners),
            "separation": prototypes.separation(nearest, y, owners),
            "mean_separation": prototypes.mean_separation(nearest, y, owners),
            "accuracy": (jnp.argmax(logits) == y).astype(logits.dtype),
        }
        return terms, after

    spread = jax.vmap(one, out_axes=(0, None), axis_name="batch")
    terms, after = spread(images, batch["label"])
    log = {name: jnp.mean(values) for name, values in terms.items()}
    log["l1"] = prototypes.off_class_l1(params["head"]["last_layer"], owners)
    total = (
        log["cross_entropy"]
        + config.cluster * log["cluster"]
        - config.separation * log["separation"]
        + config.l1 * log["l1"]
    )
    return total, (after, log)
