"""What stands for the inverse of a damped Hessian, besides conjugate gradients.

Each gives a function of the right-hand side that returns a `curvature.Solution`, as
`functools.partial(curvature.solve, matvec, damping=...)` is one.
"""

from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Key, MatVec, PyTree
from protojax.mechanisms import checks, curvature, lowering
from protojax.methods.influence import losses

Inverse = Callable[[PyTree], curvature.Solution]
"""What stands for `(H + damping)^-1`: a tree like the parameters to its solution."""


def projected(
    pairs: curvature.Eigenpairs, *, damping: ArrayLike = 0.0, tol: ArrayLike = 1e-2
) -> Inverse:
    """The inverse on the span of some eigenvectors, and zero beside it.

    With the leading eigenpairs of a network too large for conjugate gradients, one
    product with the eigenvectors replaces a linear system; influences are those that go
    through the directions in which the training loss is curved the most. With all
    pairs, from `all_eigenpairs`, it is the inverse.

    The `residual` of its solutions is, relative to the right-hand side, what of that is
    outside of the span, together with what the eigenpairs leave. `converged` is about
    the pairs: whether each belongs to the operator, and is solvable. It is False as
    well where the right-hand side is not finite.

    Args:
      pairs: from `curvature.top_eigenpairs` with the Hessian of the training loss.
      damping: `[]` is added to the eigenvalues; may be traced.
      tol: `[]` the residual that an eigenpair may have, relative to the largest
        eigenvalue.

    Returns:
      A function of the right-hand side.

    Raises:
      ValueError: for a negative damping, and (when called) for a right-hand side that
        is known not to be finite.
      NotConverged: (when called) if it is known that a pair has a larger residual, or
        that a damped eigenvalue is not above the rounding level.

    References:
      Schioppa et al., Scaling up influence functions, 2022.

    >>> import jax.numpy as jnp
    >>> from protojax import influence
    >>> hessian = jnp.diag(jnp.array([1.0, 3.0]))
    >>> pairs = influence.all_eigenpairs(hessian, jnp.zeros(2))
    >>> [round(float(x), 4) for x in projected(pairs, damping=1.0)(jnp.ones(2)).x]
    [0.5, 0.25]
    """
    checks.positive("damping", damping, or_zero=True)
    vectors = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])(pairs.vectors)
    largest = jnp.max(jnp.abs(pairs.values))
    rounding = largest * vectors.shape[1] * jnp.finfo(vectors.dtype).eps
    limit = jnp.asarray(tol) * largest
    damped = pairs.values + damping

    def inverse(b: PyTree) -> curvature.Solution:
        flat, unravel, size = _at_scale_one(b)
        with jax.default_matmul_precision("highest"):
            inside = vectors @ flat
            part = inside / damped
            x, outside = part @ vectors, flat - inside @ vectors
        left = jnp.sum(outside**2) + jnp.sum((part * pairs.residuals) ** 2)
        norm = jnp.sum(flat**2)
        sound = jnp.all(pairs.residuals <= limit) & jnp.all(damped > rounding)
        found = curvature.Solution(
            unravel(x * size),
            jnp.sqrt(left / jnp.where(norm == 0, 1, norm)),
            jnp.full((), len(pairs.values), jnp.int32),
            sound & jnp.isfinite(norm),
        )
        if checks.known(found):
            _raise_unless_sound(pairs, damped, rounding, limit)
        return found

    return inverse


def lissa(
    matvec: MatVec,
    sampled: Callable[..., PyTree],
    *,
    key: Key,
    scale: ArrayLike,
    damping: ArrayLike = 0.0,
    steps: int = 1000,
    tol: ArrayLike = 0.05,
) -> Inverse:
    r"""The inverse by LiSSA, a random walk towards the solution; for comparison.

    .. math:: x \leftarrow x + (b - (H_{sample} + \lambda) x) / scale

    It costs a few training examples a step instead of all, and is noisy: it wanders
    around the solution at a distance that grows with the spread of the samples. Unlike
    other implementations this one says how far from it it ended.

    Args:
      matvec: the product with the whole Hessian, for the residual at the end.
      sampled: `(v, *, key) -> product` with the Hessian of a sample, from
        `sampled_hessian`; where it ignores the key, the iteration is Richardson's.
      key: consumed.
      scale: `[]` above half the largest damped eigenvalue of all samples, or the
        iteration diverges; may be traced.
      damping: `[]` is added to the diagonal; may be traced.
      steps: how many.
      tol: `[]` the relative residual up to which it counts as converged.

    Returns:
      A function of the right-hand side.

    Raises:
      ValueError: for a scale that is not positive, a negative damping, or fewer than
        one step, and (when called) for a right-hand side that is known not to be
        finite.
      NotConverged: (when called) if it is known that the residual is larger.

    References:
      Agarwal et al., Second-order stochastic optimization in linear time, 2017; used
      for influence by Koh and Liang 2017.

    >>> import jax, jax.numpy as jnp
    >>> double = lambda v, key=None: 2 * v
    >>> inverse = lissa(double, double, key=jax.random.key(0), scale=4.0)
    >>> round(float(inverse(jnp.array(6.0)).x), 4)
    3.0
    """
    checks.count("steps", steps)
    checks.positive("scale", scale)
    checks.positive("damping", damping, or_zero=True)

    def inverse(b: PyTree) -> curvature.Solution:
        flat, unravel, size = _at_scale_one(b)

        def left(x: Array, product: Callable[[PyTree], PyTree]) -> Array:
            image, _ = jax.flatten_util.ravel_pytree(product(unravel(x)))
            return flat - image - damping * x

        def step(x: Array, step_key: Key) -> tuple[Array, None]:
            return x + left(x, lambda v: sampled(v, key=step_key)) / scale, None

        def walk(keys: Key) -> tuple[Array, Array]:
            x, _ = jax.lax.scan(step, jnp.zeros_like(flat), keys)
            return x, left(x, matvec)

        with jax.default_matmul_precision("highest"):
            x, rest = lowering.canonical(walk)(jax.random.split(key, steps))
        norm = jnp.sqrt(jnp.sum(flat**2))
        residual = jnp.sqrt(jnp.sum(rest**2)) / jnp.where(norm > 0, norm, 1)
        found = curvature.Solution(
            unravel(x * size),
            residual,
            jnp.full((), steps, jnp.int32),
            residual <= tol,
        )
        if checks.known(found) and not found.converged:
            raise curvature.NotConverged(
                f"LiSSA's relative residual is {float(residual):.3g} after `steps` "
                f"({steps}), above `tol` ({tol}). If it is large, raise `scale`; if it "
                "is near 1, `steps`; else take larger samples, more `damping`, or "
                "curvature.solve"
            )
        return found

    return inverse


def sampled_hessian(
    loss: losses.Loss, params: PyTree, train: PyTree, *, size: int
) -> Callable[..., PyTree]:
    """The Hessian of a few training examples, drawn anew for every product.

    Args:
      loss: `(params, example) -> []`, twice differentiable.
      params: where it is taken.
      train: the training examples, a tree of arrays `[N, ...]`.
      size: how many are drawn, with replacement.

    Returns:
      `(v, *, key) -> product`, whose mean over keys is that of the whole Hessian.

    Raises:
      ValueError: for an empty training set, or a size below one.

    >>> import jax, jax.numpy as jnp
    >>> loss = lambda w, x: 0.5 * (w @ x) ** 2
    >>> product = sampled_hessian(loss, jnp.zeros(2), jnp.ones((5, 2)), size=2)
    >>> product(jnp.array([1.0, 0.0]), key=jax.random.key(0)).tolist()
    [1.0, 1.0]
    """
    count = checks.size_of("train", train)
    checks.count("size", size)

    def product(v: PyTree, *, key: Key) -> PyTree:
        drawn = jax.random.randint(key, (size,), 0, count)
        examples = jax.tree.map(lambda leaf: jnp.asarray(leaf)[drawn], train)
        return curvature.mean_hessian(loss, params, examples, batch_size=size)(v)

    return product


def _at_scale_one(b: PyTree) -> tuple[Array, Callable[[Array], PyTree], Array]:
    """A flat right-hand side, the way back, and what it was divided by.

    Squares of a small one, the gradient of a confident example, would be zero.
    """
    checks.finite("b", b, "look at the gradient that it is")
    flat, unravel = jax.flatten_util.ravel_pytree(b)
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(flat), initial=0))
    size = jnp.where(peak == 0, 1, peak)
    return flat / size, unravel, size


def _raise_unless_sound(
    pairs: curvature.Eigenpairs, damped: Array, rounding: Array, limit: Array
) -> None:
    worst = int(jnp.argmax(pairs.residuals))
    if not float(pairs.residuals[worst]) <= float(limit):
        raise curvature.NotConverged(
            f"eigenpair {worst}, of eigenvalue {float(pairs.values[worst]):.3g}, has a "
            f"residual of {float(pairs.residuals[worst]):.3g}, and "
            f"{float(limit):.3g} is the limit: "
            "take more `steps` of Lanczos, or fewer pairs"
        )
    lowest = float(np.min(damped))
    if not lowest > float(rounding):
        raise curvature.NotConverged(
            f"the lowest damped eigenvalue is {lowest:.3g}, at or below the rounding "
            f"level {float(rounding):.3g}: the Hessian is singular or indefinite. Take "
            "more `damping`, fewer pairs, or the Gauss-Newton operator, which has no "
            "negative eigenvalues"
        )
