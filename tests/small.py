"""What is small enough to explain in a test, and its explanation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import attributions, objectives


def slow_among(names, slow):
    """Parameters of a test, those that take long marked so."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in names
    ]


def saliency(fn, y=0):
    score = objectives.logit(fn, y)
    return jax.jit(lambda x: attributions.heatmap(attributions.gradient(score, x)))


def network(key=0, shape=(5, 4, 2)):
    """A small smooth network with an image that it does not saturate on."""
    size = int(np.prod(shape))
    keys = jax.random.split(jax.random.key(key), 3)
    first = jax.random.normal(keys[0], (12, size)) / 2
    second = jax.random.normal(keys[1], (3, 12))
    x = jax.random.uniform(keys[2], shape)
    return lambda z: second @ jax.nn.softplus(3 * (first @ z.ravel())), x


def explain(method, f, x, baseline=None, **knobs):
    """Explain a function of a vector, as an image of one pixel."""
    x = jnp.asarray(x)
    if baseline is not None:
        knobs["baseline"] = jnp.asarray(baseline, x.dtype).reshape(1, 1, -1)
    run = jax.jit(lambda x: method(lambda z: f(z.ravel()), x, **knobs))
    return run(x.reshape(1, 1, -1)).reshape(x.shape)


def precisions(fn, *args):
    """Of all matrix products and convolutions in a traced function."""
    text = str(jax.make_jaxpr(fn)(*args))
    return re.findall(
        r"(?:dot_general|conv_general_dilated)\[.*?precision=(\S+)", text, re.DOTALL
    )
