"""The one climb of all visualizations: a canvas, a score, and what is in between.

Each step renders the image, lets a transform and the network look at it, and moves the
parameters by the gradient, in `ascent.ascend`. What comes out is the last iterate,
since values under random transforms are those of a draw: the best of them is the
luckiest draw and no better image. `select` chooses by something that is not random.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from protojax.contracts import Array, Fn, Key, PyTree, Score, Transform
from protojax.mechanisms import ascent, checks, lowering
from protojax.methods import activations
from protojax.methods.generation import canvases, losses


class Generated(NamedTuple):
    """An image that a climb has made.

    Attributes:
      x: `[H, W, C]` the image: the last iterate, or the best under `select`.
      value: `[]` its score, of the image as it is: not transformed, without penalty.
      step: `[]` when it was met: the number of steps, or 0 for the start.
      stalled: `[]` whether the score had no (finite) gradient at any step: then the
        image was moved by nothing but the penalty, and shows nothing.
      trace: `[S]` what was climbed, before each step: under its draw, less the penalty.
      strength: `[H, W, C]` sum over the steps of the magnitudes of the score's gradient
        with respect to the image: where the image mattered (`transparency`).
    """

    x: Array
    value: Array
    step: Array
    stalled: Array
    trace: Array
    strength: Array


class _State(NamedTuple):
    """What is climbed; only `params` are, the others watch."""

    params: PyTree
    probe: Array  # zeros, added to the image: its gradient is that of the image
    strength: Array
    moved: Array  # in how many steps the score had a gradient
    step: Array


def adam(learning_rate: float = 0.05) -> optax.GradientTransformation:
    """Adam, as all recipes but MaCo use it.

    Its `eps` is far below the gradients of a variance of a thousand probabilities.

    Args:
      learning_rate: length of a step, in the units of the canvas.

    Returns:
      The optimizer.

    >>> import jax.numpy as jnp
    >>> optimizer, x = adam(0.01), jnp.array(0.5)
    >>> step, _ = optimizer.update(jnp.array(1e-9), optimizer.init(x), x)
    >>> round(float(step), 4)  # as long as for any other gradient
    -0.01
    """
    return optax.adam(learning_rate, b1=0.9, b2=0.999, eps=1e-12)


def generate(
    score: Score,
    canvas: canvases.Canvas,
    *,
    key: Key | None = None,
    steps: int = 512,
    optimizer: optax.GradientTransformation | None = None,
    transform: Transform | None = None,
    draws: int = 1,
    penalty: Callable[[Array], Array] | None = None,
    redirect: int = 0,
    select: Score | None = None,
) -> Generated:
    """Climb a score of an image, on any canvas.

    Memory is that of one gradient of the score for each draw, and a handful of images
    and sets of parameters: nothing grows with the number of steps but the trace.

    Args:
      score: `[H, W, C] -> []`, say `objectives.logit(fn, y)`; sums of several are
        written as such: `lambda x: a(x) + 0.5 * b(x)`. With a `group` as canvas it is
        of `[B, H, W, C]`.
      canvas: what the image is made of.
      key: consumed; for the start and the transforms. None where nothing is random.
      steps: how many.
      optimizer: an Optax transformation; `adam()` by default.
      transform: `(x, *, key) -> x`, drawn anew for each step. As models normalize
        inside, it comes first: with the data's mean color as fill that is the same as
        afterwards.
      draws: how many transforms are averaged in each step; memory grows with them.
      penalty: `[H, W, C] -> []`, subtracted; of the image as it is, not transformed.
      redirect: for how many steps ReLUs that pass no gradient let one through
        (`activations.redirected`); 16 in Lucid, which helps units that are dead at the
        start.
      select: `[H, W, C] -> []`, not random, by which the best iterate is chosen; the
        last one by default.

    Returns:
      The image. Under `jit` look at `stalled`.

    Raises:
      ValueError: for a count below one (or `redirect` below zero), and where something
        is random and there is no key.
      Stalled: if the score is known to have had no gradient at any step.
      FloatingPointError: if it is known to have become NaN.

    References:
      Tagade and Rumbelow, Prototype Generation, 2023. Olah et al., Feature
      Visualization, 2017.

    >>> import jax.numpy as jnp, optax
    >>> from protojax.methods.generation import canvases
    >>> canvas = canvases.pixels(jnp.full((1, 2, 1), 0.5))
    >>> out = generate(lambda x: x[0, 0, 0] - x[0, 1, 0], canvas, steps=20)
    >>> out.x.ravel().tolist(), float(out.value)
    ([1.0, 0.0], 1.0)
    """
    checks.count("draws", draws)
    if redirect < 0:
        raise ValueError(f"`redirect` is {redirect}: pass a number of steps, or zero")
    if transform is not None and key is None:
        raise ValueError("`transform` is random: pass `key`")
    if draws > 1 and transform is None:
        raise ValueError(f"`draws` is {draws}: there is no `transform` to be drawn")

    def climbed(image: Array, step: Array, draw: Any) -> Array:
        seen = score
        if redirect:
            seen = activations.redirected(score, enabled=step < redirect)
        if transform is None:
            return seen(image)
        if draws == 1:
            return seen(transform(image, key=draw))
        several = jax.random.split(draw, draws)
        return jnp.mean(jax.vmap(lambda k: seen(transform(image, key=k)))(several))

    return climb(
        climbed,
        canvas,
        judge=score,
        key=key,
        steps=steps,
        optimizer=optimizer,
        penalty=penalty,
        select=select,
    )


def climb(
    objective: Callable[[Array, Array, Any], Array],
    canvas: canvases.Canvas,
    *,
    judge: Score,
    key: Key | None,
    steps: int,
    optimizer: optax.GradientTransformation | None = None,
    penalty: Callable[[Array], Array] | None = None,
    select: Score | None = None,
) -> Generated:
    """Climb something that changes from step to step; `generate` is made of it.

    Args:
      objective: `(image, step, key) -> []`, with `step` counted from zero, as a float.
      canvas: what the image is made of.
      judge: `[H, W, C] -> []`, the value of what comes out.
      key: consumed; None where nothing is random, which `objective` then gets.
      steps: how many.
      optimizer: as for `generate`.
      penalty: as for `generate`.
      select: as for `generate`.

    Returns:
      The image.

    Raises:
      ValueError, Stalled, FloatingPointError: as `generate`.

    >>> import jax.numpy as jnp
    >>> from protojax.methods.generation import canvases
    >>> canvas = canvases.pixels(jnp.zeros((1, 1, 1)))
    >>> late = lambda image, step, key: jnp.where(step < 3, 0.0, jnp.sum(image))
    >>> out = climb(late, canvas, judge=jnp.sum, key=None, steps=5)
    >>> [bool(value > 0) for value in out.trace]
    [False, False, False, False, True]
    """
    first, rest = (None, None) if key is None else jax.random.split(key)
    start = canvas.start(first)
    blank = jnp.zeros_like(jax.eval_shape(canvas.render, start))
    zero = jnp.zeros((), blank.dtype)

    def seen(given: tuple[_State, Any]) -> Array:
        state, draw = given
        image = canvas.render(state.params)
        step = jax.lax.stop_gradient(state.step)
        value = objective(image + state.probe, step, draw)
        return value if penalty is None else value - penalty(image)

    out = ascent.ascend(
        seen if key is not None else lambda state: seen((state, None)),
        _State(start, blank, blank, zero, zero),
        optimizer=_watching(optimizer or adam()),
        steps=steps,
        project=lambda state: state._replace(params=canvas.project(state.params)),
        transform=None if key is None else lambda state, *, key: (state, key),
        key=rest,
        select=(lambda state: state.step)
        if select is None
        else lambda state: select(canvas.render(state.params)),
    )

    def judged(params: PyTree) -> tuple[Array, Array]:
        image = canvas.render(params)
        return image, judge(image)

    image, value = ascent.evaluate(lowering.canonical(judged), out.x.params)
    still = out.x.moved == 0
    return raise_if_stalled(
        Generated(image, value, out.step, still, out.trace, out.x.strength)
    )


def baseline(
    fn: Fn,
    x0: Array,
    *,
    steps: int = 256,
    loss: Callable[[Array], Array] = losses.logit_variance,
    optimizer: optax.GradientTransformation | None = None,
    transform: Transform | None = None,
    key: Key | None = None,
) -> Generated:
    """An image that a network takes for no class more than for another: stage one.

    Made once for a network, it is where all its prototypes start. The paper minimizes
    the variance of the probabilities, whose gradient also vanishes where a few classes
    share all: a confident network stays there. That of the logits has the same minimum
    and no such points, and is the default.

    Args:
      fn: the network, `[H, W, C] -> [K]` logits.
      x0: `[H, W, C]` where to start from: noise, or one color.
      steps: how many.
      loss: `[K] -> []` of the logits, least where all classes are as likely:
        `probability_variance` for the paper's; `uniform_divergence` is another.
      optimizer: an Optax transformation; `adam()` by default.
      transform: `(x, *, key) -> x`, drawn anew for each step; none by default.
      key: consumed; for the transform.

    Returns:
      The best image that was met, since nothing here is random; its value is minus the
      loss.

    Raises:
      ValueError: for a bad image, number of steps, or a transform without a key.
      Stalled: if the loss has no gradient.

    References:
      Tagade and Rumbelow, Prototype Generation, 2023: baseline generation. The default
      loss, and that stage one has no transforms, are ours.

    >>> import jax.numpy as jnp
    >>> fn = lambda x: jnp.stack([3 * x.sum(), 1.0 + 0 * x.sum()])
    >>> out = baseline(fn, jnp.zeros((1, 1, 1)), steps=200, optimizer=adam(0.01))
    >>> round(float(out.x.ravel()[0]), 1)
    0.3
    """

    def score(x: Array) -> Array:
        return -loss(fn(x))

    return generate(
        score,
        canvases.pixels(x0),
        key=key,
        steps=steps,
        optimizer=optimizer,
        transform=transform,
        select=score,
    )


def raise_if_stalled(generated: Generated) -> Generated:
    """Raise where a climb is known to have failed; hand it on otherwise.

    Args:
      generated: what a climb has made. Traced results pass: there the fields say it.

    Returns:
      The same.

    Raises:
      Stalled: if the score had no gradient at any step.
      FloatingPointError: if what was climbed, or the value of the image, became NaN.

    >>> import jax.numpy as jnp
    >>> from protojax.methods.generation import canvases
    >>> canvas = canvases.pixels(jnp.zeros((1, 1, 1)))
    >>> generate(lambda x: 0.0 * x.sum(), canvas)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    Stalled: ...
    """
    if not checks.known((generated.stalled, generated.trace, generated.value)):
        return generated
    broken = np.isnan(generated.trace)
    if broken.any():
        raise FloatingPointError(
            f"what is climbed is NaN before step {int(broken.argmax()) + 1} of "
            f"{broken.size}: look at the score there, or take smaller steps"
        )
    if np.isnan(generated.value):
        raise FloatingPointError(
            f"the score of what came out after {broken.size} steps is NaN: look at it"
            " there, without a transform, or take smaller steps"
        )
    if bool(generated.stalled):
        raise ascent.Stalled(
            "the score had no gradient at any step, so that the image shows nothing. "
            "Usual causes: a unit that is dead behind its ReLU (pass `redirect=16`, or"
            " another start), a probability that is saturated (climb the logit), a"
            " score that does not depend on the image"
        )
    return generated


def transparency(strength: Array, *, share: float = 0.8) -> Array:
    """How opaque to draw each pixel: where the score's gradient was large.

    Args:
      strength: `[H, W, C]`, of `Generated`.
      share: of the pixels that are drawn in proportion; the others are opaque.

    Returns:
      `[H, W]`, in [0, 1].

    Raises:
      ValueError: for a share that is not from 0 to 1.

    References:
      Fel et al., MAgnitude Constrained Optimization, 2023; cut off as in the library
      Horama.

    >>> import jax.numpy as jnp
    >>> transparency(jnp.array([[[1.0], [2.0], [9.0]]]), share=0.5).tolist()
    [[0.5, 1.0, 1.0]]
    """
    checks.between("share", share, 0, 1)
    mean = jnp.mean(strength, axis=-1)
    top = jnp.quantile(mean, share)
    tiny = jnp.finfo(mean.dtype).tiny
    return jnp.minimum(mean, top) / jnp.maximum(top, tiny)


def _watching(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer on the parameters; what watches adds up what it sees."""

    def update(descent: _State, memory: Any, state: _State) -> tuple[_State, Any]:
        change, memory = optimizer.update(descent.params, memory, state.params)
        strength = jnp.abs(descent.probe)
        moved = jnp.any(jnp.isfinite(strength) & (strength > 0))
        one = jnp.ones_like(state.step)
        still = jnp.zeros_like(state.probe)
        return _State(change, still, strength, moved.astype(one.dtype), one), memory

    return optax.GradientTransformation(
        lambda state: optimizer.init(state.params), update
    )
