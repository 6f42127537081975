"""Checkpoints of training: written whole or not at all, checked when they are read.

A folder holds one sub-folder for each step, written under a temporary name and renamed,
so that a killed process leaves only whole checkpoints behind. Beside the arrays lie the
caller's configuration and a list of the arrays with their checksums.
"""

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from protojax.scale import training

State = training.State
Folder = str | os.PathLike[str]


class MissingCheckpoint(FileNotFoundError):
    """There is no checkpoint where one was looked for."""


class BrokenCheckpoint(ValueError):
    """A checkpoint is there and cannot be read, or is not what was written."""


def save(
    folder: Folder, state: State, config: Mapping[str, Any], *, keep: int = 3
) -> bool:
    """Write a checkpoint of `state.step`.

    Args:
      folder: where the checkpoints of one training are; made if need be. Buckets
        (`gs://`, `s3://`) are welcome.
      state: what is saved.
      config: what `restore` cannot know and a reader wants to: anything JSON takes.
      keep: how many checkpoints stay; the oldest go.

    Returns:
      True if it was written, False if a checkpoint of this step was there and was left
      as it is.

    Raises:
      ValueError: if `keep` is less than 1, or the folder holds a later step: it belongs
        to another training.

    >>> import tempfile, jax, optax
    >>> from protojax.scale import checkpoints, training
    >>> optimizer = optax.sgd(0.1)
    >>> state = training.init({"w": 1.0}, optimizer, key=jax.random.key(0))
    >>> folder = tempfile.mkdtemp()
    >>> checkpoints.save(folder, state, {"optimizer": "sgd"})
    True
    """
    if keep < 1:
        raise ValueError(f"`keep` must be 1 or more, got {keep}")
    state = jax.tree.map(jnp.asarray, state)
    step = int(state.step)
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state._asdict()),
        config=ocp.args.JsonSave(dict(config)),
        arrays=ocp.args.JsonSave(_inventory(state)),
    )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False
    )
    with ocp.CheckpointManager(_path(folder), options=options) as manager:
        latest = manager.latest_step()
        if latest is not None and latest > step:
            raise ValueError(
                f"`folder` {folder} holds step {latest}, later than {step}, the step "
                "to be saved: use another folder, or remove those checkpoints"
            )
        if latest == step:
            return False
        return bool(manager.save(step, args=items))


def restore(folder: Folder, like: State, *, step: int | None = None) -> State:
    """Read a checkpoint.

    Args:
      folder: where the checkpoints of one training are.
      like: a state of the same structure, shapes and types, say `training.init(...)`
        or `jax.eval_shape` of it; arrays are put where its arrays are.
      step: which one; None is the latest.

    Returns:
      the state that was saved, to the bit.

    Raises:
      MissingCheckpoint: if there is no such folder, checkpoint or step.
      BrokenCheckpoint: if the files are damaged.
      ValueError: if the checkpoint has other arrays than `like`.

    >>> import tempfile, jax, optax
    >>> from protojax.scale import checkpoints, training
    >>> folder = tempfile.mkdtemp()
    >>> state = training.init({"w": 1.0}, optax.sgd(0.1), key=jax.random.key(0))
    >>> written = checkpoints.save(folder, state, {"rate": 0.1})
    >>> float(checkpoints.restore(folder, state).params["w"])
    1.0
    """
    wanted = jax.tree.map(_abstract, like)
    with _reading(folder, step) as (manager, found):
        written = manager.restore(
            found, args=ocp.args.Composite(arrays=ocp.args.JsonRestore())
        ).arrays
        differences = list(_differences(written, _shapes(wanted)))
        if not differences:
            state = State(
                **manager.restore(
                    found,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(wanted._asdict())
                    ),
                ).state
            )
    if differences:
        raise ValueError(
            f"checkpoint {found} in {folder} does not fit `like`: "
            + "; ".join(differences[:5])
        )
    if torn := [k for k, v in _inventory(state).items() if v != written[k]]:
        raise BrokenCheckpoint(
            f"checkpoint {found} in {folder} is damaged: {', '.join(torn[:5])} are not "
            "what was written"
        )
    return state


def config(folder: Folder, *, step: int | None = None) -> dict[str, Any]:
    """Read the configuration that was saved with a checkpoint.

    Args:
      folder: where the checkpoints of one training are.
      step: which one; None is the latest.

    Returns:
      the configuration, as JSON keeps it.

    Raises:
      MissingCheckpoint: if there is no such folder, checkpoint or step.
      BrokenCheckpoint: if the files are damaged.

    >>> import tempfile, jax, optax
    >>> from protojax.scale import checkpoints, training
    >>> folder = tempfile.mkdtemp()
    >>> state = training.init({"w": 1.0}, optax.sgd(0.1), key=jax.random.key(0))
    >>> written = checkpoints.save(folder, state, {"rate": 0.1})
    >>> checkpoints.config(folder)
    {'rate': 0.1}
    """
    with _reading(folder, step) as (manager, found):
        return manager.restore(
            found, args=ocp.args.Composite(config=ocp.args.JsonRestore())
        ).config


def steps(folder: Folder) -> list[int]:
    """List the checkpoints that a folder holds.

    Args:
      folder: where the checkpoints of one training are.

    Returns:
      their steps, in rising order; none where there is no such folder.

    >>> import tempfile, jax, optax
    >>> from protojax.scale import checkpoints, training
    >>> folder = tempfile.mkdtemp()
    >>> state = training.init({"w": 1.0}, optax.sgd(0.1), key=jax.random.key(0))
    >>> written = checkpoints.save(folder, state, {"rate": 0.1})
    >>> checkpoints.steps(folder)
    [0]
    """
    path = _path(folder)
    if not path.is_dir():
        return []
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(path, options=options) as manager:
        return sorted(manager.all_steps())


def _path(folder: Folder) -> epath.Path:
    return epath.Path(folder).expanduser().resolve()


@contextmanager
def _reading(
    folder: Folder, step: int | None
) -> Iterator[tuple[ocp.CheckpointManager, int]]:
    """A manager, and the step that is read; what goes wrong is called by its name."""
    there = steps(folder)
    if not there:
        raise MissingCheckpoint(f"no checkpoint in {folder}")
    if step is not None and step not in there:
        raise MissingCheckpoint(
            f"no checkpoint of step {step} in {folder}; there are {there}"
        )
    found = there[-1] if step is None else step
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(_path(folder), options=options) as manager:
        try:
            yield manager, found
        except (ValueError, OSError, KeyError) as error:
            raise BrokenCheckpoint(
                f"checkpoint {found} in {folder} cannot be read; there are {there}: "
                f"{error}"
            ) from error


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = getattr(leaf, "sharding", None) or here
    return jax.ShapeDtypeStruct(
        jnp.shape(leaf), jnp.result_type(leaf), sharding=sharding
    )


def _shapes(state: State) -> dict[str, list[Any]]:
    """Shape and type of every array, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)]
        for path, leaf in leaves
    }


def _inventory(state: State) -> dict[str, list[Any]]:
    """Shape, type and checksum of every array, by its path."""
    sums = [
        zlib.crc32(np.ascontiguousarray(leaf).tobytes())
        for leaf in jax.tree.leaves(state)
    ]
    shapes = _shapes(state)
    return {
        path: [*shape, check]
        for (path, shape), check in zip(shapes.items(), sums, strict=True)
    }


def _differences(
    written: dict[str, list[Any]], wanted: dict[str, list[Any]]
) -> Iterator[str]:
    for path in wanted.keys() - written.keys():
        yield f"{path} is missing"
    for path in written.keys() - wanted.keys():
        yield f"{path} is left over"
    for path in wanted.keys() & written.keys():
        if written[path][:2] != wanted[path]:
            old, new = written[path], wanted[path]
            yield f"{path} is {old[1]} {old[0]}, not {new[1]} {new[0]}"
