"""A softmax layer on fixed features: small enough for its Hessian to be formed.

The layer is `{"kernel": [F, K], "bias": [K]}`, as `flax.linen.Dense` keeps it, or
without the bias; its examples are `{"features": [F], "label": []}`. Influences through
it are exact: `projected(all_eigenpairs(softmax_hessian(head, features), head), ...)`.
"""

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp

from protojax.contracts import Array, PyTree
from protojax.mechanisms import checks, curvature
from protojax.methods import metrics


def softmax_logits(head: PyTree, features: Array) -> Array:
    """What a last layer makes of features.

    Args:
      head: `{"kernel": [F, K], "bias": [K]}`, or without bias.
      features: `[..., F]`.

    Returns:
      `[..., K]` logits.

    >>> import jax.numpy as jnp
    >>> head = {"kernel": jnp.ones((3, 2)), "bias": jnp.array([0.0, 1.0])}
    >>> softmax_logits(head, jnp.ones((1, 3))).tolist()
    [[3.0, 4.0]]
    """
    logits = features @ head["kernel"]
    return logits + jnp.broadcast_to(head.get("bias", 0.0), logits.shape)


def softmax_loss(head: PyTree, example: PyTree) -> Array:
    """The cross-entropy of a softmax layer on given features.

    Args:
      head: `{"kernel": [F, K], "bias": [K]}`, or without bias.
      example: `{"features": [F], "label": []}`.

    Returns:
      `[]` the loss; NaN, and an error where known, if there is no such class.

    >>> import jax.numpy as jnp
    >>> head = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}
    >>> round(float(softmax_loss(head, {"features": jnp.ones(3), "label": 1})), 4)
    0.6931
    """
    logits = softmax_logits(head, example["features"])
    return -metrics.class_entry(jax.nn.log_softmax(logits), example["label"])


def softmax_hessian(
    head: PyTree,
    features: Array,
    *,
    weights: Array | None = None,
    batch_size: int = 64,
) -> Array:
    r"""The mean Hessian of `softmax_loss`, in closed form.

    .. math:: \frac1N \sum_i (\mathrm{diag}(p_i) - p_i p_i^T) \otimes
              \phi_i \phi_i^T

    It does not depend on labels. It is singular, as adding the same to the weights of
    all classes changes nothing, and the more so where there are fewer examples than
    features. So some damping is always needed.

    Args:
      head: `{"kernel": [F, K], "bias": [K]}`, or without bias.
      features: `[N, F]` of the training examples.
      weights: `[N]` how much each counts in the mean over N; one by default, and zero
        for one that is left out.
      batch_size: so many examples at once.

    Returns:
      `[P, P]` of its P = F K (+ K) numbers, in the order of
      `jax.flatten_util.ravel_pytree(head)`.

    Raises:
      ValueError: for an empty training set, or a batch size below one.

    >>> import jax.numpy as jnp
    >>> head = {"kernel": jnp.zeros((1, 2))}
    >>> softmax_hessian(head, jnp.array([[2.0], [0.0]])).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    chex.assert_rank(features, 2)
    checks.count("batch_size", batch_size)
    count = len(features)
    if not count:
        raise ValueError("`features` is empty: pass those of the training examples")
    size = min(batch_size, count)
    missing = -count % size
    padded = jnp.pad(features, ((0, missing), (0, 0)))
    weights = jnp.ones(count, features.dtype) if weights is None else weights
    chex.assert_shape(weights, (count,))
    weights = jnp.pad(weights, (0, missing))

    def add(total: Array, batch: tuple[Array, Array]) -> tuple[Array, None]:
        phi, weight = batch
        p = jax.nn.softmax(softmax_logits(head, phi))
        spread = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]
        # The bias comes before the kernel, and its feature is one.
        phi = jnp.pad(phi, ((0, 0), (int("bias" in head), 0)), constant_values=1)
        weighted = spread * weight[:, None, None]
        left = phi[:, :, None, None] * weighted[:, None]
        return total + jnp.einsum("nfkl,ng->fkgl", left, phi), None

    classes = head["kernel"].shape[1]
    width = features.shape[1] + int("bias" in head)
    start = jnp.zeros((width, classes, width, classes), features.dtype)
    batches = (
        padded.reshape(-1, size, features.shape[1]),
        weights.reshape(-1, size),
    )
    with jax.default_matmul_precision("highest"):
        total, _ = jax.lax.scan(add, start, batches)
    return total.reshape(width * classes, -1) / count


def all_eigenpairs(matrix: Array, like: PyTree) -> curvature.Eigenpairs:
    """All eigenpairs of a symmetric matrix, for `projected` to invert at any damping.

    Args:
      matrix: `[P, P]` say a Hessian, in the order of `ravel_pytree(like)`.
      like: a tree of arrays of P numbers in all, that gives the shapes.

    Returns:
      The pairs, from the largest eigenvalue down.

    Raises:
      ValueError: if the matrix is known not to be finite.

    >>> import jax.numpy as jnp
    >>> all_eigenpairs(jnp.diag(jnp.array([1.0, 3.0])), jnp.zeros(2)).values.tolist()
    [3.0, 1.0]
    """
    flat, unravel = jax.flatten_util.ravel_pytree(like)
    chex.assert_shape(matrix, (flat.size, flat.size))
    remedy = "look at the features and the layer that it comes from"
    checks.finite("matrix", matrix, remedy)
    with jax.default_matmul_precision("highest"):
        values, vectors = jnp.linalg.eigh(matrix)
        left = matrix @ vectors - values[None] * vectors
    residuals = jnp.sqrt(jnp.sum(left**2, axis=0))
    return curvature.Eigenpairs(
        values[::-1], jax.vmap(unravel)(vectors.T[::-1]), residuals[::-1]
    )
