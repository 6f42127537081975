"""The same function, fast on CPU.

XLA's CPU back-end has slow spots: a convolution inside a loop runs as a naive nest of
loops unless its layout is NHWC/HWIO; depthwise convolutions, grouped ones (as `vmap`
over weights makes them) and the derivatives of max pooling are slow anywhere. The rules
here re-emit each in a form that is not. They act on the traced, already differentiated
function, so that they need no derivative rules and serve any order and any network.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from protojax.contracts import Array, Fn
from protojax.mechanisms import tracing

UNROLL = 64
"""At most so many taps, positions or groups are written out one by one."""


def canonical(fn: Fn) -> Fn:
    """Return the same function in a form that is fast on CPU.

    Apply it to what is run, after differentiation: to a gradient rather than to the
    function that is differentiated, inside `jit`. Off CPU it gives `fn` back, as GPUs
    and TPUs want the original form.

    Args:
      fn: any traceable function of arrays, in any structure.

    Returns:
      A function of the same values. Plain convolutions are equal to the bit; products
      (1x1), depthwise and grouped convolutions sum in another order.

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


class Window(NamedTuple):
    """How a convolution slides, apart from its operands and their layout."""

    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    lhs_dilation: Sequence[int]
    rhs_dilation: Sequence[int]
    groups: int
    batch_groups: int
    options: dict[str, Any]  # precision, preferred_element_type


def _convolution(eqn: tracing.Equation, lhs: Array, rhs: Array) -> list[Array]:
    """Re-emit any layout as images `[N, *S, C]` and kernels `[*S, I, O]`."""
    p = eqn.params
    image, kernel, result = p["dimension_numbers"]
    x = lax.transpose(lhs, (image[0], *image[2:], image[1]))
    w = lax.transpose(rhs, (*kernel[2:], kernel[1], kernel[0]))
    window = Window(
        p["window_strides"],
        p["padding"],
        p["lhs_dilation"],
        p["rhs_dilation"],
        p["feature_group_count"],
        p["batch_group_count"],
        {k: p[k] for k in ("precision", "preferred_element_type")},
    )
    y = _convolve(x, w, window)
    return [lax.transpose(y, np.argsort((result[0], *result[2:], result[1])))]


def _convolve(x: Array, w: Array, window: Window) -> Array:
    taps = math.prod(w.shape[:-2])
    positions = math.prod(_result_shape(x, w, window))
    if window.groups == x.shape[-1] > 1 and taps <= UNROLL:
        return _depthwise(x, w, window)
    if window.batch_groups == x.shape[0] > 1 and positions <= UNROLL:
        return _depthwise_kernel_gradient(x, w, window)
    if 1 < window.groups <= UNROLL:
        parts = zip(
            jnp.split(x, window.groups, axis=-1),
            jnp.split(w, window.groups, axis=-1),
            strict=True,
        )
        one = window._replace(groups=1)
        return jnp.concatenate([_convolve(*part, one) for part in parts], axis=-1)
    if 1 < window.batch_groups <= UNROLL:
        parts = zip(
            jnp.split(x, window.batch_groups, axis=0),
            jnp.split(w, window.batch_groups, axis=-1),
            strict=True,
        )
        one = window._replace(batch_groups=1)
        return jnp.concatenate([_convolve(*part, one) for part in parts], axis=-1)
    if window.groups == window.batch_groups == 1 and _unpadded(window):
        if taps == 1:
            return _pointwise(x, w, window)
        if positions == 1 and _undilated(window):
            return _pointwise_kernel_gradient(x, w, window)
    spatial = "DHW"[-(x.ndim - 2) :]
    return lax.conv_general_dilated(
        x,
        w,
        window.strides,
        window.padding,
        window.lhs_dilation,
        window.rhs_dilation,
        (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        window.groups,
        window.batch_groups,
        **window.options,
    )


def _unpadded(window: Window) -> bool:
    return all(low == high == 0 for low, high in window.padding)


def _undilated(window: Window) -> bool:
    return all(dilation == 1 for dilation in window.lhs_dilation)


def _pointwise(x: Array, w: Array, window: Window) -> Array:
    """A 1x1 convolution: a product over channels, of every stride-th pixel."""
    sizes = [(n - 1) * d + 1 for n, d in zip(x.shape[1:-1], window.lhs_dilation)]
    if _undilated(window):
        x = _strided(x, [0] * len(sizes), sizes, window.strides)
        return _contract(x, w, window)
    y = _dilated(_contract(x, w, window), [(0, 0)] * len(sizes), window.lhs_dilation)
    return _strided(y, [0] * len(sizes), sizes, window.strides)


def _contract(x: Array, w: Array, window: Window) -> Array:
    w = w.reshape(w.shape[-2:])
    return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())), **window.options)


def _pointwise_kernel_gradient(x: Array, w: Array, window: Window) -> Array:
    """A kernel as large as the image: one product over pixels and channels."""
    sizes = [(n - 1) * d + 1 for n, d in zip(w.shape, window.rhs_dilation)]
    x = _strided(x, [0] * len(sizes), sizes, window.rhs_dilation)
    contracted = (tuple(range(1, x.ndim)), tuple(range(w.ndim - 1)))
    y = lax.dot_general(x, w, (contracted, ((), ())), **window.options)
    return lax.expand_dims(y, range(1, x.ndim - 1))


def _depthwise(x: Array, w: Array, window: Window) -> Array:
    """One channel of the kernel for each channel of the image: shifted products."""
    shape = _result_shape(x, w, window)
    x, w, kind = _widened(x, w, window)
    x = _dilated(x, window.padding, window.lhs_dilation)
    x = jnp.repeat(x, w.shape[-1] // x.shape[-1], axis=-1)
    spans = [(n - 1) * s + 1 for n, s in zip(shape, window.strides)]
    products = []
    for tap in itertools.product(*map(range, w.shape[:-2])):
        starts = [t * d for t, d in zip(tap, window.rhs_dilation)]
        shifted = _strided(x, starts, spans, window.strides)
        products.append(shifted * lax.expand_dims(w[tap][0], range(x.ndim - 1)))
    return functools.reduce(operator.add, products).astype(kind)


def _depthwise_kernel_gradient(x: Array, w: Array, window: Window) -> Array:
    """Channels in the batch's place: one sum of products for each kernel tap."""
    shape = _result_shape(x, w, window)
    x, w, kind = _widened(x, w, window)
    x = _dilated(x, window.padding, window.lhs_dilation)
    # Channels last, as the images were before the derivative moved them to the front.
    x = jnp.repeat(jnp.moveaxis(x, 0, -1), w.shape[-1] // x.shape[0], axis=-1)
    x = jnp.moveaxis(x, -2, 0)
    w = jnp.moveaxis(w, -2, 0)
    spans = [(n - 1) * d + 1 for n, d in zip(w.shape[1:-1], window.rhs_dilation)]
    taps = []
    for position in itertools.product(*map(range, shape)):
        starts = [p * s for p, s in zip(position, window.strides)]
        shifted = _strided(x, starts, spans, window.rhs_dilation)
        taps.append(jnp.sum(shifted * w, axis=range(w.ndim - 1)))
    return jnp.stack(taps).reshape(1, *shape, w.shape[-1]).astype(kind)


def _widened(x: Array, w: Array, window: Window) -> tuple[Array, Array, Any]:
    """Operands in the type in which to add, and the type of the result."""
    kind = window.options["preferred_element_type"] or jnp.result_type(x, w)
    narrow = jnp.issubdtype(kind, jnp.floating) and jnp.finfo(kind).bits < 32
    wide = jnp.float32 if narrow else kind
    return x.astype(wide), w.astype(wide), kind


def _result_shape(x: Array, w: Array, window: Window) -> list[int]:
    sizes = zip(
        x.shape[1:-1],
        w.shape[:-2],
        window.strides,
        window.padding,
        window.lhs_dilation,
        window.rhs_dilation,
    )
    return [
        max(0, ((n - 1) * ld + 1 if n else 0) + low + high - ((k - 1) * rd + 1) + s)
        // s
        for n, k, s, (low, high), ld, rd in sizes
    ]


def _dilated(x: Array, padding: Sequence, dilation: Sequence[int]) -> Array:
    inner = [(low, high, d - 1) for (low, high), d in zip(padding, dilation)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])


def _strided(x: Array, starts: Sequence, spans: Sequence, strides: Sequence) -> Array:
    stops = [start + span for start, span in zip(starts, spans)]
    return lax.slice(
        x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), (1, *strides, 1)
    )


def _pool(eqn: tracing.Equation, operand: Array) -> list[Array] | Any:
    """The maxima of max pooling, from the same pass as its winners."""
    if not _is_small(eqn.params) or not jnp.issubdtype(operand.dtype, jnp.floating):
        return NotImplemented
    return [_winners(operand, eqn.params)[0]]


def _pool_tangent(
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


def _pool_gradient(
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
    "conv_general_dilated": _convolution,
    "reduce_window_max": _pool,
    "select_and_scatter_add": _pool_gradient,
    "select_and_gather_add": _pool_tangent,
}
"""What `canonical` replaces, by primitive."""
