"""A last layer on the fixed features of a network, trained until nothing is left to do.

Influence functions speak of the minimum of the training loss. A softmax layer with an
L2 penalty has one, Newton's method finds it, and leaving an image out is as easy.
"""

import functools
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from experiments import networks
from protojax import activations, data, influence
from protojax.contracts import Array, Fn, PyTree
from protojax.scale import sources

Examples = dict[str, np.ndarray]

SMALL = 1e-7
"""The largest entry of a gradient that counts as zero; features are of length one."""


def pair_of_classes(
    network: networks.Network,
    source: str | None,
    split: str | None,
    classes: tuple[int, int],
    seed: int,
) -> Examples:
    """The images of two classes, shuffled, the classes alternating as long as they do.

    Returns `image`, `label` (0 and 1, in the order of `classes`) and `id`.
    """
    source = networks.expand(source or network.images)
    found = data.load(
        source,
        split or sources.usual_split(source),
        image_size=network.image_size,
        resize=network.resize,
    )
    shuffled = np.random.default_rng(seed).permutation(len(found["label"]))
    each = [shuffled[found["label"][shuffled] == label] for label in classes]
    for label, places in zip(classes, each, strict=True):
        if not len(places):
            known = sorted(set(found["label"].tolist()))
            raise ValueError(
                f"`classes` has {label}, and {source!r} has no image of it: it has "
                f"the classes {', '.join(map(str, known))}"
            )
    count = min(map(len, each))
    order = np.stack([places[:count] for places in each], axis=1).ravel()
    chosen = {name: values[order] for name, values in found.items()}
    return {**chosen, "label": np.tile(np.arange(2, dtype=np.int32), count)}


def usual_layer(network: networks.Network, x: np.ndarray) -> str:
    """The last layer that has not one channel for each logit: what the logits see."""
    fn = functools.partial(network.fn, network.weights)
    logits = jax.eval_shape(fn, x).shape[-1]
    layers = activations.layers(fn, x)
    names = [name for name, one in layers.items() if one.shape[-1:] != (logits,)]
    if not names:
        raise ValueError("`layer` must be named: there is none before the logits")
    return names[-1]


def features(fn: Fn, layer: str, weights: PyTree, x: Array) -> Array:
    """A layer of a network, averaged over positions where it has any: `[F]`."""
    _, found = activations.record(functools.partial(fn, weights), [layer])(x)
    value = found[layer]
    return jnp.mean(value.reshape(-1, value.shape[-1]), axis=0)


def all_features(
    network: networks.Network, layer: str, images: np.ndarray, *, chunk: int = 16
) -> np.ndarray:
    """Features of many images, `[N, F]`."""
    one = functools.partial(features, network.fn, layer)
    return networks.mapped(one, chunk=chunk)(network.weights, images)


class Fitted(NamedTuple):
    """A trained last layer.

    Attributes:
      head: `kernel` `[F, K]` and `bias` `[K]`.
      slope: `[]` the largest entry of the gradient that is left.
    """

    head: dict[str, Array]
    slope: Array


def fit(
    train: dict[str, Array],
    l2: Array | float,
    *,
    start: dict[str, Array],
    weights: Array | None = None,
    steps: int = 30,
) -> Fitted:
    """Minimize the mean cross-entropy plus `l2 / 2` times the squared length.

    Newton's method; of eight step lengths the best is taken. `weights` `[N]` are those
    of the images in the mean, which is over N whatever they are.
    """
    flat, unravel = jax.flatten_util.ravel_pytree(start)
    count = len(train["label"])
    weights = jnp.ones(count) if weights is None else weights
    lengths = 0.5 ** jnp.arange(8)

    def objective(flat: Array) -> Array:
        each = jax.vmap(influence.softmax_loss, (None, 0))(unravel(flat), train)
        return jnp.mean(weights * each) + l2 / 2 * jnp.sum(flat**2)

    slope_of = jax.grad(objective)

    def newton(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        flat, slope, step = state
        hessian = influence.softmax_hessian(
            unravel(flat), train["features"], weights=weights
        )
        factor = jax.scipy.linalg.cho_factor(hessian + l2 * jnp.eye(flat.size))
        way = jax.scipy.linalg.cho_solve(factor, slope)
        tried = jax.lax.map(lambda length: objective(flat - length * way), lengths)
        flat = flat - lengths[jnp.argmin(tried)] * way
        return flat, slope_of(flat), step + 1

    def going_on(state: tuple[Array, Array, Array]) -> Array:
        _, slope, step = state
        return (step < steps) & (jnp.max(jnp.abs(slope)) > SMALL)

    with jax.default_matmul_precision("highest"):
        begin = flat, slope_of(flat), jnp.int32(0)
        flat, slope, _ = jax.lax.while_loop(going_on, newton, begin)
    return Fitted(unravel(flat), jnp.max(jnp.abs(slope)))


def without(
    train: dict[str, Array],
    l2: Array | float,
    head: dict[str, Array],
    left_out: Array,
) -> Fitted:
    """The layer trained anew without each of some images in turn, from `head` on.

    What remains of the loss is not scaled up: its weights stay 1 / N.
    """
    count = len(train["label"])

    def one(place: Array) -> Fitted:
        kept = jnp.ones(count).at[place].set(0.0)
        return fit(train, l2, start=head, weights=kept)

    return jax.lax.map(one, left_out)
