"""Losses as influence functions need them: of some parameters and one example."""

from collections.abc import Callable

import jax

from protojax.contracts import Array, Fn, PyTree
from protojax.methods import metrics

Loss = Callable[[PyTree, PyTree], Array]
"""What is trained on: `(params, example) -> []`, of one example."""


def cross_entropy(fn: Fn) -> Loss:
    """The loss of a classifier's image and label.

    Args:
      fn: `(params, image) -> [K]` logits.

    Returns:
      The loss of an example `{"image": [H, W, C], "label": []}`; it is NaN, and an
      error where known, if there is no such class.

    >>> import jax.numpy as jnp
    >>> loss = cross_entropy(lambda w, x: w * jnp.sum(x, axis=(0, 1)))
    >>> example = {"image": jnp.ones((2, 2, 2)), "label": 1}
    >>> round(float(loss(jnp.array(1.0), example)), 4)
    0.6931
    """

    def loss(params: PyTree, example: PyTree) -> Array:
        logits = fn(params, example["image"])
        return -metrics.class_entry(jax.nn.log_softmax(logits), example["label"])

    return loss


def restrict(
    loss: Loss, params: PyTree, where: Callable[[str], bool]
) -> tuple[Loss, dict[str, Array]]:
    """A loss as a function of some of its parameters, the others fixed.

    Args:
      loss: `(params, example) -> []`.
      params: all parameters, a tree of arrays.
      where: says of a parameter's name, such as `params/head/kernel`, whether it is
        among those wanted.

    Returns:
      The loss of these parameters, and them, as a dict from names to arrays.

    Raises:
      ValueError: if no parameter is wanted; says what they are called.

    >>> import jax.numpy as jnp
    >>> params = {"head": {"bias": jnp.array(1.0)}, "body": jnp.array(2.0)}
    >>> loss = lambda p, x: p["head"]["bias"] * p["body"] * x
    >>> part_loss, part = restrict(loss, params, lambda name: name.startswith("head"))
    >>> list(part), float(part_loss({"head/bias": 3.0}, 1.0))
    (['head/bias'], 6.0)
    """
    found, structure = jax.tree_util.tree_flatten_with_path(params)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in found
    }
    part = {name: leaf for name, leaf in named.items() if where(name)}
    if not part:
        raise ValueError(
            f"`where` chooses none of the parameters: they are {', '.join(named)}"
        )

    def part_loss(part: dict[str, Array], example: PyTree) -> Array:
        whole = jax.tree.unflatten(structure, {**named, **part}.values())
        return loss(whole, example)

    return part_loss, part
