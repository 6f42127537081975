"""The modified backward pass: walk a function backwards by rules of one's own.

`propagate` runs a function forward, at the image and perhaps at a reference, and walks
back over what it did. At each step a rule turns the messages at its outputs into
messages at its inputs. What a message means is the rules' business: a derivative, a
multiplier (`rescale`), a relevance (`relevance`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from protojax.contracts import Array, Fn
from protojax.mechanisms import tracing
from protojax.methods.activations import gathering, rectifiers


class Site(NamedTuple):
    """One step of the forward pass, as a backward rule sees it.

    Attributes:
      equation: the step.
      inputs: what it reads at the image.
      outputs: what it gives at the image.
      inputs_there: at the reference; at the image again if there is none.
      outputs_there: likewise.
      active: which inputs depend on the image, and can be divided.
      first: whether it reads the image itself.
    """

    equation: tracing.Equation
    inputs: tuple
    outputs: tuple
    inputs_there: tuple
    outputs_there: tuple
    active: tuple[bool, ...]
    first: bool

    def vjp(self, messages: Sequence, inputs: Sequence | None = None) -> list:
        """Pull messages back by the derivative, to the active inputs alone.

        Args:
          messages: one for each output.
          inputs: where the derivative is taken; at the image by default.

        Returns:
          One message for each input, `None` for those that are not active.
        """
        inputs = self.inputs if inputs is None else inputs

        def run(*values):
            given = iter(values)
            return self.equation.bind(
                *(
                    next(given) if a else i
                    for a, i in zip(self.active, inputs, strict=True)
                )
            )

        at = [i for a, i in zip(self.active, inputs, strict=True) if a]
        pulled = iter(jax.vjp(run, *at)[1](list(messages)))
        return [next(pulled) if a else None for a in self.active]


BackwardRule = Callable[[Site, Sequence[Array]], Sequence]
"""`(site, a message per output) -> a message per input` (`None`: no message)."""


def propagate(
    fn: Fn,
    x: Array,
    rules: Mapping[str, BackwardRule],
    *,
    start: Callable[[Array], Array],
    reference: Array | None = None,
    group: Callable[[gathering.Steps], gathering.Steps] | None = None,
) -> Array:
    """Send messages from the output of a function back to its input.

    With a reference there are two forward passes, at the image and there, and
    `stop_gradient` stops nothing; without one it stops messages. Elementwise functions
    that are written in several steps (GELU, leaky ReLU) are met as one step called
    `elementwise`, and between two points those of two arguments that choose by them
    (`logaddexp`).

    Args:
      fn: `x -> y`, any traceable function.
      x: `[H, W, C]` image.
      rules: by name of a primitive, or of a function called (`relu`, `relu6`).
      start: from the output to the message there.
      reference: `[H, W, C]`, where the rules compare.
      group: what gathers steps further before they are walked back.

    Returns:
      `[H, W, C]` the message at the image.

    Raises:
      ValueError: a message reached a step for which there is no rule.

    >>> import jax.numpy as jnp
    >>> rules = {"mul": lambda site, messages: site.vjp(messages)}
    >>> float(propagate(lambda x: 3 * x, jnp.array(1.0), rules, start=jnp.ones_like))
    3.0
    """
    program = tracing.straight_line(fn, x, whole=rectifiers.is_one)
    if reference is not None:
        program = _unstopped(program)
        # else XLA spends minutes on folding the pass at a constant reference
        still = jax.lax.stop_gradient(x)
        reference, _ = jax.lax.optimization_barrier((reference, still))
    active = gathering.reached(program, stopped=True)
    here = program.run(x)
    there = here if reference is None else _rerun(program, reference, here, active)
    steps = gathering.Steps(program, tuple(program.steps), active, here)
    steps = gathering.joined(steps, between=reference is not None)
    steps = _needed(steps if group is None else group(_needed(steps)))
    messages = {
        place: start(here[place])
        for place in gathering.places_of(program.outputs)
        if place in active
    }
    for step in reversed(steps.steps):
        if messages.keys().isdisjoint(step.outputs):
            continue
        site = _site(step, program, active, here, there)
        _check(site, reference)
        outgoing = _rule(site, rules)(
            site,
            [messages.pop(p, jnp.zeros_like(here[p])) for p in step.outputs],
        )
        for place, dividable, message in zip(
            step.inputs, site.active, outgoing, strict=True
        ):
            if dividable and message is not None:
                old = messages.get(place)
                messages[place] = message if old is None else old + message
    (entry,) = program.inputs
    return messages.get(entry, jnp.zeros_like(x))


def unbroadcast(message: Array, like: Array) -> Array:
    """Sum a message over the axes along which an argument was stretched.

    Args:
      message: of the shape of an output.
      like: the argument.

    Returns:
      A message of the argument's shape.

    >>> import jax.numpy as jnp
    >>> unbroadcast(jnp.ones((2, 3)), jnp.ones((2, 1))).ravel().tolist()
    [3.0, 3.0]
    """
    pull = jax.vjp(lambda z: jnp.broadcast_to(z, message.shape), like)[1]
    return pull(message)[0]


def no_rule(equation: tracing.Equation, kind: str = "") -> ValueError:
    """The error for a step that nothing is known of.

    Args:
      equation: of the step.
      kind: what is particular about it.

    Returns:
      What to raise.

    >>> program = tracing.straight_line(abs, 1.0)
    >>> print(str(no_rule(program.steps[0].equation))[:27])
    no backward rule for `abs`
    """
    return ValueError(
        f"no backward rule for `{equation.label or equation.name}`{kind} at "
        f"{equation.source}: write that part of the network with other operations, "
        "or explain the layer above it"
    )


def _needed(steps: gathering.Steps) -> gathering.Steps:
    """Leave out the steps that no message can reach."""
    wanted, kept = set(gathering.places_of(steps.program.outputs)), []
    for step in reversed(steps.steps):
        sources = steps.sources(step)
        if sources and not wanted.isdisjoint(step.outputs):
            wanted.update(sources)
            kept.append(step)
    return steps.replaced(reversed(kept))


def _unstopped(program) -> tracing.Program:
    """Let through what `stop_gradient` stops: between two points it differs too."""

    def opened(step):
        if step.equation.name != "stop_gradient":
            return step
        passing = step.equation._replace(name="copy", bind=lambda *values: list(values))
        return step._replace(equation=passing)

    return program._replace(steps=tuple(map(opened, program.steps)))


def _rerun(program, x, known, active) -> dict[int, Any]:
    """Evaluate a program elsewhere, where it depends on its input."""
    places = {place: value for place, value in known.items() if place not in active}
    places[program.inputs[0]] = x
    for step in program.steps:
        if step.outputs and step.outputs[0] in active:
            values = [tracing.read(places, place) for place in step.inputs]
            outputs = step.equation.bind(*values)
            places.update(zip(step.outputs, outputs, strict=True))
    return places


def _site(step, program, active, here, there) -> Site:
    inputs, inputs_there = (
        tuple(tracing.read(places, p) for p in step.inputs) for places in (here, there)
    )
    outputs, outputs_there = (
        tuple(places[p] for p in step.outputs) for places in (here, there)
    )
    reads = tuple(
        not isinstance(p, tracing.Constant) and p in active for p in step.inputs
    )
    floats = map(gathering.is_float, inputs)
    return Site(
        step.equation,
        inputs,
        outputs,
        inputs_there,
        outputs_there,
        tuple(r and f for r, f in zip(reads, floats, strict=True)),
        not set(program.inputs).isdisjoint(gathering.places_of(step.inputs)),
    )


def _check(site, reference) -> None:
    """A choice that depends on the image has no place between two points."""
    if any(
        active and jnp.issubdtype(jnp.result_type(value), jnp.complexfloating)
        for active, value in zip(site.active, site.inputs, strict=True)
    ):
        raise no_rule(site.equation, " of complex numbers")
    chosen = any(
        here is not there and not gathering.is_float(here)
        for here, there in zip(site.inputs, site.inputs_there, strict=True)
    )
    if reference is not None and chosen and site.equation.name != "elementwise":
        raise ValueError(
            f"`{site.equation.name}` at {site.equation.source} chooses by the image "
            "what to read, so that image and reference cannot be compared there: "
            "choose outside of the function that is explained"
        )


def _rule(site, rules) -> BackwardRule:
    equation = site.equation
    rule = rules.get(equation.label) or rules.get(equation.name)
    if rule is None:
        raise no_rule(equation)
    return rule
