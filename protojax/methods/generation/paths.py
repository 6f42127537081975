"""Activation paths: do the layers see a picture as they see natural images?

A path is what the layers of a network make of one image, by their names. How natural it
is, is how close it comes to the mean path of natural images of a class, layer by layer,
compared with how close each of these comes to the mean of the *others*: an image is
part of its own mean, and so is anything average.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Fn, Key
from protojax.mechanisms import checks, lowering
from protojax.methods import activations, metrics

Path = dict[str, Array]
"""What an image causes: the activations of each layer, by name."""


class Natural(NamedTuple):
    """The paths of natural images, summed up.

    Attributes:
      total: the sum of the paths, layer by layer.
      number: `[]` how many they are.
    """

    total: Path
    number: Array


class Similarity(NamedTuple):
    """How close a path comes to another, in each layer.

    Attributes:
      l1: `[L]` mean absolute difference; smaller is closer.
      rank: `[L]` Spearman's correlation with average ranks; NaN where a layer is
        constant, as a layer of dead units is.
    """

    l1: Array
    rank: Array


class Success(NamedTuple):
    """How often a path is closer to the natural mean than natural images are.

    Attributes:
      l1: `[]` share of the pairs of a layer and a natural image in which it has the
        smaller L1 distance.
      rank: `[]` share of the pairs in which it has the higher rank correlation, of
        those in which both have one.
      undefined: `[]` number of pairs in which one of them has none.
    """

    l1: Array
    rank: Array
    undefined: Array


def path(fn: Fn, names: Sequence[str] | None = None) -> Callable[[Array], Path]:
    """Return a function that gives the layers of a network, and its logits.

    Args:
      fn: `[H, W, C] -> [K]`, any traceable network.
      names: of the layers, see `activations.layers`; all by default.

    Returns:
      `x -> {name: value}`, in the order of evaluation (or of `names`), the output last
      as `logits`.

    Raises:
      ValueError: (when called) the network has no layer of such a name.

    >>> import jax, jax.numpy as jnp
    >>> run = path(lambda x: jax.nn.relu(x).sum((0, 1)))
    >>> [(name, value.shape) for name, value in run(jnp.ones((2, 2, 3))).items()]
    [('relu:0', (2, 2, 3)), ('logits', (3,))]
    """
    recorded = activations.record(fn, names)

    def run(x: Array) -> Path:
        logits, layers = recorded(x)
        return {**layers, "logits": logits}

    return run


def natural_paths(path_of: Callable[[Array], Path], images: Array) -> Natural:
    """Add up the paths of natural images, one image after another.

    At any time it holds two paths, whatever the number of images.

    Args:
      path_of: `[H, W, C] -> path`, from `path`.
      images: `[N, H, W, C]` natural images of a class.

    Returns:
      Their sum and their number.

    Raises:
      ValueError: there is no image.

    >>> import jax.numpy as jnp
    >>> images = jnp.arange(4.0).reshape(4, 1, 1, 1)
    >>> natural = natural_paths(lambda x: {"pixels": x}, images)
    >>> float(natural.total["pixels"][0, 0, 0]), int(natural.number)
    (6.0, 4)
    """
    count = checks.size_of("images", images)
    run = lowering.canonical(path_of)

    def step(total: Path, x: Array) -> tuple[Path, None]:
        return jax.tree.map(jnp.add, total, run(x)), None

    like = jax.eval_shape(run, images[0])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return Natural(jax.lax.scan(step, nothing, images)[0], jnp.asarray(count))


def mean_path(natural: Natural) -> Path:
    """The mean path of natural images.

    Args:
      natural: from `natural_paths`.

    Returns:
      The mean, layer by layer.

    >>> import jax.numpy as jnp
    >>> float(mean_path(Natural({"pixels": jnp.array(6.0)}, jnp.array(4)))["pixels"])
    1.5
    """
    return {name: value / natural.number for name, value in natural.total.items()}


def leave_out(natural: Natural, path: Path) -> Natural:
    """Leave one out: natural images but the one that this path is of.

    Args:
      natural: from `natural_paths`, of two images or more.
      path: of one of these images.

    Returns:
      The others.

    Raises:
      ValueError: there are no others, where this is known.

    >>> import jax.numpy as jnp
    >>> natural = Natural({"pixels": jnp.array(6.0)}, jnp.array(4))
    >>> float(mean_path(leave_out(natural, {"pixels": jnp.array(3.0)}))["pixels"])
    1.0
    """
    if checks.known(natural.number) and np.asarray(natural.number) < 2:
        raise ValueError(
            f"`natural` is of {natural.number} image: leaving one out takes two or more"
        )
    rest = {name: value - path[name] for name, value in natural.total.items()}
    return Natural(rest, natural.number - 1)


def path_similarity(path: Path, natural: Path) -> Similarity:
    """How close a path comes to the mean of natural ones, layer by layer.

    Args:
      path: of a picture; its layers give the order.
      natural: the mean of natural paths, from `mean_path`.

    Returns:
      L1 distance and rank correlation of each layer.

    Raises:
      ValueError: a layer of the path is not in the other.

    References:
      Tagade and Rumbelow, Prototype Generation, 2023. That the distance is a mean over
      units, and not a sum, is ours.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.array([1.0, 2, 3, 4, 5]), jnp.array([5.0, 6, 7, 8, 7])
    >>> found = path_similarity({"conv1": a}, {"conv1": b})
    >>> round(float(found.l1[0]), 4), round(float(found.rank[0]), 4)
    (3.6, 0.8208)
    """
    missing = [name for name in path if name not in natural]
    if missing or not path:
        raise ValueError(
            f"`natural` has the layers {', '.join(natural)}, `path` has"
            f" {', '.join(path) or 'none'}: record the same layers of both"
        )
    pairs = [(path[name], natural[name]) for name in path]
    for a, b in pairs:
        chex.assert_equal_shape([a, b])
    return Similarity(
        jnp.stack([jnp.mean(jnp.abs(a - b)) for a, b in pairs]),
        jnp.stack([metrics.rank_correlation(a, b) for a, b in pairs]),
    )


def path_success(candidate: Similarity, natural: Similarity) -> Success:
    """The criterion of a prototype: is it closer to the mean than natural images are?

    Args:
      candidate: `[L]` each, how close it comes to the natural mean.
      natural: `[N, L]` each, how close every natural image comes to the mean of the
        others.

    Returns:
      The share of the N * L pairs in which the candidate is closer.

    References:
      Tagade and Rumbelow, Prototype Generation, 2023, the definition of a prototype;
      leaving one out is ours.

    >>> import jax.numpy as jnp
    >>> natural = Similarity(jnp.array([[1.0], [3.0]]), jnp.array([[0.5], [0.7]]))
    >>> found = path_success(Similarity(jnp.array([2.0]), jnp.array([0.8])), natural)
    >>> float(found.l1), float(found.rank), int(found.undefined)
    (0.5, 1.0, 0)
    """
    chex.assert_rank(natural, 2)
    chex.assert_equal_shape([candidate.l1, candidate.rank, natural.l1[0]])
    closer = candidate.l1[None] < natural.l1
    finite = jnp.all(jnp.isfinite(candidate.l1)) & jnp.all(jnp.isfinite(natural.l1))
    ranks = candidate.rank[None]
    known = ~(jnp.isnan(ranks) | jnp.isnan(natural.rank))
    return Success(
        jnp.where(finite, jnp.mean(closer), jnp.nan),
        jnp.sum((ranks > natural.rank) & known) / jnp.sum(known),
        jnp.sum(~known),
    )


def normalized(value: ArrayLike, *, other: ArrayLike, same: ArrayLike) -> Array:
    """A similarity on a scale from another class to the same one.

    Args:
      value: `[...]` what is scored.
      other: `[...]` what natural images of other classes have, on average.
      same: `[...]` what natural images of the class have, each left out of the mean.

    Returns:
      `[...]` 0 for as far as another class, 1 for as close as the same; it may be below
      or above.

    References:
      Geirhos et al., Don't Trust Your Eyes, 2024.

    >>> float(normalized(0.7, other=0.5, same=0.9))
    0.5
    """
    value, other, same = (jnp.asarray(each) for each in (value, other, same))
    return (value - other) / (same - other)


def channel_centered(path: Path) -> Path:
    """Take from every channel its mean over places: what is left is where.

    A rank correlation of layers as they are says much of the channels' levels, which
    images of all kinds have in common.

    Args:
      path: of any layers, channels last.

    Returns:
      The same layers; those without places are zero everywhere, and have no rank
      correlation.

    >>> import jax.numpy as jnp
    >>> layer = jnp.array([[1.0, 5.0], [3.0, 5.0]])
    >>> channel_centered({"conv1": layer})["conv1"].tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    def centered(a: Array) -> Array:
        return a - jnp.mean(a, axis=tuple(range(a.ndim - 1)), keepdims=True)

    return {name: centered(a) for name, a in path.items()}


def shuffled(path: Path, *, key: Key) -> Path:
    """Put the places of every layer in another order: what is left is how much.

    It is the null of a similarity that means to be about places: what a path still has
    in common with the natural mean when nothing is where it was.

    Args:
      path: of any layers, channels last; those without places stay as they are.
      key: consumed.

    Returns:
      The same layers, all channels of one in the same new order.

    >>> import jax, jax.numpy as jnp
    >>> layer = jnp.arange(8.0).reshape(2, 2, 2)
    >>> found = shuffled({"conv1": layer}, key=jax.random.key(0))["conv1"]
    >>> sorted(found[..., 0].ravel().tolist()), bool(jnp.all(found[..., 1] % 2 == 1))
    ([0.0, 2.0, 4.0, 6.0], True)
    """

    def moved(a: Array, key: Key) -> Array:
        places = a.reshape(-1, a.shape[-1])
        return jax.random.permutation(key, places, axis=0).reshape(a.shape)

    keys = jax.random.split(key, len(path))
    return {name: moved(a, k) for (name, a), k in zip(path.items(), keys, strict=True)}
