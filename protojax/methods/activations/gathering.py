"""Steps of a traced function, and several of them gathered into one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from protojax.mechanisms import tracing
from protojax.methods.activations import kinds


class Steps(NamedTuple):
    """Steps to walk back over, and what is known of them."""

    program: tracing.Program
    steps: tuple[tracing.Step, ...]
    active: frozenset[int]  # the places that depend on the image
    here: Mapping[int, Any]  # the values at the image

    def sources(self, step: tracing.Step) -> list[int]:
        """The active places that a step reads, each once."""
        return [p for p in dict.fromkeys(places_of(step.inputs)) if p in self.active]

    def replaced(self, steps: Iterable[tracing.Step]) -> "Steps":
        """The same, of other steps."""
        return self._replace(steps=tuple(steps))


def reached(program: tracing.Program, *, stopped: bool = False) -> frozenset[int]:
    """The places that depend on the inputs of a program.

    Args:
      program: of a function.
      stopped: whether `stop_gradient` ends that.

    Returns:
      The places, the inputs among them.

    >>> import jax
    >>> program = tracing.straight_line(jax.lax.stop_gradient, 1.0)
    >>> len(reached(program)), len(reached(program, stopped=True))
    (2, 1)
    """
    places = set(program.inputs)
    for step in program.steps:
        stops = stopped and step.equation.name == "stop_gradient"
        if not stops and not places.isdisjoint(places_of(step.inputs)):
            places.update(step.outputs)
    return frozenset(places)


def compose(name: str, steps: Sequence[tracing.Step], entry: int) -> tracing.Step:
    """Make one step of several that lead from one place to one.

    Args:
      name: of the new step.
      steps: in order of evaluation; the last gives the output.
      entry: the place that they start from.

    Returns:
      A step that reads the entry first, then whatever else they read.

    >>> import jax.numpy as jnp
    >>> program = tracing.straight_line(lambda x: 2 * jnp.sin(x), 0.0)
    >>> compose("both", program.steps, program.inputs[0]).equation.bind(0.0)[0].item()
    0.0
    """
    made = {place for step in steps for place in step.outputs}
    read = [
        p for s in steps for p in places_of(s.inputs) if p not in made and p != entry
    ]
    inputs = (entry, *dict.fromkeys(read))

    def bind(*values):
        places = dict(zip(inputs, values, strict=True))
        for step in steps:
            outputs = step.equation.bind(
                *(tracing.read(places, p) for p in step.inputs)
            )
            places.update(zip(step.outputs, outputs, strict=True))
        return [places[steps[-1].outputs[0]]]

    last = steps[-1].equation
    params = {"steps": tuple(steps), "inputs": inputs}
    equation = tracing.Equation(name, "", params, bind, last.source)
    return tracing.Step(equation, inputs, steps[-1].outputs)


def joined(steps: Steps, *, between: bool) -> Steps:
    """Make one step of each elementwise function that forks and joins.

    Of one place; between two points also of two, where it chooses by the image.

    Args:
      steps: of a function.
      between: whether two points are compared.

    Returns:
      The same with such functions as one step each, called `elementwise`.

    >>> import jax, jax.numpy as jnp
    >>> program = tracing.straight_line(jax.nn.silu, 1.0)
    >>> active = frozenset(p for step in program.steps for p in step.outputs)
    >>> here = program.run(1.0)
    >>> steps = Steps(program, program.steps, active | {*program.inputs}, here)
    >>> [step.equation.name for step in joined(steps, between=False).steps]
    ['logistic', 'elementwise']
    """
    origins: dict[int, int] = {}
    made = {step.outputs[0]: step for step in steps.steps}
    result = []
    for step in steps.steps:
        sources = steps.sources(step)
        starts = {origins.get(place, place) for place in sources}
        if len(starts) == 1 and _is_elementwise(step, steps):
            (start,) = starts
            origins[step.outputs[0]] = start
        elif between and _chooses(step, steps):
            starts = _cut(step, made, steps)
        else:
            starts = set()
        if starts and len(sources) > 1:
            inside = _inside(starts, step, made, steps)
            step = compose("elementwise", inside, min(starts))
        result.append(step)
    return steps.replaced(result)


def _chooses(step, steps) -> bool:
    """Whether it is elementwise, and reads a condition that depends on the image."""
    return _is_elementwise(step, steps) and any(
        not is_float(steps.here[place]) for place in steps.sources(step)
    )


def _cut(step, made, steps) -> set[int]:
    """The two places that lead to a step by elementwise functions alone, if there are.

    The latest is traced back to what it was made of, until there are but two.
    """
    places = set(steps.sources(step))
    while len(places) > 2 or not all(is_float(steps.here[p]) for p in places):
        # conditions first: a place of floats may be one of the two
        last = max(places, key=lambda p: (not is_float(steps.here[p]), p))
        if last not in made or not _is_elementwise(made[last], steps):
            return set()
        places = places - {last} | set(steps.sources(made[last]))
    return places


def _inside(starts, last, made, steps) -> list[tracing.Step]:
    """The steps that lead from some places to a step, in order."""
    wanted, inside = {last.outputs[0]}, []
    stack = [last]
    while stack:
        step = stack.pop()
        inside.append(step)
        for place in steps.sources(step):
            if place not in starts and place not in wanted:
                wanted.add(place)
                stack.append(made[place])
    return sorted(inside, key=lambda step: step.outputs[0])


def _is_elementwise(step, steps) -> bool:
    """Whether it acts on each entry alone, and broadcasts no active argument."""
    known = {step.equation.name, step.equation.label} & kinds.ELEMENTWISE
    shapes = {jnp.shape(steps.here[place]) for place in steps.sources(step)}
    return bool(known) and shapes == {jnp.shape(steps.here[step.outputs[0]])}


def places_of(atoms: Iterable[int | tracing.Constant]) -> list[int]:
    """The places among places and constants.

    Args:
      atoms: what a step reads.

    Returns:
      Those that are numbered, in order.

    >>> places_of([3, tracing.Constant(1.0)])
    [3]
    """
    return [atom for atom in atoms if not isinstance(atom, tracing.Constant)]


def is_float(value: Any) -> bool:
    """Whether derivatives and differences of a value mean something.

    Args:
      value: an array or a number.

    Returns:
      Whether it is of real or complex floats.

    >>> is_float(1.0), is_float(True)
    (True, False)
    """
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)
