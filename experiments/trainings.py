"""Training of many members at once, epochs by epochs, kept on disk."""

import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils

from protojax import checkpoints, srae, training
from protojax.contracts import Array, PyTree
from protojax.scale import progress, storage

_log = logging.getLogger(__name__)


def run(
    start: Callable[[], srae.Member],
    go_on: Callable[[srae.Member, Array], srae.Member],
    *,
    epochs: int,
    save_every: int,
    spot: pathlib.Path,
    title: str,
) -> srae.Member:
    """Train, or take up training.

    Args:
      start: makes the members, `[M, ...]`.
      go_on: trains them until an epoch.
      epochs: at most.
      save_every: epochs between checkpoints.
      spot: the folder of these; `forget` removes it.
      title: for the log.

    Returns:
      The members.
    """
    members = _restored(spot, start)
    done = int(jnp.max(members.round))
    with (
        checkpoints.saving(spot, keep=1) as save,
        progress.bar(epochs, done, unit="epoch") as step,
    ):
        _log.info("%s: %d networks at once", title, len(members.round))
        while (at := int(jnp.max(members.round))) < epochs:
            until = at + save_every
            members = go_on(members, jnp.int32(until))
            reached = int(jnp.max(members.round))
            step(reached - at)
            if reached < min(until, epochs):
                break  # the last of them has stopped
            save(_state(jnp.int32(reached), members), {})
    return members


def first_sound(groups: np.ndarray, diverged: np.ndarray) -> np.ndarray:
    """The first member of each group that did not diverge, else the first of all.

    >>> diverged = np.array([True, False, True, True])
    >>> first_sound(np.array([0, 0, 1, 1]), diverged).tolist()
    [1, 2]
    """
    order = np.lexsort((diverged, groups))
    return order[np.unique(groups[order], return_index=True)[1]]


def shared(
    state: training.State, batches: Iterable[PyTree], size: int
) -> tuple[training.State, Iterable[PyTree]]:
    """Training on all devices that there are; a CPU alone has nothing to share.

    Where one process has more devices than divide a batch, some stay idle.
    """
    devices = jax.devices()
    if jax.process_count() == 1:
        several = 1 if jax.default_backend() == "cpu" else math.gcd(size, len(devices))
        devices = devices[:several]
    if len(devices) == 1:
        return state, batches
    return training.spread(state, batches, devices=devices)


def agreed(tree: PyTree) -> PyTree:
    """What the first process has, in all: others may have rounded it otherwise."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(jnp.asarray, multihost_utils.broadcast_one_to_all(tree))


def comes(made: Callable[[], bool]) -> bool:
    """Whether something is made: the first process makes it, others wait until it is.

    Args:
      made: such as `file.exists`.

    Returns:
      False for the first process alone, which is then to make it.
    """
    waiting = jax.process_index() > 0 and not made()
    if waiting:
        _log.info("waiting for the first process, which trains")
    while waiting and not made():
        time.sleep(1)
    return waiting or made()


def forget(folder: pathlib.Path, pattern: str) -> None:
    """Remove the checkpoints of what is written."""
    for spot in folder.glob(pattern):
        epath.Path(spot).rmtree()


def write(file: pathlib.Path, tree: dict[str, Any]) -> None:
    """Write nested dicts of arrays into one file."""
    flat = traverse_util.flatten_dict(tree, sep="/")
    arrays = {name: np.asarray(leaf) for name, leaf in flat.items()}
    storage.write(file, lambda out: np.savez(out, **arrays))


def read(file: pathlib.Path) -> dict[str, Any]:
    """Read what `write` wrote."""
    try:
        with file.open("rb") as raw, np.load(raw) as flat:
            tree: dict[str, Any] = traverse_util.unflatten_dict(dict(flat), sep="/")
    except storage.DAMAGE as error:
        raise ValueError(
            f"{file} cannot be read ({error}): it was damaged after it was written."
            " Delete it and run the same command again: only it is made anew"
        ) from error
    return tree


def _restored(spot: pathlib.Path, start: Callable[[], srae.Member]) -> srae.Member:
    """Members as they were saved last, or before their first epoch."""
    if not checkpoints.steps(spot):
        return start()
    like = _state(jax.ShapeDtypeStruct((), jnp.int32), jax.eval_shape(start))
    return srae.Member(**checkpoints.restore(spot, like).params)


def _state(step: Any, members: PyTree) -> training.State:
    data = jax.random.key_data(jax.random.key(0))
    return training.State(step, members._asdict(), {}, {}, data)
