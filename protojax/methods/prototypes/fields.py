"""Which pixels a place of a feature map sees: receptive fields of any network.

They follow from windows alone: of convolutions and pools, what they pad, how far they
move. What reaches a place by a mean over the whole map, as in a normalization, does not
count; nor does it in the published arithmetic, which this gives for its networks.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from protojax.contracts import Array, Fn, PyTree
from protojax.mechanisms import tracing
from protojax.methods.activations import kinds


class Field(NamedTuple):
    """The pixels that each place of a feature map sees, along rows and columns.

    Attributes:
      first: `[2]` the first pixel that place 0 sees; below zero if it sees padding.
      size: `[2]` how many pixels a place sees.
      jump: `[2]` by how many pixels the next place is further on.
    """

    first: tuple[int, int]
    size: tuple[int, int]
    jump: tuple[int, int]


def receptive_field(features: Fn, weights: PyTree, x: Array) -> Field:
    """What each place of a feature map sees of the image.

    The traced function is gone through from the image on: each window widens the field,
    each stride the jump, branches that meet are taken together. Nothing is computed, so
    shapes serve in the place of weights and image.

    Args:
      features: `(weights, x) -> [h, w, C]`, see `models.protopnet.features`.
      weights: the weights, or their shapes.
      x: `[H, W, C]` the image, or its shape.

    Returns:
      The field; along an axis that was lost (in a loop, in a reshape, in a step of
      which no rule is known) the whole image.

    References:
      Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural
      Networks, 2019.

    >>> import jax.numpy as jnp
    >>> image = jnp.zeros((8, 8, 1))
    >>> window = ((3, 3, 1), (2, 2, 1), ((1, 1), (1, 1), (0, 0)))
    >>> pool = lambda _, x: jax.lax.reduce_window(x, 0.0, jax.lax.add, *window)
    >>> receptive_field(pool, None, image)
    Field(first=(-1, -1), size=(3, 3), jump=(2, 2))
    """
    program = tracing.straight_line(features, weights, x)
    shapes = jax.eval_shape(program.run, weights, x)
    spans: dict[int, _Spans] = {program.inputs[-1]: (_Span(0), _Span(1), None)}
    for step in program.steps:
        inputs = [
            ((None,) * len(source.value.shape), source.value.shape)
            if isinstance(source, tracing.Constant)
            else (
                spans.get(source, (None,) * shapes[source].ndim),
                shapes[source].shape,
            )
            for source in step.inputs
        ]
        rule = _RULES.get(step.equation.name, _lost)
        for place in step.outputs:
            found = rule(step.equation.params, inputs, shapes[place].shape)
            if any(span is not None for span in found):
                spans[place] = found
    (output,) = program.outputs
    found = [] if isinstance(output, tracing.Constant) else spans.get(output, ())
    ends = [_along(axis, found, x.shape) for axis in (0, 1)]
    first, size, jump = zip(*ends, strict=True)
    return Field(first, size, jump)


def box(
    field: Field,
    cell: Sequence[int],
    image_size: Sequence[int],
    *,
    window: Sequence[int] = (1, 1),
) -> tuple[int, int, int, int]:
    """The rectangle of the image that a place of a feature map sees.

    Args:
      field: from `receptive_field`.
      cell: row and column of the place, the first one if a prototype covers several.
      image_size: height and width of the image.
      window: rows and columns of places that a prototype covers.

    Returns:
      First row, last row (exclusive), first column, last column (exclusive); empty
      for a place that sees nothing of an image of that size.

    Raises:
      ValueError: for a place before the first.

    >>> box(Field((-90, -90), (212, 212), (32, 32)), (3, 0), (224, 224))
    (6, 218, 0, 122)
    """
    if min(cell) < 0:
        raise ValueError(f"`cell` is {tuple(cell)}: rows and columns begin with 0")
    ends = []
    for axis in (0, 1):
        low = field.first[axis] + int(cell[axis]) * field.jump[axis]
        high = low + field.size[axis] + (window[axis] - 1) * field.jump[axis]
        ends += [min(max(end, 0), image_size[axis]) for end in (low, high)]
    top, bottom, left, right = ends
    return top, bottom, left, right


class _Span(NamedTuple):
    """Index i along an axis sees pixels low + jump * i to high + jump * i."""

    axis: int  # of the image
    low: int = 0
    high: int = 0
    jump: int = 1

    def slid(self, size: int, stride: int, before: int, dilation: int = 1) -> "_Span":
        """After a window of some size, stride and padding."""
        low = self.low - before * self.jump
        high = self.high + ((size - 1) * dilation - before) * self.jump
        return _Span(self.axis, low, high, self.jump * stride)


_Spans = tuple[_Span | None, ...]
_Inputs = list[tuple[_Spans, tuple[int, ...]]]


def _along(axis: int, spans: Sequence[_Span | None], shape: Sequence[int]) -> Any:
    for span in spans:
        if span is not None and span.axis == axis:
            return int(span.low), int(span.high - span.low + 1), int(span.jump)
    return 0, shape[axis], 0


def _met(spans: Sequence[_Span | None]) -> _Span | None:
    """Of branches that meet: all that any of them sees."""
    known = [span for span in spans if span is not None]
    if not known or len({(span.axis, span.jump) for span in known}) > 1:
        return None
    low, high = min(s.low for s in known), max(s.high for s in known)
    return known[0]._replace(low=low, high=high)


def _elementwise(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del params
    alike = [spans for spans, size in inputs if size == shape]
    return tuple(map(_met, zip(*alike))) if alike else (None,) * len(shape)


def _convolution(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    (spans, _), (_, kernel) = inputs
    image, weights, result = params["dimension_numbers"]
    out: list[_Span | None] = [None] * len(shape)
    out[result[0]] = spans[image[0]]
    for place, (source, side, target) in enumerate(
        zip(image[2:], weights[2:], result[2:], strict=True)
    ):
        if spans[source] is not None and params["lhs_dilation"][place] == 1:
            out[target] = spans[source].slid(
                kernel[side],
                params["window_strides"][place],
                params["padding"][place][0],
                params["rhs_dilation"][place],
            )
    return tuple(out)


def _window(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del shape
    spans, _ = inputs[0]
    windows = zip(
        spans,
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["window_dilation"],
        params["base_dilation"],
        strict=True,
    )
    return tuple(
        None if span is None or base > 1 else span.slid(size, stride, pad[0], dilation)
        for span, size, stride, pad, dilation, base in windows
    )


def _pad(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del shape
    return tuple(
        None if span is None or interior else span.slid(1, 1, before)
        for span, (before, _, interior) in zip(inputs[0][0], params["padding_config"])
    )


def _slice(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    strides = params["strides"] or (1,) * len(shape)
    return tuple(
        None if span is None else span.slid(1, stride, -start)
        for span, start, stride in zip(inputs[0][0], params["start_indices"], strides)
    )


def _transpose(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del shape
    return tuple(inputs[0][0][axis] for axis in params["permutation"])


def _reshape(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    """Axes of length one come and go; others stay where all before them is the same."""
    del params
    spans, before = inputs[0]
    ends = {}
    for axis, span in enumerate(spans):
        ends[math.prod(before[:axis]), before[axis]] = span
    return tuple(
        ends.get((math.prod(shape[:axis]), size)) if size > 1 else None
        for axis, size in enumerate(shape)
    )


def _broadcast(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    spans, before = inputs[0]
    out: list[_Span | None] = [None] * len(shape)
    for axis, target in enumerate(params["broadcast_dimensions"]):
        if before[axis] == shape[target]:
            out[target] = spans[axis]
    return tuple(out)


def _squeeze(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del shape
    kept = enumerate(inputs[0][0])
    return tuple(span for axis, span in kept if axis not in params["dimensions"])


def _concatenate(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del shape
    found = list(map(_met, zip(*(spans for spans, _ in inputs))))
    found[params["dimension"]] = None
    return tuple(found)


def _product(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del shape
    (contracted, batched) = params["dimension_numbers"]
    shared = [
        _met([inputs[0][0][i], inputs[1][0][j]]) for i, j in zip(*batched, strict=True)
    ]
    free = [
        span
        for (spans, _), summed, shares in zip(inputs, contracted, batched, strict=True)
        for axis, span in enumerate(spans)
        if axis not in (*summed, *shares)
    ]
    return (*shared, *free)


def _reduced(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del shape
    kept = enumerate(inputs[0][0])
    return tuple(span for axis, span in kept if axis not in params["axes"])


def _lost(params: Any, inputs: _Inputs, shape: tuple[int, ...]) -> _Spans:
    del params, inputs
    return (None,) * len(shape)


_POOLS = ("max", "min", "sum")
_AS_IT_IS = ("optimization_barrier", "sharding_constraint", "stop_gradient")
_RULES: dict[str, Callable[[Any, _Inputs, tuple[int, ...]], _Spans]] = {
    **dict.fromkeys([*kinds.ELEMENTWISE, *_AS_IT_IS], _elementwise),
    "conv_general_dilated": _convolution,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "concatenate": _concatenate,
    "dot_general": _product,
    **dict.fromkeys([f"reduce_window_{kind}" for kind in _POOLS], _window),
    **dict.fromkeys([f"reduce_{kind}" for kind in (*_POOLS, "prod")], _reduced),
}
