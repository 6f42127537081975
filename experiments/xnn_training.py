"""Train the explanation networks of `experiments.xnn`: many at once, resumable.

A member is one network: of one class (or all), one seed, one round of the acceptance
rule. The randomness of a member comes from its class, seed and round alone, so that it
is the same whatever is trained beside it.
"""

import logging
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import trainings, xnn_methods
from protojax import srae
from protojax.contracts import Array, Key, PyTree
from protojax.models import xnn

if TYPE_CHECKING:
    from experiments.xnn import Config
    from experiments.xnn_setup import Setup

_log = logging.getLogger(__name__)


class Data(NamedTuple):
    """What networks are trained on, and judged by.

    Attributes:
      z: `[N, S]` units.
      scores: `[N, K]` scores of the classes.
      own: bool `[N, K]`, which images are of each class.
      held: int `[V]` the images that are not trained on, but decide when to stop.
    """

    z: Array
    scores: Array
    own: Array
    held: Array


class Trained(NamedTuple):
    """Members of one method.

    Attributes:
      params: `[M, ...]` parameters.
      facts: `[M]` arrays: `c` (place of the class), `seed`, `round`, `accepted`,
        `diverged`, `epochs`.
    """

    params: PyTree
    facts: dict[str, np.ndarray]


def every(config: "Config", setup: "Setup", folder: pathlib.Path) -> dict[str, Trained]:
    """Train, fit or read what each method needs."""
    count = len(setup.classes)
    groups = [tuple(range(count))] if config.joint else [(c,) for c in range(count)]
    return {
        method: trained(
            *(method, model_of(config, setup, method), setup.data, groups),
            *(config.seeds, config, folder),
        )
        if method in xnn_methods.NETWORKS
        else fit(config, setup, method, folder)
        for method in config.methods
    }


def model_of(config: "Config", setup: "Setup", method: str) -> nn.Module | None:
    """The module of a method, None where it has none."""
    if method not in xnn_methods.NETWORKS:
        return None
    return xnn_methods.NETWORKS[method].model(
        setup.data.z.shape[1],
        setup.shape,
        features=config.features,
        widths=config.widths,
        scores=len(setup.classes) if config.joint else 1,
    )


def untrained(config: "Config", setup: "Setup", method: str) -> Trained:
    """As many networks as would be trained, all as they start: to reckon with."""
    count = 1 if config.joint else len(setup.classes)
    facts = _facts(np.repeat(np.arange(count), config.seeds), config.seeds)
    model: Any = model_of(config, setup, method)
    params = model.init(jax.random.key(0), setup.data.z[0])["params"]
    members = len(facts["c"])
    many = lambda leaf: np.broadcast_to(leaf, (members, *leaf.shape))  # noqa: E731
    return Trained(jax.tree.map(many, params), facts)


def fit(config: "Config", setup: "Setup", method: str, folder: pathlib.Path) -> Trained:
    """Fit a method that is not trained as a network, or read it."""
    file = folder / f"{method}.npz"
    if trainings.comes(file.exists):
        return read(file)
    _log.info("%s", xnn_methods.NAMES[method])
    inside = jnp.setdiff1d(jnp.arange(len(setup.data.z)), setup.data.held)
    params = xnn_methods.fitted(
        method,
        setup.data.z[inside],
        setup.data.scores[inside],
        features=config.features,
        size=min(config.codes, setup.data.z.shape[1]),
        keys=jax.random.split(jax.random.key(config.seed), config.seeds),
    )
    seeds, count = len(jax.tree.leaves(params)[0]), len(setup.classes)

    def by_class(leaf: jax.Array) -> np.ndarray:
        return np.asarray(leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]))

    facts = _facts(np.repeat(np.arange(count), seeds), seeds)
    facts["accepted"][:] = True
    found = Trained(jax.tree.map(by_class, params), facts)
    write(file, found)
    return found


def _facts(classes: np.ndarray, seeds: int) -> dict[str, np.ndarray]:
    """Of members of these classes, seeds running fastest, before any training."""
    count = len(classes)
    facts = {"c": classes, "seed": np.tile(np.arange(seeds), count // seeds)}
    facts |= {name: np.zeros(count, int) for name in ("round", "epochs")}
    return facts | {name: np.zeros(count, bool) for name in ("accepted", "diverged")}


def trained(
    method: str,
    model: nn.Module,
    data: Data,
    groups: Sequence[Sequence[int]],
    seeds: int,
    config: "Config",
    folder: pathlib.Path,
) -> Trained:
    """Train a method's networks, or read them if that is done.

    Args:
      method: of `xnn_methods.NETWORKS`.
      model: their module.
      data: what they are trained on.
      groups: the classes of each network; all alike in number.
      seeds: how many networks for each.
      config: how long, and in what steps.
      folder: where the method's files go.

    Returns:
      The members, seeds running fastest.
    """
    file = folder / f"{method}.npz"
    if trainings.comes(file.exists):
        return read(file)
    facts = _facts(np.repeat(np.arange(len(groups)), seeds), seeds)
    params: PyTree = None
    for number in range(config.rounds):
        left = np.flatnonzero(~facts["accepted"])
        if not len(left):
            break
        columns = np.asarray([groups[c] for c in facts["c"][left]])
        keys = _keys(config.seed, facts["c"][left], facts["seed"][left], number)
        spot = folder / f"{method}-round{number}"
        title = f"{method}, round {number + 1}"
        done, fine = _round(
            method, model, data, columns, keys, config, number, spot, title
        )
        params = _put(params, left, done.best)
        facts["round"][left] = number
        facts["epochs"][left] = np.asarray(done.round)
        facts["diverged"][left] = np.asarray(done.diverged)
        facts["accepted"][left] = np.asarray(fine)
    found = Trained(params, facts)
    write(file, found)
    trainings.forget(folder, f"{method}-round*")
    return found


def _keys(seed: int, classes: np.ndarray, seeds: np.ndarray, number: int) -> Key:
    key = jax.random.fold_in(jax.random.key(seed), number)

    def one(c: Array, s: Array) -> Key:
        return jax.random.fold_in(jax.random.fold_in(key, c), s)

    return jax.vmap(one)(jnp.asarray(classes), jnp.asarray(seeds))


def _put(params: PyTree, places: np.ndarray, new: PyTree) -> PyTree:
    new = jax.tree.map(np.array, new)
    if params is None:
        return new
    for old, leaf in zip(jax.tree.leaves(params), jax.tree.leaves(new), strict=True):
        old[places] = leaf
    return params


def _round(
    method: str,
    model: nn.Module,
    data: Data,
    columns: np.ndarray,
    keys: Key,
    config: "Config",
    number: int,
    spot: pathlib.Path,
    title: str,
) -> tuple[srae.Member, Array]:
    """One round of training from scratch, of members `[M]` at once."""
    how = xnn_methods.NETWORKS[method]
    apply, optimizer = xnn.function(model), srae.adam(config.rate)
    weights = srae.weights_of_round(how.weights, number)
    inside = jnp.setdiff1d(jnp.arange(len(data.z)), data.held)
    batches = srae.shuffled(len(inside), size=min(config.batch, len(inside)))

    def loss_of(data: Data, columns: Array) -> Any:
        return srae.on_batches(
            apply,
            data.z,
            data.scores[:, columns],
            weights,
            reconstruct=how.reconstruct,
            pull=how.pull,
        )

    def begin(data: Data, columns: Array, key: Key) -> srae.Member:
        first, second = jax.random.split(jax.random.fold_in(key, 0))
        params = model.init(first, data.z[0])["params"]
        if config.pre_epochs and not how.convolutional:
            params = srae.pretrain(
                params,
                data.z[inside],
                data.scores[inside][:, columns],
                srae.adam(config.rate, decay=0.0),
                batches=batches,
                key=second,
                rounds=config.pre_epochs,
                last=model.last,
            )
        return srae.member(params, optimizer, rounds=config.epochs)

    def advance(
        data: Data, columns: Array, key: Key, now: srae.Member, until: Array
    ) -> srae.Member:
        loss = loss_of(data, columns)
        return srae.train(
            lambda params, batch, key: loss(params, inside[batch], key),
            now,
            optimizer,
            batches=batches,
            key=jax.random.fold_in(key, 1),
            judge=lambda params: loss(params, data.held, None),
            until=until,
            patience=config.patience,
        )

    def judge(data: Data, columns: Array, now: srae.Member) -> Array:
        return accepted(apply, now.best, data, columns, config.accept_all)

    columns = jnp.asarray(columns)
    start = jax.jit(jax.vmap(begin, (None, 0, 0)))
    go_on = jax.jit(jax.vmap(advance, (None, 0, 0, 0, None)), donate_argnums=3)
    members = trainings.run(
        lambda: start(data, columns, keys),
        lambda members, until: go_on(data, columns, keys, members, until),
        epochs=config.epochs,
        save_every=config.save_every,
        spot=spot,
        title=title,
    )
    fine = jax.jit(jax.vmap(judge, (None, 0, 0)))(data, columns, members)
    return members, fine & ~members.diverged


def accepted(
    apply: Any, params: PyTree, data: Data, columns: Array, everywhere: bool
) -> Array:
    """Whether a network passes the acceptance rule for all of its classes."""
    features = apply(params, data.z, None)[0]

    def one(column: Array, readout: Array) -> Array:
        own = jnp.ones(len(data.z), bool) if everywhere else data.own[:, column]
        shares = srae.contributions(features, readout) * own[:, None]
        return srae.accepted(jnp.sum(shares, axis=0) / jnp.sum(own))

    return jnp.all(jax.vmap(one, (0, 1))(columns, params["readout"]["kernel"]))


def write(file: pathlib.Path, found: Trained) -> None:
    """Write members into one file."""
    trainings.write(file, found._asdict())


def read(file: pathlib.Path) -> Trained:
    """Read members that `write` wrote."""
    return Trained(**trainings.read(file))
