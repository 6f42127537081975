"""The pass: a traced function, re-emitted with all rules."""

from collections.abc import Callable

import jax

from protojax.contracts import Fn
from protojax.mechanisms import tracing
from protojax.mechanisms.lowering import convolutions, pooling

RULES: dict[str, Callable] = {**convolutions.RULES, **pooling.RULES}
"""What `canonical` replaces, by primitive."""


def canonical(fn: Fn) -> Fn:
    """Return the same function in a form that is fast on CPU.

    Apply it to what is run, after differentiation: to a gradient rather than to the
    function that is differentiated, inside `jit`. Off CPU it gives `fn` back, as GPUs
    and TPUs want the original form.

    Args:
      fn: any traceable function of arrays, in any structure.

    Returns:
      A function of the same values. Plain convolutions are equal to the bit; products
      (1x1), depthwise and grouped convolutions and kernel gradients of transposed ones
      sum in another order.

    >>> import jax, jax.numpy as jnp
    >>> gradient = jax.jit(canonical(jax.grad(lambda x: jnp.sum(x**3))))
    >>> gradient(jnp.ones(2)).tolist()
    [3.0, 3.0]
    """

    def lowered(*args, **kwargs):
        if jax.default_backend() != "cpu":
            return fn(*args, **kwargs)
        return tracing.retrace(fn, RULES, equivalent=True)(*args, **kwargs)

    return lowered
