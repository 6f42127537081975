"""The one loop that climbs, and the best iterate of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from protojax.contracts import Array, Fn, Key, Objective, PyTree, Transform
from protojax.mechanisms import checks, lowering


class Ascent(NamedTuple):
    """What a climb found.

    Attributes:
      x: best iterate under `select`, a tree like the start.
      value: `[]` its `select` value. NaN if no iterate had one above minus infinity
        (undefined, or ruled out as by `objectives.label_kept`): `x` is the start then.
      step: `[]` when it was met; 0 is the start.
      stalled: `[]` whether the gradient at the start was zero (or not finite)
        everywhere. Nothing was tried then: this is not robustness.
      trace: `[S]` the objective before each step.
    """

    x: PyTree
    value: Array
    step: Array
    stalled: Array
    trace: Array


class Stalled(ValueError):
    """A climb that could not begin, which must not be read as robustness."""


def ascend(
    objective: Objective,
    x: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    project: Callable[[PyTree], PyTree] | None = None,
    transform: Transform | None = None,
    key: Key | None = None,
    select: Objective | None = None,
) -> Ascent:
    """Climb an objective, and keep the best iterate.

    One `lax.scan`. The optimizer is given the negated gradient, so that every Optax
    optimizer, made to descend, ascends here.

    Args:
      objective: `x -> []`, differentiable; what is climbed.
      x: where the climb starts: an array or any tree of arrays.
      optimizer: the step, an Optax transformation with a positive learning rate.
      steps: how many steps.
      project: the set that the iterates may not leave; none by default.
      transform: a random change of each iterate before the objective sees it
        (expectation over transformations); it needs `key`.
      key: consumed; one key per step for `transform`.
      select: `x -> []`, by which the best iterate is chosen, the start among them,
        the earliest of equals; `objective` (as evaluated for the steps) by default.

    Returns:
      The best iterate, its value, its step, and the trace `[steps]`.

    Raises:
      ValueError: for fewer than one step, or a transform without a key.
      AssertionError: if `objective` or `select` gives anything else than one number.

    >>> import jax.numpy as jnp, optax
    >>> out = ascend(lambda x: -((x - 1.0) ** 2), jnp.array(0.0),
    ...              optimizer=optax.sgd(0.25), steps=20)
    >>> round(float(out.x), 3), int(out.step)
    (1.0, 20)
    """
    checks.count("steps", steps)
    if transform is not None and key is None:
        raise ValueError("`transform` is random: pass `key`")
    keys = None if key is None else jax.random.split(key, steps + 1)

    def seen(z: PyTree, step_key: Any) -> Array:
        value = objective(z if transform is None else transform(z, key=step_key))
        chex.assert_rank(value, 0)
        return value

    climb = lowering.canonical(jax.value_and_grad(seen))
    judge = lowering.canonical(select or objective)
    judged = jax.eval_shape(judge, x)
    chex.assert_rank(judged, 0)
    dtype = jnp.result_type(judged.dtype, float)

    def body(carry: tuple, xs: tuple) -> tuple[tuple, tuple]:
        z, state, best = carry
        count, step_key = xs
        value, gradient = climb(z, step_key)
        chosen = value if select is None else judge(z)
        best = better(best, z, chosen.astype(dtype), count)
        descent = jax.tree.map(jnp.negative, gradient)
        update, state = optimizer.update(descent, state, z)
        moved = optax.apply_updates(z, update)
        moved = moved if project is None else project(moved)
        return (moved, state, best), (value, _stuck(gradient))

    nothing = (x, jnp.full((), jnp.nan, dtype), jnp.zeros((), jnp.int32))
    (last, _, best), (trace, stuck) = jax.lax.scan(
        body,
        (x, optimizer.init(x), nothing),
        (jnp.arange(steps, dtype=jnp.int32), None if keys is None else keys[:-1]),
    )
    if select is None:
        last_key = None if keys is None else keys[-1]
        value = evaluate(lowering.canonical(seen), last, last_key)
    else:
        value = evaluate(judge, last)
    best = better(best, last, value.astype(dtype), jnp.int32(steps))
    return Ascent(best[0], best[1], best[2], stalled=stuck[0], trace=trace)


def raise_if_stalled(ascent: Ascent) -> Ascent:
    """Raise where a climb is known to have failed; hand it on otherwise.

    Args:
      ascent: the result of a climb, or of a batch of them. Traced results pass: there
        the fields say it.

    Returns:
      The same result.

    Raises:
      Stalled: if the gradient at the start was zero everywhere, of any climb.
      FloatingPointError: if the objective became NaN on the way, of any climb.

    >>> import jax.numpy as jnp, optax
    >>> out = ascend(lambda x: 0.0 * x, jnp.array(1.0), optimizer=optax.sgd(1.0),
    ...              steps=1)
    >>> raise_if_stalled(out)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    Stalled: ...
    """
    if not checks.known((ascent.stalled, ascent.trace)):
        return ascent
    stalled, broken = np.asarray(ascent.stalled), np.isnan(ascent.trace)
    if stalled.any():
        of_many = f"climbs {np.flatnonzero(stalled)} of {stalled.size}: "
        which = of_many if stalled.ndim else ""
        raise Stalled(
            f"{which}the objective's gradient at the start is zero (or not finite) "
            "everywhere, so nothing was tried and this is not robustness. Usual "
            "causes: a piecewise linear network attacked through its own gradient map "
            "(pass a smooth twin, activations.replace(fn, "
            "activations.softplus(beta))); a distance to the map's own center or to "
            "the map itself (pass a direction, a truncated center or a random start); "
            "a mask that hides every pixel that matters; a model whose explanation is "
            "constant, such as a linear one"
        )
    if broken.any():
        first = int(np.argwhere(broken)[:, -1].min())
        raise FloatingPointError(
            f"the objective is NaN before step {first + 1} of {broken.shape[-1]}: "
            "look at the explanation there (a map that sums to zero, a logarithm of "
            "zero?) or take a smaller `step_size`"
        )
    return ascent


def evaluate(fn: Fn, *args: PyTree) -> PyTree:
    """Call a function once, as one program outside of `jit` too.

    Args:
      fn: any traceable function.
      *args: its arguments, trees of arrays.

    Returns:
      What `fn` returns.

    >>> import jax.numpy as jnp
    >>> float(evaluate(jnp.add, jnp.array(1.0), jnp.array(2.0)))
    3.0
    """
    _, out = jax.lax.scan(lambda _, given: (None, fn(*given)), None, _stack_one(args))
    return jax.tree.map(lambda leaf: leaf[0], out)


def better(
    best: tuple[PyTree, Array, Array], x: PyTree, value: Array, step: Array
) -> tuple[PyTree, Array, Array]:
    """The better of the best so far and a new candidate.

    Args:
      best: the best `x`, its value and its step; NaN as value to begin with.
      x: the candidate.
      value: `[]` its value. Of equals the earlier stays; a number beats NaN, but for
        minus infinity, which rules the candidate out.
      step: `[]` its step.

    Returns:
      The winner, as `best`.

    >>> import jax.numpy as jnp
    >>> best = better((jnp.nan, jnp.nan, 0), jnp.array(7.0), jnp.array(2.0), 1)
    >>> [float(part) for part in best]
    [7.0, 2.0, 1.0]
    """
    wins = (value > best[1]) | (jnp.isnan(best[1]) & (value > -jnp.inf))
    return jax.tree.map(
        lambda new, old: jnp.where(wins, new, old), (x, value, step), best
    )


def _stack_one(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)


def _stuck(gradient: PyTree) -> Array:
    moves = [jnp.any(jnp.isfinite(g) & (g != 0)) for g in jax.tree.leaves(gradient)]
    return ~jnp.any(jnp.stack(moves))
