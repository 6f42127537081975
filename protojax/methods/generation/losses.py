"""What is minimized: uneven probabilities, high frequencies, images that are alike.

Each is a loss or a penalty, zero at best. Objectives are maximized, so subtract them;
`diversity` alone is one to be maximized, and zero at most.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from protojax.contracts import Array
from protojax.mechanisms import checks, images


def probability_variance(logits: Array, *, ddof: int = 0) -> Array:
    """How unevenly a network's probabilities are spread: their variance.

    Zero where all classes are equally likely, (K - 1) / K^2 at most. Its gradient with
    respect to the logits, 2/K p (p - sum p^2), is small for many classes, and vanishes
    wherever some classes are equally likely and all others impossible: at any certain
    prediction, too.

    Args:
      logits: `[K]`.
      ddof: 0 for the mean of the squares, 1 to divide by K - 1.

    Returns:
      `[]`.

    References:
      Tagade and Rumbelow, Prototype Generation, 2023: the baseline's loss, in the
      reading that its words suggest; of formulas there was none that we could read.

    >>> import jax.numpy as jnp
    >>> round(float(probability_variance(jnp.array([99.0] + [0.0] * 9))), 4)
    0.09
    """
    chex.assert_rank(logits, 1)
    return jnp.var(jax.nn.softmax(logits), ddof=ddof)


def logit_variance(logits: Array) -> Array:
    """How unevenly logits are spread: zero where `probability_variance` is.

    Its gradient does not vanish with the number of classes. Ours.

    Args:
      logits: `[K]`.

    Returns:
      `[]`.

    >>> import jax.numpy as jnp
    >>> float(logit_variance(jnp.array([1.0, 3.0])))
    1.0
    """
    chex.assert_rank(logits, 1)
    return jnp.var(logits)


def uniform_divergence(logits: Array) -> Array:
    r"""Divergence $KL(1/K \,\|\, p)$: zero where `probability_variance` is. Ours.

    Args:
      logits: `[K]`.

    Returns:
      `[]` in nats.

    >>> import jax.numpy as jnp
    >>> round(float(uniform_divergence(jnp.array([0.0, 2.0]))), 4)
    0.4338
    """
    chex.assert_rank(logits, 1)
    return -jnp.mean(jax.nn.log_softmax(logits)) - jnp.log(logits.size)


def high_frequency(
    x: Array, *, size: Callable[[Array], Array] = images.magnitude
) -> Array:
    """Mean difference of neighboring pixels, down and across added.

    Means, so that a weight keeps its meaning at another resolution.

    Args:
      x: `[H, W, C]` the image.
      size: of a difference: its magnitude, or `jnp.square`.

    Returns:
      `[]`.

    Raises:
      ValueError: for a batch of images.

    References:
      Tagade and Rumbelow, Prototype Generation, 2023: it penalizes large differences
      between adjacent pixels; the formula is ours, there was none that we could read.

    >>> import jax.numpy as jnp
    >>> float(high_frequency(jnp.array([[[0.0], [1.0]], [[1.0], [0.0]]])))
    2.0
    """
    checks.axes("x", x, "H", "W", "C")
    down, across = x[1:] - x[:-1], x[:, 1:] - x[:, :-1]
    return sum(
        (jnp.mean(size(d)) for d in (down, across) if d.size), jnp.zeros((), x.dtype)
    )


def isotropic_high_frequency(x: Array) -> Array:
    r"""Mean length of the image's gradient, $\sqrt{dx^2 + dy^2 + 10^{-8}}$.

    Args:
      x: `[H, W, C]` the image, of two rows and columns or more.

    Returns:
      `[]`.

    Raises:
      ValueError: for a batch of images, or one of a single row or column.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[0.0], [3.0]], [[4.0], [0.0]]])
    >>> round(float(isotropic_high_frequency(x)), 4)
    5.0
    """
    checks.axes("x", x, "H", "W", "C")
    if min(x.shape[:2]) < 2:
        raise ValueError(
            f"`x` has shape {x.shape}: pass an image of two rows and columns or more"
        )
    down, across = x[1:, :-1] - x[:-1, :-1], x[:-1, 1:] - x[:-1, :-1]
    return jnp.mean(jnp.sqrt(down**2 + across**2 + 1e-8))


def blur_penalty(x: Array, *, width: int = 3) -> Array:
    """Half the squared distance from the image's own blur, which is held fixed.

    A step down its gradient of length k replaces x by `(1 - k) x + k blur(x)`. The
    kernel is one inside and a half on its border; beyond the image is nothing.

    Args:
      x: `[H, W, C]` the image.
      width: of the kernel, odd.

    Returns:
      `[]` the sum.

    Raises:
      ValueError: for a width that is not odd.

    References:
      Lucid's objective `blur_input_each_step`.

    >>> import jax.numpy as jnp
    >>> float(blur_penalty(jnp.ones((4, 4, 1))))
    0.0
    """
    checks.axes("x", x, "H", "W", "C")
    blurred = jax.lax.stop_gradient(_blurred(x, width))
    return jnp.sum((x - blurred) ** 2) / 2


def diversity(features: Array) -> Array:
    """How little the textures of several images have in common; zero at best.

    Minus the cosines of their Gram matrices, summed over the ordered pairs and divided
    by the number of images: 1 - B where all are the same.

    Args:
      features: `[B, ..., C]` a layer's values at B images.

    Returns:
      `[]`, in [1 - B, 0] where features are not negative.

    Raises:
      ValueError: for fewer than two images.

    References:
      Olah et al., Feature Visualization, 2017, and its library, Lucid.

    >>> import jax.numpy as jnp
    >>> round(float(diversity(jnp.stack([jnp.eye(2), jnp.eye(2)]))), 4)
    -1.0
    """
    count, channels = features.shape[0], features.shape[-1]
    if features.ndim < 2 or count < 2:
        raise ValueError(
            f"`features` has shape {features.shape}: pass those of two images or more"
        )
    flat = features.reshape(count, -1, channels)
    grams = jnp.einsum("bpi,bpj->bij", flat, flat, precision="highest")
    grams = grams.reshape(count, -1)
    squares = jnp.sum(grams**2, axis=1, keepdims=True)
    unit = grams * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))  # dead: 0, not NaN
    cosines = jnp.matmul(unit, unit.T, precision="highest")
    return -(jnp.sum(cosines) - jnp.trace(cosines)) / count


def _blurred(x: Array, width: int) -> Array:
    if width < 1 or width % 2 == 0:
        raise ValueError(f"`width` is {width}: pass an odd number")
    kernel = jnp.full((width, width), 0.5, x.dtype).at[1:-1, 1:-1].set(1.0)
    planes = jnp.stack([*jnp.moveaxis(x, -1, 0), jnp.ones(x.shape[:2], x.dtype)])
    summed = jax.vmap(lambda plane: jax.scipy.signal.convolve(plane, kernel, "same"))(
        planes
    )
    return jnp.moveaxis(summed[:-1] / summed[-1:], 0, -1)
