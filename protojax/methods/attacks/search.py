"""Attacks on any objective: within a ball, a mask and [0, 1], the best iterate kept."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from protojax.contracts import Array, ArrayLike, Key, Objective, Transform
from protojax.mechanisms import ascent, checks, lowering


def pgd(
    objective: Objective,
    x: Array,
    *,
    radius: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    norm: Literal["linf", "l2"] = "linf",
    mask: ArrayLike = 1.0,
    transform: Transform | None = None,
    key: Key | None = None,
    noise: Key | None = None,
    select: Objective | None = None,
) -> ascent.Ascent:
    """Projected gradient ascent: signed steps in L-infinity, normalized ones in L2.

    Args:
      objective: `[H, W, C] -> []`, differentiable.
      x: `[H, W, C]` the image, in [0, 1].
      radius: `[]` radius of the ball; may be traced.
      step_size: `[]` length of a step in the norm of the ball; may be traced.
      steps: how many.
      norm: which ball.
      mask: `[H, W]`, or broadcastable to `x`: 1 where pixels may change, 0 elsewhere.
      transform: a random change of each iterate before the objective sees it.
      key: consumed; for `transform` where there is no `noise`, and with it the climb
        starts at a random point of the ball.
      noise: consumed; with it the objective is random, `objective(z, key=...)`, and
        gets another key at every step. Steps then follow the sum of all gradients so
        far, in which noise averages out. It needs a `select` that is not random.
      select: `[H, W, C] -> []`, by which the best iterate is chosen, `x` itself among
        them; the objective by default.

    Returns:
      The best iterate, never worse than `x`; its step is 0 if that is `x` (or the
      random start).

    Raises:
      ValueError: for a bad radius, step size, norm, mask or number of steps, a batch,
        an image with NaN, of integers or out of [0, 1], a transform without a key,
        noise without `select`.
      Stalled: if the gradient at the start is known to be zero everywhere.

    References:
      Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018.
      Dong et al., Boosting Adversarial Attacks with Momentum, 2018, for the sum.

    >>> import jax.numpy as jnp
    >>> x = jnp.full((1, 2, 1), 0.5)
    >>> out = pgd(lambda z: z[0, 0, 0] ** 2, x, radius=0.25, step_size=0.125, steps=5)
    >>> out.x.ravel().tolist(), int(out.step)
    ([0.75, 0.5], 2)
    """
    checks.image(x)
    checks.positive("step_size", step_size)
    if transform is not None and key is None and noise is None:
        raise ValueError("`transform` is random: pass `key`")
    if noise is not None and select is None:
        raise ValueError(
            "`noise` makes the objective random: pass `select`, by which all iterates"
            " are compared"
        )
    moves = ascent.free(mask, x)
    project = ascent.within(x, radius, norm=norm, mask=moves)
    signed = optax.sign_sgd(step_size)
    unit = optax.normalize_by_update_norm(eps=jnp.finfo(x.dtype).tiny)
    start, clean_key = x, None
    if key is not None:
        start_key, clean_key, key = jax.random.split(key, 3)
        start = project(x + radius * _random_offset(start_key, x, norm))

    def masked(z: Array, **draw: Key) -> Array:
        return objective(jnp.where(moves, z, x), **draw)

    step = signed if norm == "linf" else optax.chain(unit, optax.sgd(step_size))
    out = ascent.ascend(
        masked if noise is None else lambda seen: masked(seen[0], key=seen[1]),
        start,
        optimizer=step if noise is None else optax.chain(optax.trace(1.0), step),
        steps=steps,
        project=project,
        transform=transform if noise is None else _with_draw(transform),
        key=noise if noise is not None else None if transform is None else key,
        select=select,
    )
    if clean_key is not None:
        seen = x if transform is None or select else transform(x, key=clean_key)
        judge = lowering.canonical(select or objective)
        value = ascent.evaluate(judge, seen).astype(out.value.dtype)
        best = ascent.better((x, value, jnp.int32(0)), out.x, out.value, out.step)
        out = out._replace(x=best[0], value=best[1], step=best[2])
    return ascent.raise_if_stalled(out)


def random_sign(
    objective: Objective,
    x: Array,
    *,
    radius: ArrayLike,
    key: Key,
    samples: int = 1,
) -> ascent.Ascent:
    """Every pixel up or down by the radius at random: what any attack must beat.

    For a fair comparison give it as many samples as the attack has steps.

    Args:
      objective: `[H, W, C] -> []`, by which the best sample is chosen.
      x: `[H, W, C]` the image, in [0, 1].
      radius: `[]` the change; may be traced.
      key: consumed.
      samples: how many are drawn.

    Returns:
      The best sample, or `x` (at step 0) if none is better; the trace `[samples]` has
      the value of each.

    Raises:
      ValueError: for a bad radius, number of samples or image.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019: the random
      sign perturbation.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.full((2, 2, 1), 0.5)
    >>> out = random_sign(jnp.sum, x, radius=0.25, key=jax.random.key(0), samples=50)
    >>> float(out.value)
    3.0
    """
    checks.image(x)
    checks.count("samples", samples)
    project = ascent.within(x, radius)

    def propose(_: Array, sample_key: Key) -> Array:
        return project(x + radius * jax.random.rademacher(sample_key, x.shape, x.dtype))

    return best_of(objective, x, propose, jax.random.split(key, samples))


def random_walk(
    objective: Objective,
    x: Array,
    *,
    radius: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    key: Key,
) -> ascent.Ascent:
    """The random baseline of the authors' code: a clipped walk, and its best iterate.

    Every step adds random signs and returns to the ball. The walk stays well inside for
    `steps` below `(radius / step_size) ** 2`, and is then a weaker null than
    `random_sign`.

    Args:
      objective: `[H, W, C] -> []`, by which the best iterate is chosen.
      x: `[H, W, C]` the image, in [0, 1].
      radius: `[]` radius of the L-infinity ball; may be traced.
      step_size: `[]` length of a step; may be traced.
      steps: how many.
      key: consumed.

    Returns:
      The best iterate, or `x` (at step 0); the trace `[steps]` has the value of each.

    Raises:
      ValueError: for a bad radius, step size, number of steps or image.

    References:
      The code of Ghorbani et al. 2019.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.full((2, 2, 1), 0.5)
    >>> out = random_walk(jnp.sum, x, radius=0.25, step_size=0.125, steps=50,
    ...                   key=jax.random.key(0))
    >>> bool(2 < out.value <= 3)
    True
    """
    checks.image(x)
    checks.count("steps", steps)
    checks.positive("step_size", step_size)
    project = ascent.within(x, radius)

    def propose(z: Array, step_key: Key) -> Array:
        return project(
            z + step_size * jax.random.rademacher(step_key, x.shape, x.dtype)
        )

    return best_of(objective, x, propose, jax.random.split(key, steps))


def best_of(
    objective: Objective, x: Array, propose: Callable[[Array, Any], Array], inputs: Any
) -> ascent.Ascent:
    """Take proposals in turn and keep the best, the image itself at step 0.

    Args:
      objective: `[H, W, C] -> []`.
      x: `[H, W, C]` the image.
      propose: `(z, input) -> z`, from the last proposal (first `x`) to the next.
      inputs: `[N, ...]` one for each proposal.

    Returns:
      The best of them, not worse than `x`; the trace `[N]` has the value of each.

    >>> import jax.numpy as jnp
    >>> x = jnp.full((1, 1, 1), 0.5)
    >>> out = best_of(jnp.sum, x, lambda z, step: z + step, jnp.array([0.25, -0.5]))
    >>> float(out.value), int(out.step), out.trace.tolist()
    (0.75, 1, [0.75, 0.25])
    """
    judge = lowering.canonical(objective)

    def body(carry: tuple, xs: tuple) -> tuple[tuple, Array]:
        z, best = carry
        count, given = xs
        z = jnp.where(count == 0, x, propose(z, given))
        value = judge(z)
        return (z, ascent.better(best, z, value, count)), value

    # The first proposal is made and dropped, so that `x` needs no program of its own.
    inputs = jnp.concatenate([inputs[:1], inputs])
    counts = jnp.arange(len(inputs), dtype=jnp.int32)
    nothing = jnp.full((), jnp.nan, jax.eval_shape(judge, x).dtype)
    (_, best), trace = jax.lax.scan(
        body, (x, (x, nothing, jnp.int32(0))), (counts, inputs)
    )
    return ascent.Ascent(*best, jnp.zeros((), bool), trace[1:])


def _with_draw(transform: Transform | None) -> Transform:
    """Let the objective see each iterate together with a key of its own."""

    def drawn(x: Array, *, key: Key) -> tuple[Array, Key]:
        change, draw = jax.random.split(key)
        return (x if transform is None else transform(x, key=change)), draw

    return drawn


def _random_offset(key: Key, x: Array, norm: str) -> Array:
    """A uniform draw from the unit ball."""
    if norm == "linf":
        return jax.random.uniform(key, x.shape, x.dtype, -1, 1)
    direction_key, length_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, x.shape, x.dtype)
    length = jax.random.uniform(length_key, (), x.dtype) ** (1 / x.size)
    return length * direction / jnp.sqrt(jnp.sum(direction**2))
