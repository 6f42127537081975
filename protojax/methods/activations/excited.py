"""Excitation backpropagation: where a unit's activity comes from, as probabilities.

A message starts at a unit and is handed down: each layer gives it to its inputs in
proportion to what they add, of those that add anything. Messages are not below zero and
keep their sum, as long as every unit that has one has an input that excites it.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from protojax.contracts import Array, Fn
from protojax.methods.activations import backward, kinds, layering, relevance


def excitation(fn: Fn, x: Array, *, start: Array | None = None) -> Array:
    """Hand a message down by excitation backpropagation.

    To read the map at a layer, pass the network from there: `lambda h:
    intervene(fn, layer)(x, h)` at the layer's value; maps are mostly read at an early
    or middle one and summed over channels. At the image itself the rule needs pixels
    not below zero; where a layer's input is negative, what counts is the sign of what
    it adds.

    Args:
      fn: any traceable function of `x`. The unit that is explained stands at its end;
        a score that sums several contributions would mix them.
      x: `[H, W, C]` image, or the value of a layer.
      start: the message at the output, of its shape; ones by default.

    Returns:
      The message at the input, of its shape.

    Raises:
      ValueError: the function holds something that has no rule, say a loop.

    References:
      Zhang et al., Top-down neural attention by excitation backprop, 2016.

    >>> import jax.numpy as jnp
    >>> fn = lambda x: jnp.array([[1.0, -1, 0.5], [-2, 1, 0]]) @ x
    >>> down = excitation(fn, jnp.array([1.0, 2, 3]), start=jnp.array([0.6, 0.4]))
    >>> [round(float(part), 6) for part in down]
    [0.24, 0.4, 0.36]
    """
    return backward.propagate(
        fn,
        x,
        RULES,
        start=lambda y: jnp.ones_like(y) if start is None else start,
        group=layering.layered,
    )


def contrastive(fn: Fn, x: Array, *, start: Array | None = None) -> Array:
    """What excites a unit, less what would excite its opposite.

    At the top layer the message of the negated weights is taken off; from there on
    both go down alike. So `fn` must end with that layer, before any non-linearity: an
    x-feature before its ReLU.

    Args:
      fn: any traceable function of `x`, ending with a layer.
      x: `[H, W, C]` image, or the value of a layer.
      start: the message at the output, of its shape; ones by default.

    Returns:
      Signed messages at the input, of its shape.

    Raises:
      ValueError: the function holds something that has no rule, say a loop.

    References:
      Zhang et al. 2016, section 3.3.

    >>> import jax.numpy as jnp
    >>> fn = lambda x: jnp.array([[1.0, -1, 0.5], [-2, 1, 0]]) @ x
    >>> down = contrastive(fn, jnp.array([1.0, 2, 3]), start=jnp.array([0.6, 0.4]))
    >>> [round(float(part), 6) for part in down]
    [-0.16, -0.2, 0.36]
    """

    def opposite(x: Array) -> Array:
        return -fn(x)

    return excitation(fn, x, start=start) - excitation(opposite, x, start=start)


def _summed(site: backward.Site, messages: Sequence) -> list:
    """Terms get their share of what is added, as of a layer with weights of one."""
    negated = _NEGATED.get(site.equation.name)
    added = [
        _added(value, negated=place == negated)
        for place, value in enumerate(site.inputs)
    ]
    totals = site.equation.bind(*added)
    shares = [relevance.ratio(m, t) for m, t in zip(messages, totals, strict=True)]
    return [
        None if part is None else value * part
        for value, part in zip(added, site.vjp(shares), strict=True)
    ]


def _added(value: Array, *, negated: bool) -> Array:
    return jnp.minimum(value, 0) if negated else jnp.maximum(value, 0)


def _add(site: backward.Site, messages: Sequence) -> Sequence:
    """A constant term, such as a bias, gets nothing."""
    both = sum(site.active) == 2
    return _summed(site, messages) if both else relevance.RULES["add"](site, messages)


_NEGATED = {"sub": 1, "scatter-sub": 2}  # the argument that is taken off

RULES: dict[str, backward.BackwardRule] = (
    relevance.RULES
    | dict.fromkeys(kinds.SUMS, _summed)
    | dict.fromkeys(("add", "sub"), _add)
    | dict.fromkeys(("layer", "first_layer"), relevance.at_layer(relevance.z_plus))
)
"""As of relevance, but only what is added counts."""
