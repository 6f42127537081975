"""What an explanation network is trained for: faithful, sparse and orthogonal.

An explanation network (XNN) turns the units of a layer into a few non-negative
numbers, the x-features, of which a linear read-out gives the classifier's score. The
losses are statements about a population: their means over examples stand inside of a
logarithm, or in a cosine, so they take `[N, ...]`.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Key, PyTree


class Output(NamedTuple):
    """What an explanation network says of N examples.

    Attributes:
      features: `[N, F]` x-features, not below zero.
      scores: `[N, K]` what it takes the classifier's scores for.
      decoded: `[N, S]` what it takes the layer's units for.
    """

    features: Array
    scores: Array
    decoded: Array


class Weights(NamedTuple):
    """How much each wish counts; all may be traced.

    Attributes:
      faith: of the squared error of the scores.
      rec: of the reconstruction (beta).
      pull: of the pull-away term (eta).
      q: in the logarithm of the sparse reconstruction.
    """

    faith: ArrayLike = 1.0
    rec: ArrayLike = 15.0
    pull: ArrayLike = 5.0
    q: ArrayLike = 100.0


Reconstruct = Callable[[Array, Array, ArrayLike], Array]
"""`(units, decoded, q) -> []`, say `sparse_reconstruction` or `squared_error`."""

PullAway = Callable[[Array], Array]
"""`[N, F] contributions -> []`, say `pull_away` or `pull_away_images`."""

Apply = Callable[[PyTree, Array, Key | None], tuple[Array, ...]]
"""`(params, [N, S] units, key in training) -> features, scores, decoded units`."""


def objective(
    output: Output,
    readout: Array,
    z: Array,
    scores: Array,
    weights: Weights,
    *,
    reconstruct: Reconstruct | None = None,
    pull: PullAway | None = None,
) -> tuple[Array, dict[str, Array]]:
    """What an explanation network minimizes on a batch.

    Args:
      output: of the network.
      readout: `[F, K]` weights of its linear read-out.
      z: `[N, S]` the units.
      scores: `[N, K]` the classifier's scores, before any softmax.
      weights: of the terms.
      reconstruct: `sparse_reconstruction` if not given; `squared_error` makes an
        ordinary stacked autoencoder of it.
      pull: `pull_away` if not given. Of several scores it is the sum over scores, each
        with its own contributions, as in the authors' code.

    Returns:
      `[]` the loss, and its three terms without their weights.

    References:
      Qi, Khorram and Li, Embedding Deep Networks into Visual Explanations, 2021.

    >>> import jax.numpy as jnp
    >>> z, scores = jnp.ones((2, 3)), jnp.array([[1.0], [2.0]])
    >>> exact = Output(jnp.eye(2), scores, z)
    >>> loss, terms = objective(exact, jnp.array([[1.0], [2.0]]), z, scores, Weights())
    >>> float(loss), sorted(terms)
    (0.0, ['faith', 'pull', 'rec'])
    """
    reconstruct = sparse_reconstruction if reconstruct is None else reconstruct
    pull = pull_away if pull is None else pull
    each = jax.vmap(lambda v: pull(contributions(output.features, v)), in_axes=1)
    terms = {
        "faith": faithfulness(output.scores, scores),
        "rec": reconstruct(z, output.decoded, weights.q),
        "pull": jnp.sum(each(readout)),
    }
    wishes = zip((weights.faith, weights.rec, weights.pull), terms.values())
    return jnp.sum(jnp.stack([weight * term for weight, term in wishes])), terms


def on_batches(
    apply: Apply,
    z: Array,
    scores: Array,
    weights: Weights,
    *,
    reconstruct: Reconstruct | None = None,
    pull: PullAway | None = None,
) -> Callable[[PyTree, Array, Key | None], Array]:
    """The objective as a loss of batches of indices, which `train` takes.

    Args:
      apply: the network, say `models.xnn.function(models.XNN(...))`.
      z: `[N, S]` the units of all examples.
      scores: `[N, K]` the classifier's scores of all examples.
      weights: of the terms.
      reconstruct: as for `objective`.
      pull: as for `objective`.

    Returns:
      `(params, indices [M], key) -> []`. The read-out is `params["readout"]["kernel"]`.
      Without a key nothing is dropped: so held-out data are judged.

    >>> import jax.numpy as jnp
    >>> apply = lambda params, z, key: (z, z @ params["readout"]["kernel"], z)
    >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    >>> loss = on_batches(apply, z, jnp.array([[1.0], [2.0], [0.0]]), Weights())
    >>> params = {"readout": {"kernel": jnp.array([[1.0], [2.0]])}}
    >>> float(loss(params, jnp.array([0, 1]), None))
    0.0
    """

    def loss(params: PyTree, batch: Array, key: Key | None) -> Array:
        rows, readout = z[batch], params["readout"]["kernel"]
        output = Output(*apply(params, rows, key))
        return objective(
            output,
            readout,
            rows,
            scores[batch],
            weights,
            reconstruct=reconstruct,
            pull=pull,
        )[0]

    return loss


def faithfulness(predicted: Array, scores: Array) -> Array:
    """Mean squared error of the scores.

    Shapes must be equal: `[N]` against `[N, 1]` would broadcast to all pairs, whose
    minimum is the mean score for every image, as a stored training of the original
    shows.

    Args:
      predicted: `[N]` or `[N, K]`.
      scores: the same.

    Returns:
      `[]`.

    >>> import jax.numpy as jnp
    >>> float(faithfulness(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    2.0
    """
    chex.assert_equal_shape([predicted, scores])
    return jnp.mean((predicted - scores) ** 2)


def sparse_reconstruction(z: Array, decoded: Array, q: ArrayLike = 100.0) -> Array:
    r"""Mean over units of the logarithm of their mean squared error.

    $\frac1S \sum_k \log(1 + q\, m_k)$ with $m_k$ the mean over examples: a unit that is
    reconstructed badly hardly pulls any more, so that the few x-features are spent on
    some units, and not on all of them badly.

    Args:
      z: `[N, S]` the units.
      decoded: `[N, S]` their reconstruction.
      q: `[]` where the logarithm bends: at an error of 1 / q.

    Returns:
      `[]`, at most `log(1 + q * squared_error(z, decoded))`.

    References:
      Qi et al. 2021, sparse reconstruction; as in the authors' code.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([[1.0, 0, 2], [3, 1, 0]])
    >>> decoded = jnp.array([[1.0, 1, 2], [2, 1, 0]])
    >>> round(float(sparse_reconstruction(z, decoded)), 6)
    2.621217
    """
    chex.assert_rank([z, decoded], 2)
    chex.assert_equal_shape([z, decoded])
    return jnp.mean(jnp.log1p(q * jnp.mean((z - decoded) ** 2, axis=0)))


def squared_error(z: Array, decoded: Array, q: ArrayLike = 1.0) -> Array:
    """Mean squared error over examples and units: an ordinary autoencoder's loss.

    Args:
      z: `[N, S]` the units.
      decoded: `[N, S]` their reconstruction.
      q: plays no role; it is here so that this can stand for `sparse_reconstruction`.

    Returns:
      `[]`.

    >>> import jax.numpy as jnp
    >>> float(squared_error(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 2.0]])))
    2.0
    """
    del q
    chex.assert_rank([z, decoded], 2)
    chex.assert_equal_shape([z, decoded])
    return jnp.mean((z - decoded) ** 2)


def contributions(features: Array, readout: Array) -> Array:
    """What each x-feature adds to a score; with the bias they sum to it.

    Args:
      features: `[..., F]`.
      readout: `[F]` the read-out weights of the score.

    Returns:
      `[..., F]`.

    References:
      Qi et al. 2021.

    >>> import jax.numpy as jnp
    >>> contributions(jnp.array([2.0, 0.5]), jnp.array([1.5, -1.0])).tolist()
    [3.0, -0.5]
    """
    chex.assert_rank(readout, 1)
    chex.assert_axis_dimension(features, -1, len(readout))
    return features * readout.reshape((1,) * (jnp.ndim(features) - 1) + (-1,))


def pull_away(features: Array) -> Array:
    """Mean squared cosine between different x-features, each a vector over examples.

    Zero where no two are active on the same examples, one where all are parallel.
    Read-out weights do not matter to it. An x-feature that is zero everywhere has no
    direction: it is left out (the authors' code adds 1e-8, by which a dead feature is
    pushed from live ones and never revived).

    Args:
      features: `[N, F]` x-features or contributions.

    Returns:
      `[]` in [0, 1]; zero if fewer than two are alive.

    References:
      Qi et al. 2021, orthogonality. The term is that of Zhao et al., Energy-based
      Generative Adversarial Network, 2017.

    >>> import jax.numpy as jnp
    >>> float(pull_away(jnp.eye(3))), float(pull_away(jnp.ones((4, 2))))
    (0.0, 1.0)
    """
    chex.assert_rank(features, 2)
    unit, alive = _directions(features, axis=0)
    cosine = jnp.matmul(unit.T, unit, precision="highest")
    others = cosine - jnp.diag(jnp.diag(cosine))
    return jnp.sum(others**2) / _pairs(alive)


def pull_away_images(contributions: Array) -> Array:
    """Mean squared cosine between different images, each a vector of contributions.

    Low where an image is explained by few x-features and another image by others. With
    more images N than x-features F it is at least (N - F) / (F (N - 1)), the Welch
    bound. Images without any contribution are left out.

    It is what the authors' scripts are set to, while the text speaks of x-features.

    Args:
      contributions: `[N, F]`.

    Returns:
      `[]` in [0, 1]; zero if fewer than two images have a contribution.

    References:
      Qi et al. 2021; as in the authors' code.

    >>> import jax.numpy as jnp
    >>> float(pull_away_images(jnp.array([[1.0, 0.0], [0.5, 0.75**0.5]])))
    0.25
    """
    chex.assert_rank(contributions, 2)
    unit, alive = _directions(contributions, axis=1)
    # The squares of all N x N products, from the F x F ones: |U U'| = |U' U|.
    gram = jnp.matmul(unit.T, unit, precision="highest")
    return (jnp.sum(gram**2) - jnp.sum(alive)) / _pairs(alive)


def _directions(vectors: Array, axis: int) -> tuple[Array, Array]:
    """Vectors of length one along an axis, zero where they were, and which were not.

    Those count as zero, too, whose inverse length has a slope that is no number any
    more: a weight of zero would not silence it.
    """
    squares = jnp.sum(vectors**2, axis=axis, keepdims=True)
    alive = squares > jnp.finfo(vectors.dtype).tiny ** (2 / 3)
    scale = jax.lax.rsqrt(jnp.where(alive, squares, 1))
    return jnp.where(alive, vectors * scale, 0), alive.astype(vectors.dtype)


def _pairs(alive: Array) -> Array:
    count = jnp.sum(alive)
    return jnp.maximum(count * (count - 1), 1)
