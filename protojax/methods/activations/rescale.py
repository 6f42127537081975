"""DeepLIFT's rescale rule: multipliers between an image and a reference.

A multiplier says how much of the score's difference between the two an input's
difference makes. It goes down linear steps as a derivative does. At a non-linearity it
is multiplied by what the output's difference is to the input's. Where two arguments
meet (products, quotients, maxima), each gets its Shapley value, so that contributions
add up to the score's difference whatever the network is made of.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from protojax.contracts import Array, Score
from protojax.methods.activations import backward, kinds


def multipliers(
    score: Score,
    x: Array,
    reference: Array,
    *,
    pool: backward.BackwardRule | None = None,
) -> Array:
    """What each input's difference from a reference is multiplied with, for the score.

    Args:
      score: `[H, W, C] -> []`, or of any shape: the sum is then meant.
      x: `[H, W, C]` image.
      reference: `[H, W, C]` image to compare with.
      pool: the rule for max pooling: `two_sided` by default; `winner_take_all` is what
        the authors of Ghorbani et al. 2019 computed, and does not add up.

    Returns:
      `[H, W, C]`; times `x - reference` it sums to the score's difference.

    Raises:
      ValueError: the score holds something that has no rule.

    References:
      Shrikumar et al., Learning important features through propagating activation
      differences, 2017.

    >>> import jax, jax.numpy as jnp
    >>> float(multipliers(jax.nn.relu, jnp.array(3.0), jnp.array(-1.0)))
    0.75
    """
    pool = two_sided if pool is None else pool
    rules = RULES | {"reduce_window_max": pool}
    return backward.propagate(score, x, rules, start=jnp.ones_like, reference=reference)


def two_sided(site: backward.Site, messages: Sequence[Array]) -> list:
    """Max pooling, between two points that have different winners.

    The larger of the two maxima says who is to thank for the difference: its winner
    gets it all, so that contributions add up (as in Captum and DeepSHAP).

    Args:
      site: a maximum over windows, or over axes.
      messages: the multiplier at its output.

    Returns:
      The multiplier at its input.

    >>> import jax.numpy as jnp
    >>> x, r = jnp.array([2.0, 1.0]), jnp.array([0.0, 9.0])
    >>> multipliers(jnp.max, x, r).tolist()  # 2 - 9 = 0.875 (1 - 9)
    [0.0, 0.875]
    """
    return _extremum(site, messages, 1)


def winner_take_all(site: backward.Site, messages: Sequence[Array]) -> list:
    """Max pooling, as if the winner at the image had won at the reference too.

    Args:
      site: a maximum over windows.
      messages: the multiplier at its output.

    Returns:
      The multiplier at its input.

    >>> import jax.numpy as jnp
    >>> x, r = jnp.array([[[2.0]], [[1.0]]]), jnp.array([[[0.0]], [[9.0]]])
    >>> top = lambda x: jax.lax.reduce_window(
    ...     x, -jnp.inf, jax.lax.max, (2, 1, 1), (1, 1, 1), "VALID"
    ... ).sum()
    >>> multipliers(top, x, r, pool=winner_take_all).ravel().tolist()
    [1.0, 0.0]
    """
    return site.vjp(messages)


def _extremum(site, messages, sign) -> list:
    """`sign` is 1 for a maximum, -1 for a minimum."""
    (z,), (r,) = site.inputs[:1], site.inputs_there[:1]
    ((y,), (s,), (message,)) = site.outputs, site.outputs_there, messages
    change = y - s
    ours = sign * change > 0
    credit = jnp.where(ours, message * change, 0)
    debit = jnp.where(ours, 0, message * change)
    (total,) = site.vjp([credit])
    (total_there,) = site.vjp([debit], site.inputs_there)
    (plain,) = site.vjp(messages)
    return [_divided(total + total_there, z - r, _scale(z, r), plain)]


def _negative_extremum(site, messages) -> list:
    return _extremum(site, messages, -1)


def _linear(site, messages) -> list:
    return site.vjp(messages)


def _product(site, messages) -> list:
    if sum(site.active) == 1:
        return site.vjp(messages)
    # a product's Shapley value is its derivative half way
    half_way = [
        (here + there) / 2 if active else here
        for here, there, active in zip(
            site.inputs, site.inputs_there, site.active, strict=True
        )
    ]
    return site.vjp(messages, half_way)


def _quotient(site, messages) -> list:
    (a, b), (a_there, b_there), (message,) = site.inputs, site.inputs_there, messages
    return [
        backward.unbroadcast(message * (1 / b + 1 / b_there) / 2, a),
        backward.unbroadcast(-message * (a + a_there) / 2 / (b * b_there), b),
    ]


def _elementwise(site, messages) -> list:
    active = [k for k, active in enumerate(site.active) if active]
    if len(active) == 1:
        return _one_argument(site, messages, *active)
    if len(active) == 2:
        return _two_arguments(site, messages, *active)
    raise backward.no_rule(site.equation)


def _one_argument(site, messages, k) -> list:
    z, there, (message,) = site.inputs[k], site.inputs_there[k], messages
    (plain,) = (m for m in site.vjp([jnp.ones_like(message)]) if m is not None)
    change = site.outputs[0] - site.outputs_there[0]
    ratio = _divided(change, z - there, _scale(z, there), plain)
    return [message * ratio if j == k else None for j in range(len(site.inputs))]


def _two_arguments(site, messages, *pair) -> list:
    """Each argument's Shapley value: its mean effect with the other here and there."""
    (message,) = messages

    def step(*values):
        inputs = list(site.inputs)
        for k, value in zip(pair, values, strict=True):
            inputs[k] = value
        return site.equation.bind(*inputs)[0]

    a, b = (jnp.broadcast_to(site.inputs[k], message.shape) for k in pair)
    c, d = (jnp.broadcast_to(site.inputs_there[k], message.shape) for k in pair)
    here, plain = jax.vjp(step, a, b)
    there, only_a, only_b = step(c, d), step(a, d), step(c, b)
    effects = (here - only_b + only_a - there) / 2, (here - only_a + only_b - there) / 2
    ratios = map(
        _divided,
        effects,
        (a - c, b - d),
        (_scale(a, c), _scale(b, d)),
        plain(jnp.ones_like(message)),
    )
    multipliers = {
        k: backward.unbroadcast(message * ratio, site.inputs[k])
        for k, ratio in zip(pair, ratios, strict=True)
    }
    return [multipliers.get(k) for k in range(len(site.inputs))]


def _divided(change: Array, step: Array, scale: Array, plain: Array) -> Array:
    """The change by the step, or the plain derivative where the step is rounding."""
    tiny = jnp.abs(step) <= 8 * jnp.finfo(step.dtype).eps * scale
    return jnp.where(tiny, plain, change / jnp.where(tiny, 1, step))


def _scale(z: Array, there: Array) -> Array:
    return jax.lax.stop_gradient(jnp.maximum(jnp.abs(z), jnp.abs(there)))


RULES: dict[str, backward.BackwardRule] = (
    dict.fromkeys(kinds.ELEMENTWISE, _elementwise)
    | dict.fromkeys(kinds.STRUCTURAL | kinds.SUMS | {"neg"}, _linear)
    | dict.fromkeys(kinds.PRODUCTS, _product)
    | {
        "div": _quotient,
        "reduce_max": two_sided,
        "reduce_min": _negative_extremum,
        "reduce_window_min": _negative_extremum,
        "scatter-mul": _product,
    }
)
"""The rescale rule for each primitive that has one."""
