"""Small networks whose curvature is known in closed form, in any input dimension.

Weights and image are drawn from an example's key. The weights of a unit have the same
length in every dimension, so that what grows with it is not their size.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.hessian_studies import Row, angle, length, saliency
from protojax import attacks, curvature
from protojax.contracts import Array, Key, PyTree, Score

LENGTH = 2.0  # of a unit's weights
BETA = 4.0  # sharpness of the softplus of two layers
UNITS = 16  # of two layers, where the dimension grows
INPUT = 1.0  # of the neuron's sigmoid
STEPS = 24  # of Lanczos


class Drawn(NamedTuple):
    """A network and an image."""

    w: Array  # [units, dimension] first layer
    v: Array  # [units] second layer
    x: Array  # [1, dimension, 1]


def draw(key: Key, *, units: int, dimension: int) -> Drawn:
    """Units of random directions and signs, and an image of random pixels."""
    first, second, third = jax.random.split(key, 3)
    w = jax.random.normal(first, (units, dimension))
    w = LENGTH * w / jnp.linalg.norm(w, axis=1, keepdims=True)
    v = jax.random.normal(second, (units,))
    return Drawn(w, v, jax.random.uniform(third, (1, dimension, 1), minval=0.25))


def neuron(drawn: Drawn) -> Score:
    """One unit of a sigmoid, whose input at the image is the same for all draws."""
    offset = INPUT - jnp.sum(drawn.w[0] * drawn.x.ravel())
    return lambda z: jax.nn.sigmoid(jnp.sum(drawn.w[0] * z.ravel()) + offset)


def two_layers(drawn: Drawn) -> Score:
    """Units of softplus, added up with their weights."""
    return lambda z: jnp.sum(
        drawn.v * jax.nn.softplus(BETA * (drawn.w @ z.ravel())) / BETA
    )


def widths(
    weights: PyTree, example: Mapping, key: Key, *, units: int, dimension: int
) -> Row:
    """The angle of gradient and leading eigenvector in an untrained two-layer network.

    Beside it what follows if the units' weights are orthogonal: the eigenvectors are
    theirs, the gradient is a mixture of them, and the angle is known.
    """
    del weights, example
    drawn_key, start, other = jax.random.split(key, 3)
    drawn = draw(drawn_key, units=units, dimension=dimension)
    score = two_layers(drawn)
    values, vectors, _ = curvature.top_eigenpairs(
        curvature.hessian(score, drawn.x), drawn.x, key=start, steps=2 * STEPS
    )
    slope = jax.nn.sigmoid(BETA * (drawn.w @ drawn.x.ravel()))
    mixture = jnp.abs(drawn.v * slope)
    leading = jnp.argmax(jnp.abs(drawn.v * slope * (1 - slope)))
    cosine = mixture[leading] / length(mixture)
    random = jax.random.normal(other, drawn.x.shape)
    found = angle(jax.grad(score)(drawn.x), vectors[0])
    return {
        "stalled": values[0] == 0,
        "angle": found,
        "cosine": jnp.cos(jnp.radians(found)),
        "angle_orthogonal": jnp.degrees(jnp.arccos(cosine)),
        "angle_random": angle(random, vectors[0]),
    }


def grown(
    weights: PyTree,
    example: Mapping,
    key: Key,
    *,
    net: str,
    dimension: int,
    radius: Array,
) -> Row:
    """How far a change of every pixel by `radius` moves gradient and map.

    Changes of gradients are relative to the gradient; a map sums to one, and half of
    the sum of its changes is the share that has moved.
    """
    del weights, example
    drawn_key, attack_key = jax.random.split(key)
    if net == "neuron":
        return _neuron(draw(drawn_key, units=1, dimension=dimension), radius)
    if net == "loss":
        return _loss(draw(drawn_key, units=1, dimension=dimension), radius)
    drawn = draw(drawn_key, units=UNITS, dimension=dimension)
    return _two_layers(drawn, attack_key, radius)


def _neuron(drawn: Drawn, radius: Array) -> Row:
    """Signs of the weights, which also are the gradient's: the best for all of it."""
    step = radius * jnp.sign(drawn.w[0])
    score, z = neuron(drawn), drawn.x + step.reshape(drawn.x.shape)
    slope = 1 - 2 * jax.nn.sigmoid(INPUT)  # the second derivative over the first
    return {
        **_moved(score, drawn.x, z),
        "predicted": jnp.abs(slope) * radius * jnp.sum(jnp.abs(drawn.w[0])),
    }


def _loss(drawn: Drawn, radius: Array) -> Row:
    """The gradient of a loss in the weights, whose entries have a second term each."""
    w, x = drawn.w[0], drawn.x.ravel()
    offset = INPUT - jnp.sum(w * x)
    loss = lambda w, x: jnp.abs(1 - jax.nn.sigmoid(w @ x + offset))  # noqa: E731
    step = radius * jnp.sign(w)
    before, after = jax.grad(loss)(w, x), jax.grad(loss)(w, x + step)
    first = (1 - 2 * jax.nn.sigmoid(INPUT)) * jnp.sum(w * step)
    size = lambda each: jnp.sqrt(jnp.mean(each**2))  # noqa: E731
    return {
        "gradient": size(after / before - 1),
        "predicted": size(first + step / x),
        "first_term": jnp.abs(first),
        "second_term": size(step / x),
    }


def _two_layers(drawn: Drawn, key: Key, radius: Array) -> Row:
    """Leading vectors of Hessian and Jacobian, and signs at random."""
    score, x = two_layers(drawn), drawn.x
    first, second, third = jax.random.split(key, 3)
    slope, explain = jax.grad(score), saliency(score)
    ball: dict[str, Any] = {"radius": radius, "steps": STEPS}
    along = attacks.eigenvector(
        lambda z: length(slope(z) - slope(x)), x, score=score, key=first, **ball
    )
    across = attacks.singular_vector(
        lambda z: jnp.sum(jnp.abs(explain(z) - explain(x))),
        *(x,),
        explain=explain,
        key=second,
        **ball,
    )
    signs = radius * jax.random.rademacher(third, x.shape, x.dtype)
    at_random = _moved(score, x, x + signs)
    hessian = curvature.hessian(score, x)
    return {
        **_moved(score, x, along.x),
        "stalled": along.stalled | across.stalled,
        "predicted": length(hessian(along.x - x)) / length(slope(x)),
        "random": at_random["gradient"],
        "map_random": at_random["map"],
        "map_jacobian": _moved(score, x, across.x)["map"],
    }


def _moved(score: Score, x: Array, z: Array) -> Row:
    slope, explain = jax.grad(score), saliency(score)
    return {
        "gradient": length(slope(z) - slope(x)) / length(slope(x)),
        "map": jnp.sum(jnp.abs(explain(z) - explain(x))) / 2,
        "score": jnp.abs(score(z) - score(x)) / jnp.abs(score(x)),
    }
