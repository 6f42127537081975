"""The vision transformer, with timm's weights in mind."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import ad_checkpoint

from protojax import contracts
from protojax.models import layers

Array = contracts.Array


class VisionTransformer(nn.Module):
    """Patches, a class token, pre-norm blocks of attention and a two-layer net.

    The defaults make a small one for tests and demonstrations at 32 pixels. Layers are
    named `patch_embed`, `blocks.0`, `blocks.1`, ..., `norm`; each is `[T, width]`, the
    class token first, then the patches row by row.

    Attributes:
      classes: how many logits.
      patch: side of a patch; divides both sides of the image.
      width: length of a token.
      depth: number of blocks.
      heads: number of attention heads; divides `width`.
      act: the non-linearity. timm's weights were trained with the exact
        `partial(nn.gelu, approximate=False)`.

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words, 2021.

    >>> import jax
    >>> x = jax.numpy.zeros((32, 32, 3))
    >>> model = VisionTransformer(classes=7)
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> jax.jit(model.apply)(variables, x).shape
    (7,)
    """

    classes: int = 10
    patch: int = 8
    width: int = 64
    depth: int = 2
    heads: int = 4
    act: Callable[[Array], Array] = nn.gelu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Return the logits `[K]` of one image `[H, W, 3]` in [0, 1]."""
        h = layers.normalize(x, 0.5, 0.5)
        if x.shape[0] % self.patch or x.shape[1] % self.patch:
            raise ValueError(
                f"`x` is {x.shape[0]}x{x.shape[1]} pixels, which patches of"
                f" {self.patch} do not tile: resize it or pass another `patch`"
            )
        if self.width % self.heads:
            raise ValueError(
                f"`width` is {self.width}, which {self.heads} `heads` do not share"
                " evenly: pass a multiple"
            )
        name = ad_checkpoint.checkpoint_name
        size = (self.patch, self.patch)
        h = nn.Conv(self.width, size, size, padding="VALID", name="patch_embed.proj")(h)
        token = self.param("cls_token", nn.initializers.zeros, (1, 1, self.width))
        h = jnp.concatenate([token[0], h.reshape(-1, self.width)])
        place = nn.initializers.normal(0.02)
        h = name(h + self.param("pos_embed", place, (1, *h.shape))[0], "patch_embed")
        for i in range(self.depth):
            block = _Block(self.heads, self.act, name=f"blocks.{i}")
            h = name(block(h), f"blocks.{i}")
        h = name(_norm(name="norm")(h), "norm")
        return nn.Dense(self.classes, name="head")(h[0])


_norm = functools.partial(nn.LayerNorm, use_fast_variance=False)


class _Block(nn.Module):
    """Attention, then a net on each token; both added to what came in."""

    heads: int
    act: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        h = nn.Dense(3 * width, name="attn.qkv")(_norm(name="norm1")(x))
        x = x + nn.Dense(width, name="attn.proj")(_attention(h, self.heads))
        h = nn.Dense(4 * width, name="mlp.fc1")(_norm(name="norm2")(x))
        return x + nn.Dense(width, name="mlp.fc2")(self.act(h))


def _attention(qkv: Array, heads: int) -> Array:
    """Mix the tokens: `[T, 3 * width]` queries, keys and values -> `[T, width]`."""
    query, key, value = jnp.unstack(qkv.reshape(len(qkv), 3, heads, -1), axis=1)
    logits = jnp.einsum("qhd,khd->hqk", query, key) / jnp.sqrt(query.shape[-1])
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("hqk,khd->qhd", weights, value).reshape(len(qkv), -1)
