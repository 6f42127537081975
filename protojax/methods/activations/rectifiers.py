"""What is a ReLU, by what it computes: anybody may call a function `relu`."""

import jax
import jax.numpy as jnp

from protojax.mechanisms import tracing


def top(call: tracing.Equation) -> float | None:
    """Up to where a call rectifies its argument.

    Args:
      call: an equation that calls a function.

    Returns:
      Infinity for a ReLU, 6 for ReLU6; `None` for what does something else.

    >>> import jax
    >>> step = tracing.straight_line(jax.nn.relu6, 1.0, whole=lambda _: True).steps[0]
    >>> top(step.equation)
    6.0
    """
    body = tracing.inside(call)
    if len(body.inputs) != 1:
        return None
    extrema: list[tuple[str, float]] = []
    (place,) = body.inputs
    for step in body.steps:
        numbers = [bound for p in step.inputs if (bound := _number(p)) is not None]
        if len(numbers) != 1 or place not in step.inputs:
            return None
        extrema.append((step.equation.name, numbers[0]))
        (place,) = step.outputs
    if body.outputs != (place,):
        return None
    match extrema:
        case [("max", 0)]:
            return float("inf")
        case [("max", 0), ("min", bound)] if bound > 0:
            return bound
    return None


def is_one(call: tracing.Equation) -> bool:
    """Whether a call is a ReLU, or ReLU6, by name and by what it does.

    Args:
      call: an equation that calls a function.

    Returns:
      Whether it is.

    >>> import jax
    >>> step = tracing.straight_line(jax.nn.silu, 1.0, whole=lambda _: True).steps[0]
    >>> is_one(step.equation)
    False
    """
    return call.label in ("relu", "relu6") and top(call) is not None


def _number(place) -> float | None:
    if not isinstance(place, tracing.Constant):
        return None
    value = place.value
    known = jnp.ndim(value) == 0 and not isinstance(value, jax.core.Tracer)
    return float(value) if known else None
