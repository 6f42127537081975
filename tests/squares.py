"""Squares of three colors and a network of one convolution, for tests of ProtoPNet."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from experiments import protopnet, protopnet_training


def network():
    """Two convolutions, of which the first is looked at; a classifier nobody needs."""
    draw = np.random.default_rng(0)
    weights = {
        "seen": {"kernel": np.float32(draw.normal(size=(3, 3, 3, 6)) / 3)},
        "unseen": {"kernel": np.float32(draw.normal(size=(6, 40)))},
    }

    def fn(weights, x):
        h = jax.lax.conv_general_dilated(
            x[None] - 0.5,
            weights["seen"]["kernel"],
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[0]
        h = checkpoint_name(jax.nn.relu(h), "map")
        return jnp.mean(h, axis=(0, 1)) @ weights["unseen"]["kernel"]

    return fn, weights


def trained(network):
    """A network that nobody trained, as what comes of a training."""
    head = drawn(network.head, network.backbone.shape)
    params = {"backbone": network.backbone.weights, "head": head}
    return protopnet_training.Trained(network, (params, {}), [])


@functools.cache
def drawn(head, shape):
    """The weights of a head, by one program for all tests."""
    return jax.jit(head.init)(jax.random.key(0), jnp.zeros(shape))["params"]


def pretended(study, known=lambda _: {}):
    """A study with results of its kind, which compiles in no time.

    Numbers are the same everywhere in a row, and drawn anew for each; what is `known`
    of an example is true.
    """
    first = {name: values[0] for name, values in study.examples.items()}
    one = functools.partial(study.one, **study.settings[0])
    shapes = jax.eval_shape(one, study.weights, first, jax.random.key(0))

    def fake(weights, example, key, **setting):
        del weights, setting
        draw = jax.random.uniform(key, (), minval=0.1)
        row = {
            name: jnp.full(
                leaf.shape, draw if leaf.dtype.kind == "f" else name != "stalled"
            ).astype(leaf.dtype)
            for name, leaf in shapes.items()
        }
        return row | {k: v for k, v in known(example).items() if k in row}

    return study._replace(one=fake)


def config(folder):
    """Squares of three colors, anywhere on gray: 30 to learn from, 12 to test on."""
    draw = np.random.default_rng(0)
    labels = np.tile(np.arange(3), 14)
    images = draw.uniform(0.3, 0.5, (42, 8, 8, 3)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = draw.integers(6, size=2)
        image[row : row + 2, column : column + 2, label] += 0.5
    path = folder / "squares.npz"
    arrays = {"x_train": images[:30], "y_train": labels[:30]}
    np.savez(path, **arrays, x_test=images[30:], y_test=labels[30:])
    return protopnet.Config(
        backbone=f"{__name__}:network",
        layer="map",
        image_size=8,
        train=f"npz:{path}",
        test=f"npz:{path}",
        per_class=2,
        depth=4,
        epochs=3,
        warm_epochs=1,
        pushes=(3,),
        last_epochs=1,
        needed=1,
        batch=10,
        push_batch=8,
        save_every=2,
        rate_every=1,
    )
