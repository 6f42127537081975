"""Train the decoders of `experiments.cladec`: all alphas and seeds of a layer at once.

A member is one decoder: of an alpha and a seed. All members of a seed start from the
same decoder and see the same batches, so that they are compared on the same draws.
"""

import functools
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import cladec_setup, networks, trainings
from protojax import cladec, models, srae
from protojax.contracts import Array, Key, PyTree

if TYPE_CHECKING:
    from experiments.cladec import Config
    from experiments.cladec_setup import Setup

_log = logging.getLogger(__name__)

DECODERS: dict[str, Callable[..., nn.Module]] = {
    "authors": models.Decoder,
    "small": models.SmallDecoder,
}
"""Decoders by name; each takes the shape of the image."""

KINDS = ("cladec", "reference", "random", "linear", "principal")
"""What is trained or solved for: decoders of the classifier's code, one for each alpha;
of an encoder trained along; of one that knows nothing; the best linear decoder, and the
best linear autoencoder of as many numbers."""

RIDGE = 0.1
"""Of the linear decoder, for codes of variance one: there can be more of them than
images."""

LINEAR_AT_MOST = 4096
"""Numbers of a code up to which linear decoders are solved for."""


def name(layer: str, kind: str) -> str:
    """What files of a kind of decoder are called."""
    return f"{layer}-{kind}".replace(".", "_").replace("/", "_")


def decoder(config: "Config", setup: "Setup") -> nn.Module:
    """The module of the decoders."""
    return DECODERS[config.decoder](setup.train["image"].shape[1:])


def kinds(config: "Config", setup: "Setup", layer: str) -> list[str]:
    """Those that there are for a layer: linear ones only of codes that are not huge."""
    size = int(np.prod(setup.shapes[layer]))
    few = size <= LINEAR_AT_MOST and config.linear
    return list(KINDS if few else KINDS[:3])


def members(config: "Config", kind: str) -> dict[str, np.ndarray]:
    """The alpha and seed of each member of a kind."""
    if kind in ("linear", "principal"):
        return {"alpha": np.zeros(1, np.float32), "seed": np.zeros(1, int)}
    alphas = config.alphas if kind == "cladec" else (0.0,)
    return {
        "alpha": np.repeat(np.float32(alphas), config.seeds),
        "seed": np.tile(np.arange(config.seeds), len(alphas)),
    }


def explain(
    config: "Config",
    setup: "Setup",
    layer: str,
    kind: str,
    weights: PyTree,
    params: PyTree,
    x: Array,
) -> Array:
    """What a member makes of an image; `weights` are the classifier's."""
    if kind == "principal":
        flat = x.ravel() - params["mean"]
        return (params["mean"] + (flat @ params["rows"].T) @ params["rows"]).reshape(
            x.shape
        )
    encoder = weights if kind in ("cladec", "linear") else params["encoder"]
    code = cladec_setup.code(setup.fn, layer, encoder, x)
    if kind == "linear":
        return (code.ravel() @ params["kernel"] + params["bias"]).reshape(x.shape)
    return decoder(config, setup).apply(params["decoder"], code)


def trained(
    config: "Config", setup: "Setup", layer: str, kind: str, folder: pathlib.Path
) -> dict[str, Any]:
    """Members of one kind: `params`, `alpha`, `seed`, `diverged`, `[M, ...]`."""
    called = name(layer, kind)
    file = folder / f"{called}.npz"
    if trainings.comes(file.exists):
        return trainings.read(file)
    if kind in ("linear", "principal"):
        found = solved(setup, layer, kind)
        diverged = np.zeros(1, bool)
    else:
        done, encoders = _trained(
            config, setup, layer, kind, folder / f"{called}-epochs"
        )
        found = done.best if kind == "reference" else {"decoder": done.best}
        if kind == "random":
            found = found | {"encoder": encoders}
        diverged = np.asarray(done.diverged)
    every = {"params": found, "diverged": diverged, **members(config, kind)}
    trainings.write(file, every)
    trainings.forget(folder, f"{called}-epochs")
    return trainings.read(file)


def _trained(
    config: "Config", setup: "Setup", layer: str, kind: str, spot: pathlib.Path
) -> tuple[srae.Member, PyTree]:
    """Train all members of a kind at once; and the encoders that they start from."""
    model = decoder(config, setup)
    facts = members(config, kind)
    images, labels = (jnp.asarray(setup.train[name]) for name in ("image", "label"))
    keys = jax.vmap(lambda s: jax.random.fold_in(jax.random.key(config.seed), s))(
        jnp.asarray(facts["seed"])
    )
    optimizer = srae.adam(config.rate, decay=config.decay)
    batches = srae.shuffled(len(images), size=min(config.batch, len(images)))
    encode = cladec_setup.coder(setup, layer)
    encoders, codes = None, None
    if kind != "cladec":

        def mix(key: Key) -> PyTree:
            return networks.shuffled(setup.weights, jax.random.fold_in(key, 0))

        encoders = jax.vmap(mix)(keys)
    if kind == "cladec":
        codes = jnp.asarray(encode(setup.weights, images))
    elif kind == "random":
        each = [encode(pick(encoders, i), images) for i in range(len(keys))]
        codes = jnp.stack(each)

    def begin(key: Key, encoder: PyTree) -> srae.Member:
        blank = jnp.zeros(setup.shapes[layer])
        params = model.init(jax.random.fold_in(key, 1), blank)
        if kind == "reference":
            params = {"decoder": params, "encoder": encoder}
        return srae.member(params, optimizer, rounds=config.epochs)

    def advance(
        given: dict, key: Key, alpha: Array, codes: Any, now: srae.Member, until: Array
    ) -> srae.Member:
        def reconstruct(params: PyTree, index: Array) -> Array:
            if kind != "reference":
                return model.apply(params, codes[index])
            x = given["images"][index]
            encoder = without_statistics(params["encoder"])
            code = cladec_setup.code(setup.fn, layer, encoder, x)
            return model.apply(params["decoder"], code)

        loss = cladec.on_batches(
            reconstruct,
            lambda x: setup.fn(given["weights"], x),
            given["images"],
            given["labels"],
            alpha=alpha if np.any(facts["alpha"]) else 0.0,
        )
        return srae.train(
            loss,
            now,
            optimizer,
            batches=batches,
            key=jax.random.fold_in(key, 2),
            until=until,
        )

    axis = 0 if kind == "random" else None
    go_on = jax.jit(jax.vmap(advance, (None, 0, 0, axis, 0, None)), donate_argnums=4)
    given = {"weights": setup.weights, "images": images, "labels": labels}
    alphas = jnp.asarray(facts["alpha"])
    done = trainings.run(
        lambda: jax.jit(jax.vmap(begin))(keys, encoders),
        lambda now, until: go_on(given, keys, alphas, codes, now, until),
        epochs=config.epochs,
        save_every=config.save_every,
        spot=spot,
        title=f"{layer}, {kind}",
    )
    return done, encoders


def without_statistics(weights: PyTree) -> PyTree:
    """Weights of which the running statistics of norms are not trained."""
    if not (isinstance(weights, Mapping) and "batch_stats" in weights):
        return weights
    frozen = jax.lax.stop_gradient(weights["batch_stats"])
    return {**weights, "batch_stats": frozen}


def solved(setup: "Setup", layer: str, kind: str) -> PyTree:
    """Linear decoders in closed form, with an axis of one member."""
    images = jnp.asarray(setup.train["image"])
    flat = images.reshape(len(images), -1)
    if kind == "principal":
        size = min(int(np.prod(setup.shapes[layer])), *flat.shape)
        mean, rows = cladec.principal_components(flat, size=size)
        return {"mean": mean[None], "rows": rows[None]}
    codes = jnp.asarray(cladec_setup.coder(setup, layer)(setup.weights, images))
    codes = codes.reshape(len(images), -1)
    kernel, bias = cladec.linear_decoder(codes, flat, ridge=RIDGE)
    return {"kernel": kernel[None], "bias": bias[None]}


def untrained(config: "Config", setup: "Setup", layer: str, kind: str) -> dict:
    """As many members as would be trained, all zero: to reckon with."""
    facts = members(config, kind)
    count = len(facts["seed"])
    model = decoder(config, setup)
    blank = jnp.zeros(setup.shapes[layer])
    params = {"decoder": jax.eval_shape(model.init, jax.random.key(0), blank)}
    if kind != "cladec":
        params["encoder"] = setup.weights
    many = jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), params)
    return {"params": many, "diverged": np.zeros(count, bool), **facts}


def evaluated(
    config: "Config",
    setup: "Setup",
    layer: str,
    kind: str,
    found: dict[str, Any],
    folder: pathlib.Path,
) -> np.ndarray:
    """Accuracies of new classifiers on what members decode, `[M]`.

    Each is trained on the decoded training images with their true labels, and tested on
    the decoded test images: how much of the class a picture carries, whatever the
    classifier that is explained makes of it.
    """
    file = folder / f"{name(layer, kind)}-evaluated.npz"
    if trainings.comes(file.exists):
        return trainings.read(file)["accuracy"]
    _log.info("%s, %s: %d classifiers to judge", layer, kind, len(found["seed"]))
    model = models.SmallClassifier(setup.classes)
    parts = {
        name: {k: jnp.asarray(part[k]) for k in ("image", "label")}
        for name, part in (("train", setup.train), ("test", setup.test))
    }

    @jax.jit
    def accuracy(weights: PyTree, parts: dict, params: PyTree, seed: Array) -> Array:
        def decoded(images: Array) -> Array:
            one = functools.partial(explain, config, setup, layer, kind)
            return jax.lax.map(
                functools.partial(one, weights, params), images, batch_size=32
            )

        key = jax.random.fold_in(jax.random.key(config.seed), seed)
        images = decoded(parts["train"]["image"])
        judge = cladec_setup.classifier(
            config, model, images, parts["train"]["label"], key
        ).best
        logits = jax.vmap(model.apply, (None, 0))(
            judge, decoded(parts["test"]["image"])
        )
        return jnp.mean(jnp.argmax(logits, axis=1) == parts["test"]["label"])

    each = [
        accuracy(
            setup.weights,
            parts,
            pick(found["params"], i),
            jnp.int32(found["seed"][i]),
        )
        for i in range(len(found["seed"]))
    ]
    values = np.asarray(jnp.stack(each))
    trainings.write(file, {"accuracy": values})
    return values


def pick(tree: PyTree, i: int) -> PyTree:
    """One member of many."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[i]), tree)
