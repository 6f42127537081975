"""Greedy pre-training: a stack of autoencoders, one layer after the other.

Without it many x-features die, or all of them: the pull-away term is lowest of those
that are zero.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import optax

from protojax.contracts import Array, Key, PyTree
from protojax.methods.srae import fidelity, losses, members


def pretrain(
    params: dict[str, Any],
    z: Array,
    scores: Array,
    optimizer: optax.GradientTransformation,
    *,
    batches: members.Batches,
    key: Key,
    rounds: int = 1,
    last: Callable[[Array], Array] = jax.nn.relu,
) -> dict[str, Any]:
    """Train each layer to reconstruct its input, and the read-out by least squares.

    Args:
      params: of the explanation network: `encoder0`, `encoder1`, ... with the
        `decoder0`, `decoder1`, ... that take their outputs back, and `readout`; each
        with `kernel` and `bias`, as `models.XNN` has them.
      z: `[N, S]` the units.
      scores: `[N, K]` the classifier's scores.
      optimizer: the authors' is `adam(1e-3, decay=0.0)`.
      batches: of indices, for one round.
      key: consumed.
      rounds: for each layer.
      last: non-linearity of what is decoded in the end; `lambda u: u` for signed units.

    Returns:
      The parameters, all of them replaced.

    References:
      Qi et al. 2021; as in the authors' code, but for the read-out, which they train
      by gradient descent.

    >>> import jax, jax.numpy as jnp
    >>> layer = lambda i, o: {"kernel": 0.1 * jnp.ones((i, o)), "bias": jnp.zeros(o)}
    >>> params = {"encoder0": layer(4, 2), "decoder0": layer(2, 4)}
    >>> params["readout"] = layer(2, 1)
    >>> z, sgd = jax.random.uniform(jax.random.key(0), (8, 4)), optax.sgd(0.1)
    >>> done = pretrain(params, z, z[:, :1], sgd, batches=members.shuffled(8, size=4),
    ...                 key=jax.random.key(1))
    >>> sorted(done)
    ['decoder0', 'encoder0', 'readout']
    """
    chex.assert_rank([z, scores], 2)
    depth = sum(name.startswith("encoder") for name in params)
    codes, trained = z, dict(params)
    for number in range(depth):
        names = (f"encoder{number}", f"decoder{number}")
        pair = tuple(params[name] for name in names)
        outer = last if number == 0 else jax.nn.relu
        done = members.train(
            _reconstruction_of(codes, outer),
            members.member(pair, optimizer, rounds=rounds),
            optimizer,
            batches=batches,
            key=jax.random.fold_in(key, number),
        )
        trained |= dict(zip(names, done.params, strict=True))
        codes = jax.nn.relu(_dense(done.params[0], codes))
    kernel, bias = fidelity.least_squares(codes, scores)
    return trained | {"readout": {"kernel": kernel, "bias": bias}}


def _reconstruction_of(codes: Array, last: Callable[[Array], Array]) -> members.Loss:
    def loss(pair: PyTree, batch: Array, key: Key) -> Array:
        del key
        rows = codes[batch]
        inner = jax.nn.relu(_dense(pair[0], rows))
        return losses.squared_error(rows, last(_dense(pair[1], inner)))

    return loss


def _dense(layer: dict[str, Array], x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"][None]
