"""Layer-wise relevance propagation (LRP) and the deep Taylor rules.

The score is handed down as relevance, each layer giving its inputs their parts of what
it was given. A layer is a convolution or a product with weights, together with the
bias, the normalization by fixed statistics and the reshaping around it; what rule
divides its relevance is the caller's choice. Elsewhere: activations pass relevance on,
sums divide it by what each term is, a product of two activations by halves, a maximum
of several gives it to its winner.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Score
from protojax.methods.activations import backward, kinds, layering


class Layer(NamedTuple):
    """An affine layer at one input, as a relevance rule sees it.

    Attributes:
      input: what it reads.
      output: what it gives, with its bias.
      affine: `input -> output`.
      split: `(u, v) -> (W+ u + W- v, W+ v + W- u)`, by the signs of the weights.
    """

    input: Array
    output: Array
    affine: Callable[[Array], Array]
    split: Callable[[Array, Array], tuple[Array, Array]]

    def linear(self) -> tuple[Array, Callable[[Array], Array]]:
        """The output less its bias, and the transpose of the layer."""
        _, without_bias = jax.jvp(self.affine, (self.input,), (self.input,))
        return without_bias, lambda message: jax.vjp(self.affine, self.input)[1](
            message
        )[0]


RelevanceRule = Callable[[Layer, Array], Array]
"""`(layer, relevance of its output) -> relevance of its input`."""


def relevances(
    score: Score,
    x: Array,
    *,
    rule: RelevanceRule,
    first: RelevanceRule | None = None,
) -> Array:
    """Hand a score down to the image.

    Args:
      score: `[H, W, C] -> []`.
      x: `[H, W, C]` image.
      rule: for the layers.
      first: for layers that read the image itself; `rule` by default.

    Returns:
      `[H, W, C]` relevance of each input.

    Raises:
      ValueError: the score holds something that has no rule.

    References:
      Bach et al., On pixel-wise explanations for non-linear classifier decisions by
      layer-wise relevance propagation, 2015.

    >>> import jax.numpy as jnp
    >>> relevances(lambda x: x @ jnp.array([2.0, 1.0]), jnp.ones(2), rule=zero).tolist()
    [2.0, 1.0]
    """
    rules = RULES | {
        "layer": at_layer(rule),
        "first_layer": at_layer(rule if first is None else first),
    }
    return backward.propagate(
        score, x, rules, start=lambda y: y, group=layering.layered
    )


def zero(layer: Layer, relevance: Array) -> Array:
    """LRP-0 of Bach et al. 2015: by each input's contribution; biases keep theirs.

    Args:
      layer: at its input.
      relevance: of its output.

    Returns:
      The relevance of its input.

    >>> import jax.numpy as jnp
    >>> f = lambda x: x @ jnp.array([2.0, 1.0]) + 3
    >>> relevances(f, jnp.ones(2), rule=zero).tolist()
    [2.0, 1.0]
    """
    _, transpose = layer.linear()
    return layer.input * transpose(ratio(relevance, layer.output))


def without_bias(layer: Layer, relevance: Array) -> Array:
    """LRP-0, with all relevance to the inputs: biases get none.

    The "layer-wise propagation" of the code of Ghorbani et al. 2019.

    Args:
      layer: at its input.
      relevance: of its output.

    Returns:
      The relevance of its input.

    >>> import jax.numpy as jnp
    >>> f = lambda x: x @ jnp.array([2.0, 1.0]) + 3
    >>> relevances(f, jnp.ones(2), rule=without_bias).tolist()
    [4.0, 2.0]
    """
    output, transpose = layer.linear()
    return layer.input * transpose(ratio(relevance, output))


def epsilon(size: ArrayLike = 1e-6) -> RelevanceRule:
    """LRP-epsilon of Bach et al. 2015: by contribution; small outputs give little.

    Args:
      size: `[]` what is added to the size of each output.

    Returns:
      The rule.

    >>> import jax.numpy as jnp
    >>> f = lambda x: x @ jnp.array([2.0, 1.0])
    >>> relevances(f, jnp.ones(2), rule=epsilon(1.0)).tolist()
    [1.5, 0.75]
    """

    def rule(layer, relevance):
        _, transpose = layer.linear()
        away = jnp.where(layer.output >= 0, size, -size)
        return layer.input * transpose(ratio(relevance, layer.output + away))

    return rule


def gamma(size: ArrayLike = 0.25) -> RelevanceRule:
    """LRP-gamma: contributions of the output's sign count `1 + gamma` times.

    Where inputs and outputs are positive, as below ReLUs, these are the positive
    weights. A bias of that sign is counted as they are, and keeps its part.

    Args:
      size: `[]` how much more they count.

    Returns:
      The rule.

    References:
      Montavon et al., Layer-wise relevance propagation: an overview, 2019.

    >>> import jax.numpy as jnp
    >>> f = lambda x: x @ jnp.array([2.0, -1.0])
    >>> relevances(f, jnp.ones(2), rule=gamma(1.0)).tolist()  # (4, -1) / 3
    [1.3333333730697632, -0.3333333432674408]
    """

    def rule(layer, relevance):
        without_bias, transpose = layer.linear()
        (positive, negative), split = jax.vjp(_by_sign(layer), layer.input)
        up, bias = layer.output >= 0, layer.output - without_bias
        favored = jnp.where(
            up, positive + jnp.maximum(bias, 0), negative + jnp.minimum(bias, 0)
        )
        share = ratio(relevance, layer.output + size * favored)
        extra = jnp.where(up, size * share, 0), jnp.where(up, 0, size * share)
        return layer.input * (transpose(share) + split(extra)[0])

    return rule


def alpha_beta(alpha: ArrayLike = 2.0, beta: ArrayLike = 1.0) -> RelevanceRule:
    """LRP-alpha-beta: positive and negative contributions apart, without biases.

    Args:
      alpha: `[]` weight of the positive ones; `alpha - beta` should be one.
      beta: `[]` weight of the negative ones.

    Returns:
      The rule.

    References:
      Bach et al. 2015.

    >>> import jax.numpy as jnp
    >>> f = lambda x: x @ jnp.array([2.0, -1.0])
    >>> relevances(f, jnp.ones(2), rule=alpha_beta()).tolist()
    [2.0, -1.0]
    """

    def rule(layer, relevance):
        (positive, negative), split = jax.vjp(_by_sign(layer), layer.input)
        shares = (
            alpha * ratio(relevance, positive),
            -beta * ratio(relevance, negative),
        )
        return layer.input * split(shares)[0]

    return rule


def z_plus(layer: Layer, relevance: Array) -> Array:
    """The z+ rule of deep Taylor decomposition: positive contributions alone.

    Args:
      layer: at its input.
      relevance: of its output.

    Returns:
      The relevance of its input.

    References:
      Montavon et al., Explaining nonlinear classification decisions with deep Taylor
      decomposition, 2017.

    >>> import jax.numpy as jnp
    >>> f = lambda x: x @ jnp.array([2.0, -1.0])
    >>> relevances(f, jnp.ones(2), rule=z_plus).tolist()
    [1.0, 0.0]
    """
    return alpha_beta(1.0, 0.0)(layer, relevance)


def box(low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> RelevanceRule:
    """The z^B rule of deep Taylor decomposition, for pixels between two bounds.

    Args:
      low: the least value of a pixel, of any shape that broadcasts.
      high: the largest.

    Returns:
      The rule.

    References:
      Montavon et al. 2017.

    >>> import jax.numpy as jnp
    >>> f = lambda x: x @ jnp.array([2.0, -1.0])
    >>> x = jnp.array([1.0, 0.5])
    >>> relevances(f, x, rule=z_plus, first=box()).tolist()  # 1.5 * (2, 0.5) / 2.5
    [1.2000000476837158, 0.30000001192092896]
    """

    def rule(layer, relevance):
        a = layer.input
        lows = jnp.broadcast_to(jnp.asarray(low, a.dtype), a.shape)
        highs = jnp.broadcast_to(jnp.asarray(high, a.dtype), a.shape)
        # else XLA folds the layer at the bounds, slowly, while it compiles
        a, lows, highs = jax.lax.optimization_barrier((a, lows, highs))

        def between(a, lows, highs):
            output = jax.jvp(layer.affine, (a,), (a,))[1]
            return output - layer.split(lows, highs)[0]

        output, back = jax.vjp(between, a, lows, highs)
        parts = back(ratio(relevance, output))
        return sum(
            value * part for value, part in zip((a, lows, highs), parts, strict=True)
        )

    return rule


def _by_sign(layer):
    """The positive and the negative contributions to a layer's output."""

    def split(a):
        return layer.split(jnp.maximum(a, 0), jnp.minimum(a, 0))

    return split


def ratio(relevance: Array, output: Array) -> Array:
    """Relevance per output, none where there is no output.

    Args:
      relevance: `[...]`.
      output: `[...]`.

    Returns:
      `[...]`.

    >>> import jax.numpy as jnp
    >>> ratio(jnp.ones(2), jnp.array([2.0, 0.0])).tolist()
    [0.5, 0.0]
    """
    none = output == 0
    return jnp.where(none, 0, relevance / jnp.where(none, 1, output))


def at_layer(rule: RelevanceRule) -> backward.BackwardRule:
    """The rule of a layer as one of the steps that `layering.layered` gathers.

    Args:
      rule: for layers.

    Returns:
      The rule for steps called `layer` or `first_layer`.

    >>> import jax.numpy as jnp
    >>> rules = {"first_layer": at_layer(z_plus)}
    >>> backward.propagate(lambda x: x @ jnp.array([2.0, -1.0]), jnp.ones(2), rules,
    ...                    start=jnp.ones_like, group=layering.layered).tolist()
    [1.0, 0.0]
    """

    def at(site, messages):
        steps = site.equation.params["steps"]
        places = dict(zip(site.equation.params["inputs"], site.inputs, strict=True))
        others = site.inputs[1:]
        layer = Layer(
            site.inputs[0],
            site.outputs[0],
            lambda a: site.equation.bind(a, *others)[0],
            lambda u, v: layering.by_sign(steps, places, u, v),
        )
        return [rule(layer, *messages), *(None for _ in others)]

    return at


def _pass(site, messages) -> list:
    """What acts on each entry alone passes relevance on."""
    active = [k for k, active in enumerate(site.active) if active]
    if len(active) != 1:
        raise backward.no_rule(site.equation)
    onto = backward.unbroadcast(messages[0], site.inputs[active[0]])
    return [onto if k == active[0] else None for k in range(len(site.inputs))]


def _moved(site, messages) -> list:
    return site.vjp(messages)


def _summed(site, messages) -> list:
    shares = [ratio(m, y) for m, y in zip(messages, site.outputs, strict=True)]
    return _times_input(site, site.vjp(shares))


def _add(site, messages) -> list:
    return (_summed if sum(site.active) == 2 else _pass)(site, messages)


def _shared(site, messages) -> list:
    """Of two factors, each gets one half."""
    if sum(site.active) == 1:
        return _pass(site, messages)
    return [part / 2 for part in _summed(site, messages)]


def _scattered(site, messages) -> list:
    """A factor at some places: all keep what they had."""
    parts = zip(site.active, _summed(site, messages), strict=True)
    return [part / sum(site.active) if active else None for active, part in parts]


def _winner(site, messages) -> list:
    """A bound that is a constant is an activation, however it is written."""
    return (_pass if sum(site.active) == 1 else _moved)(site, messages)


def _quotient(site, messages) -> list:
    if sum(site.active) == 1:
        return _pass(site, messages)
    return [backward.unbroadcast(messages[0] / 2, factor) for factor in site.inputs]


def _times_input(site, messages: Sequence) -> list:
    return [
        None if m is None else i * m for i, m in zip(site.inputs, messages, strict=True)
    ]


RULES: dict[str, backward.BackwardRule] = (
    dict.fromkeys(kinds.ELEMENTWISE, _pass)
    | dict.fromkeys(kinds.STRUCTURAL, _moved)
    | dict.fromkeys(kinds.SUMS, _summed)
    | dict.fromkeys(("add", "sub"), _add)
    | dict.fromkeys(kinds.PRODUCTS, _shared)
    | {"div": _quotient, "scatter-mul": _scattered}
    | dict.fromkeys(("max", "min"), _winner)
    | dict.fromkeys(("reduce_max", "reduce_min"), _moved)
    | dict.fromkeys(("reduce_window_max", "reduce_window_min"), _moved)
)
"""What each primitive does with relevance, apart from the layers."""
