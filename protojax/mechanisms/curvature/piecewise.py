"""The whole input spectrum, in closed form, where a network is piecewise linear."""

from collections.abc import Sequence

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp

from protojax.contracts import Fn, PyTree
from protojax.mechanisms import lowering, tracing
from protojax.mechanisms.curvature import krylov
from protojax.mechanisms.curvature.eigen import Eigenpairs


def cross_entropy_eigenpairs(predict: Fn, x: PyTree) -> Eigenpairs:
    r"""All eigenpairs of the input Hessian of a softmax cross-entropy.

    Where the logits of `K` classes are piecewise linear in the input, with Jacobian
    `J`, the Hessian of the cross-entropy is, for every label,

    .. math:: J^T (diag(p) - p p^T) J = B^T B, \quad
        B_k = \sqrt{p_k} (J_k - \textstyle\sum_i p_i J_i),

    of rank `K - 1` at most. So `K` backward passes and the singular values of a
    triangular `K x K` factor of `B` give the whole spectrum; those of `B B^T` would do
    as well, in exact arithmetic. The Hessian of a log-probability is the negative of
    it, that of a logit is zero. Where a prediction is so confident that `1 - p` is lost
    in single precision, this is still right, and products with `hessian` are not.

    That `predict` is piecewise linear is read off its traced form, which holds for
    every input, needs no tolerance, and can tell under `jit` and `vmap` too, where a
    second derivative at `x` would be known too late to raise.

    Args:
      predict: from a tree like `x` to logits `[K]`, without softmax: linear maps,
        ReLUs, maxima, normalization by fixed statistics.
      x: where the Hessian is taken, a tree of floating-point arrays; D numbers.

    Returns:
      `min(K - 1, D)` pairs, from the largest value down. All other eigenvalues are
      zero. The residuals are those of products with `J` and its transpose.

    Raises:
      NotPiecewiseLinear: if `predict` has a step that is not known to be piecewise
        linear; it is named with its line.
      ValueError: for a single logit.
      FloatingPointError: if logits or their Jacobian are known not to be finite.

    References:
      Singla et al., Understanding impacts of high-order loss approximations and
      features in deep learning interpretation, 2019.

    >>> import jax.numpy as jnp
    >>> weights = jnp.array([[1.0, 0.0, 2.0], [-1.0, 0.0, 2.0]])
    >>> pairs = cross_entropy_eigenpairs(lambda x: weights @ x, jnp.zeros(3))
    >>> round(float(pairs.values[0]), 5), jnp.abs(pairs.vectors[0]).round(5).tolist()
    (1.0, [1.0, 0.0, 0.0])
    """
    chex.assert_type(jax.tree.leaves(x), float)
    raise_if_curved(predict, x)
    flat, unravel = jax.flatten_util.ravel_pytree(x)
    with jax.default_matmul_precision("highest"):
        logits, backward = jax.vjp(lambda z: predict(unravel(z)), flat)
        chex.assert_rank(logits, 1)
        if logits.size == 1:
            raise ValueError(
                "`predict` gives one logit, and the softmax of one class is constant: "
                "for a sigmoid give two, jnp.stack([0, logit])"
            )
        pull = lowering.canonical(lambda u: backward(u)[0])
        rows = jax.lax.map(pull, jnp.eye(logits.size, dtype=logits.dtype))
        # Differences to the likeliest class are small for themselves where their mean
        # is small; those of the rows would be rounding errors.
        rows = rows - rows[jnp.argmax(logits)][None]
        log_p = jax.nn.log_softmax(logits)
        centered = rows - (jnp.exp(log_p) @ rows)[None]
        factor = jnp.exp(log_p / 2)[:, None] * centered
        # Not the Gram matrix: a confident prediction has eigenvalues of many orders.
        basis, triangle = jnp.linalg.qr(factor.T)
        weights, singular, _ = jnp.linalg.svd(triangle)
        rank = min(logits.size - 1, flat.size)
        vectors = (basis @ weights[:, :rank]).T
        values = singular[:rank] ** 2
        rest = (vectors @ factor.T) @ factor - values[:, None] * vectors
    pairs = Eigenpairs(
        values, jax.vmap(unravel)(vectors), jnp.sqrt(jnp.sum(rest**2, axis=1))
    )
    krylov.raise_unless_finite(pairs)
    return pairs


class NotPiecewiseLinear(ValueError):
    """A function that may bend, whose curvature has no closed form."""


def raise_if_curved(fn: Fn, x: PyTree) -> None:
    """Refuse a function that may not be piecewise linear.

    Read off the traced form: no step may bend what depends on `x`, as an exponential
    does, or a product of two such values. Comparisons, signs and integers are constant
    almost everywhere. Steps that are not known, loops among them, are refused.

    Args:
      fn: any traceable function of a tree of arrays.
      x: the tree, or its shapes.

    Raises:
      NotPiecewiseLinear: naming the first such step and its line.

    >>> import jax, jax.numpy as jnp
    >>> raise_if_curved(jax.nn.relu, jnp.ones(3))
    >>> raise_if_curved(jnp.exp, jnp.ones(3))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    NotPiecewiseLinear: ...
    """
    program = tracing.straight_line(fn, x)
    types = jax.eval_shape(program.run, x)
    moving = set(program.inputs)
    for step in program.steps:
        moved = [isinstance(place, int) and place in moving for place in step.inputs]
        moves = any(moved) and step.equation.name not in _STEPS
        bends = [
            place
            for place in step.outputs
            if moves and jnp.issubdtype(types[place].dtype, jnp.inexact)
        ]
        if bends and not _is_piecewise_linear(step.equation, moved):
            raise NotPiecewiseLinear(
                f"the function is not known to be piecewise linear: "
                f"`{step.equation.name}` at {step.equation.source} may bend it. Take "
                "top_eigenpairs(hessian(loss, x), ...), which holds for any function"
            )
        moving.update(bends)


def _is_piecewise_linear(equation: tracing.Equation, moved: Sequence[bool]) -> bool:
    if equation.name in _PRODUCTS:
        return sum(moved) == 1
    if equation.name == "div":
        return not moved[1]
    return equation.name in _PIECEWISE_LINEAR


_STEPS = {"ceil", "floor", "round", "sign"}  # constant almost everywhere
_PRODUCTS = {"mul", "dot_general", "conv_general_dilated"}
_PIECEWISE_LINEAR = {
    "abs",
    "add",
    "add_any",
    "broadcast_in_dim",
    "clamp",
    "concatenate",
    "convert_element_type",
    "copy",
    "cummax",
    "cummin",
    "cumsum",
    "dynamic_slice",
    "dynamic_update_slice",
    "gather",
    "max",
    "min",
    "name",
    "neg",
    "optimization_barrier",
    "pad",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "reduce_window_max",
    "reduce_window_min",
    "reduce_window_sum",
    "reshape",
    "rev",
    "scatter",
    "scatter-add",
    "scatter-sub",
    "select_n",
    "slice",
    "sort",
    "split",
    "squeeze",
    "stack",
    "stop_gradient",
    "sub",
    "tile",
    "transpose",
    "unstack",
}
