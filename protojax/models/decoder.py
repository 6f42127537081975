"""Decoders: from the code of a layer back to an image, whatever its shape.

They take one code, a vector `[d]` or a feature map `[h, w, c]`, and return an image
`[H, W, C]` in [0, 1]: a classifier that normalizes must do so inside.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from protojax import contracts
from protojax.mechanisms import images

Array = contracts.Array


class Decoder(nn.Module):
    """The decoder of Schneider and Vlachos, for codes of any shape.

    A dense layer or convolution, then transposed convolutions that double the size, the
    last one to the image. Theirs is for codes of 1, 2, 4 or 8 rows and images of 32,
    where each count is as theirs; where the image is no multiple by a power of two, the
    nearest one is made and resized.

    Attributes:
      shape: `[H, W, C]` of the image.
      width: channels of the last hidden layer; those before have twice as many each.
      widest: and at most so many.

    References:
      Schneider and Vlachos, Explaining Classifiers by Constructing Familiar Concepts,
      2023; as in the authors' code.

    >>> import jax
    >>> model, code = Decoder((32, 32, 1)), jax.numpy.zeros(512)
    >>> params = jax.eval_shape(model.init, jax.random.key(0), code)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    7211457
    """

    shape: Sequence[int]
    width: int = 64
    widest: int = 512

    @nn.compact
    def __call__(self, code: Array) -> Array:
        """Return the image `[H, W, C]` of a code `[d]` or `[h, w, c]`."""
        _check_code(code)
        if code.ndim == 1:
            h = nn.Dense(max(len(code), self.width), name="entry")(code)[None, None]
        else:
            h = nn.Conv(code.shape[-1], (3, 3), padding=1, name="entry")(code)
        h = nn.relu(h)
        doublings = max(round(float(np.log2(self.shape[0] / h.shape[0]))), 0)
        for number in range(doublings - 1):
            width = min(self.width * 2 ** (doublings - 2 - number), self.widest)
            h = nn.relu(_double(width, f"up{number}")(h))
        if doublings:
            h = _double(self.shape[2], "last")(h)
        else:
            h = nn.Conv(self.shape[2], (3, 3), padding=1, name="last")(h)
        return nn.sigmoid(_fitted(h, self.shape))


class SmallDecoder(nn.Module):
    """The decoder of an independent reproduction of ClaDec, two or three layers.

    A vector grows from 1 to 4, 9 and 28 rows; a feature map is doubled twice, as from 7
    to 28. For images of another size the result is resized. Of 28 rows and columns the
    last ones are beyond the reach of the last kernel and show its bias alone, a gray
    margin, as they must in the reproduction.

    Attributes:
      shape: `[H, W, C]` of the image.

    References:
      github.com/tomtuamnuq/cladec-mnist, in Keras.

    >>> import jax
    >>> model = SmallDecoder((28, 28, 1))
    >>> for code in (jax.numpy.zeros(128), jax.numpy.zeros((7, 7, 64))):
    ...     params = jax.eval_shape(model.init, jax.random.key(0), code)["params"]
    ...     print(sum(leaf.size for leaf in jax.tree.leaves(params)))
    149889
    66625
    """

    shape: Sequence[int]

    @nn.compact
    def __call__(self, code: Array) -> Array:
        """Return the image `[H, W, C]` of a code `[d]` or `[h, w, c]`."""
        _check_code(code)
        channels = self.shape[2]
        if code.ndim == 1:
            h = code[None, None]
            h = nn.relu(_up(64, 4, 2, ((3, 3), (3, 3)), "up0")(h))
            h = nn.relu(_up(32, 3, 2, ((2, 2), (2, 2)), "up1")(h))
            h = _up(channels, 3, 3, ((2, 3), (2, 3)), "last")(h)
        else:
            h = nn.relu(_double(64, "up0")(code))
            h = _double(channels, "last")(h)
        return nn.sigmoid(_fitted(h, self.shape))


def _check_code(code: Array) -> None:
    if code.ndim not in (1, 3):
        raise ValueError(
            f"`code` has shape {code.shape}: pass one vector [d] or one feature map "
            "[h, w, c], and map over many with jax.vmap"
        )


def _double(width: int, name: str) -> nn.ConvTranspose:
    """A transposed convolution that doubles the size, PyTorch's `(4, 2, 1)`."""
    return _up(width, 4, 2, "SAME", name)


def _up(
    width: int, kernel: int, stride: int, padding: str | Sequence, name: str
) -> nn.ConvTranspose:
    # The transpose of a convolution, kernel flipped and all, as elsewhere.
    return nn.ConvTranspose(
        width,
        (kernel, kernel),
        (stride, stride),
        padding=padding,
        transpose_kernel=True,
        kernel_init=_kernel,
        name=name,
    )


def _kernel(key: Array, shape: Sequence[int], dtype: jnp.dtype) -> Array:
    """Glorot's uniform numbers for a kernel `[k, k, out, in]`."""
    area = shape[0] * shape[1]
    bound = (6 / (area * (shape[2] + shape[3]))) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _fitted(h: Array, shape: Sequence[int]) -> Array:
    if h.shape[:2] == tuple(shape[:2]):
        return h
    return images.resize(h, shape[:2])
