"""Colors whose channels are as good as independent in natural images.

What is optimized are decorrelated channels. A step along one of them moves red, green
and blue together, as natural images do, so that gray comes first and colors later.
Images of other than three channels are left as they are.
"""

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array

# A square root of the covariance of the colors of ImageNet: `M M^T`. Rows are red,
# green and blue. It is divided by the largest norm of its columns.
_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
CORRELATION = _ROOT / np.linalg.norm(_ROOT, axis=0).max()
"""`[3, 3]`, from decorrelated channels to red, green and blue (Lucid's numbers)."""


def correlate(image: Array) -> Array:
    """Colors of decorrelated channels.

    Args:
      image: `[..., C]`.

    Returns:
      `[..., C]`: red, green and blue where C is 3, else `image`.

    References:
      Olah et al., Feature Visualization, 2017.

    >>> import jax.numpy as jnp
    >>> [round(float(c), 4) for c in correlate(jnp.array([1.0, 0.0, 0.0]))]
    [0.5628, 0.5845, 0.5845]
    """
    return _mixed(image, CORRELATION)


def decorrelate(image: Array) -> Array:
    """Decorrelated channels of colors; the inverse of `correlate`.

    Args:
      image: `[..., C]`.

    Returns:
      `[..., C]`.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([0.1, 0.5, 0.9])
    >>> [round(float(c), 4) for c in decorrelate(correlate(x))]
    [0.1, 0.5, 0.9]
    """
    return _mixed(image, np.linalg.inv(CORRELATION))


def to_rgb(image: Array) -> Array:
    """Pixels in (0, 1) of decorrelated channels of any size.

    Args:
      image: `[..., C]`.

    Returns:
      `[..., C]`: the sigmoid of the colors.

    References:
      Olah et al., Feature Visualization, 2017.

    >>> import jax.numpy as jnp
    >>> to_rgb(jnp.zeros(3)).tolist()
    [0.5, 0.5, 0.5]
    """
    return jax.nn.sigmoid(correlate(image))


def from_rgb(x: Array, *, margin: float = 1e-3) -> Array:
    """Decorrelated channels of pixels in [0, 1]; the inverse of `to_rgb`.

    Args:
      x: `[..., C]` pixels.
      margin: how near to black and to white pixels may come, as these are infinite.

    Returns:
      `[..., C]`.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([0.2, 0.5, 0.7])
    >>> [round(float(c), 4) for c in to_rgb(from_rgb(x))]
    [0.2, 0.5, 0.7]
    """
    x = jnp.clip(x, margin, 1 - margin)
    return decorrelate(jnp.log(x) - jnp.log1p(-x))


def _mixed(image: Array, matrix: np.ndarray) -> Array:
    if image.shape[-1] != len(matrix):
        return image
    exact = jnp.result_type(image, float)
    return jnp.matmul(image, matrix.T.astype(exact), precision="highest")
