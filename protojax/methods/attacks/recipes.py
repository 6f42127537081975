"""The attacks of Ghorbani et al. 2019, as recipes over `pgd`.

They choose the objective, climb a smooth twin of the explanation where there is one,
and pick the best iterate on the network itself, among those that keep its label.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Explain, Fn, Key, Metric, Objective
from protojax.mechanisms import ascent
from protojax.methods import metrics, objectives
from protojax.methods.attacks import search

_ANGLES = np.arange(8) * np.pi / 4
COMPASS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
"""Eight directions as rows and columns."""


def top_k(
    fn: Fn,
    explain: Explain,
    x: Array,
    *,
    k: int,
    radius: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    twin: Explain | None = None,
    measure: Metric | None = None,
    key: Key | None = None,
    noise: Key | None = None,
) -> ascent.Ascent:
    """Drive the saliency out of the k most salient pixels, the label kept.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      explain: `[H, W, C] -> [H, W]`, its explanation.
      x: `[H, W, C]` the image, in [0, 1].
      k: how many pixels.
      radius: `[]` radius of the L-infinity ball; may be traced.
      step_size: `[]` length of a step; may be traced.
      steps: how many.
      twin: the same explanation of a smooth twin of the model, which only gives the
        direction; `explain` by default.
      measure: `(before, after) -> []` the damage by which the best iterate is chosen,
        say one minus an overlap; the saliency that has left by default.
      key: consumed; with it the climb starts at a random point of the ball.
      noise: consumed; with it `twin` is random, `twin(z, key=...)`, and gets another
        key at every step: a climb on one draw of SmoothGrad overfits that draw.
        `explain` keeps to one, by which all iterates are compared.

    Returns:
      The most damaging iterate that keeps the label, or `x` (at step 0); its value is
      the damage, on the model itself.

    Raises:
      ValueError: if the map has fewer than k pixels or is none, for noise without a
        twin, and as `pgd`.
      Stalled: if the gradient at the start is known to be zero everywhere.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, algorithm 1.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[0.5], [0.4]]])
    >>> share = lambda z: z[..., 0] / z.sum()
    >>> out = top_k(lambda z: z.ravel(), share, x, k=1, radius=0.04, step_size=0.01,
    ...             steps=4)
    >>> [round(float(pixel), 2) for pixel in out.x.ravel()]
    [0.46, 0.44]
    """
    before = _explained(explain, x)
    left = objectives.top_k(explain, before, k=k)
    damage = left if measure is None else _damage(explain, before, measure)
    return search.pgd(
        _climbed(lambda e: objectives.top_k(e, before, k=k), explain, twin, noise),
        x,
        radius=radius,
        step_size=step_size,
        steps=steps,
        key=key,
        noise=noise,
        select=objectives.label_kept(damage, fn, x),
    )


def targeted(
    fn: Fn,
    explain: Explain,
    x: Array,
    *,
    target: Array,
    radius: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    twin: Explain | None = None,
    key: Key | None = None,
    noise: Key | None = None,
) -> ascent.Ascent:
    """Draw the saliency into a region of one's choice, the label kept.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      explain: `[H, W, C] -> [H, W]`, its explanation.
      x: `[H, W, C]` the image, in [0, 1].
      target: `[H, W]` 1 inside of the region and 0 elsewhere.
      radius: `[]` radius of the L-infinity ball; may be traced.
      step_size: `[]` length of a step; may be traced.
      steps: how many.
      twin: the same explanation of a smooth twin, as for `top_k`.
      key: consumed; with it the climb starts at a random point of the ball.
      noise: consumed; with it `twin` gets another `key=` at every step, as for `top_k`.

    Returns:
      The iterate with most saliency inside that keeps the label, or `x` (at step 0).

    Raises:
      AssertionError: if the target has not the shape of the map.
      ValueError: as `pgd`.
      Stalled: if the gradient at the start is known to be zero everywhere.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, algorithm 1.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[0.5], [0.4]]])
    >>> share = lambda z: z[..., 0] / z.sum()
    >>> out = targeted(lambda z: z.ravel(), share, x, target=jnp.array([[0.0, 1.0]]),
    ...                radius=0.04, step_size=0.01, steps=4)
    >>> round(float(out.value), 3)
    0.489
    """
    return search.pgd(
        _climbed(lambda e: objectives.linear(e, target), explain, twin, noise),
        x,
        radius=radius,
        step_size=step_size,
        steps=steps,
        key=key,
        noise=noise,
        select=objectives.label_kept(objectives.linear(explain, target), fn, x),
    )


def mass_center(
    fn: Fn,
    explain: Explain,
    x: Array,
    *,
    radius: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    twin: Explain | None = None,
    measure: Metric | None = None,
    probe: int | None = None,
    key: Key | None = None,
    noise: Key | None = None,
) -> ascent.Ascent:
    """Push the center of mass of the map away, in the best of eight directions.

    The distance of the center from where it was has no gradient at the start, so the
    center is pushed along a direction instead. Each of the eight of the compass is
    climbed for a few steps, and the most damaging one to the end; this is ours, see
    `mass_center_truncated` for the authors' way.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      explain: `[H, W, C] -> [H, W]`, its explanation.
      x: `[H, W, C]` the image, in [0, 1].
      radius: `[]` radius of the L-infinity ball; may be traced.
      step_size: `[]` length of a step; may be traced.
      steps: how many, in the direction that is chosen.
      twin: the same explanation of a smooth twin, as for `top_k`.
      measure: `(before, after) -> []` the damage by which direction and iterate are
        chosen; the distance of the centers, in pixels, by default.
      probe: how many steps each direction gets; a tenth of `steps` by default, and
        with `steps` all eight are climbed to the end.
      key: consumed; with it the climbs start at a random point of the ball.
      noise: consumed; with it `twin` gets another `key=` at every step, as for `top_k`.

    Returns:
      The most damaging iterate that keeps the label, or `x` (at step 0); its value is
      the damage, on the model itself.

    Raises:
      ValueError: for a bad `probe`, and as `pgd`.
      Stalled: if the gradient at the start is known to be zero everywhere.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, algorithm 1.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[0.5], [0.3]]])
    >>> share = lambda z: z[..., 0] / z.sum()
    >>> out = mass_center(lambda z: z.ravel(), share, x, radius=0.04, step_size=0.01,
    ...                   steps=4)
    >>> [round(float(pixel), 2) for pixel in out.x.ravel()]
    [0.46, 0.34]
    """
    probe = max(1, steps // 10) if probe is None else probe
    if not 1 <= probe <= steps:
        raise ValueError(f"`probe` is {probe}: choose 1 <= probe <= steps ({steps})")
    before = _explained(explain, x)
    damage = _damage(explain, before, measure or metrics.center_shift)
    select = objectives.label_kept(damage, fn, x)

    def climb(direction: Array, count: int) -> ascent.Ascent:
        along = functools.partial(objectives.mass_center, direction=direction)
        return search.pgd(
            _climbed(along, explain, twin, noise),
            x,
            radius=radius,
            step_size=step_size,
            steps=count,
            key=key,
            noise=noise,
            select=select,
        )

    directions = jnp.asarray(COMPASS, x.dtype)
    probes = jax.lax.map(lambda direction: climb(direction, probe), directions)
    best = jnp.argmax(jnp.nan_to_num(probes.value, nan=-jnp.inf))
    if probe < steps:
        return climb(directions[best], steps)
    chosen = jax.tree.map(lambda leaf: leaf[best], probes)
    return ascent.raise_if_stalled(chosen)


def mass_center_truncated(
    fn: Fn,
    explain: Explain,
    x: Array,
    *,
    radius: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    twin: Explain | None = None,
    measure: Metric | None = None,
    key: Key | None = None,
    noise: Key | None = None,
) -> ascent.Ascent:
    """The mass-center attack of the authors' code, away from a truncated center.

    It climbs the squared distance from the whole pixel above and to the left of the
    center (of the twin's map), which is what lets it begin, and makes it begin down and
    to the right. It is here for comparison; `mass_center` looks in all directions.

    Args:
      fn: the model, `[H, W, C] -> [K]` logits.
      explain: `[H, W, C] -> [H, W]`, its explanation.
      x: `[H, W, C]` the image, in [0, 1].
      radius: `[]` radius of the L-infinity ball; may be traced.
      step_size: `[]` length of a step; may be traced.
      steps: how many.
      twin: the same explanation of a smooth twin, as for `top_k`.
      measure: `(before, after) -> []` the damage by which the best iterate is chosen;
        the distance of the centers, in pixels, by default.
      key: consumed; with it the climb starts at a random point of the ball.
      noise: consumed; with it `twin` gets another `key=` at every step, as for `top_k`.

    Returns:
      The most damaging iterate that keeps the label, or `x` (at step 0).

    Raises:
      ValueError: as `pgd`.
      Stalled: if the gradient at the start is known to be zero everywhere.

    References:
      Ghorbani et al., Interpretation of Neural Networks is Fragile, 2019, algorithm 1.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[0.5], [0.3]]])
    >>> share = lambda z: z[..., 0] / z.sum()
    >>> out = mass_center_truncated(lambda z: z.ravel(), share, x, radius=0.04,
    ...                             step_size=0.01, steps=4)
    >>> [round(float(pixel), 2) for pixel in out.x.ravel()]
    [0.46, 0.34]
    """
    damage = _damage(explain, _explained(explain, x), measure or metrics.center_shift)

    def distance(climbed: Explain) -> Objective:
        center = jnp.trunc(metrics.center_of_mass(climbed(x)))
        return objectives.center_distance(climbed, center)

    return search.pgd(
        _climbed(distance, explain, twin, noise),
        x,
        radius=radius,
        step_size=step_size,
        steps=steps,
        key=key,
        noise=noise,
        select=objectives.label_kept(damage, fn, x),
    )


def _climbed(
    build: Callable[[Explain], Objective],
    explain: Explain,
    twin: Callable[..., Array] | None,
    noise: Key | None,
) -> Callable[..., Array]:
    """The objective on the twin, which takes a key where the twin does."""
    if noise is None:
        return build(twin or explain)
    if twin is None:
        raise ValueError("`noise` is for a `twin` that takes a `key`: pass one")
    return lambda z, *, key: build(functools.partial(twin, key=key))(z)


def _explained(explain: Explain, x: Array) -> Array:
    before = explain(x)
    if callable(before):
        raise ValueError(
            "`explain` gives a function for an image, and no map: if it takes the "
            "network first, pass `explain(fn)`"
        )
    return before


def _damage(explain: Explain, before: Array, measure: Metric) -> Objective:
    return lambda z: measure(before, explain(z))
