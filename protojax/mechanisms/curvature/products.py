"""Products with second derivatives and Jacobians at one point."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from protojax.contracts import Array, MatVec, PyTree
from protojax.mechanisms import lowering


def hvp(f: Callable[[PyTree], Array], x: PyTree, v: PyTree) -> PyTree:
    """Product of the Hessian of a scalar function with a vector.

    Forward over reverse, at the highest matrix precision. It costs one and a half to
    two gradients; for many products at one point see `hessian`.

    Args:
      f: a tree to a scalar, twice differentiable.
      x: where the Hessian is taken.
      v: the vector, a tree like `x`.

    Returns:
      The product, a tree like `x`.

    >>> import jax.numpy as jnp
    >>> hvp(lambda x: x[0] ** 2 * x[1], jnp.array([1.0, 3.0]), jnp.ones(2)).tolist()
    [8.0, 2.0]
    """
    with jax.default_matmul_precision("highest"):
        return jax.jvp(jax.grad(f), (x,), (v,))[1]


def hessian(f: Callable[[PyTree], Array], x: PyTree) -> MatVec:
    """The Hessian of a scalar function at a point, as its product with vectors.

    The gradient is linearized once, and what does not depend on the vector is computed
    once: a product costs one gradient to one and a half. In return it holds what the
    gradient's derivative needs of the forward and of the backward pass.

    `x` may be anything that `f` is a function of: an image, parameters, or what a layer
    gives, where `f` is the rest of the network
    (`after = activations.intervene(fn, "fire4")`, `f = lambda h: after(x, h)[y]`).

    Args:
      f: a tree to a scalar, twice differentiable.
      x: where the Hessian is taken.

    Returns:
      The product with a tree like `x`.

    >>> import jax.numpy as jnp
    >>> product = hessian(lambda x: x[0] ** 2 * x[1], jnp.array([1.0, 3.0]))
    >>> product(jnp.ones(2)).tolist(), product(jnp.array([0.0, 1.0])).tolist()
    ([8.0, 2.0], [2.0, 0.0])
    """
    with jax.default_matmul_precision("highest"):
        _, product = jax.linearize(lowering.canonical(jax.grad(f)), x)
        return lowering.canonical(product)


def gauss_newton(
    predict: Callable[[PyTree], PyTree], loss: Callable[[PyTree], Array], x: PyTree
) -> MatVec:
    r"""The Gauss-Newton operator of a loss of predictions, as a product.

    With the Jacobian of the predictions and the Hessian of the loss as a function of
    them,

    .. math:: G = J^T H_{loss} J,

    the Hessian without the curvature of `predict`. It is positive semi-definite where
    `loss` is convex, and the Fisher information where `loss` is the negative
    log-likelihood of an exponential family in its natural parameters: the cross-entropy
    of logits, half of the squared error. For a `predict` that is piecewise linear in
    `x`, as a ReLU network is in its input, it is the Hessian.

    Args:
      predict: a tree to predictions, any tree.
      loss: predictions to a scalar, twice differentiable.
      x: where the operator is taken.

    Returns:
      The product with a tree like `x`.

    References:
      Schraudolph, Fast curvature matrix-vector products for second-order gradient
      descent, 2002.

    >>> import jax.numpy as jnp
    >>> product = gauss_newton(lambda x: x**2, lambda p: 0.5 * jnp.sum(p**2),
    ...                        jnp.array([1.0, 3.0]))
    >>> product(jnp.ones(2)).tolist()  # that of the Hessian would be [6.0, 54.0]
    [4.0, 36.0]
    """
    outputs, jacobian_of = _linearized(predict, x)
    curved = hessian(loss, outputs)
    return lambda v: jacobian_of.transpose(curved(jacobian_of.forward(v)))


class Jacobian(NamedTuple):
    """A linear operator that need not be symmetric, nor square.

    Attributes:
      forward: the product with a tree like the input.
      transpose: the product of the transpose with a tree like the output.
    """

    forward: MatVec
    transpose: MatVec


def jacobian(fn: Callable[[PyTree], PyTree], x: PyTree) -> Jacobian:
    """The Jacobian of a function at a point, as its two products.

    That of an explanation says how the explanation turns. For a gradient it is the
    Hessian; for a normalized map
    (`lambda z: attributions.heatmap(attributions.gradient(score, z))`) it is not
    symmetric, and knows what the Hessian does not: a gradient that only grows explains
    the same.

    Args:
      fn: a tree to any tree, differentiable.
      x: where the Jacobian is taken.

    Returns:
      The operator.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, section 5.

    >>> import jax.numpy as jnp
    >>> share = jacobian(lambda x: x / x.sum(), jnp.array([1.0, 3.0]))
    >>> share.forward(jnp.array([1.0, 3.0])).tolist()  # scaling changes no share
    [0.0, 0.0]
    >>> share.transpose(jnp.array([1.0, 0.0])).tolist()
    [0.1875, -0.0625]
    """
    return _linearized(fn, x)[1]


def _linearized(fn: Callable, x: PyTree) -> tuple[PyTree, Jacobian]:
    with jax.default_matmul_precision("highest"):
        outputs, forward = jax.linearize(fn, x)
        backward = jax.linear_transpose(forward, x)
        return outputs, Jacobian(
            lowering.canonical(forward),
            lowering.canonical(lambda u: backward(u)[0]),
        )
