"""Training of many members at once, epochs by epochs, kept on disk."""

import logging
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

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
    with progress.bar(epochs, int(jnp.max(members.round)), unit="epoch") as step:
        _log.info("%s: %d networks at once", title, len(members.round))
        while (at := int(jnp.max(members.round))) < epochs:
            until = at + save_every
            members = go_on(members, jnp.int32(until))
            reached = int(jnp.max(members.round))
            step(reached - at)
            if reached < min(until, epochs):
                break  # the last of them has stopped
            checkpoints.save(spot, _state(jnp.int32(reached), members), {}, keep=1)
    return members


def first_sound(groups: np.ndarray, diverged: np.ndarray) -> np.ndarray:
    """The first member of each group that did not diverge, else the first of all.

    >>> diverged = np.array([True, False, True, True])
    >>> first_sound(np.array([0, 0, 1, 1]), diverged).tolist()
    [1, 2]
    """
    order = np.lexsort((diverged, groups))
    return order[np.unique(groups[order], return_index=True)[1]]


def forget(folder: pathlib.Path, pattern: str) -> None:
    """Remove the checkpoints of what is written."""
    for spot in folder.glob(pattern):
        shutil.rmtree(spot)


def write(file: pathlib.Path, tree: dict[str, Any]) -> None:
    """Write nested dicts of arrays into one file."""
    flat = traverse_util.flatten_dict(tree, sep="/")
    arrays = {name: np.asarray(leaf) for name, leaf in flat.items()}
    storage.write(file, lambda out: np.savez(out, **arrays))


def read(file: pathlib.Path) -> dict[str, Any]:
    """Read what `write` wrote."""
    with np.load(file) as flat:
        tree: dict[str, Any] = traverse_util.unflatten_dict(dict(flat), sep="/")
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
