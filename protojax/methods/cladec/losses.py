"""What decoders are trained for: the image again, and the classifier's word on it."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from protojax.contracts import Array, ArrayLike, Fn, Key, PyTree
from protojax.mechanisms import checks
from protojax.methods import activations, metrics, srae

Reconstruct = Callable[[PyTree, Array], Array]
"""`(params, [] index of an example) -> [H, W, C]`."""


def reconstruction(
    fn: Fn, layer: str, decode: Fn, *, units: ArrayLike | None = None
) -> Fn:
    """The explanation of an image: what a decoder makes of a layer's value.

    Args:
      fn: the classifier, any traceable function of an image.
      layer: name of the layer, see `activations.layers`.
      decode: from the layer's value to an image, with its parameters.
      units: broadcastable to the value; what it is multiplied by, say 1 for the units
        that are explained and 0 elsewhere. A decoder is trained with the same.

    Returns:
      `[H, W, C] -> [H, W, C]`, which can be explained, attacked, and mapped.

    Raises:
      ValueError: (when called) there is no such layer; says which there are.

    References:
      Schneider and Vlachos, Explaining Classifiers by Constructing Familiar Concepts,
      2023.

    >>> import jax, jax.numpy as jnp
    >>> fn = lambda x: jax.nn.relu(x - 0.5).sum()
    >>> explain = reconstruction(fn, "relu:0", lambda code: code + 0.5)
    >>> explain(jnp.array([[[0.25], [0.75]]])).ravel().tolist()
    [0.5, 0.75]
    """
    kept = decode if units is None else lambda code: decode(code * units)
    return srae.attached(fn, layer, kept)


def code_shape(fn: Fn, layer: str, x: Array) -> tuple[int, ...]:
    """The shape of a layer's value, without computing it.

    Args:
      fn: the classifier.
      layer: name of the layer.
      x: `[H, W, C]` an image; its shape is what counts.

    Returns:
      The shape, of the image of one.

    Raises:
      ValueError: there is no such layer, and which there are.

    >>> import jax, jax.numpy as jnp
    >>> code_shape(lambda x: jax.nn.relu(x[0]).sum(), "relu:0", jnp.ones((2, 3, 1)))
    (3, 1)
    """
    there = activations.layers(fn, x)
    if layer not in there:
        raise ValueError(f"`layer` is {layer!r}: choose from {', '.join(there)}")
    return tuple(there[layer].shape)


def objective(
    x: Array, decoded: Array, logits: Array, y: ArrayLike, *, alpha: ArrayLike
) -> tuple[Array, dict[str, Array]]:
    r"""What a decoder minimizes on one image.

    $(1 - \alpha)$ times the mean squared error of the pixels, plus $\alpha$ times the
    cross-entropy of the frozen classifier on what was decoded. Note the mean over
    pixels: where others sum, the same `alpha` means something else, see `same_weight`.

    Args:
      x: `[H, W, C]` the image.
      decoded: `[H, W, C]` what was decoded.
      logits: `[K]` of the classifier on that.
      y: `[]` the true class, as in the authors' code; with the predicted one it asks
        for fidelity.
      alpha: `[]` from 0 (a picture) to 1 (whatever the classifier accepts); may be
        traced.

    Returns:
      `[]` the loss, and its terms `rec` and `ce` without their weights; NaN for a
      traced class that does not exist.

    Raises:
      ValueError: an alpha outside of [0, 1], or a class that does not exist, where
        these are known.

    References:
      Schneider and Vlachos 2023; as in the authors' code.

    >>> import jax.numpy as jnp
    >>> x, logits = jnp.zeros((2, 1, 1)), jnp.zeros(2)
    >>> loss, terms = objective(x, x + 0.5, logits, 0, alpha=0.0)
    >>> float(loss), float(terms["rec"]), round(float(terms["ce"]), 4)
    (0.25, 0.25, 0.6931)
    """
    check_alpha(alpha)
    chex.assert_rank([x, logits], [3, 1])
    chex.assert_equal_shape([x, decoded])
    terms = {
        "rec": jnp.mean((x - decoded) ** 2),
        "ce": -metrics.class_entry(jax.nn.log_softmax(logits), y),
    }
    return jnp.add((1 - alpha) * terms["rec"], alpha * terms["ce"]), terms


def on_batches(
    reconstruct: Reconstruct,
    classify: Fn,
    images: Array,
    labels: Array,
    *,
    alpha: ArrayLike = 0.0,
) -> Callable[[PyTree, Array, Key | None], Array]:
    """The objective as a loss of batches of indices, which `srae.train` takes.

    A decoder reads codes that were computed once, `lambda params, i:
    model.apply(params, codes[i])`; a reference autoencoder its own encoder's,
    `lambda params, i: model.apply(params["decoder"], encode(params["encoder"],
    images[i]))`.

    Args:
      reconstruct: from parameters and the index of an example to an image.
      classify: the frozen classifier, `[H, W, C] -> [K]`.
      images: `[N, H, W, C]`.
      labels: `[N]`.
      alpha: `[]` as for `objective`; 0 for a reference. Where it is known to be 0 the
        classifier is not even run.

    Returns:
      `(params, indices [M], key) -> []`, the mean over the batch.

    Raises:
      ValueError: an alpha that is known to be outside of [0, 1].

    >>> import jax.numpy as jnp
    >>> images, labels = jnp.ones((3, 2, 2, 1)), jnp.zeros(3, int)
    >>> gray = lambda params, i: params * images[i]
    >>> loss = on_batches(gray, lambda x: x[0, 0], images, labels)
    >>> float(loss(jnp.float32(0.5), jnp.array([0, 2]), None))
    0.25
    """
    check_alpha(alpha)
    silent = checks.known(alpha) and not np.any(np.asarray(alpha))

    def one(params: PyTree, index: Array) -> Array:
        decoded = reconstruct(params, index)
        if silent:
            chex.assert_equal_shape([images[index], decoded])
            return jnp.mean((images[index] - decoded) ** 2)
        logits, y = classify(decoded), labels[index]
        return objective(images[index], decoded, logits, y, alpha=alpha)[0]

    def loss(params: PyTree, batch: Array, key: Key | None) -> Array:
        del key
        return jnp.mean(jax.vmap(one, (None, 0))(params, batch))

    return loss


def check_alpha(alpha: ArrayLike) -> None:
    """Refuse weights that are known to be outside of [0, 1].

    Args:
      alpha: `[...]`; passes if it is traced.

    Raises:
      ValueError: it is outside, or NaN.

    >>> check_alpha(0.5)
    """
    if not checks.known(alpha):
        return
    value = np.asarray(alpha)
    if not np.all((value >= 0) & (value <= 1)):
        raise ValueError(
            f"`alpha` is {alpha}: choose from 0 (reconstruction alone) to 1 "
            "(classification alone)"
        )


def same_weight(alpha: ArrayLike, *, pixels: int) -> Array:
    """The alpha of a sum over pixels that means what this one does of their mean.

    Args:
      alpha: `[]` for the mean squared error.
      pixels: how many numbers an image is, H W C.

    Returns:
      `[]` for the summed squared error: both losses have the same minimum.

    Raises:
      ValueError: for an alpha that is known to be outside of [0, 1], or no pixels.

    >>> round(float(same_weight(0.001, pixels=784)), 2)
    0.44
    """
    check_alpha(alpha)
    checks.count("pixels", pixels)
    odds = pixels * jnp.asarray(alpha)
    return odds / (odds + 1 - alpha)


def step_rate(rate: float, *, epochs: int, steps: int) -> optax.Schedule:
    """The learning rate of the authors: a tenth after somewhat more than a third.

    Args:
      rate: in the beginning; theirs is 3e-4, with `srae.adam(..., decay=1e-5)`.
      epochs: of the whole training; theirs are 64.
      steps: in an epoch.

    Returns:
      A schedule over steps.

    References:
      Schneider and Vlachos 2023; as in the authors' code.

    >>> at = step_rate(1.0, epochs=64, steps=10)
    >>> [round(float(at(epoch * 10)), 2) for epoch in (28, 29, 57, 58)]
    [1.0, 0.1, 0.1, 0.01]
    """
    period = epochs // 3 + epochs // 10 + 2
    falls = {turn * period * steps: 0.1 for turn in range(1, epochs // period + 1)}
    return optax.piecewise_constant_schedule(rate, falls)
