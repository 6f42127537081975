"""What the functions of cases are made of, in JAX; another library brings its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name


class Operations(NamedTuple):
    """The operations by which cases say what their networks and scores are.

    Arrays also take `+`, `-`, `*`, `/`, `**`, `@` and indexing. Functions of cases work
    on the last axes, so that any number of axes for examples may stand before them.

    Attributes:
      array: numbers in nested lists, or a NumPy array -> an array.
      relu, sin, exp, log, absolute: elementwise, `z -> z`. Where a library explains
        modules, each call of `relu` is to be a module of its own.
      softplus: `(z, beta) -> log(1 + exp(beta z)) / beta`.
      total: `(h, axes) ->` the sum over the last so many axes.
      largest: `[..., n] -> [..., 1]`, as max pooling does it.
      convolve: `([..., H, W, C], [h, w, C, D]) -> [..., H', W', D]`, without padding.
      named: `(h, name) -> h`, a layer that can be asked for by its name.
    """

    array: Callable[[Any], Any]
    relu: Callable[[Any], Any]
    sin: Callable[[Any], Any]
    exp: Callable[[Any], Any]
    log: Callable[[Any], Any]
    absolute: Callable[[Any], Any]
    softplus: Callable[[Any, float], Any]
    total: Callable[[Any, int], Any]
    largest: Callable[[Any], Any]
    convolve: Callable[[Any, Any], Any]
    named: Callable[[Any, str], Any]


def _softplus(z, beta):
    return jax.nn.softplus(beta * z) / beta


def _total(h, axes):
    return jnp.sum(h, axis=tuple(range(-axes, 0)))


def _largest(h):
    window = (*(1 for _ in h.shape[:-1]), h.shape[-1])
    return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, window, window, "VALID")


def _convolve(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    batch = x.reshape(-1, *x.shape[-3:])
    found = jax.lax.conv_general_dilated(
        batch, kernel, (1, 1), "VALID", dimension_numbers=layout
    )
    return found.reshape(*x.shape[:-3], *found.shape[1:])


JAX = Operations(
    array=lambda values: jnp.asarray(values, float),
    relu=jax.nn.relu,
    sin=jnp.sin,
    exp=jnp.exp,
    log=jnp.log,
    absolute=jnp.abs,
    softplus=_softplus,
    total=_total,
    largest=_largest,
    convolve=_convolve,
    named=checkpoint_name,
)
"""The operations in JAX: `functools.partial(score, JAX)` is a function of `x`."""
