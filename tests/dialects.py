"""One small network, as it is written with each of several libraries."""

import functools

import equinox
import jax
import jax.numpy as jnp
from flax import linen, nnx

KEY = jax.random.key(0)
KERNEL, BIAS = 0.5 * jax.random.normal(jax.random.key(1), (3, 3, 3, 4)), jnp.ones(4) / 9
HEAD = jax.random.normal(jax.random.key(2), (4, 2))


def plain(x):
    layout = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(
        x[None], KERNEL, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout
    )[0]
    return jax.nn.relu(h + BIAS.reshape(1, 1, -1)).mean((0, 1)) @ HEAD


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        h = linen.relu(linen.Conv(4, (3, 3), strides=2, padding=1)(x))
        return linen.Dense(2, use_bias=False)(h.mean((0, 1)))


def in_linen():
    conv = {"kernel": KERNEL, "bias": BIAS}
    params = {"Conv_0": conv, "Dense_0": {"kernel": HEAD}}
    return functools.partial(Linen().apply, {"params": params})


class Nnx(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, padding=1, rngs=rngs)
        self.head = nnx.Linear(4, 2, use_bias=False, rngs=rngs)
        nnx.update(
            self, {"conv": {"kernel": KERNEL, "bias": BIAS}, "head": {"kernel": HEAD}}
        )

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x[None]))[0].mean((0, 1)))


class Equinox(equinox.Module):
    conv: equinox.nn.Conv2d
    head: equinox.nn.Linear

    def __call__(self, x):
        h = jax.nn.relu(self.conv(jnp.moveaxis(x, -1, 0)))
        return self.head(h.mean((1, 2)))


def in_equinox():
    net = Equinox(
        equinox.nn.Conv2d(3, 4, 3, stride=2, padding=1, key=KEY),
        equinox.nn.Linear(4, 2, use_bias=False, key=KEY),
    )
    arrays = jnp.moveaxis(KERNEL, (2, 3), (1, 0)), BIAS.reshape(4, 1, 1), HEAD.T
    of = lambda net: (net.conv.weight, net.conv.bias, net.head.weight)
    return equinox.tree_at(of, net, arrays)
