"""Find the layers of a traced function, and run them by the signs of their weights."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from protojax.contracts import Array
from protojax.mechanisms import tracing
from protojax.methods.activations import gathering, kinds


def layered(steps: gathering.Steps) -> gathering.Steps:
    """Gather each layer with weights into one step, called `layer` or `first_layer`.

    Args:
      steps: of a function.

    Returns:
      The same with its layers as one step each. The steps of a layer are in its
      equation's parameters.

    >>> import jax.numpy as jnp
    >>> from protojax.methods.activations import backward
    >>> rules = {"first_layer": lambda site, messages: [10 * messages[0], None]}
    >>> send = lambda f: backward.propagate(
    ...     f, jnp.ones(2), rules, start=jnp.ones_like, group=layered
    ... )
    >>> send(lambda x: jnp.ones((2, 2)) @ (x - 1) + 3).tolist()
    [10.0, 10.0]
    """
    readers = Counter(p for step in steps.steps for p in steps.sources(step))
    readers.update(gathering.places_of(steps.program.outputs))
    made = {place: step for step in steps.steps for place in step.outputs}
    reader = {p: step for step in steps.steps for p in steps.sources(step)}
    moving = gathering.reached(steps.program)  # behind a stopped gradient too
    taken: set[int] = set()
    layers = {}
    for step in steps.steps:
        if step.equation.name not in kinds.WEIGHTED or not _alone(step, steps):
            continue
        chain = [step]
        while readers[place := chain[-1].outputs[0]] == 1 and place in reader:
            if not _affine(reader[place], steps, moving):
                break
            chain.append(reader[place])
        while (place := steps.sources(chain[0])[0]) in made and readers[place] == 1:
            if place in taken or not _affine(made[place], steps, moving):
                break
            chain.insert(0, made[place])
        taken.update(s.outputs[0] for s in chain)
        name = "first_layer" if place in steps.program.inputs else "layer"
        layers[chain[-1].outputs[0]] = gathering.compose(name, chain, place)
    return steps.replaced(
        layers.get(step.outputs[0], step)
        for step in steps.steps
        if step.outputs[0] in layers or step.outputs[0] not in taken
    )


def _alone(step, steps) -> bool:
    """Whether a step has one active argument, met once."""
    return sum(p in steps.active for p in gathering.places_of(step.inputs)) == 1


def _affine(step, steps, moving) -> bool:
    """Whether a step belongs to the layer that it follows or leads to.

    What is computed from the image is no bias: a softmax subtracts its largest logit.
    """
    read = gathering.places_of(step.inputs)
    if not _alone(step, steps) or sum(p in moving for p in read) != 1:
        return False
    divides = step.equation.name == "div" and step.inputs[1] in steps.sources(step)
    return step.equation.name in _AROUND and not divides


_AROUND = frozenset(
    ("add", "convert_element_type", "copy", "div", "mul", "name", "neg", "reshape")
) | {"squeeze", "sub", "transpose"}


def by_sign(
    steps: Sequence[tracing.Step], places: Mapping[int, Any], u: Array, v: Array
) -> tuple[Array, Array]:
    """Run a layer by the signs of its weights, without its bias.

    Args:
      steps: of the layer.
      places: what the layer reads; its input first.
      u: what goes to positive weights, of the shape of the input.
      v: what goes to negative weights.

    Returns:
      `W+ u + W- v` and `W+ v + W- u`.

    >>> import jax.numpy as jnp
    >>> program = tracing.straight_line(lambda x: -3 * x + 1, 0.0)
    >>> pair = by_sign(program.steps, {program.inputs[0]: 0.0}, 1.0, 10.0)
    >>> [float(value) for value in pair]
    [-30.0, -3.0]
    """
    entry = next(iter(places))
    pairs = {entry: (u, v)}
    for step in steps:
        (k,) = (j for j, place in enumerate(step.inputs) if _is_in(place, pairs))
        values = [
            None if j == k else tracing.read(places, place)
            for j, place in enumerate(step.inputs)
        ]
        pair = pairs[step.inputs[k]]
        pairs[step.outputs[0]] = _step_by_sign(step.equation, k, values, *pair)
    return pairs[steps[-1].outputs[0]]


def _step_by_sign(equation, k, values, u, v) -> tuple[Array, Array]:
    def run(z, other=None):
        inputs = list(values)
        inputs[k] = z
        if other is not None:
            inputs[1 - k] = other
        return equation.bind(*inputs)[0]

    if equation.name == "add" or (equation.name == "sub" and k == 0):
        return _stretched(equation, values, k, u), _stretched(equation, values, k, v)
    if equation.name == "sub":
        return -_stretched(equation, values, k, v), -_stretched(equation, values, k, u)
    if equation.name == "neg":
        return jnp.negative(v), jnp.negative(u)
    if equation.name in kinds.PRODUCTS or equation.name == "div":
        weights = jnp.asarray(values[1 - k])
        if equation.name == "div":
            weights = 1 / weights
        up, down = jnp.maximum(weights, 0), jnp.minimum(weights, 0)
        if equation.name == "div":
            return u * up + v * down, v * up + u * down
        return run(u, up) + run(v, down), run(v, up) + run(u, down)
    return run(u), run(v)


def _stretched(equation, values, k, z) -> Array:
    """A term as large as its sum."""
    inputs = [jnp.zeros_like(z) if j == k else value for j, value in enumerate(values)]
    return jnp.broadcast_to(z, jnp.shape(equation.bind(*inputs)[0]))


def _is_in(place, pairs) -> bool:
    return not isinstance(place, tracing.Constant) and place in pairs
