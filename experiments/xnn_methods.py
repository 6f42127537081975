"""What `experiments.xnn` trains: explanation networks, and what they are held against.

Every method turns the units of a layer into x-features, has a linear read-out of them
for each class, and gives the units back: `Reader` is what they have in common.
Networks are trained many at once, in `xnn_training`; the others are fitted here.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from protojax import models, srae
from protojax.contracts import Array, Key, PyTree
from protojax.models import xnn


class Reader(NamedTuple):
    """How the parameters of a method are used.

    Attributes:
      features: `(params, [..., S] units) -> [..., F]` x-features.
      decoded: `(params, [..., S] units) -> [..., S]`.
      drawn: `(params, [S] units) -> [F]`, of which maps are made: the x-features before
        their last non-linearity.
    """

    features: Callable[[PyTree, Array], Array]
    decoded: Callable[[PyTree, Array], Array]
    drawn: Callable[[PyTree, Array], Array]


@dataclasses.dataclass(frozen=True)
class Network:
    """An explanation network, and what it is trained for."""

    weights: srae.Weights
    pull: Callable[[Array], Array] = srae.pull_away
    reconstruct: Callable[..., Array] = srae.sparse_reconstruction
    convolutional: bool = False

    def model(self, size: int, shape: tuple[int, ...], **sizes: Any) -> nn.Module:
        """The network for so many units, of a feature map of that shape."""
        if not self.convolutional:
            return models.XNN(size, **sizes)
        del sizes["widths"]
        return models.ConvolutionalXNN(shape, **sizes)


NETWORKS = {
    "srae": Network(srae.Weights(1.0, 15.0, 5.0)),
    "srae_images": Network(srae.Weights(1.0, 10.0, 10.0), pull=srae.pull_away_images),
    "srae_no_pull": Network(srae.Weights(1.0, 15.0, 0.0)),
    "network": Network(srae.Weights(1.0, 0.0, 0.0)),
    "stacked": Network(srae.Weights(1.0, 300.0, 0.0), reconstruct=srae.squared_error),
    "convolutional": Network(
        srae.Weights(1.0, 300.0, 0.0),
        reconstruct=srae.squared_error,
        convolutional=True,
    ),
}
"""Trained networks, by name, with the weights of the authors' scripts."""

FITTED = ("lasso", "pca", "nmf", "top_k")
"""Methods that know nothing of the class but which of their codes it needs."""

NAMES = {
    "srae": "SRAE, pull-away of x-features",
    "srae_images": "SRAE, pull-away of images",
    "srae_no_pull": "SRAE without pull-away",
    "network": "network without reconstruction",
    "stacked": "stacked autoencoder",
    "convolutional": "convolutional autoencoder",
    "lasso": "Lasso on the units",
    "pca": "PCA, codes chosen by Lasso",
    "nmf": "NMF, codes chosen by Lasso",
    "top_k": "TopK autoencoder, codes chosen by Lasso",
}
"""How the methods are called in reports."""


def check(methods: Sequence[str], z: np.ndarray) -> None:
    """Refuse methods that cannot be fitted to these units."""
    if "nmf" in methods and np.min(z) < 0:
        raise ValueError(
            f"`methods` has 'nmf', and there are units below zero (down to "
            f"{float(np.min(z)):.3g}): leave it out, or take a layer after a ReLU"
        )


def reader(method: str, model: nn.Module | None) -> Reader:
    """How a method's parameters are used; networks need their module."""
    if model is not None:
        return _of_network(model)
    if method == "nmf":
        return Reader(_nmf_features, _atoms_decoded(_nmf_codes), _linear)
    if method == "top_k":
        return Reader(_top_k_features, _atoms_decoded(_top_k_codes), _linear)
    if method == "pca":
        return Reader(_linear, _atoms_decoded(_all_linear), _linear)
    return Reader(_linear, lambda params, z: _row(params["mean"], z) + 0 * z, _linear)


def _of_network(model: nn.Module) -> Reader:
    apply = xnn.function(model)

    def drawn(params: PyTree, z: Array) -> Array:
        how = "encode" if isinstance(model, models.ConvolutionalXNN) else "before"
        return model.apply({"params": params}, z, method=how)

    return Reader(
        lambda params, z: apply(params, z, None)[0],
        lambda params, z: apply(params, z, None)[2],
        drawn,
    )


def _all_linear(params: PyTree, z: Array) -> Array:
    return (z - _row(params["mean"], z)) @ params["encoder"] + _row(params["bias"], z)


def _linear(params: PyTree, z: Array) -> Array:
    """The chosen codes alone, in `chosen [F]`."""
    kernel, bias = params["encoder"][:, params["chosen"]], params["bias"]
    centered = z - _row(params["mean"], z)
    return centered @ kernel + _row(bias[params["chosen"]], z)


def _top_k_codes(params: PyTree, z: Array) -> Array:
    return srae.top_k(_all_linear(params, z), k=_kept(params["encoder"].shape[1]))


def _top_k_features(params: PyTree, z: Array) -> Array:
    return _top_k_codes(params, z)[..., params["chosen"]]


def _nmf_codes(params: PyTree, z: Array) -> Array:
    """Non-negative least squares on fixed atoms, by multiplicative updates."""
    atoms = params["atoms"]
    gram, moment = atoms @ atoms.T, jnp.maximum(z @ atoms.T, 0)

    def step(codes: Array, _: None) -> tuple[Array, None]:
        return codes * moment / (codes @ gram + 1e-9), None

    return jax.lax.scan(step, jnp.ones_like(moment), None, length=_UPDATES)[0]


def _nmf_features(params: PyTree, z: Array) -> Array:
    return _nmf_codes(params, z)[..., params["chosen"]]


def _atoms_decoded(codes: Callable[[PyTree, Array], Array]) -> Callable:
    def decoded(params: PyTree, z: Array) -> Array:
        return codes(params, z) @ params["atoms"] + _row(params["mean"], z)

    return decoded


def _row(vector: Array, like: Array) -> Array:
    return vector.reshape((1,) * (jnp.ndim(like) - 1) + (-1,))


def _kept(size: int) -> int:
    """How many codes of a TopK autoencoder an image may have."""
    return min(8, size)


_UPDATES = 200


def fitted(
    method: str, z: Array, scores: Array, *, features: int, size: int, keys: Key
) -> PyTree:
    """Fit a method for all classes, and all seeds where it has any.

    Args:
      method: of `FITTED`.
      z: `[N, S]` units.
      scores: `[N, K]` scores.
      features: how many codes each class may have, F.
      size: how many codes there are to choose from.
      keys: `[seeds]`.

    Returns:
      Parameters, `[seeds, K, ...]`; of one seed where nothing is random.
    """
    if method == "top_k":
        found = [_top_k_dictionary(z, size=size, key=key) for key in keys]
    else:
        found = [_dictionary(method, z, size)]
    each = [_chosen(method, params, z, scores, features) for params in found]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def _dictionary(method: str, z: Array, size: int) -> dict[str, Array]:
    width = z.shape[1]
    if method == "lasso":
        mean = jnp.mean(z, axis=0)
        eye = jnp.eye(width)
        return {"encoder": eye, "bias": mean, "mean": mean, "atoms": jnp.zeros((1, 1))}
    decomposition = _sklearn("decomposition")
    if method == "pca":
        pca = decomposition.PCA(size, random_state=0).fit(np.asarray(z))
        atoms, mean = jnp.float32(pca.components_), jnp.float32(pca.mean_)
        return {
            "encoder": atoms.T,
            "bias": jnp.zeros(size),
            "mean": mean,
            "atoms": atoms,
        }
    nmf = decomposition.NMF(size, init="nndsvda", max_iter=400, tol=1e-3)
    nmf.fit(np.asarray(z))
    atoms = jnp.float32(nmf.components_)
    unit = atoms / jnp.maximum(jnp.linalg.norm(atoms, axis=1, keepdims=True), 1e-9)
    return {
        "encoder": unit.T,
        "bias": jnp.zeros(size),
        "mean": jnp.zeros(width),
        "atoms": unit,
    }


def _sklearn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "PCA, NMF and Lasso need scikit-learn: pip install 'protojax[experiments]'"
        ) from error


def _top_k_dictionary(z: Array, *, size: int, key: Key) -> dict[str, Array]:
    """A TopK autoencoder on all units, for as many steps as tell it apart."""
    first, second = jax.random.split(key)
    optimizer = srae.adam(1e-3, decay=0.0)
    batch = min(256, len(z))

    def loss(params: srae.Dictionary, batch: Array, key: Key) -> Array:
        del key
        return srae.top_k_loss(params, z[batch], k=_kept(size))[0]

    @jax.jit
    def run(params: srae.Dictionary) -> srae.Member:
        return srae.train(
            loss,
            srae.member(params, optimizer, rounds=_TOP_K_ROUNDS),
            optimizer,
            batches=srae.shuffled(len(z), size=batch),
            key=second,
        )

    found = run(srae.dictionary(z, size=size, key=first)).best
    atoms = found.atoms / jnp.linalg.norm(found.atoms, axis=1, keepdims=True)
    return {
        "encoder": found.encoder,
        "bias": found.bias,
        "mean": found.center,
        "atoms": atoms,
    }


_TOP_K_ROUNDS = 150


def _chosen(
    method: str, params: dict[str, Array], z: Array, scores: Array, features: int
) -> PyTree:
    """The codes that Lasso leaves for each class, and a read-out by least squares."""
    every = params | {"chosen": jnp.arange(params["encoder"].shape[1])}
    codes = jax.jit(reader(method, None).features)(every, z)
    found = []
    for column in range(scores.shape[1]):
        places = chosen_by_lasso(codes, scores[:, column], features)
        own = scores[:, column : column + 1]
        kernel, bias = srae.least_squares(codes[:, places], own)
        readout = {"kernel": kernel, "bias": bias}
        found.append(params | {"chosen": places, "readout": readout})
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def chosen_by_lasso(codes: Array, score: Array, count: int) -> Array:
    """The `[count]` codes that are left when the penalty of a Lasso leaves so many."""
    values = np.asarray(codes, np.float64)
    spread = values.std(axis=0)
    live = np.flatnonzero(spread > 1e-9 * max(np.abs(values).max(), 1e-300))
    if len(live) < count:
        raise ValueError(
            f"`features` is {count}, and only {len(live)} codes vary at all"
        )
    unit = (values[:, live] - values[:, live].mean(axis=0)) / spread[live]
    target = np.asarray(score, np.float64)
    _, _, path = _sklearn("linear_model").lars_path(
        unit, target - target.mean(), method="lasso", max_iter=4 * count
    )
    counts = np.count_nonzero(path, axis=0)
    last = np.flatnonzero(counts <= count)[-1]
    ranked = np.argsort(-np.abs(path[:, last]))[:count]
    return jnp.asarray(np.sort(live[ranked]))
