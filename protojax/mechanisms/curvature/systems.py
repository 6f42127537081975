"""Solutions of linear systems of curvature, by conjugate gradients."""

from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, MatVec, PyTree
from protojax.mechanisms import checks
from protojax.mechanisms.curvature import krylov


class Solution(NamedTuple):
    """What conjugate gradients found.

    Attributes:
      x: the solution, a tree like `b`.
      residual: `[]` the norm of `b - (A + damping) x` relative to that of `b`, by a
        product with `x` itself, not by the recursion of the iteration.
      steps: `[]` how many steps were taken.
      converged: `[]` whether the residual is at most `tol`. Where it is False, `x` is
        no solution.
    """

    x: PyTree
    residual: Array
    steps: Array
    converged: Array


class NotConverged(ValueError):
    """A linear system that was not solved, whose iterate must not be read as one."""


def solve(
    matvec: MatVec,
    b: PyTree,
    *,
    damping: ArrayLike = 0.0,
    tol: ArrayLike = 1e-6,
    steps: int = 100,
) -> Solution:
    r"""Solve `(A + damping) x = b` for a symmetric positive definite operator.

    Conjugate gradients from zero. The iteration stops at the first of these:

    * the norm of the residual is at most `tol` times that of `b`. Once the recursion
      says so, the residual is computed anew from `x`; where that is larger, the
      iteration starts again from there, as long as this at least halves it;
    * the curvature `<p, A p> / <p, p>` along a search direction is negative, or at the
      rounding level of the largest met: the operator is indefinite or singular;
    * a product has a number that is not finite;
    * `steps` steps were taken.

    A singular operator is solved where `b` is in its range; the solution is the
    shortest one. Derivatives are those of the solution, by the implicit function
    theorem: they take one more system to solve.

    Args:
      matvec: the product with a tree like `b`; symmetric.
      b: the right-hand side, a tree of floating-point arrays.
      damping: `[]` is added to the diagonal; may be traced.
      tol: `[]` the relative residual at which to stop; may be traced. About the
        rounding level times the condition number is the least to be had: 1e-4 in
        float32 for a condition number of a thousand.
      steps: how many steps at most. Each costs a product, and the check of the
        residual one more.

    Returns:
      The solution with its residual; `converged` has to be read where this is traced.

    Raises:
      NotConverged: if it is known that the system was not solved, for want of steps,
        of precision, or of a positive definite operator.
      FloatingPointError: if a product is known not to be finite.
      ValueError: for a negative damping, a tolerance that is not positive, a
        right-hand side that is not finite or not of floating-point numbers, a product
        of another size, or fewer than one step.

    References:
      Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems,
      1952.

    >>> import jax.numpy as jnp
    >>> diagonal = jnp.array([1.0, 4.0])
    >>> found = solve(lambda v: diagonal * v, jnp.array([2.0, 2.0]), damping=1.0)
    >>> [round(float(value), 5) for value in found.x], bool(found.converged)
    ([1.0, 0.4], True)
    """
    _check(b, damping, tol, steps)
    flat, unravel = jax.flatten_util.ravel_pytree(b)
    product = krylov.flat(matvec, b, name="b").product
    damping, tol = (jnp.asarray(value, flat.dtype) for value in (damping, tol))
    # Squares of a small right-hand side would be zero in single precision.
    peak = jnp.max(jnp.abs(flat), initial=0)
    scale = jax.lax.stop_gradient(jnp.where(peak > 0, peak, 1))

    with jax.default_matmul_precision("highest"):

        def climb(damped: MatVec, right: Array) -> tuple[Array, _State]:
            last = _iterate(damped, right, tol, steps)
            return last.x, last

        x, last = jax.lax.custom_linear_solve(
            lambda v: product(v) + damping * v,
            flat / scale,
            climb,
            symmetric=True,
            has_aux=True,
        )
    solution = Solution(unravel(x * scale), last.size, last.steps, last.size <= tol)
    if checks.known((solution, last)):
        _raise_unless_solved(last, float(damping), float(tol), steps)
    return solution


class _State(NamedTuple):
    x: Array
    residual: Array
    direction: Array
    square: Array  # of the residual
    steps: Array
    size: Array  # of the residual at the last check, relative to the right-hand side
    checking: Array  # whether the next product is that with x
    done: Array
    finite: Array
    lowest: Array  # curvatures met
    highest: Array


def _iterate(damped: MatVec, b: Array, tol: Array, steps: int) -> _State:
    """One product each time around: a step's, or the one with `x` that checks it.

    So a batch of systems, some stepping and some checking, pays for no product twice.
    """
    norm = jnp.sqrt(jnp.sum(b**2))
    norm = jnp.where(norm > 0, norm, 1)
    eps = jnp.finfo(b.dtype).eps

    def body(state: _State) -> _State:
        image = damped(jnp.where(state.checking, state.x, state.direction))
        finite = state.finite & jnp.all(jnp.isfinite(image))
        checked, stepped = check(state, image), step(state, image)
        new = jax.tree.map(
            lambda a, b: jnp.where(state.checking, a, b), checked, stepped
        )
        return new._replace(finite=finite)

    def check(state: _State, image: Array) -> _State:
        residual = b - image
        size = jnp.sqrt(jnp.sum(residual**2)) / norm
        on = (size > tol) & (size <= state.size / 2) & (state.steps < steps)
        return state._replace(
            residual=residual,
            direction=residual,
            square=jnp.sum(residual**2),
            size=size,
            checking=jnp.zeros((), bool),
            done=~(on & sound(state)),
        )

    def step(state: _State, image: Array) -> _State:
        p = state.direction
        along = jnp.sum(p * image)
        curvature = along / jnp.sum(p**2)
        state = state._replace(
            lowest=jnp.minimum(state.lowest, curvature),
            highest=jnp.maximum(state.highest, curvature),
        )
        length = jnp.where(sound(state), state.square / along, 0)
        residual = state.residual - length * image
        square = jnp.sum(residual**2)
        small = jnp.sqrt(square) <= tol * norm
        return state._replace(
            x=state.x + length * p,
            residual=residual,
            direction=residual + square / state.square * p,
            square=square,
            steps=state.steps + 1,
            checking=small | ~sound(state) | (state.steps + 1 >= steps),
        )

    def sound(state: _State) -> Array:
        return state.lowest > eps * jnp.maximum(state.highest, 0)

    start = _State(
        x=jnp.zeros_like(b),
        residual=b,
        direction=b,
        square=jnp.sum(b**2),
        steps=jnp.zeros((), jnp.int32),
        size=jnp.full((), jnp.inf, b.dtype),
        checking=~jnp.any(b != 0),
        done=jnp.zeros((), bool),
        finite=jnp.ones((), bool),
        lowest=jnp.full((), jnp.inf, b.dtype),
        highest=jnp.full((), -jnp.inf, b.dtype),
    )
    return jax.lax.while_loop(lambda state: ~state.done, body, start)


def _check(b: PyTree, damping: ArrayLike, tol: ArrayLike, steps: int) -> None:
    checks.count("steps", steps)
    checks.positive("damping", damping, or_zero=True)
    checks.positive("tol", tol)
    checks.finite("b", b, "look at the gradient that it is")


def _raise_unless_solved(last: _State, damping: float, tol: float, steps: int) -> None:
    taken, residual = int(last.steps), float(last.size)
    if not last.finite:
        raise FloatingPointError(
            f"a product is not finite at step {taken} of conjugate gradients: look at "
            "the function whose curvature it is (a logarithm or a norm at zero?)"
        )
    if residual <= tol:
        return
    eps = jnp.finfo(last.x.dtype).eps
    if not last.lowest > eps * last.highest:
        raise NotConverged(
            f"the operator with `damping` {damping:g} is not positive definite: its "
            f"curvature along the direction of step {taken} is {float(last.lowest):.3g}"
            f" (the largest met: {float(last.highest):.3g}). Take a `damping` above the"
            " size of its lowest eigenvalue (top_eigenpairs(..., which='smallest')), or"
            " the Gauss-Newton operator, which has no negative ones"
        )
    if taken < steps:
        raise NotConverged(
            f"the relative residual stays at {residual:.3g}, above `tol` ({tol:g}), for"
            f" the rounding of {last.x.dtype}: raise `tol` or `damping`, or compute in "
            "float64"
        )
    raise NotConverged(
        f"the relative residual is {residual:.3g} after `steps` ({steps}), above `tol` "
        f"({tol:g}): raise `steps`, `damping` or `tol`"
    )
