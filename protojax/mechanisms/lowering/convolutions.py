"""Convolutions in the form that XLA's CPU back-end is fast at."""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from protojax.contracts import Array
from protojax.mechanisms import tracing

UNROLL = 64
"""At most so many taps, positions or groups are written out one by one."""


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
    if any(min(edges) < 0 for edges in window.padding):
        return _convolve(*_cropped(x, w, window))
    taps = math.prod(w.shape[:-2])
    positions = math.prod(_result_shape(x, w, window))
    if window.groups == x.shape[-1] > 1 and taps <= UNROLL:
        return _depthwise(x, w, window)
    if window.batch_groups == x.shape[0] > 1 and positions <= UNROLL:
        return _depthwise_kernel_gradient(x, w, window)
    one = window._replace(groups=1, batch_groups=1)
    for groups, axis in ((window.groups, -1), (window.batch_groups, 0)):
        if 1 < groups <= UNROLL:  # not both are above one
            parts = zip(
                jnp.split(x, groups, axis), jnp.split(w, groups, axis=-1), strict=True
            )
            return jnp.concatenate([_convolve(*part, one) for part in parts], axis=-1)
    if window.groups == window.batch_groups == 1:
        if taps == 1 and _unpadded(window):
            return _pointwise(x, w, window)
        if positions == 1 and _undilated(window):
            return _pointwise_kernel_gradient(x, w, window)
        if taps >= positions and _is_upsampling(window):
            return _phases(x, w, window)
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


def _cropped(x: Array, w: Array, window: Window) -> tuple[Array, Array, Window]:
    """Cut the image where padding is negative, for which XLA reads out of bounds."""
    cuts = [(min(low, 0), min(high, 0)) for low, high in window.padding]
    edges = [(max(low, 0), max(high, 0)) for low, high in window.padding]
    x = _dilated(x, cuts, window.lhs_dilation)
    return x, w, window._replace(padding=edges, lhs_dilation=[1] * len(edges))


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


def _is_upsampling(window: Window) -> bool:
    """Whether zeros are put between pixels, and every position is looked at."""
    plain = {*window.strides, *window.rhs_dilation} == {1}
    return plain and not _undilated(window) and math.prod(window.lhs_dilation) <= UNROLL


def _phases(x: Array, w: Array, window: Window) -> Array:
    """A small result of a dilated image: one convolution for each phase of the result.

    Kernel gradients of transposed convolutions are such. For results that are larger
    than the kernel, XLA itself is as fast or faster.

    Where `d - 1` zeros stand between pixels, position `d q + r` of the result meets
    pixels through every d-th tap of the kernel only, the first of which is `(low - r) %
    d`. None of the products with zeros is made.
    """
    shape = _result_shape(x, w, window)
    counts = [-(-n // d) for n, d in zip(shape, window.lhs_dilation)]
    phases = [
        _phase(x, w, window, phase, counts)
        for phase in itertools.product(*map(range, window.lhs_dilation))
    ]
    y = jnp.stack(phases).reshape(*window.lhs_dilation, *phases[0].shape)
    # [d, e, N, q, p, C] -> [N, q, d, p, e, C] -> [N, q d, p e, C]
    rank = len(counts)
    pairs = [axis for i in range(rank) for axis in (rank + 1 + i, i)]
    y = lax.transpose(y, (rank, *pairs, 2 * rank + 1))
    sizes = [n * d for n, d in zip(counts, window.lhs_dilation)]
    y = y.reshape(x.shape[0], *sizes, w.shape[-1])
    return y[(slice(None), *(slice(n) for n in shape))]


def _phase(
    x: Array, w: Array, window: Window, phase: Sequence[int], counts: Sequence[int]
) -> Array:
    taps, padding = [], []
    sizes = zip(
        x.shape[1:-1], w.shape, counts, phase, window.padding, window.lhs_dilation
    )
    for n, k, count, r, (low, _), d in sizes:
        first = (low - r) % d
        here = range(first, k, d)
        start = (r + first - low) // d  # of the first tap, at the first position
        unmet = max(0, 1 - count - start)  # taps that meet nothing but padding
        here = here[unmet : max(unmet, n - start)]
        start += unmet
        taps.append(slice(here.start, here.stop, d))
        padding.append((-start, start + count - 1 + len(here) - n))
    w = w[tuple(taps)]
    if w.size == 0:
        kind = window.options["preferred_element_type"] or jnp.result_type(x, w)
        return jnp.zeros((x.shape[0], *counts, w.shape[-1]), kind)
    plain = window._replace(padding=padding, lhs_dilation=[1] * len(counts))
    return _convolve(x, w, plain)


def _contract(x: Array, w: Array, window: Window) -> Array:
    w = w.reshape(w.shape[-2:])
    return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())), **window.options)


def _pointwise_kernel_gradient(x: Array, w: Array, window: Window) -> Array:
    """A kernel that lies in one place: one product over pixels and channels."""
    sizes = [(n - 1) * d + 1 for n, d in zip(w.shape[:-2], window.rhs_dilation)]
    x = _dilated(x, window.padding, [1] * len(sizes))
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


RULES: dict[str, Callable] = {"conv_general_dilated": _convolution}
"""By primitive."""
