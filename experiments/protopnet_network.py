"""A backbone and a head of prototypes as one network, applied to many images."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import backbones
from protojax import prototypes
from protojax.contracts import Array, Fn, PyTree
from protojax.mechanisms import lowering
from protojax.models import protopnet

Weights = tuple[PyTree, PyTree]
"""`(params, stats)`: `{"backbone": ..., "head": ...}`, and running statistics."""


class Network(NamedTuple):
    """A backbone with a head of prototypes on it.

    Attributes:
      backbone: from `backbones.load`.
      head: the head.
    """

    backbone: backbones.Backbone
    head: protopnet.PrototypeHead

    def apply(self, method: str = "__call__") -> Fn:
        """`((params, stats), x) -> ` logits, or what another method of the head gives.

        Batch norms apply their running statistics.
        """

        def applied(weights: Weights, x: Array) -> Any:
            params, stats = weights
            whole = {"backbone": backbones.merged(params["backbone"], stats)}
            attached = protopnet.attach(
                self.head, self.backbone.features, method=method
            )
            return attached({**whole, "head": params["head"]}, x)

        return applied


def nearest(
    network: Network,
    weights: Weights,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    k: int,
    own: bool,
) -> prototypes.Nearest:
    """The k nearest images of each prototype, of its own class or of all.

    Every local device looks at its share of each batch.
    """
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices), ("data",))
    whole, shares = (NamedSharding(mesh, PartitionSpec(*s)) for s in ((), ("data",)))
    nothing = prototypes.none_found(weights[0]["head"]["prototypes"], k=k)
    weights, found = jax.device_put((weights, nothing), whole)
    latent = jax.vmap(network.apply("latent"), (None, 0))

    def looked(weights: Any, found: prototypes.Nearest, batch: Any) -> Any:
        here = prototypes.nearest(
            latent(weights, batch["image"]),
            weights[0]["head"]["prototypes"],
            batch["label"],
            batch["id"],
            k=k,
            owners=network.head.owners if own else None,
        )
        return prototypes.merge(found, here)

    step, size = jax.jit(lowering.canonical(looked)), 0
    for batch in batches:
        size = size or -(-len(batch["id"]) // len(devices)) * len(devices)
        filled = jax.device_put(_filled(batch, size), shares)
        found = step(weights, found, filled)
    return jax.device_get(found)


def _filled(batch: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """A batch of so many, what is missing marked as no image."""
    missing = size - len(batch["id"])
    out = {}
    for name in ("image", "label", "id"):
        pad = [(0, missing)] + [(0, 0)] * (batch[name].ndim - 1)
        fill = -1 if name == "id" else 0
        out[name] = np.pad(batch[name], pad, constant_values=fill)
    return out


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that are told right."""
    return float(np.mean(np.argmax(logits, axis=1) == labels))
