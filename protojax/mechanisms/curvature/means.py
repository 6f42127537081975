"""Curvature of a mean over many examples, say of a training loss, batch by batch."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from protojax.contracts import Array, Fn, MatVec, PyTree
from protojax.mechanisms import checks
from protojax.mechanisms.curvature import products


def mean_hessian(
    loss: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    examples: PyTree,
    *,
    batch_size: int = 64,
    mesh: jax.sharding.Mesh | None = None,
) -> MatVec:
    """The Hessian of a mean loss of many examples, as its product with vectors.

    A product is one pass over the examples, a batch at a time, so that its memory does
    not grow with their number. All count the same, those of a last, smaller batch too.

    Args:
      loss: `(params, example) -> []` of one example, twice differentiable.
      params: where the Hessian is taken, a tree of arrays.
      examples: a tree of arrays `[N, ...]`.
      batch_size: so many examples at once, on each device.
      mesh: devices to spread the examples over, along all its axes. Where N is not a
        multiple of their number, the examples are copied once to make it one.

    Returns:
      The product with a tree like `params`.

    Raises:
      ValueError: for no examples, leaves of different lengths, or a batch size below
        one.

    >>> import jax.numpy as jnp
    >>> product = mean_hessian(lambda w, x: 0.5 * (w @ x) ** 2, jnp.zeros(2),
    ...                        jnp.array([[1.0, 1.0], [1.0, -1.0], [2.0, 0.0]]))
    >>> product(jnp.array([1.0, 3.0])).tolist()
    [2.0, 2.0]
    """

    def of_batch(params: PyTree, batch: PyTree, weights: Array) -> MatVec:
        def total(p: PyTree) -> Array:
            return jnp.sum(weights * jax.vmap(loss, (None, 0))(p, batch))

        return products.hessian(total, params)

    return _mean(of_batch, params, examples, batch_size, mesh)


def mean_gauss_newton(
    predict: Fn,
    loss: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    examples: PyTree,
    *,
    batch_size: int = 64,
    mesh: jax.sharding.Mesh | None = None,
) -> MatVec:
    """The Gauss-Newton operator of a mean loss of many examples, as its product.

    See `gauss_newton` for what it is, and when it is the Fisher information. The
    empirical Fisher information, the mean of the gradients' outer products, is that of
    `predict` giving an example's loss, and `loss` half of its square.

    Args:
      predict: `(params, example) -> outputs` of one example.
      loss: `(outputs, example) -> []`.
      params: where the operator is taken, a tree of arrays.
      examples: a tree of arrays `[N, ...]`.
      batch_size: so many examples at once, on each device.
      mesh: devices to spread the examples over, as for `mean_hessian`.

    Returns:
      The product with a tree like `params`.

    Raises:
      ValueError: for no examples, leaves of different lengths, or a batch size below
        one.

    >>> import jax.numpy as jnp
    >>> predict, loss = lambda w, x: w**2 * x, lambda out, x: 0.5 * out**2
    >>> product = mean_gauss_newton(predict, loss, jnp.array(3.0), jnp.array([1.0, 2]))
    >>> float(product(jnp.array(1.0)))  # 36 of the first, 144 of the second
    90.0
    """

    def of_batch(params: PyTree, batch: PyTree, weights: Array) -> MatVec:
        def outputs(p: PyTree) -> PyTree:
            return jax.vmap(predict, (None, 0))(p, batch)

        def total(outs: PyTree) -> Array:
            return jnp.sum(weights * jax.vmap(loss)(outs, batch))

        return products.gauss_newton(outputs, total, params)

    return _mean(of_batch, params, examples, batch_size, mesh)


def _mean(of_batch, params, examples, batch_size, mesh) -> MatVec:
    examples = jax.tree.map(jnp.asarray, examples)
    count = checks.size_of("examples", examples)
    checks.count("batch_size", batch_size)
    if mesh is None:
        return lambda v: _summed(of_batch, params, v, examples, batch_size, 0, count)

    axes = mesh.axis_names
    share = math.ceil(count / mesh.size)
    if share * mesh.size > count:
        # What is repeated weighs zero. Taken, not concatenated: traced, that would let
        # the compiler spread the caller's own uneven examples, on which XLA may crash.
        places = jnp.minimum(jnp.arange(share * mesh.size), count - 1)
        examples = jax.tree.map(lambda leaf: leaf[places], examples)
    all_, shares = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(axes)
    examples = jax.device_put(examples, jax.sharding.NamedSharding(mesh, shares))

    def on_device(params: PyTree, v: PyTree, examples: PyTree) -> PyTree:
        first = share * jax.lax.axis_index(axes)
        mine = _summed(of_batch, params, v, examples, batch_size, first, count)
        return jax.lax.psum(mine, axes)

    spread = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(all_, all_, shares),
        out_specs=all_,
        check_vma=False,  # which would add up the gradients of every batch
    )
    return lambda v: spread(params, v, examples)


def _summed(of_batch, params, v, examples, batch_size, first, count) -> PyTree:
    """The share of these examples, the `first` and following ones, in the mean."""
    here = checks.size_of("examples", examples)
    size = min(batch_size, here)

    def add(total: PyTree, number: Array) -> tuple[PyTree, None]:
        # The last batch reaches back to be full; what was met before weighs nothing.
        start = jnp.minimum(number * size, here - size)
        place = start + jnp.arange(size)
        new = (place >= number * size) & (first + place < count)
        batch = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), examples
        )
        image = of_batch(params, batch, new / count)(v)
        return jax.tree.map(jnp.add, total, image), None

    nothing = jax.tree.map(jnp.zeros_like, v)
    return jax.lax.scan(add, nothing, jnp.arange(math.ceil(here / size)))[0]
