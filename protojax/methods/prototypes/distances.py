"""From features and prototypes to distances, similarities and votes for classes."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike


def squared_distances(features: Array, prototypes: Array) -> Array:
    r"""Squared distance of every place of a feature map from every prototype.

    .. math:: d_j[h, w] = \max(\|z\|^2 - 2 z \cdot p_j + \|p_j\|^2, 0)

    One matrix product, at full precision on every device: the similarity of ProtoPNet
    changes by 0.69 where a distance of zero is off by 1e-4, and with the short
    mantissas that accelerators multiply with by default it is off by 1e-2. For the same
    reason features and prototypes are measured from the prototypes' mean, which no
    distance depends on, but the rounding does: for 128 features in [0, 1] it stays
    below 1e-5, a fifth of what it is otherwise. Where it is below zero it is cut off,
    and has no gradient.

    Args:
      features: `[h, w, D]`.
      prototypes: `[P, D]`.

    Returns:
      `[h, w, P]`, zero or more.

    References:
      Chen et al., This Looks Like That, 2019, section 2.1. The authors' code computes
      the same sum as convolutions.

    >>> z = jnp.array([[[0.25, 0.75]]])
    >>> float(squared_distances(z, jnp.array([[0.5, 0.25]]))[0, 0, 0])
    0.3125
    """
    _check(features, prototypes)
    origin = jax.lax.stop_gradient(jnp.mean(prototypes, axis=0))
    z, p = features - origin.reshape(1, 1, -1), prototypes - origin[None]
    products = jnp.einsum("hwd,pd->hwp", z, p, precision="highest")
    lengths = jnp.sum(z**2, axis=-1, keepdims=True)
    squares = jnp.sum(p**2, axis=-1).reshape(1, 1, -1)
    return jax.nn.relu(lengths - 2 * products + squares)


def cosine_distances(features: Array, prototypes: Array) -> Array:
    """One minus the cosine between every place and every prototype.

    `functools.partial(linear_similarity, bound=1.0)` makes cosines of them.

    Args:
      features: `[h, w, D]`; zero vectors have cosine 0 with everything.
      prototypes: `[P, D]`; the same.

    Returns:
      `[h, w, P]`, in [0, 2].

    References:
      Donnelly et al., Deformable ProtoPNet: An Interpretable Image Classifier Using
      Deformable Prototypes, 2022.

    >>> z = jnp.array([[[0.0, 2.0]]])
    >>> cosine_distances(z, jnp.array([[0.0, 1.0], [3.0, 0.0]])).tolist()
    [[[0.0, 1.0]]]
    """
    _check(features, prototypes)
    z, p = _unit(features), _unit(prototypes)
    return 1 - jnp.einsum("hwd,pd->hwp", z, p, precision="highest")


def similarity(distances: Array, *, eps: ArrayLike = 1e-4) -> Array:
    r"""How similar something at a squared distance is, as ProtoPNet has it.

    .. math:: s = \log\frac{d + 1}{d + \epsilon}

    It falls from :math:`\log(1/\epsilon)`, 9.21, to zero.

    Args:
      distances: of any shape, zero or more.
      eps: `[]` bounds the similarity.

    Returns:
      Similarities, of the same shape.

    References:
      Chen et al., This Looks Like That, 2019, section 2.1.

    >>> round(float(similarity(jnp.array(0.0))), 4)
    9.2103
    """
    return jnp.log((distances + 1) / (distances + eps))


def linear_similarity(distances: Array, *, bound: ArrayLike = 0.0) -> Array:
    """A bound minus the distance.

    Args:
      distances: of any shape.
      bound: `[]` the similarity at distance zero.

    Returns:
      Similarities, of the same shape.

    References:
      The authors' code of Chen et al. 2019 has it, with the bound zero in training.

    >>> float(linear_similarity(jnp.array(3.0), bound=4.0))
    1.0
    """
    return jnp.asarray(bound) - distances


def min_distances(distances: Array) -> Array:
    """The distance of the nearest place from each prototype.

    Similarities fall with the distance: that of this place is the largest. Where
    several places are equally near, the first has the whole gradient, as in PyTorch.

    Args:
      distances: `[h, w, P]`.

    Returns:
      `[P]`.

    >>> min_distances(jnp.array([[[3.0, 1.0], [2.0, 4.0]]])).tolist()
    [2.0, 1.0]
    """
    chex.assert_rank(distances, 3)
    return first_min(distances.reshape(-1, distances.shape[-1]))


def patches(features: Array, *, window: Sequence[int]) -> Array:
    """Neighboring features side by side, for prototypes of several places.

    Args:
      features: `[h, w, D]`.
      window: rows and columns of a patch, a and b.

    Returns:
      `[h - a + 1, w - b + 1, a * b * D]`, the places of a patch in row-major order.

    Raises:
      ValueError: if the window does not fit into the map.

    >>> patches(jnp.arange(6.0).reshape(2, 3, 1), window=(1, 2))[1].tolist()
    [[3.0, 4.0], [4.0, 5.0]]
    """
    chex.assert_rank(features, 3)
    (rows, columns), (height, width) = window, features.shape[:2]
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise ValueError(
            f"`window` is {tuple(window)}, and the feature map has {height} x {width} "
            "places: choose 1 or more of each, and no more than there are"
        )
    down, right = height - rows + 1, width - columns + 1
    shifted = [
        features[i : i + down, j : j + right]
        for i in range(rows)
        for j in range(columns)
    ]
    return jnp.concatenate(shifted, axis=-1)


def owners(count: int, classes: int) -> tuple[int, ...]:
    """Which class each prototype is of, as many for each class.

    Args:
      count: how many prototypes there are, P.
      classes: how many classes there are, K.

    Returns:
      P class indices, in order.

    Raises:
      ValueError: if the prototypes cannot be dealt out.

    >>> owners(6, 3)
    (0, 0, 1, 1, 2, 2)
    """
    if count < 1 or classes < 1 or count % classes:
        raise ValueError(
            f"`count` is {count}, which cannot be divided among {classes} classes: "
            "choose a multiple"
        )
    return tuple(j // (count // classes) for j in range(count))


def connections(
    owners: Sequence[int], classes: int, *, wrong: ArrayLike = -0.5
) -> Array:
    """How prototypes vote before that is learned: for their class, against others.

    Args:
      owners: `[P]` the class of each prototype.
      classes: how many classes there are, K.
      wrong: `[]` the vote for a class that is not the prototype's.

    Returns:
      `[P, K]`, one for the prototype's class.

    Raises:
      ValueError: if a prototype is of a class that does not exist.

    References:
      Chen et al., This Looks Like That, 2019, section 2.2.

    >>> connections((0, 1, 1), 2).tolist()
    [[1.0, -0.5], [-0.5, 1.0], [-0.5, 1.0]]
    """
    of = np.asarray(owners)
    if not of.size or of.min() < 0 or of.max() >= classes:
        raise ValueError(
            f"`owners` must be class indices from 0 to {classes - 1}, one or more; got "
            f"{of[:8].tolist()}"
        )
    return jnp.where(of[:, None] == np.arange(classes)[None], 1.0, wrong)


@jax.custom_jvp
def first_min(values: Array) -> Array:
    """The smallest entry along the first axis; of equal ones the first has the slope.

    Args:
      values: `[N, ...]`.

    Returns:
      `[...]`.

    >>> jax.grad(first_min)(jnp.array([2.0, 1.0, 1.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    return jnp.min(values, axis=0)


@first_min.defjvp
def _first_min_jvp(primals, tangents):
    (values,), (change,) = primals, tangents
    least = jnp.min(values, axis=0)
    # Elementwise, where taking at an index would be scattering in the backward pass.
    place = jax.lax.broadcasted_iota(jnp.int32, values.shape, 0)
    first = jnp.min(jnp.where(values == least[None], place, len(values)), axis=0)
    return least, jnp.sum(jnp.where(place == first[None], change, 0), axis=0)


def _unit(vectors: Array) -> Array:
    squares = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-16))


def _check(features: Array, prototypes: Array) -> None:
    chex.assert_rank([features, prototypes], [3, 2])
    chex.assert_equal_shape_suffix([features, prototypes], 1)
