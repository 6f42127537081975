"""Backward passes of ReLUs that are not their derivatives; values stay as they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import ArrayLike, Fn
from protojax.methods.activations import surrogate


def guided(fn: Fn) -> Fn:
    """Return `fn` with the backward pass of guided backpropagation.

    At each ReLU, only what is positive in the forward *and* in the backward pass goes
    down. Values stay as they are.

    Args:
      fn: any traceable function.

    Returns:
      A function like `fn`, whose `jax.grad` is guided.

    Raises:
      NoReLU: (when called) `fn` holds no ReLU.

    References:
      Springenberg et al., Striving for simplicity: the all convolutional net, 2015.

    >>> import jax
    >>> float(jax.grad(guided(lambda z: -jax.nn.relu(z)))(1.0))
    0.0
    """
    return surrogate.swap(fn, lambda z: _guided(z, np.inf), _guided)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _guided(z, top):
    return jnp.clip(z, 0, top)


def _guided_forward(z, top):
    return _guided(z, top), z


def _guided_backward(top, z, message):
    return (jnp.where((z > 0) & (z < top), jax.nn.relu(message), 0),)


_guided.defvjp(_guided_forward, _guided_backward)


def redirected(fn: Fn, *, enabled: ArrayLike = True) -> Fn:
    """Return `fn` with ReLUs that let a climb out of where none of them moves.

    Where no gradient at all passes a ReLU (all of its units together, for one example),
    it goes down to units below zero if it raises them, and to units above the top of a
    ReLU6 if it lowers them. Where any passes, all is as usual. `fn` is taken as
    something to be maximized.

    Args:
      fn: any traceable function, say a score.
      enabled: `[]` boolean; False for the usual gradient. May be traced, but not where
        ReLUs are inside loops.

    Returns:
      A function like `fn`, whose `jax.grad` is redirected.

    Raises:
      NoReLU: (when called) `fn` holds no ReLU.

    References:
      Lucid's `redirected_relu_grad`, which it uses in the first 16 steps.

    >>> import jax
    >>> float(jax.grad(redirected(jax.nn.relu))(-3.0))
    1.0
    """
    on = jnp.asarray(enabled, bool)
    return surrogate.swap(
        fn, lambda z: _redirected(z, on, np.inf), lambda z, top: _redirected(z, on, top)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _redirected(z, _, top):
    return jnp.clip(z, 0, top)


def _redirected_forward(z, enabled, top):
    return _redirected(z, enabled, top), (z, enabled)


def _redirected_backward(top, kept, message):
    z, enabled = kept
    usual = jnp.where((z > 0) & (z < top), message, 0)
    inward = ((z <= 0) & (message > 0)) | ((z >= top) & (message < 0))
    nothing = ~jnp.any(usual != 0)
    return jnp.where(enabled & nothing & inward, message, usual), None


_redirected.defvjp(_redirected_forward, _redirected_backward)
