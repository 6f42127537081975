"""How well a read-out stands for the classifier's score, and for the classifier."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike
from protojax.mechanisms import checks


class Regression(NamedTuple):
    """Errors of a predicted score over a set.

    Attributes:
      rmse: `[]` root of the mean squared error.
      mae: `[]` mean absolute error.
      r2: `[]` share of the score's variance that is explained; NaN if it has none.
    """

    rmse: Array
    mae: Array
    r2: Array


def regression(
    predicted: Array, scores: Array, *, where: Array | None = None
) -> Regression:
    """How far a predicted score is from the classifier's.

    Args:
      predicted: `[N]`.
      scores: `[N]`.
      where: bool `[N]`, which examples count; all by default. Of one against the rest,
        look at the one class and at the rest apart: the rest decides a common mean.

    Returns:
      The errors, of the shapes `[]`.

    References:
      Hamidi-Haines et al., Interactive Naming for Explaining Deep Neural Networks,
      2019, report the root mean squared error.

    >>> import jax.numpy as jnp
    >>> found = regression(jnp.array([0.0, 1, 2, 4]), jnp.array([0.0, 1, 2, 3]))
    >>> float(found.rmse), float(found.mae), float(found.r2)
    (0.5, 0.25, 0.800000011920929)
    """
    chex.assert_rank([predicted, scores], 1)
    chex.assert_equal_shape([predicted, scores])
    counts = jnp.ones_like(scores) if where is None else where.astype(scores.dtype)
    total = jnp.sum(counts)
    error = counts * (predicted - scores)
    squares = jnp.sum(error**2)
    mean = jnp.sum(counts * scores) / total
    spread = jnp.sum(counts * (scores - mean) ** 2)
    r2 = jnp.where(spread > 0, 1 - squares / jnp.where(spread > 0, spread, 1), jnp.nan)
    return Regression(jnp.sqrt(squares / total), jnp.sum(jnp.abs(error)) / total, r2)


class Classification(NamedTuple):
    """What becomes of the classifier if a score of it is replaced.

    Attributes:
      accuracy: `[]` share of the images of the class that it still gets right.
      accuracy_before: `[]` share that it got right.
      probability: `[]` mean absolute change of the class's probability, all images.
      agreement: `[]` share of all images that keep their label.
    """

    accuracy: Array
    accuracy_before: Array
    probability: Array
    agreement: Array


def classification(
    logits: Array, predicted: Array, c: ArrayLike, labels: Array
) -> Classification:
    """Read a predicted score back into the classifier, and see what it says then.

    Args:
      logits: `[N, K]` of the classifier.
      predicted: `[N]` what stands for the logit of one class.
      c: `[]` the class.
      labels: `[N]` the true classes.

    Returns:
      Accuracies on the class (NaN where it never occurs), and changes on all images.

    Raises:
      ValueError: if it is known that there is no such class.

    References:
      Hamidi-Haines et al. 2019, for the accuracy.

    >>> import jax.numpy as jnp
    >>> logits = jnp.array([[2.0, 1.0], [2.0, 1.0]])
    >>> found = classification(logits, jnp.array([3.0, 0.0]), 0, jnp.array([0, 0]))
    >>> float(found.accuracy), float(found.accuracy_before), float(found.agreement)
    (0.5, 1.0, 0.5)
    """
    replaced = read_back(logits, predicted, c)
    own = labels == c
    before, after = jnp.argmax(logits, axis=1), jnp.argmax(replaced, axis=1)
    columns = (jax.nn.softmax(values)[:, c] for values in (logits, replaced))

    def of_class(right: Array) -> Array:
        return jnp.sum(right & own) / jnp.sum(own)

    return Classification(
        of_class(after == labels),
        of_class(before == labels),
        jnp.mean(jnp.abs(jnp.subtract(*columns))),
        jnp.mean(before == after),
    )


def read_back(logits: Array, predicted: Array, c: ArrayLike) -> Array:
    """Replace the logit of one class.

    Args:
      logits: `[..., K]` of the classifier.
      predicted: `[...]` what stands for one of them.
      c: `[]` the class.

    Returns:
      `[..., K]`; NaN for a traced class that does not exist.

    Raises:
      ValueError: if it is known that there is no such class.

    >>> import jax.numpy as jnp
    >>> read_back(jnp.array([1.0, 2.0, 3.0]), jnp.array(5.0), 1).tolist()
    [1.0, 5.0, 3.0]
    """
    classes = logits.shape[-1]
    checks.index("c", c, classes, "classes")
    chex.assert_equal_shape_prefix([logits, predicted], jnp.ndim(logits) - 1)
    chosen = jnp.arange(classes) == c
    chosen = chosen.reshape((1,) * (jnp.ndim(logits) - 1) + (-1,))
    replaced = jnp.where(chosen, predicted[..., None], logits)
    return jnp.where(chosen.any(), replaced, jnp.nan)


def least_squares(
    features: Array, scores: Array, *, ridge: ArrayLike = 1e-6
) -> tuple[Array, Array]:
    """The linear read-out with the least squared error, in closed form.

    Features that do not vary get no weight.

    Args:
      features: `[N, F]`.
      scores: `[N, K]`.
      ridge: `[]` penalty on the weights of features of variance one; a small one makes
        collinear features share.

    Returns:
      `[F, K]` weights and `[K]` biases.

    >>> import jax.numpy as jnp
    >>> features = jnp.array([[0.0, 1], [1, 1], [2, 1]])
    >>> readout, bias = least_squares(features, 3 * features[:, :1] + 1)
    >>> [round(float(v), 3) for v in (*readout.ravel(), *bias)]
    [3.0, 0.0, 1.0]
    """
    chex.assert_rank([features, scores], 2)
    chex.assert_equal_shape_prefix([features, scores], 1)
    mean, offset = jnp.mean(features, axis=0), jnp.mean(scores, axis=0)
    spread = jnp.std(features, axis=0)
    varies = spread > jnp.finfo(features.dtype).eps * jnp.max(jnp.abs(features), axis=0)
    scale = jnp.where(varies, 1 / jnp.where(varies, spread, 1), 0)
    unit = (features - mean[None]) * scale[None]
    count, width = features.shape
    with jax.default_matmul_precision("highest"):
        gram = unit.T @ unit / count + ridge * jnp.eye(width)
        moment = unit.T @ (scores - offset[None]) / count
        gram = gram + jnp.diag(jnp.where(varies, 0, 1.0))
        readout = scale[:, None] * jnp.linalg.solve(gram, moment)
        return readout, offset - mean @ readout


def loss_recovered(original: ArrayLike, ablated: ArrayLike, found: ArrayLike) -> Array:
    """Of what a loss gains by having a layer, the share that a reconstruction keeps.

    Args:
      original: `[]` loss of the network.
      ablated: `[]` loss with the layer's value replaced, by zero or by its mean (say
        which).
      found: `[]` loss with the layer's value replaced by its reconstruction.

    Returns:
      `[]`, one for a perfect reconstruction.

    >>> round(float(loss_recovered(2.0, 8.0, 2.4)), 6)
    0.933333
    """
    return (jnp.asarray(found) - ablated) / (jnp.asarray(original) - ablated)
