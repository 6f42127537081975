"""What prototypes are nearest to, and which parts they are found on."""

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import networks, protopnet_data, protopnet_network, truths
from experiments.protopnet_network import Network, Weights
from experiments.protopnet_training import Trained
from protojax import metrics, prototypes
from protojax.contracts import Array, Key, PyTree

if TYPE_CHECKING:
    from experiments.protopnet import Config
    from experiments.protopnet_setup import Setup

LARGE = 224
"""Pixels of the images that the published sizes of boxes are for; ours are in
proportion."""
PATCH, HALF = 32, 36
"""Side of the patch of purity; half the side of the box of consistency."""
SIGMA, MOST = 11.5 / 255, 14.4 / 255
"""Of the noise that stability is asked under, as published: 0.2, cut off at 0.25,
after normalization."""


class Near(NamedTuple):
    """What is nearest to each prototype.

    Attributes:
      own: the training image of its class that it was pushed to.
      train: ten training images of all classes, as purity asks for.
      test: four test images.
    """

    own: prototypes.Nearest
    train: prototypes.Nearest
    test: prototypes.Nearest


def near(config: "Config", setup: "Setup", trained: Trained) -> Near:
    """Go through all images once for each."""
    of = functools.partial(protopnet_network.nearest, *setup.for_lessons(trained))
    lessons = setup.lessons
    tests = protopnet_data.in_parts(lessons.test, config.push_batch)
    return Near(
        own=of(lessons.in_order(), k=1, own=True),
        train=of(lessons.in_order(), k=10, own=False),
        test=of(tests, k=4, own=False),
    )


def found_on_training(
    config: "Config", network: Network, found: prototypes.Nearest
) -> tuple[Array, Array]:
    """Which parts the nearest training patches lie on, and which are seen, `[P, k, K]`.

    Where there are fewer images than k, nothing is seen.
    """
    images, size = np.asarray(found.image), network.backbone.image_size
    known, place = np.unique(images[images >= 0], return_inverse=True)
    truth = truths.known(
        *(config.train, config.train_split, known),
        image_size=size,
        resize=config.resize,
    )
    where = np.zeros(images.shape, int)
    where[images >= 0] = place
    visible = truth["visible"][where] & (images >= 0)[..., None]
    patch = functools.partial(
        metrics.patch_box,
        grid=latent_grid(network),
        size=(size, size),
        patch=round(PATCH * size / LARGE),
    )

    def hits(cell: Array, points: Array, visible: Array) -> Array:
        return metrics.part_hits(patch(cell), points, visible)

    each = jax.jit(jax.vmap(jax.vmap(hits)))
    return each(found.cell, truth["points"][where], visible), visible


def latent_grid(network: Network) -> tuple[int, int]:
    """Height and width of the map that prototypes are compared with."""
    height, width, _ = network.backbone.shape
    rows, columns = network.head.window
    return height - rows + 1, width - columns + 1


def found_on(
    trained: Trained, images: np.ndarray, truth: truths.Truth, key: Key
) -> tuple[np.ndarray, np.ndarray]:
    """Which parts each prototype is found on, without noise and with, `[N, P, K]`."""
    half = round(HALF * images.shape[1] / LARGE)
    similarities = trained.network.apply("similarities")

    def hits(weights: Weights, x: Array, points: Array, visible: Array) -> Array:
        def of_map(a: Array) -> Array:
            box = metrics.peak_box(prototypes.enlarge(a, x.shape[:2]), half=half)
            return metrics.part_hits(box, points, visible)

        return jax.vmap(of_map, in_axes=2)(similarities(weights, x))

    def one(weights: Weights, example: PyTree) -> tuple[Array, Array]:
        x, points, visible, number = example
        noise = SIGMA * jax.random.normal(jax.random.fold_in(key, number), x.shape)
        noisy = jnp.clip(x + jnp.clip(noise, -MOST, MOST), 0, 1)
        before, after = (hits(weights, z, points, visible) for z in (x, noisy))
        return before, after

    numbers = np.arange(len(images))
    examples = images, truth["points"], truth["visible"], numbers
    return networks.mapped(one)(trained.weights, examples)


def plain(config: "Config", setup: "Setup") -> np.ndarray | None:
    """What a classifier without prototypes says of the test images, if there is one.

    It is the whole network that the backbone is a part of where that knows the classes,
    as those trained on the drawn birds do. Else, where the backbone stands still, a
    softmax layer on the means of its features, trained to the minimum of its loss.
    """
    images = setup.examples.test["image"]
    source, _, kinds = config.test.partition("#")
    if config.backbone in networks.BIRDS and source.startswith("parts") and not kinds:
        whole = networks.load(config.backbone, image_size=config.image_size)
        logits = networks.mapped(whole.fn)(whole.weights, images)
        return np.argmax(logits, axis=1)
    if setup.learner.backbone is setup.network.backbone:
        return None
    batches = list(setup.lessons.in_order())
    features = np.concatenate([batch["image"].mean((1, 2)) for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    return linear_guesses(features, labels, setup.lessons.test["image"].mean((1, 2)))


def linear_guesses(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, *, steps: int = 200
) -> np.ndarray:
    """What a softmax layer says, trained with an L2 penalty by L-BFGS."""
    center, scale = train.mean(0), train.std() + 1e-6
    features, count = jnp.asarray((train - center) / scale), int(labels.max()) + 1

    def loss(kernel: Array) -> Array:
        each = optax.softmax_cross_entropy_with_integer_labels(
            features @ kernel, jnp.asarray(labels)
        )
        return jnp.mean(each) + 1e-3 * jnp.sum(kernel**2)

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(state: PyTree, _: None) -> tuple[PyTree, None]:
        kernel, memory = state
        value, slope = value_and_grad(kernel, state=memory)
        change, memory = optimizer.update(
            slope, memory, kernel, value=value, grad=slope, value_fn=loss
        )
        return (optax.apply_updates(kernel, change), memory), None

    start = jnp.zeros((features.shape[1], count))
    run = jax.jit(lambda s: jax.lax.scan(step, s, None, length=steps)[0])
    kernel, _ = run((start, optimizer.init(start)))
    return np.argmax((test - center) / scale @ np.asarray(kernel), axis=1)
