"""Whole methods, `(score, x0, *, key, steps) -> Generated`, to be compared as they are.

- `prototype`: pixels, from the baseline on, under random affine maps (Tagade and
  Rumbelow 2023).
- `distill`: waves in decorrelated colors (Olah et al. 2017).
- `maco`: phases alone, looked at through random crops (Fel et al. 2023).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from protojax.contracts import Array, ArrayLike, Key, Score, Transform
from protojax.mechanisms import checks, images
from protojax.methods.generation import canvases, climbing, losses, spectra

_affine = functools.partial(images.random_affine, fill=0.5)
PRESETS: dict[str, Transform] = {
    "s": functools.partial(_affine, degrees=5.0, shift=0.02, scale=0.05),
    "m": functools.partial(_affine, degrees=10.0, shift=0.05, scale=0.1),
    "l": functools.partial(_affine, degrees=15.0, shift=0.1, scale=0.2),
    "xl": functools.partial(_affine, degrees=20.0, shift=0.2, scale=0.3),
    "shift_scale": functools.partial(_affine, degrees=0.0, shift=0.1, scale=0.2),
}
"""Random affine maps by size. The names are those of the authors' product, whose ranges
are not published: the ranges are ours. Outside of the image is gray until the data's
mean color is bound: `functools.partial(PRESETS["xl"], fill=mean)`."""

ARTICLE_SCALES = (0.95, 0.975, 1.0, 1.025, 1.05)
"""The scales that the article of Olah et al. draws from."""

ARTICLE_DEGREES = tuple(float(angle) for angle in range(-5, 6))
"""The angles that the article draws from."""

LUCID_SCALES = tuple(round(0.9 + 0.02 * i, 2) for i in range(11))
"""The scales that Lucid draws from by default."""

LUCID_DEGREES = tuple(float(angle) for angle in [*range(-10, 11), *[0] * 5])
"""The angles that Lucid draws from by default."""


def prototype(
    score: Score,
    x0: Array,
    *,
    key: Key | None = None,
    steps: int = 512,
    transform: Transform | None = PRESETS["xl"],
    roughness: ArrayLike = 1.0,
    learning_rate: float = 0.05,
    draws: int = 1,
) -> climbing.Generated:
    """Prototype Generation, stage two: from the baseline to a class, in pixels.

    What the paper says: pixels are the parameters, they start from the baseline, and
    the class's logit less the high-frequency loss is climbed under random transforms.
    Its numbers are not known to us: steps, learning rate, weight and ranges are ours.

    Args:
      score: `[H, W, C] -> []`, say `objectives.logit(fn, y)`.
      x0: `[H, W, C]` where to start: the `baseline`. Seeds differ in their transforms;
        add noise to it if they should start apart.
      key: consumed; for the transforms.
      steps: how many.
      transform: `(x, *, key) -> x`; bind the data's mean color as its `fill`. None for
        none.
      roughness: `[]` weight of `high_frequency`; may be traced.
      learning_rate: of Adam.
      draws: how many transforms are averaged in each step.

    Returns:
      The prototype.

    Raises:
      ValueError: for a bad image or count, or a transform without a key.
      Stalled: if the score has no gradient.

    References:
      Tagade and Rumbelow, Prototype Generation: Robust Feature Visualisation for Data
      Independent Interpretability, 2023, section 3.

    >>> import jax, jax.numpy as jnp
    >>> x0 = jnp.full((8, 8, 1), 0.5)
    >>> out = prototype(lambda x: 9 * x[:4].mean(), x0, key=jax.random.key(0), steps=30)
    >>> bool(out.x[:3].mean() > 0.9)
    True
    """
    return climbing.generate(
        score,
        canvases.pixels(x0),
        key=key,
        steps=steps,
        optimizer=climbing.adam(learning_rate),
        transform=transform,
        draws=draws,
        penalty=lambda x: jnp.multiply(roughness, losses.high_frequency(x)),
    )


def distill(
    score: Score,
    x0: Array,
    *,
    key: Key,
    steps: int = 2560,
    transform: Transform | None = None,
    decay: ArrayLike = 1.0,
    learning_rate: float = 0.05,
    redirect: int = 0,
) -> climbing.Generated:
    """The recipe of the article on feature visualization, in waves.

    Args:
      score: `[H, W, C] -> []`.
      x0: `[H, W, C]` an image of the size wanted; nothing else of it is used.
      key: consumed.
      steps: how many; 2560 in the article, 512 in Lucid.
      transform: `(x, *, key) -> x`; `distill_affine` by default.
      decay: `[]` power with which waves fall with the frequency.
      learning_rate: of Adam.
      redirect: see `generate`; 16 in Lucid.

    Returns:
      The visualization.

    Raises:
      ValueError: for a bad image or count.
      Stalled: if the score has no gradient.

    References:
      Olah et al., Feature Visualization, 2017.

    >>> import jax, jax.numpy as jnp
    >>> out = distill(lambda x: x[:4].mean() - x[4:].mean(), jnp.zeros((8, 8, 3)),
    ...               key=jax.random.key(0), steps=60)
    >>> bool(out.x[:4].mean() > out.x[4:].mean() + 0.3)
    True
    """
    checks.image(x0)
    return climbing.generate(
        score,
        canvases.fourier(x0.shape, decay=decay),
        key=key,
        steps=steps,
        optimizer=climbing.adam(learning_rate),
        transform=transform or distill_affine,
        redirect=redirect,
    )


def distill_affine(
    x: Array,
    *,
    key: Key,
    jitter: tuple[float, float] | None = None,
    scales: Sequence[float] = ARTICLE_SCALES,
    degrees: Sequence[float] = ARTICLE_DEGREES,
    fill: ArrayLike = 0.5,
) -> Array:
    """The article's transforms, folded into one affine map that is read once.

    Jitter, scale, rotation and a second jitter. Read once, the image is not blurred
    anew by each of them, as it is in Lucid.

    Args:
      x: `[H, W, C]` the image.
      key: consumed.
      jitter: pixels by which the first and the second one may differ: (16, 8) at 224
        pixels, and in proportion at other sizes, by default.
      scales: one of them is drawn; `LUCID_SCALES` for Lucid's.
      degrees: one of them is drawn; `LUCID_DEGREES` for Lucid's.
      fill: `[C]` or `[]` the color outside.

    Returns:
      `[H, W, C]`.

    Raises:
      ValueError: for a batch of images.

    References:
      Olah et al., Feature Visualization, 2017.

    >>> import jax, jax.numpy as jnp
    >>> x = distill_affine(jnp.ones((8, 8, 3)), key=jax.random.key(0), fill=1.0)
    >>> bool(jnp.allclose(x, 1))
    True
    """
    checks.axes("x", x, "H", "W", "C")
    if jitter is None:
        share = min(x.shape[:2]) / 224
        jitter = round(16 * share), round(8 * share)
    keys = jax.random.split(key, 4)
    scale = jax.random.choice(keys[0], jnp.asarray(scales, x.dtype))
    angle = jax.random.choice(keys[1], jnp.asarray(degrees, x.dtype)) * (jnp.pi / 180)
    before, after = (
        jax.random.randint(k, (2,), 0, int(most) + 1).astype(x.dtype) - most / 2
        for k, most in zip(keys[2:], jitter, strict=True)
    )
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    turned = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    moved = turned @ after + before
    return images.affine(x, jnp.concatenate([turned, moved[:, None]], 1), fill=fill)


def maco(
    score: Score,
    x0: Array,
    *,
    key: Key,
    steps: int = 256,
    template: Array | None = None,
    size: tuple[int, int] | None = None,
    crops: int = 32,
    noise: ArrayLike = 0.08,
    sides: tuple[float, float] = (0.5, 0.05),
) -> climbing.Generated:
    """MaCo: only phases are climbed, and the network sees noisy crops of the image.

    Args:
      score: `[H, W, C] -> []`.
      x0: `[H, W, C]` an image of the size that the network takes; nothing else of it is
        used.
      key: consumed.
      steps: how many.
      template: `[h, w // 2 + 1, C]` magnitudes of natural images of the canvas's size,
        from `template(images)`; a power law without data by default.
      size: h and w of the canvas; `maco_size` by default.
      crops: how many in each step, all in memory at once.
      noise: `[]` of the crops: the standard deviation of a normal one, and the width of
        a uniform one.
      sides: of the crops, as shares of the image, in the first and in the last step.

    Returns:
      The visualization, `[h, w, C]`: `images.resize` it to what the network takes. Its
      value is that of the image as resized.

    Raises:
      ValueError: for a bad image or count, a template of another size.
      Stalled: if the score has no gradient.

    References:
      Fel et al., Unlocking Feature Visualization for Deeper Networks with MAgnitude
      Constrained Optimization, 2023; numbers as in the authors' library, Xplique, with
      Optax's Nadam in the place of Keras's.

    >>> import jax, jax.numpy as jnp
    >>> out = maco(lambda x: x.mean(), jnp.zeros((4, 4, 3)), key=jax.random.key(0),
    ...            steps=3, crops=2)
    >>> out.x.shape, out.strength.shape
    ((8, 8, 3), (8, 8, 3))
    """
    checks.image(x0)
    checks.count("crops", crops)
    seen = x0.shape[:2]
    height, width = size or maco_size(seen)
    if template is None:
        template = spectra.power_law((height, width, x0.shape[-1]))
    if template.shape[0] != height or template.shape[2] != x0.shape[-1]:
        raise ValueError(
            f"`template` has shape {template.shape}, and a canvas of {height} x {width}"
            f" needs {(height, width // 2 + 1, x0.shape[-1])}: make it of images of "
            "that size, or pass theirs as `size`"
        )

    def looked_at(image: Array, step: Array, draw: Key) -> Array:
        share = step / max(steps - 1, 1)
        side = sides[0] + (sides[1] - sides[0]) * share

        def crop(k: Array) -> Array:
            return score(noisy_crop(image, key=k, size=seen, side=side, noise=noise))

        return jnp.mean(jax.vmap(crop)(jax.random.split(draw, crops)))

    return climbing.climb(
        looked_at,
        canvases.phases(template, width=width),
        judge=lambda x: score(images.resize(x, seen)),
        key=key,
        steps=steps,
        optimizer=optax.nadam(1.0),
    )


def maco_size(size: Sequence[int]) -> tuple[int, int]:
    """The size of a canvas: 512 for images of 224 pixels, and in proportion.

    Args:
      size: height and width of the images that the network takes.

    Returns:
      Height and width of the canvas, even numbers.

    References:
      The library Xplique, for the 512.

    >>> maco_size((224, 64))
    (512, 146)
    """
    height, width = (2 * (side * 8 // 7) for side in size)
    return height, width


def noisy_crop(
    x: Array,
    *,
    key: Key,
    size: Sequence[int],
    side: ArrayLike,
    noise: ArrayLike = 0.08,
) -> Array:
    """A square of an image near its center, resized, with noise.

    Args:
      x: `[H, W, C]` the image.
      key: consumed.
      size: height and width of what comes out.
      side: `[]` mean of the side, as a share; its standard deviation is 0.05, and it
        stays between 0.05 and 1. That of the center is 0.15.
      noise: `[]` of a normal one the standard deviation, of a uniform one the width.

    Returns:
      `[H', W', C]`.

    References:
      The library Xplique, for MaCo.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((8, 8, 3))
    >>> noisy_crop(x, key=jax.random.key(0), size=(4, 4), side=0.3).shape
    (4, 4, 3)
    """
    keys = jax.random.split(key, 4)
    center = 0.5 + 0.15 * jax.random.normal(keys[0], (2,), x.dtype)
    side = jnp.clip(side + 0.05 * jax.random.normal(keys[1], (), x.dtype), 0.05, 1)
    crop = images.window(x, center, side, size=size)
    normal = jax.random.normal(keys[2], crop.shape, x.dtype)
    uniform = jax.random.uniform(keys[3], crop.shape, x.dtype, -0.5, 0.5)
    return crop + noise * normal + noise * uniform
