"""Attacks along the direction in which an explanation turns the fastest.

To first order what moves is an operator times the perturbation: the gradient of a score
moves by its input Hessian, and a map by its Jacobian. The two functions find the
direction that either of them stretches most, and follow it to the edge of the ball.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Explain, Key, Objective, Score
from protojax.mechanisms import ascent, checks, curvature
from protojax.methods.attacks import search

_BISECTIONS = 30  # of an angle: down to the rounding of float32
_ROUNDING = 1024  # times eps: below it a map does not move


def eigenvector(
    objective: Objective,
    x: Array,
    *,
    score: Score,
    radius: ArrayLike,
    key: Key,
    norm: Literal["linf", "l2"] = "linf",
    mask: ArrayLike = 1.0,
    keep: Score | None = None,
    num: int = 1,
    steps: int = 32,
    rounds: int = 3,
) -> ascent.Ascent:
    r"""Follow the leading eigenvectors of a score's input Hessian to the edge.

    The gradient of the score moves by H d, most along the eigenvectors of largest
    magnitude. From both signs of each, the change `|H d|` is then raised within ball,
    mask and pixel bounds by the fixed point `d <- argmax <H H d, d'>`: signs of
    `H H d` in the L-infinity ball. Every round raises it (it is convex in d) or leaves
    it as it is. In an L2 ball clear of the bounds the eigenvector stays what it is.

    What moves is the gradient, its length included. Of a map that is normalized
    `singular_vector` is the attack: a single neuron's gradient turns nowhere, however
    large its Hessian.

    Args:
      objective: `[H, W, C] -> []`, by which the best image is chosen.
      x: `[H, W, C]` the image, in [0, 1].
      score: `[H, W, C] -> []`, twice differentiable: a smooth twin of a ReLU network.
      radius: `[]` radius of the ball; may be traced.
      key: consumed; the start of the Lanczos iteration.
      norm: which ball.
      mask: `[H, W]`, or broadcastable to `x`: 1 where pixels may change, 0 elsewhere.
      keep: `[H, W, C] -> []`, which is to stay as it is: perturbations are orthogonal
        to its gradient. With `objectives.margin(fn, y)` the label is kept to first
        order.
      num: how many eigenvectors.
      steps: of Lanczos, to find them: as many products with the Hessian, and twice as
        many where there is a mask or `keep`.
      rounds: of the fixed point.

    Returns:
      The best of the `2 * num` images, or `x` (at step 0); the trace `[2 * num]` has
      the values by eigenvector, first along it, then against it. Stalled if the
      Hessian is zero, or not finite, where pixels may change.

    Raises:
      ValueError: for a bad radius, norm, number of eigenvectors or rounds, or image.
      Stalled: if the Hessian is known to be zero where pixels may change.
      FloatingPointError: if a product with it, or the objective, is known not to be
        finite.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019: the analysis
      of the Hessian; the attack is ours.
      Journée et al., Generalized power method for sparse principal component analysis,
      2010.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.full((1, 2, 1), 0.5)
    >>> out = eigenvector(lambda z: z[0, 0, 0], x, score=lambda z: z[0, 0, 0] ** 2,
    ...                   radius=0.25, key=jax.random.key(0), norm="l2")
    >>> [round(float(pixel), 4) for pixel in out.x.ravel()]
    [0.75, 0.5]
    """
    checks.image(x)
    allowed = _allowed(x, radius, norm, mask, keep)
    hessian = curvature.hessian(score, x)
    operator = _restricted(curvature.Jacobian(hessian, hessian), allowed)
    if keep is None and checks.known(mask) and np.all(np.asarray(mask)):
        values, vectors, _ = curvature.top_eigenpairs(
            hessian, x, key=key, num=num, steps=steps
        )
    else:
        values, _, vectors, _ = curvature.top_singular(
            operator, x, key=key, num=num, steps=steps
        )
    stalled = ~jnp.any(jnp.isfinite(values) & (values != 0))
    return _follow(
        objective, x, vectors, operator, allowed, rounds=rounds, stalled=stalled
    )


def singular_vector(
    objective: Objective,
    x: Array,
    *,
    explain: Explain,
    radius: ArrayLike,
    key: Key,
    norm: Literal["linf", "l2"] = "linf",
    mask: ArrayLike = 1.0,
    keep: Score | None = None,
    num: int = 1,
    steps: int = 32,
    rounds: int = 3,
) -> ascent.Ascent:
    r"""Follow the leading right singular vectors of a map's Jacobian to the edge.

    A map moves by J d, most along these; the rest is as for `eigenvector`. The Jacobian
    is that of the map itself, its normalization included, and so knows what a Hessian
    does not: that a gradient which only grows or shrinks explains the same.

    Args:
      objective: `[H, W, C] -> []`, by which the best image is chosen.
      x: `[H, W, C]` the image, in [0, 1].
      explain: `[H, W, C] -> [H, W]`, differentiable: for the gradient of a ReLU
        network, the map of a smooth twin.
      radius: `[]` radius of the ball; may be traced.
      key: consumed; the start of the Lanczos iteration.
      norm: which ball.
      mask: `[H, W]`, or broadcastable to `x`: 1 where pixels may change, 0 elsewhere.
      keep: `[H, W, C] -> []`, which is to stay as it is, as for `eigenvector`.
      num: how many singular vectors.
      steps: of Lanczos, to find them: as many products with the Jacobian, and as many
        with its transpose.
      rounds: of the fixed point.

    Returns:
      The best of the `2 * num` images, or `x` (at step 0); the trace `[2 * num]` has
      the values by singular vector, first along it, then against it. Stalled if the
      Jacobian is not finite, zero, or at rounding level: if the map would not move by
      more than rounding errors over the whole range of pixels.

    Raises:
      ValueError: for a bad radius, norm, number of vectors or rounds, or image.
      Stalled: if the Jacobian is known to be zero, or at rounding level.
      FloatingPointError: if a product with it, or the objective, is known not to be
        finite.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, analyze the
      Hessian; the Jacobian of the map, and the attack, are ours.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[[0.5], [0.4]]])
    >>> share = lambda z: z[..., 0] / z.sum()
    >>> out = singular_vector(lambda z: share(z)[0, 1], x, explain=share, radius=0.1,
    ...                       key=jax.random.key(0))
    >>> [round(float(pixel), 2) for pixel in out.x.ravel()]
    [0.4, 0.5]
    """
    checks.image(x)
    allowed = _allowed(x, radius, norm, mask, keep)
    operator = _restricted(curvature.jacobian(explain, x), allowed)
    found = curvature.top_singular(operator, x, key=key, num=num, steps=steps)
    still = _ROUNDING * jnp.finfo(x.dtype).eps * jnp.linalg.norm(explain(x))
    stalled = ~(jnp.max(found.values) * x.size**0.5 > still)
    if checks.known(stalled) and stalled:
        raise ascent.Stalled(
            "the map does not move to first order: its Jacobian is zero, or at rounding"
            " level. A ReLU network's gradient moves by jumps alone (pass the map of a"
            " smooth twin, activations.replace(fn, activations.softplus(beta))), a "
            "linear model's or a single neuron's normalized one not at all"
        )
    return _follow(
        objective, x, found.right, operator, allowed, rounds=rounds, stalled=stalled
    )


class _Allowed(NamedTuple):
    """The perturbations that an attack may choose from."""

    project: Callable[[Array], Array]  # an image into ball, mask and pixel bounds
    inside: Callable[[Array], Array]  # a vector onto mask, and across what is kept
    furthest: Callable[[Array], Array]  # the allowed one furthest along a vector


def _allowed(
    x: Array, radius: ArrayLike, norm: Any, mask: ArrayLike, keep: Score | None
) -> _Allowed:
    free = ascent.free(mask, x)
    project = ascent.within(x, radius, norm=norm, mask=free)

    def masked(v: Array) -> Array:
        return jnp.where(free, v, 0)

    def furthest(c: Array) -> Array:
        # Far outside of the ball, so that all that the pixel bounds leave is used.
        outside = 2 * jnp.sign(c) if norm == "linf" else 1e4 * _unit(c)
        return project(x + radius * outside) - x

    if keep is None:
        return _Allowed(project, masked, furthest)
    normal = _unit(masked(jax.grad(keep)(x)))

    def across(v: Array) -> Array:
        return masked(v) - jnp.sum(normal * masked(v)) * normal

    return _Allowed(project, across, functools.partial(_level, furthest, normal))


def _level(furthest: Callable[[Array], Array], normal: Array, c: Array) -> Array:
    """The furthest along `c` among those that are orthogonal to a unit vector n.

    It is the furthest along `c - m n` for some multiplier m, whose component along n
    falls with m: so m, as an angle, is bisected. Where the component jumps over zero,
    which it does at the corners of a box, all between both ends is as far.
    """

    def at(angle: Array) -> Array:
        return furthest(jnp.cos(angle) * _unit(c) - jnp.sin(angle) * normal)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        ahead = jnp.sum(normal * at(middle)) >= 0
        return jnp.where(ahead, middle, ends[0]), jnp.where(ahead, ends[1], middle)

    edge = jnp.asarray(np.pi / 2 - 1e-5, c.dtype)
    ends = jax.lax.fori_loop(0, _BISECTIONS, halve, (-edge, edge))
    low, high = at(ends[0]), at(ends[1])
    above, below = jnp.sum(normal * low), jnp.sum(normal * high)
    jump = above - below
    share = jnp.clip(above / jnp.where(jump > 0, jump, 1), 0, 1)
    return jnp.where(jnp.any(normal != 0), low + share * (high - low), furthest(c))


def _restricted(operator: curvature.Jacobian, allowed: _Allowed) -> curvature.Jacobian:
    """An operator on allowed perturbations."""
    return curvature.Jacobian(
        lambda v: operator.forward(allowed.inside(v)),
        lambda u: allowed.inside(operator.transpose(u)),
    )


def _follow(
    objective: Objective,
    x: Array,
    vectors: Array,
    operator: curvature.Jacobian,
    allowed: _Allowed,
    *,
    rounds: int,
    stalled: Array,
) -> ascent.Ascent:
    """Both signs of each vector, to the edge, and on to the fixed point."""
    if rounds < 0:
        raise ValueError(f"`rounds` is {rounds}: pass zero or more")
    signed = jnp.stack([vectors, -vectors], axis=1).reshape(-1, *x.shape)

    def on(change: Array, _: None) -> tuple[Array, None]:
        return allowed.furthest(operator.transpose(operator.forward(change))), None

    def image(vector: Array) -> Array:
        start = allowed.furthest(vector)
        change, _ = jax.lax.scan(on, start, None, length=rounds)
        return allowed.project(x + change)

    with jax.default_matmul_precision("highest"):
        ends = jax.lax.map(image, signed)
    out = search.best_of(objective, x, lambda _, z: z, ends)
    return ascent.raise_if_stalled(out._replace(stalled=stalled))


def _unit(v: Array) -> Array:
    length = jnp.sqrt(jnp.sum(v**2))
    return v / jnp.where(length > 0, length, 1)
