"""What `fragility` and `strength` look at: a network, and images that it gets right."""

import functools
from typing import Literal, NamedTuple

import jax
import numpy as np

from experiments import explained, networks, truths
from protojax import activations, parts
from protojax.contracts import Array, PyTree


class Subject(NamedTuple):
    """A network under attack.

    Attributes:
      network: with its weights.
      examples: `image`, `label`, `id` of those that it classifies correctly, and
        `truth` `[N, S, S]` where it is known which pixels decide.
      beta: sharpness of its softplus twin; 0 if it is smooth itself.
      color: where integrated gradients and DeepLIFT start.
    """

    network: networks.Network
    examples: dict[str, np.ndarray]
    beta: float
    color: tuple[float, ...]


def load(
    model: str,
    data: str | None,
    split: str | None,
    *,
    image_size: int | None,
    images: int,
    beta: float | None = None,
    baseline: Literal["black", "mean"] = "black",
) -> Subject:
    """Load network and images, and choose the twin's sharpness if it is not given."""
    network = networks.load(model, image_size=image_size)
    examples = networks.correct(network, data, split, count=images)
    source = data or network.images
    if source.partition(":")[0] == "parts":
        examples["truth"] = deciding_parts(network, source, split, examples)
    if beta is None:
        beta = typical_sharpness(network, examples["image"])
    color = (0.0, 0.0, 0.0)
    if baseline == "mean":
        color = tuple(np.mean(examples["image"], axis=(0, 1, 2)).tolist())
    return Subject(network, examples, beta, color)


def typical_sharpness(network: networks.Network, images: np.ndarray) -> float:
    """The median over images of the sharpness at which the twin is close."""

    def at(weights: PyTree, x: Array) -> Array:
        fn = functools.partial(network.fn, weights)
        return activations.sharpness(fn, x, c=explained.SHARPNESS)

    if not explained.has_relu(
        functools.partial(network.fn, network.weights), images[0]
    ):
        return 0.0
    each = jax.jit(lambda w, x: jax.lax.map(functools.partial(at, w), x))
    return float(np.median(each(network.weights, images[:16])))


def deciding_parts(
    network: networks.Network,
    source: str,
    split: str | None,
    examples: dict[str, np.ndarray],
) -> np.ndarray:
    """Where the parts are that tell a bird's class from the runner-up, `[N, S, S]`."""
    split, classes = split or "test", parts.KINDS[source.partition("#")[2]]
    birds = truths.birds(
        source, split, examples["id"].tolist(), image_size=network.image_size
    )
    look = jax.jit(jax.vmap(network.fn, (None, 0)))
    logits = look(network.weights, examples["image"])
    known = np.asarray(logits)[:, : len(classes)]  # yours may tell more apart
    ranked = np.argsort(-known, axis=-1)
    differ = parts.differing_parts(classes)[ranked[:, 0], ranked[:, 1]]
    return np.any(birds.masks & differ[:, :, None, None], axis=1).astype(np.float32)
