"""Max pooling and its derivatives, without scattering."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from protojax.contracts import Array
from protojax.mechanisms import tracing
from protojax.mechanisms.lowering.convolutions import UNROLL


def _maxima(eqn: tracing.Equation, operand: Array) -> list[Array] | Any:
    """The maxima of max pooling, from the same pass as its winners."""
    if not _is_small(eqn.params) or not jnp.issubdtype(operand.dtype, jnp.floating):
        return NotImplemented
    return [_winners(operand, eqn.params)[0]]


def _tangent(
    eqn: tracing.Equation, tangent: Array, operand: Array
) -> list[Array] | Any:
    """Take each window's tangent at its first maximum."""
    p = eqn.params
    if p["select_prim"].name != "ge" or not _is_small(p):
        return NotImplemented
    _, winner = _winners(operand, p)
    total = jnp.zeros(winner.shape, tangent.dtype)
    for number, value in enumerate(_taps(tangent, 0, p, winner.shape)):
        total = jnp.where(winner == number, value, total)
    return [total]


def _gradient(
    eqn: tracing.Equation, cotangent: Array, operand: Array
) -> list[Array] | Any:
    """Give each window's cotangent to its first maximum, gathered by the pixels."""
    p = eqn.params
    if p["select_prim"].name != "ge" or not _is_small(p):
        return NotImplemented
    window, strides = p["window_dimensions"], p["window_strides"]
    _, winner = _winners(operand, p)
    # In the padded image, pixel q * stride + phase hears from the windows that start at
    # (q - shift) * stride, through their tap shift * stride + phase.
    reach = [-(-k // s) for k, s in zip(window, strides)]
    counts = [n + r - 1 for n, r in zip(winner.shape, reach)]
    zero = jnp.zeros((), cotangent.dtype)
    edges = [(r - 1, r - 1, 0) for r in reach]
    winner, given = (
        lax.pad(winner, jnp.int32(-2), edges),
        lax.pad(cotangent, zero, edges),
    )
    total = jnp.zeros(_pairs(counts, strides), cotangent.dtype)
    for shift in itertools.product(*map(range, reach)):
        starts = [r - 1 - h for r, h in zip(reach, shift)]
        stops = [start + n for start, n in zip(starts, counts)]
        taps = _tap_numbers(shift, window, strides)
        wins = _spread(lax.slice(winner, starts, stops)) == taps
        total += jnp.where(wins, _spread(lax.slice(given, starts, stops)), 0)
    pixels = total.reshape([n * s for n, s in zip(counts, strides)])
    edges = [
        (-low, n + low - size, 0)
        for (low, _), n, size in zip(p["padding"], operand.shape, pixels.shape)
    ]
    return [lax.pad(pixels, zero, edges)]


def _tap_numbers(shift: Sequence, window: Sequence, strides: Sequence) -> Array:
    """Of the taps shift * stride + phase, for all phases; -1 outside of the window."""
    shape = _pairs([1] * len(strides), strides)
    number, inside = jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool)
    for axis, (h, k, s) in enumerate(zip(shift, window, strides)):
        tap = h * s + lax.broadcasted_iota(jnp.int32, shape, 2 * axis + 1)
        number, inside = number * k + tap, inside & (tap < k)
    return jnp.where(inside, number, -1)


def _winners(operand: Array, params: Mapping) -> tuple[Array, Array]:
    """Each window's maximum and the number of the tap that has it first."""
    keys = ("window_dimensions", "window_strides", "padding")
    sizes = zip(operand.shape, *(params[k] for k in keys))
    shape = [(n + low + high - k) // s + 1 for n, k, s, (low, high) in sizes]
    taps = _taps(operand, -jnp.inf, params, shape)
    best, winner = next(taps), jnp.zeros(shape, jnp.int32)
    for number, value in enumerate(taps, 1):
        better = ~(value <= best) & (best == best)  # a NaN stays
        best = jnp.where(better, value, best)
        winner = jnp.where(better, number, winner)
    return best, winner


def _taps(x: Array, fill: float, params: Mapping, shape: Sequence[int]) -> Iterator:
    """What all windows see through their first tap, their second, ..."""
    edges = [(low, high, 0) for low, high in params["padding"]]
    x = lax.pad(x, jnp.asarray(fill, x.dtype), edges)
    strides = params["window_strides"]
    for tap in itertools.product(*map(range, params["window_dimensions"])):
        stops = [t + (n - 1) * s + 1 for t, n, s in zip(tap, shape, strides)]
        yield lax.slice(x, tap, stops, strides)


def _is_small(params: Mapping) -> bool:
    dilations = (params.get(k, ()) for k in ("base_dilation", "window_dilation"))
    undilated = all(d == 1 for dilation in dilations for d in dilation)
    return undilated and math.prod(params["window_dimensions"]) <= UNROLL


def _spread(x: Array) -> Array:
    return x.reshape(_pairs(x.shape, [1] * x.ndim))


def _pairs(a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [size for pair in zip(a, b) for size in pair]


RULES: dict[str, Callable] = {
    "reduce_window_max": _maxima,
    "select_and_scatter_add": _gradient,
    "select_and_gather_add": _tangent,
}
"""By primitive."""
