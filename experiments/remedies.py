"""What the training of a prototype network is changed by: attacks, and compression.

Adversarial training makes of every batch one that is attacked by a single step, before
the network learns from it; compression changes the images themselves.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import protopnet_setup
from experiments.protopnet_data import Batch, Examples
from experiments.protopnet_network import Network, Weights
from experiments.protopnet_stages import Prepare
from protojax import compression, objectives
from protojax.contracts import Array, Fn, Key
from protojax.mechanisms import ascent

if TYPE_CHECKING:
    from experiments.protopnet import Config


def check(config: "Config") -> None:
    """Refuse to change images where features stand in their place."""
    if protopnet_setup.stands_still(config):
        raise ValueError(
            "`trained` asks for changed images, and the backbone is never trained, so "
            "that its features were computed once: let `network.warm_epochs` be fewer "
            "than `network.epochs`"
        )


def adversarial(*, radius: float, step_size: float) -> Prepare:
    """Fast adversarial training: one signed step on the cross-entropy, from anywhere.

    The step is taken on the network as it is in a test, running statistics applied, and
    its end is what is learned from, whether it is worse or not.

    Args:
      radius: of the L-infinity ball.
      step_size: of the step; the authors' is a quarter longer than the radius.

    Returns:
      What `protopnet_training.fit` takes as `prepare`.

    References:
      Wong, Rice and Kolter, Fast is better than free, 2020; Hoffmann et al. 2021.
    """

    def attacked(logits: Fn, x: Array, y: Array, key: Key) -> Array:
        project, loss = ascent.within(x, radius), objectives.cross_entropy(logits, y)
        start = project(x + jax.random.uniform(key, x.shape, x.dtype, -radius, radius))
        return project(start + step_size * jnp.sign(jax.grad(loss)(start)))

    def prepare(network: Network, weights: Weights, batch: Any, key: Key) -> Array:
        keys = jax.random.split(key, len(batch["label"]))
        fixed = jax.lax.stop_gradient(weights)
        logits = functools.partial(network.apply(), fixed)
        each = jax.vmap(functools.partial(attacked, logits))
        return each(batch["image"], batch["label"], keys)

    return prepare


def planted(examples: Examples, *, quality: int) -> Examples:
    """Every odd class compressed: in training, in the push and in the test."""

    def changed(batch: Batch) -> Batch:
        return compression.of_classes(batch, quality=quality)

    return examples._replace(
        batches=lambda start: map(changed, examples.batches(start)),
        in_order=lambda: map(changed, examples.in_order()),
        test=changed(examples.test),
    )


def at_random(examples: Examples, *, quality: int, share: float, seed: int) -> Examples:
    """Images of all classes compressed at random, drawn anew in every step.

    The push sees every image twice, as it is and compressed.
    """

    def batches(start: int) -> Iterator[Batch]:
        for step, batch in enumerate(examples.batches(start), start):
            rng = np.random.default_rng([seed, step])
            yield compression.at_random(batch, rng=rng, share=share, quality=quality)

    return examples._replace(
        batches=batches, in_order=lambda: _twice(examples.in_order, quality)
    )


def _twice(in_order: Callable[[], Iterable[Batch]], quality: int) -> Iterator[Batch]:
    count = 0
    for batch in in_order():
        count = max(count, int(np.max(batch["id"])) + 1)
        yield batch
    for batch in in_order():
        copies = everything(batch, quality=quality)
        yield {**copies, "id": batch["id"] + count}


def everything(batch: Batch, *, quality: int) -> Batch:
    """All images compressed, whatever their classes."""
    return compression.of_classes(batch, chosen=np.isfinite, quality=quality)
