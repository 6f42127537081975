"""What an attack climbs: builders of `x -> []`, larger meaning more of the name.

An objective is maximized, always; signs live here. Where a map is compared with the map
before the attack, that map is the argument and not the image, as it must come from the
network under attack even where the objective looks at its smooth twin.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Explain, Fn, Objective
from protojax.mechanisms import checks
from protojax.methods import metrics


def linear(explain: Explain, coefficients: Array) -> Objective:
    """A weighted sum of the map.

    With a region's indicator it is the saliency inside (the targeted attack).

    Args:
      explain: `[H, W, C] -> [H, W]`.
      coefficients: `[H, W]` weights.

    Returns:
      The objective.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, whose
      targeted attack has a region.

    >>> import jax.numpy as jnp
    >>> left = jnp.array([[1.0, 0.0]])
    >>> float(linear(lambda x: x[..., 0], left)(jnp.array([[[3.0], [4.0]]])))
    3.0
    """

    def objective(x: Array) -> Array:
        saliency = explain(x)
        chex.assert_equal_shape([saliency, coefficients])
        return jnp.sum(coefficients * saliency)

    return objective


def top_k(explain: Explain, before: Array, *, k: int) -> Objective:
    """Saliency that has left the k pixels that were most salient.

    Args:
      explain: `[H, W, C] -> [H, W]`.
      before: `[H, W]` the map before the attack, of the network that is attacked.
      k: how many pixels.

    Returns:
      The objective: minus the sum of the map over these pixels; NaN if the map before
      has one.

    Raises:
      ValueError: if the map has fewer than k pixels.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, algorithm 1.

    >>> import jax.numpy as jnp
    >>> objective = top_k(lambda x: x[..., 0], jnp.array([[1.0, 2.0]]), k=1)
    >>> float(objective(jnp.array([[[3.0], [4.0]]])))
    -4.0
    """
    kept = jnp.where(metrics.top_k_mask(before, k=k), -1.0, 0.0)
    return linear(explain, jnp.where(jnp.any(jnp.isnan(before)), jnp.nan, kept))


def mass_center(explain: Explain, direction: Array) -> Objective:
    """The map's center of mass along a direction.

    It has a gradient at the start, which the distance from the start does not.

    Args:
      explain: `[H, W, C] -> [H, W]`, non-negative.
      direction: `[2]` row and column.

    Returns:
      The objective.

    References:
      Ghorbani et al. 2019 climb the distance; the direction is ours.

    >>> import jax.numpy as jnp
    >>> objective = mass_center(lambda x: x[..., 0], jnp.array([0.0, 1.0]))
    >>> float(objective(jnp.array([[[1.0], [3.0]]])))
    0.75
    """
    chex.assert_shape(direction, (2,))
    return lambda x: jnp.sum(direction * metrics.center_of_mass(explain(x)))


def center_distance(explain: Explain, center: Array) -> Objective:
    """Squared distance of the map's center of mass from a fixed point.

    From the map's own center the gradient is zero and a climb cannot begin. An offset
    at rounding level counts as zero, so that such a climb is stalled, as it should be,
    and does not follow rounding errors.

    Args:
      explain: `[H, W, C] -> [H, W]`, non-negative.
      center: `[2]` row and column of the point.

    Returns:
      The objective.

    References:
      Ghorbani et al. 2019, algorithm 1; squared as in the authors' code.

    >>> import jax.numpy as jnp
    >>> objective = center_distance(lambda x: x[..., 0], jnp.array([0.0, 0.0]))
    >>> float(objective(jnp.array([[[1.0], [1.0]]])))
    0.25
    """
    chex.assert_shape(center, (2,))

    def objective(x: Array) -> Array:
        saliency = explain(x)
        offset = metrics.center_of_mass(saliency) - center
        rounding = 16 * jnp.finfo(saliency.dtype).eps * max(saliency.shape)
        return jnp.sum(jnp.where(jnp.abs(offset) <= rounding, 0, offset) ** 2)

    return objective


def target_map(explain: Explain, target: Array) -> Objective:
    """Closeness to a map of one's choice: minus the squared distance.

    Args:
      explain: `[H, W, C] -> [H, W]`.
      target: `[H, W]` the map to be reached, on the scale of `explain`.

    Returns:
      The objective.

    References:
      Dombrowski et al., Explanations can be manipulated and geometry is to blame, 2019.

    >>> import jax.numpy as jnp
    >>> objective = target_map(lambda x: x[..., 0], jnp.array([[1.0, 1.0]]))
    >>> float(objective(jnp.array([[[3.0], [1.0]]])))
    -4.0
    """

    def objective(x: Array) -> Array:
        saliency = explain(x)
        chex.assert_equal_shape([saliency, target])
        return -jnp.sum((saliency - target) ** 2)

    return objective


def logit(fn: Fn, y: ArrayLike) -> Objective:
    """The logit of a class.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      y: `[]` the class.

    Returns:
      The objective; it raises a ValueError if there is no such class.

    >>> import jax.numpy as jnp
    >>> float(logit(lambda x: jnp.array([1.0, 2.0]), 1)(jnp.zeros((1, 1, 1))))
    2.0
    """
    return lambda x: metrics.class_entry(fn(x), y)


def probability(fn: Fn, y: ArrayLike) -> Objective:
    """The probability of a class, which also falls where others rise.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      y: `[]` the class.

    Returns:
      The objective; it raises a ValueError if there is no such class.

    >>> import jax.numpy as jnp
    >>> float(probability(lambda x: jnp.zeros(4), 0)(jnp.zeros((1, 1, 1))))
    0.25
    """
    return lambda x: metrics.confidence(fn, x, y)


def cross_entropy(fn: Fn, y: ArrayLike) -> Objective:
    """The loss of a class: climbing it is the untargeted attack on the prediction.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      y: `[]` the class.

    Returns:
      The objective; it raises a ValueError if there is no such class.

    >>> import jax.numpy as jnp
    >>> loss = cross_entropy(lambda x: jnp.zeros(2), 0)(jnp.zeros((1, 1, 1)))
    >>> round(float(loss), 4)
    0.6931
    """
    return lambda x: -metrics.class_entry(jax.nn.log_softmax(fn(x)), y)


def margin(fn: Fn, y: ArrayLike) -> Objective:
    """How far a class is ahead of the best of the others.

    Above zero where the class is the label. What leaves it as it is keeps the label.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      y: `[]` the class.

    Returns:
      The objective; it raises a ValueError if there is no such class.

    References:
      Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, 2017.

    >>> import jax.numpy as jnp
    >>> fn = lambda x: jnp.array([4.0, 1.0, 2.5])
    >>> float(margin(fn, 0)(jnp.zeros((1, 1, 1))))
    1.5
    """

    def objective(x: Array) -> Array:
        logits = fn(x)
        others = jnp.where(jnp.arange(len(logits)) == y, -jnp.inf, logits)
        return metrics.class_entry(logits, y) - jnp.max(others)

    return objective


def label_kept(objective: Objective, fn: Fn, x: Array) -> Objective:
    """An objective that counts only where the model's prediction is that of `x`.

    It is made to select iterates, not to be climbed (`label_regained` is). What it
    gives minus infinity is never selected, not even where the objective of all others
    is NaN.

    Args:
      objective: `[H, W, C] -> []`.
      fn: the model, `[H, W, C] -> [K]` logits.
      x: `[H, W, C]` the image whose label is to be kept.

    Returns:
      The objective; minus infinity where the label is another.

    >>> import jax.numpy as jnp
    >>> fn = lambda x: jnp.stack([x.sum(), 1.0])
    >>> kept = label_kept(jnp.sum, fn, jnp.full((1, 1, 1), 2.0))
    >>> [float(kept(jnp.full((1, 1, 1), value))) for value in (1.5, 0.5)]
    [1.5, -inf]
    """
    label = jnp.argmax(fn(x))
    return lambda z: jnp.where(jnp.argmax(fn(z)) == label, objective(z), -jnp.inf)


def label_regained(objective: Objective, fn: Fn, x: Array) -> Objective:
    """An objective to climb that turns to the label where that is lost.

    A climb that has crossed into another class seldom comes back, and all that it finds
    there is in vain: in a larger ball it finds less. Here each step climbs the
    objective where the prediction is that of `x`, and the margin of that class
    elsewhere. Its values are of two kinds: select iterates by `label_kept`.

    Args:
      objective: `[H, W, C] -> []`.
      fn: the model, `[H, W, C] -> [K]` logits.
      x: `[H, W, C]` the image whose label is to be kept.

    Returns:
      The objective; the margin, which is not above zero, where the label is another.

    References:
      Polyak, A general method for solving extremum problems, 1967: switching
      subgradients.

    >>> import jax.numpy as jnp
    >>> fn = lambda x: jnp.stack([x.sum(), 1.0])
    >>> climbed = label_regained(lambda x: 9 * x.sum(), fn, jnp.full((1, 1, 1), 2.0))
    >>> [float(climbed(jnp.full((1, 1, 1), value))) for value in (1.5, 0.5)]
    [13.5, -0.5]
    """
    ahead = margin(fn, jnp.argmax(fn(x)))

    def climbed(z: Array) -> Array:
        left = ahead(z)
        return jnp.where(left > 0, objective(z), left)

    return climbed


def prototype_moved(
    similarity: Callable[[Array], Array],
    *,
    prototype: ArrayLike,
    target: ArrayLike,
    source: ArrayLike,
) -> Objective:
    r"""A prototype that looks like one region of an image, and no more like another.

    .. math:: \frac{1}{|T|} \sum_{t \in T} s_j[t]
              - \frac{1}{|A|} \sum_{a \in A \setminus T} s_j[a]

    Where source and target have cells in common, these count for the target alone, and
    :math:`|A|` is the number of cells of the whole source, as in the authors' code.

    Args:
      similarity: `[H, W, C] -> [h, w, P]`, how similar each place is to each prototype.
        That of a single prototype, with `prototype=0`, is enough and costs less.
      prototype: `[]` which one; may be traced.
      target: bool `[h, w]` the cells T that it is to be found in.
      source: bool `[h, w]` the cells A that it is found in before the attack.

    Returns:
      The objective; it raises a ValueError for regions that do not fit the map, or a
      prototype that there is not.

    Raises:
      ValueError: if a region is known to have no cell.

    References:
      Hoffmann et al., This Looks Like That... Does it?, 2021, attack 1 ("head on
      stomach"), and its code.

    >>> import jax.numpy as jnp
    >>> maps = lambda x: x  # an image that is its own similarities
    >>> left, right = jnp.array([[True, False]]), jnp.array([[False, True]])
    >>> objective = prototype_moved(maps, prototype=0, target=left, source=right)
    >>> float(objective(jnp.array([[[3.0], [1.0]]])))
    2.0
    """
    target, source = jnp.asarray(target, bool), jnp.asarray(source, bool)
    for name, region in (("target", target), ("source", source)):
        if checks.known(region) and not np.asarray(region).any():
            raise ValueError(f"`{name}` has no cell: pass a region of one or more")

    def objective(x: Array) -> Array:
        similar = _of_prototype(similarity(x), prototype)
        for name, region in (("target", target), ("source", source)):
            if region.shape != similar.shape:
                raise ValueError(
                    f"`{name}` has {list(region.shape)} cells and the map of "
                    f"similarities {list(similar.shape)}: make regions on that grid"
                )
        gain = jnp.sum(jnp.where(target, similar, 0)) / jnp.sum(target)
        left = jnp.sum(jnp.where(source & ~target, similar, 0)) / jnp.sum(source)
        return gain - left

    return objective


def prototype_absent(
    similarity: Callable[[Array], Array], *, prototype: ArrayLike
) -> Objective:
    """A prototype that nothing in an image looks like.

    Args:
      similarity: `[H, W, C] -> [h, w, P]`, as for `prototype_moved`.
      prototype: `[]` which one; may be traced.

    Returns:
      The objective: minus the largest similarity. It raises a ValueError if there is no
      such prototype.

    References:
      Hoffmann et al., This Looks Like That... Does it?, 2021, whose code has it as
      attack 3 (the head disappears).

    >>> import jax.numpy as jnp
    >>> objective = prototype_absent(lambda x: x, prototype=0)
    >>> float(objective(jnp.array([[[3.0], [1.0]]])))
    -3.0
    """

    def objective(x: Array) -> Array:
        return -jnp.max(_of_prototype(similarity(x), prototype))

    return objective


def _of_prototype(maps: Array, prototype: ArrayLike) -> Array:
    """One of `[h, w, P]` maps; NaN for a traced prototype that there is not."""
    chex.assert_rank([maps, prototype], [3, 0])
    checks.index("prototype", prototype, maps.shape[-1], "prototypes")
    return maps.at[:, :, prototype].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )
