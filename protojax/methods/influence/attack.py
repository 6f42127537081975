"""The attack on influence functions of Ghorbani et al. 2019.

The test image is changed so that the training images that helped it most lose their
influence on it. All that depends on the training set is one direction of the
parameters, from `direction`, so that a step costs about two gradients of the network.
"""

import jax
import jax.numpy as jnp

from protojax.contracts import Array, ArrayLike, Fn, Objective, PyTree
from protojax.mechanisms import ascent, checks
from protojax.methods import attacks, objectives
from protojax.methods.influence import inverses, losses, scores


def suppressed(
    loss: losses.Loss, params: PyTree, along: PyTree, y: ArrayLike
) -> Objective:
    """Minus the influence that chosen training examples have on an image.

    Args:
      loss: `(params, {"image": [H, W, C], "label": []}) -> []`.
      params: as for `of_training`.
      along: the direction of the chosen examples: `direction(...).x`.
      y: `[]` the label of the image, which stays what it is as the image changes.

    Returns:
      The objective, `[H, W, C] -> []`. It is differentiable once the loss is twice; a
      ReLU network needs no smooth twin.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019: the attack
      on influence functions.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, example: w * jnp.sum(example["image"] ** 2)
    >>> objective = suppressed(loss, jnp.array(1.0), jnp.array(0.5), 0)
    >>> float(objective(jnp.full((1, 1, 2), 2.0)))
    -4.0
    """
    return lambda x: -scores.slope(loss, params, {"image": x, "label": y}, along)


def feature_steps(
    features: Fn,
    loss: losses.Loss,
    head: PyTree,
    each: PyTree,
    x: Array,
    y: ArrayLike,
    *,
    step_size: ArrayLike = 0.01,
) -> Objective:
    """What the authors' code climbs: features moved first, then the image after them.

    For each of the chosen training examples in turn the features of the image take one
    signed step that lowers its influence, from where the steps before led; the
    objective is how far the features have gone that way. Its gradient at the image is
    what the authors' code takes the sign of. The formula of their text is another one,
    that of `suppressed`.

    Args:
      features: `[H, W, C] -> [F]`, what the last layer sees.
      loss: `(head, {"features": [F], "label": []}) -> []`, say `softmax_loss`.
      head: the last layer.
      each: `[k, ...]` the directions of the chosen examples, one by one: a tree like
        `head` with a leading axis.
      x: `[H, W, C]` the image before the attack.
      y: `[]` its label.
      step_size: `[]` the length of the steps of the features; may be traced.

    Returns:
      The objective, `[H, W, C] -> []`.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, as published
      in code.

    >>> import jax, jax.numpy as jnp
    >>> loss = lambda w, example: w * jnp.sum(example["features"])
    >>> x = jnp.zeros((1, 1, 2))
    >>> objective = feature_steps(lambda z: z[0, 0], loss, jnp.array(1.0),
    ...                           jnp.array([1.0, 2.0]), x, 0)
    >>> [round(float(slope), 4) for slope in jax.grad(objective)(x).ravel()]
    [-0.02, -0.02]
    """

    def influence(phi: Array, along: PyTree) -> Array:
        return scores.slope(loss, head, {"features": phi, "label": y}, along)

    def step(phi: Array, along: PyTree) -> tuple[Array, None]:
        return phi - step_size * jnp.sign(jax.grad(influence)(phi, along)), None

    start = features(x)
    moved, _ = jax.lax.scan(step, start, each)
    return lambda z: jnp.sum((moved - start) * (features(z) - start))


def demote(
    fn: Fn,
    loss: losses.Loss,
    params: PyTree,
    train: PyTree,
    x: Array,
    inverse: inverses.Inverse,
    *,
    radius: ArrayLike,
    k: int = 3,
    step_size: ArrayLike | None = None,
    steps: int = 1,
) -> ascent.Ascent:
    """Take the most helpful training examples' influence on an image, the label kept.

    With one step, to the surface of the ball, it is the gradient-sign attack of the
    paper; with more it is projected gradient ascent on the same objective, which is
    ours.

    Args:
      fn: `[H, W, C] -> [K]` logits of the model that the influences are those of.
      loss: `(params, {"image": [H, W, C], "label": []}) -> []`.
      params: as for `of_training`.
      train: the training examples, a tree of arrays `[N, ...]`.
      x: `[H, W, C]` the test image, in [0, 1]; its label is the model's prediction.
      inverse: as for `of_training`.
      radius: `[]` radius of the L-infinity ball; may be traced.
      k: how many of the most helpful examples.
      step_size: `[]` length of a step; may be traced. The radius by default.
      steps: how many.

    Returns:
      The image with the least influence that keeps the label, or `x` (at step 0).
      Stalled if the gradient at the start is zero, or a linear system was not solved.

    Raises:
      ValueError: if there are fewer training examples than k, and as `of_training` and
        `attacks.pgd`.
      NotConverged: if it is known that a linear system was not solved.
      Stalled: if the gradient at the start is known to be zero everywhere.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019: the attack
      on influence functions.

    >>> import functools, jax.numpy as jnp
    >>> from protojax import curvature
    >>> fn = lambda w, x: w * x.ravel()
    >>> loss = losses.cross_entropy(fn)
    >>> w = jnp.array(1.0)
    >>> images = jnp.array([[[[0.9, 0.1]]], [[[0.4, 0.6]]]])
    >>> train = {"image": images, "label": jnp.array([0, 1])}
    >>> inverse = functools.partial(
    ...     curvature.solve, curvature.mean_hessian(loss, w, train))
    >>> out = demote(functools.partial(fn, w), loss, w, train,
    ...              jnp.array([[[0.7, 0.3]]]), inverse, radius=0.05, k=1)
    >>> [round(float(pixel), 2) for pixel in out.x.ravel()]
    [0.65, 0.35]
    """
    count = checks.size_of("train", train)
    if not 1 <= k <= count:
        raise ValueError(f"`k` is {k}: choose 1 to {count}, the training examples")
    y = jnp.argmax(fn(x))
    test = {"image": x, "label": y}
    before = scores.of_training(loss, params, train, test, inverse)
    _, chosen = jax.lax.top_k(before.values, k)
    found = scores.direction(loss, params, train, chosen, inverse)
    objective = suppressed(loss, params, found.x, y)
    out = attacks.pgd(
        objective,
        x,
        radius=radius,
        step_size=radius if step_size is None else step_size,
        steps=steps,
        select=objectives.label_kept(objective, fn, x),
    )
    return out._replace(stalled=out.stalled | ~(before.converged & found.converged))
