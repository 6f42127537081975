"""How much each training example counts for a test example."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, Fn, PyTree
from protojax.mechanisms import checks, curvature, lowering
from protojax.methods.influence import inverses, losses


class Influence(NamedTuple):
    """The influence of every training example on a test example.

    Attributes:
      values: `[N]`. Positive: the example helps; trained without it, the loss on the
        test example would be higher by about `values / N`. NaN where the example's
        loss is not finite, as that of a label which is no class.
      direction: the inverse Hessian times the test gradient, a tree like `params`; the
        influence of any other training example is the slope of its loss along it.
      residual: `[]` of the linear system, relative; see the inverse that was used.
      converged: `[]` whether the system was solved. Where it is False, the values are
        no influences.
    """

    values: Array
    direction: PyTree
    residual: Array
    converged: Array


def of_training(
    loss: losses.Loss,
    params: PyTree,
    train: PyTree,
    test: PyTree,
    inverse: inverses.Inverse,
    *,
    batch_size: int = 64,
) -> Influence:
    r"""The influence of every training example on one test example.

    .. math:: \nabla L(z_{test})^T (H + \lambda)^{-1} \nabla L(z_i)

    One linear system for the test example; then each training example costs one
    forward-mode pass along its solution, and no training gradient is ever formed.
    The values of several examples add up to the influence of the group.

    Args:
      loss: `(params, example) -> []`.
      params: at a minimum of the training loss, as far as there is one; of a network's
        parameters those that count, see `restrict`.
      train: the training examples, a tree of arrays `[N, ...]`.
      test: one example, a tree like those of `train`.
      inverse: what stands for the inverse of the damped Hessian. By conjugate
        gradients: `functools.partial(curvature.solve, matvec, damping=...)` with
        `matvec = curvature.mean_hessian(loss, params, train)`; or `projected(...)`,
        or `lissa(...)`.
      batch_size: so many training examples at once; memory grows with it.

    Returns:
      The influences, and whether the system was solved.

    Raises:
      ValueError: for an empty training set, an example whose loss is not finite (NaN
        pixels, a label that is no class), or a batch size below one.
      NotConverged: if it is known that the system was not solved.

    References:
      Koh and Liang, Understanding black-box predictions via influence functions, 2017.

    >>> import functools, jax.numpy as jnp
    >>> from protojax import curvature
    >>> loss = lambda w, z: 0.5 * (w - z) ** 2      # training gives the mean
    >>> train, mean = jnp.array([0.0, 1.0, 5.0]), jnp.array(2.0)
    >>> inverse = functools.partial(
    ...     curvature.solve, curvature.mean_hessian(loss, mean, train))
    >>> found = of_training(loss, mean, train, jnp.array(3.0), inverse)
    >>> found.values.tolist()                       # the mean is too low for this test
    [-2.0, -1.0, 3.0]
    """
    checks.size_of("train", train)
    checks.count("batch_size", batch_size)
    _check_losses(loss, params, train, test, batch_size)
    with jax.default_matmul_precision("highest"):
        found = inverse(_gradient(loss, params, test))
        raise_unless_converged(found)
        values = _map(
            lambda example: slope(loss, params, example, found.x), train, batch_size
        )
    return Influence(values, found.x, found.residual, found.converged)


def direction(
    loss: losses.Loss,
    params: PyTree,
    train: PyTree,
    chosen: Array,
    inverse: inverses.Inverse,
) -> curvature.Solution:
    """The direction along which a test loss has the influence of chosen examples.

    The slope of any example's loss along it is the sum of the influences that the
    chosen training examples have on that example. So it is solved for once, and serves
    all test examples, and all steps of an attack on one.

    Args:
      loss: `(params, example) -> []`.
      params: as for `of_training`.
      train: the training examples, a tree of arrays `[N, ...]`.
      chosen: `[k]` their places; may be traced, and the system is not solved then where
        one is outside of the training set.
      inverse: as for `of_training`.

    Returns:
      The solution for the sum of their gradients.

    Raises:
      ValueError: if a place is known to be outside of the training set.
      NotConverged: if it is known that the system was not solved.

    >>> import functools, jax.numpy as jnp
    >>> from protojax import curvature
    >>> loss = lambda w, z: 0.5 * (w - z) ** 2
    >>> train, mean = jnp.array([0.0, 1.0, 5.0]), jnp.array(2.0)
    >>> inverse = functools.partial(
    ...     curvature.solve, curvature.mean_hessian(loss, mean, train))
    >>> found = direction(loss, mean, train, jnp.array([0, 1]), inverse)
    >>> float(slope(loss, mean, jnp.array(3.0), found.x))
    -3.0
    """
    count = checks.size_of("train", train)
    chex.assert_rank(chosen, 1)
    if checks.known(chosen):
        places = np.asarray(chosen)
        if places.size == 0 or places.min() < 0 or places.max() >= count:
            raise ValueError(
                f"`chosen` is {places.tolist()}: choose from 0 to {count - 1}"
            )
    picked = jax.tree.map(
        lambda leaf: (
            jnp.asarray(leaf).at[chosen].get(mode="fill", wrap_negative_indices=False)
        ),
        train,
    )

    def total(p: PyTree, examples: PyTree) -> Array:
        return jnp.sum(jax.vmap(loss, (None, 0))(p, examples))

    with jax.default_matmul_precision("highest"):
        found = inverse(_gradient(total, params, picked))
    raise_unless_converged(found)
    return found


def slope(loss: losses.Loss, params: PyTree, example: PyTree, along: PyTree) -> Array:
    """The derivative of an example's loss along a direction of the parameters.

    Args:
      loss: `(params, example) -> []`.
      params: where it is taken.
      example: one example.
      along: the direction, a tree like `params`.

    Returns:
      `[]` the slope, by one forward-mode pass; NaN where the loss is not finite.

    >>> import jax.numpy as jnp
    >>> w, along = jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0])
    >>> float(slope(lambda w, x: jnp.sum(w**2) * x, w, 1.0, along))
    4.0
    """
    with jax.default_matmul_precision("highest"):
        value, moved = jax.jvp(lambda p: loss(p, example), (params,), (along,))
    return jnp.where(jnp.isfinite(value), moved, jnp.nan)


def raise_unless_converged(found: curvature.Solution) -> None:
    """Raise where a system is known not to have been solved.

    Args:
      found: the result of an inverse. Traced results pass: there the field says it.

    Raises:
      NotConverged: naming the residual.

    >>> import jax.numpy as jnp
    >>> from protojax import curvature
    >>> raise_unless_converged(curvature.Solution(1.0, jnp.array(0.0), 1, True))
    """
    if checks.known((found.converged, found.residual)) and not np.all(found.converged):
        raise curvature.NotConverged(
            f"the inverse Hessian left a relative residual of {found.residual}: raise "
            "its steps or its `damping`"
        )


def _gradient(loss: losses.Loss, params: PyTree, example: PyTree) -> PyTree:
    """NaN where the loss is not finite: that of a label that is no class is zero."""
    value, found = lowering.canonical(jax.value_and_grad(loss))(params, example)
    finite = jnp.isfinite(value)
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), found)


def _map(fn: Fn, examples: PyTree, batch_size: int) -> Array:
    examples = jax.tree.map(jnp.asarray, examples)
    return lowering.canonical(
        lambda given: jax.lax.map(fn, given, batch_size=batch_size)
    )(examples)


def _check_losses(
    loss: losses.Loss, params: PyTree, train: PyTree, test: PyTree, batch_size: int
) -> None:
    """Name the examples of which no influence can be known."""
    if not checks.known((params, train, test)):
        return
    found = {
        "test": _map(
            lambda example: loss(params, example),
            jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], test),
            1,
        ),
        "train": _map(lambda example: loss(params, example), train, batch_size),
    }
    if not checks.known(found):  # all is known, and yet inside of `jit`
        return
    for name, each in found.items():
        chex.assert_rank(each, 1)
        bad = np.flatnonzero(~np.isfinite(each))
        if bad.size:
            which = "" if name == "test" else f" of examples {bad[:5].tolist()}"
            raise ValueError(
                f"`{name}` has a loss that is not finite{which}: are there NaN in them,"
                " and are their labels classes of the model?"
            )
