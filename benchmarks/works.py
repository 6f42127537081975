"""What the benchmarks of `fragility` time: works of ours, each on one image."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from protojax.mechanisms import ascent, lowering
from protojax.methods import activations, attacks, attributions, metrics, objectives
from protojax.models import squeezenet

Array = jax.Array

BETA = 30.0
RADIUS = 8 / 255
STEP_SIZE = 0.5 / 255

_PASSES = "two forward and two backward passes of the ReLU network"
FLOORS = {
    "gradient": "a forward pass",
    "Hessian-vector product": "one gradient of the same network",
    "top-k attack step": _PASSES,
    "top-k attack step, called alone": _PASSES,
    "top-k attack step on integrated gradients": "as many for each point of the path",
    "integrated gradients": "a forward and a backward pass for each step",
    "DeepLIFT": "two forward passes and a backward one (Captum's does not add up here: "
    "where windows of a pool overlap, all but one contribution are lost)",
    "whole attack, last iterate": "its steps",
    "whole attack, best iterate on the network": "its steps, and a forward and a "
    "backward pass of the ReLU network for each",
}
"""The least that each work takes, measured as parts of it that cannot be left out."""

MODEL = squeezenet.SqueezeNet()
SMOOTH = activations.softplus(BETA)


def convolution(kernel: Array, x: Array) -> Array:
    """One layer without its bias, of one image."""
    return jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def gradient(variables: Any, x: Array, y: Array) -> Array:
    """Of the logit of the ReLU network."""
    return attributions.gradient(_score(variables, y), x)


def twin_gradient(variables: Any, x: Array, y: Array) -> Array:
    """Of the logit of its smooth twin."""
    return attributions.gradient(_score(variables, y, twin=True), x)


def product(variables: Any, x: Array, y: Array, direction: Array) -> Array:
    """A Hessian-vector product of the twin's logit."""
    score = _score(variables, y, twin=True)
    return jax.jvp(jax.grad(score), (x,), (direction,))[1]


def integrated_gradients(
    variables: Any, x: Array, y: Array, *, steps: int, twin: bool = False
) -> Array:
    """With the right Riemann sum, which all contenders have."""
    return attributions.integrated_gradients(
        _score(variables, y, twin=twin), x, steps=steps, rule=attributions.right
    )


def deep_lift(variables: Any, x: Array, y: Array) -> Array:
    """From black."""
    return attributions.deep_lift(_score(variables, y), x)


def chosen(variables: Any, x: Array, y: Array, *, k: int) -> Array:
    """The pixels that the attack empties."""
    saliency = attributions.heatmap(gradient(variables, x, y))
    return metrics.top_k_mask(saliency, k=k)


def climbed(
    variables: Any, x: Array, y: Array, *, explain: Callable, k: int, steps: int
) -> Array:
    """Bare steps of the top-k attack: gradient, sign, projection."""
    objective = _objective(variables, x, y, explain, k)
    project = ascent.within(x, RADIUS)
    climb = lowering.canonical(jax.grad(objective))

    def step(z, _):
        return project(z + STEP_SIZE * jnp.sign(climb(z))), None

    return jax.lax.scan(step, x, None, length=steps)[0]


def attack(variables: Any, x: Array, y: Array, *, k: int, steps: int) -> Array:
    """The bare search, which selects by what it climbs."""
    objective = _objective(variables, x, y, twin_gradient, k)
    return attacks.pgd(objective, x, radius=RADIUS, step_size=STEP_SIZE, steps=steps).x


def judged_attack(variables: Any, x: Array, y: Array, *, k: int, steps: int) -> Array:
    """The attack as users call it: every iterate is explained by the network itself."""
    saliency = lambda explain: lambda z: attributions.heatmap(explain(variables, z, y))  # noqa: E731
    return attacks.top_k(
        functools.partial(MODEL.apply, variables),
        saliency(gradient),
        x,
        k=k,
        twin=saliency(twin_gradient),
        radius=RADIUS,
        step_size=STEP_SIZE,
        steps=steps,
    ).x


def _objective(variables, x, y, explain, k):
    before = attributions.heatmap(lowering.canonical(gradient)(variables, x, y))
    return objectives.top_k(
        lambda z: attributions.heatmap(explain(variables, z, y)), before, k=k
    )


def _score(variables, y, *, twin=False):
    fn = functools.partial(MODEL.apply, variables)
    fn = activations.replace(fn, SMOOTH) if twin else fn
    return lambda z: fn(z)[y]


def batched(fn: Callable) -> Callable:
    """A function of weights and one image, of many images."""

    def batched(variables, *args):
        return jax.vmap(functools.partial(fn, variables))(*args)

    return batched


def drawn(rng: np.random.Generator, model: Any, x: jax.ShapeDtypeStruct) -> Any:
    """Random variables of a model, without a program that draws them."""

    def draw(leaf: jax.ShapeDtypeStruct) -> Array:
        if leaf.ndim < 2:
            return jnp.zeros(leaf.shape)
        spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(scale=spread, size=leaf.shape), jnp.float32)

    return jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0), x))
