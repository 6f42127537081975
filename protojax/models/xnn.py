"""Explanation networks: encoder, decoder and linear read-out on the units of a layer.

They take units `[S]`, or a population `[..., S]`, in the place of an image, and return
x-features, scores and decoded units, the fields of `srae.Output`. The layer `decoder0`
takes the output of `encoder0` back, and so on: `srae.pretrain` trains them in pairs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from protojax import contracts

Array = contracts.Array


def function(model: nn.Module) -> Callable[[Any, Array, Any], tuple[Array, ...]]:
    """An explanation network as a function of its parameters.

    Args:
      model: an `XNN` or a `ConvolutionalXNN`.

    Returns:
      `(params, z, key) -> features, scores, decoded`, where `params` is what
      `init(...)["params"]` gives, and the key is None out of training.

    >>> import jax
    >>> z = jax.numpy.ones((2, 8))
    >>> model = XNN(8, widths=(4,))
    >>> params = jax.jit(model.init)(jax.random.key(0), z)["params"]
    >>> [leaf.shape for leaf in function(model)(params, z, None)]
    [(2, 5), (2, 1), (2, 8)]
    """

    def apply(params: Any, z: Array, key: Any) -> tuple[Array, ...]:
        rngs = None if key is None else {"dropout": key}
        found: Any = model.apply(
            {"params": params}, z, training=key is not None, rngs=rngs
        )
        return found

    return apply


class XNN(nn.Module):
    """The explanation network of Qi et al.: fully connected, symmetric.

    Attributes:
      size: how many units, S.
      features: how many x-features, F.
      scores: how many scores, K, each with a read-out of its own.
      widths: of the hidden layers of the encoder; the decoder has them backwards.
      dropout: share of the first hidden layer that is dropped in training.
      last: non-linearity of the decoded units; `lambda u: u` where they are signed.

    References:
      Qi, Khorram and Li, Embedding Deep Networks into Visual Explanations, 2021.

    >>> import jax
    >>> z = jax.numpy.zeros(4096)
    >>> params = jax.eval_shape(XNN(4096).init, jax.random.key(0), z)["params"]
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    6720507
    """

    size: int
    features: int = 5
    scores: int = 1
    widths: Sequence[int] = (800, 100)
    dropout: float = 0.02
    last: Callable[[Array], Array] = nn.relu

    def setup(self) -> None:
        """Name the layers."""
        inner = (*self.widths, self.features)
        outer = (self.size, *self.widths)
        self.encoder = [_Dense(n, name=f"encoder{i}") for i, n in enumerate(inner)]
        self.decoder = [_Dense(n, name=f"decoder{i}") for i, n in enumerate(outer)]
        self.readout = _Dense(self.scores, name="readout")
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, z: Array, *, training: bool = False) -> tuple[Array, ...]:
        """Return features `[..., F]`, scores `[..., K]` and decoded units `[..., S]`.

        In training a key is needed: `apply(variables, z, training=True,
        rngs={"dropout": key})`.
        """
        f = self.encode(z, training=training)
        return f, self.readout(f), self.decode(f)

    def encode(self, z: Array, *, training: bool = False) -> Array:
        """Return the x-features `[..., F]` of units `[..., S]`."""
        return nn.relu(self.before(z, training=training))

    def before(self, z: Array, *, training: bool = False) -> Array:
        """Return the x-features before their ReLU, where negative evidence shows."""
        h = z
        for number, layer in enumerate(self.encoder[:-1]):
            h = nn.relu(layer(h))
            if number == 0 and self.dropout:
                h = self.drop(h, deterministic=not training)
        return self.encoder[-1](h)

    def decode(self, f: Array) -> Array:
        """Return the units `[..., S]` that x-features `[..., F]` stand for."""
        h = f
        for layer in self.decoder[:0:-1]:
            h = nn.relu(layer(h))
        return self.last(self.decoder[0](h))


class ConvolutionalXNN(nn.Module):
    """A one-layer autoencoder of 1x1 convolutions, its mean codes the x-features.

    The baseline CAE of Qi et al.: the same few directions of channels at every place of
    a feature map. How the authors' was read out is not known; here the mean over places
    is.

    Attributes:
      shape: `[h, w, D]` of the feature map that the units are.
      features: how many x-features, F.
      scores: how many scores, K.
      last: non-linearity of the decoded units.

    References:
      Qi, Khorram and Li, Embedding Deep Networks into Visual Explanations, 2021.

    >>> import jax
    >>> z = jax.numpy.zeros((3, 1024))
    >>> model = ConvolutionalXNN((4, 4, 64))
    >>> variables = jax.jit(model.init)(jax.random.key(0), z)
    >>> [leaf.shape for leaf in jax.jit(model.apply)(variables, z)]
    [(3, 5), (3, 1), (3, 1024)]
    """

    shape: Sequence[int]
    features: int = 5
    scores: int = 1
    last: Callable[[Array], Array] = nn.relu

    def setup(self) -> None:
        """Name the layers."""
        self.encoder = _Dense(self.features, name="encoder0")
        self.decoder = _Dense(self.shape[-1], name="decoder0")
        self.readout = _Dense(self.scores, name="readout")

    def __call__(self, z: Array, *, training: bool = False) -> tuple[Array, ...]:
        """Return features `[..., F]`, scores `[..., K]`, decoded units `[..., S]`."""
        del training
        codes = self.codes(z)
        f = jnp.mean(codes, axis=(-3, -2))
        return f, self.readout(f), self.last(self.decoder(codes)).reshape(z.shape)

    def encode(self, z: Array) -> Array:
        """Return the x-features `[..., F]` of units `[..., S]`."""
        return jnp.mean(self.codes(z), axis=(-3, -2))

    def codes(self, z: Array) -> Array:
        """Return the codes `[..., h, w, F]` at each place."""
        return nn.relu(self.encoder(z.reshape(*z.shape[:-1], *self.shape)))


class _Dense(nn.Module):
    """A dense layer that starts as PyTorch's: uniform within 1 / sqrt(inputs)."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bound = x.shape[-1] ** -0.5

        def uniform(key: Any, shape: Sequence[int]) -> Array:
            return jax.random.uniform(key, shape, x.dtype, -bound, bound)

        kernel = self.param("kernel", uniform, (x.shape[-1], self.features))
        bias = self.param("bias", uniform, (self.features,))
        return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,))
