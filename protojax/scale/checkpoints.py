"""Checkpoints of training: written whole or not at all, checked when they are read.

A folder holds one sub-folder for each step, written under a temporary name and renamed,
so that a killed process leaves only whole checkpoints behind. Beside the arrays lie the
caller's configuration and a list of the arrays with their checksums.
"""

import functools
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from protojax.scale import storage, training

State = training.State
Folder = str | os.PathLike[str]
Write = Callable[[State, Mapping[str, Any]], bool]


class MissingCheckpoint(FileNotFoundError):
    """There is no checkpoint where one was looked for."""


class UnwrittenCheckpoint(OSError):
    """A checkpoint could not be written, such as on a full disk."""


class BrokenCheckpoint(ValueError):
    """A checkpoint is there and cannot be read, or is not what was written."""


def save(
    folder: Folder, state: State, config: Mapping[str, Any], *, keep: int = 3
) -> bool:
    """Write a checkpoint of `state.step`, and wait until it is written.

    Args:
      folder: where the checkpoints of one training are; made if need be. Buckets of
        Google (`gs://`) are welcome; Orbax writes to no others.
      state: what is saved.
      config: what `restore` cannot know and a reader wants to: anything JSON takes.
      keep: how many checkpoints stay; the oldest go.

    Returns:
      True if it was written, False if a checkpoint of this step was there and was left
      as it is, or if this is not the process that writes, see `saving`.

    Raises:
      ValueError: if `keep` is less than 1, the folder is in a bucket of another kind,
        or it holds a later step: it belongs to another training.
      UnwrittenCheckpoint: a full disk, a folder that may not be written to.

    >>> import tempfile, jax, optax
    >>> from protojax.scale import checkpoints, training
    >>> optimizer = optax.sgd(0.1)
    >>> state = training.init({"w": 1.0}, optimizer, key=jax.random.key(0))
    >>> folder = tempfile.mkdtemp()
    >>> checkpoints.save(folder, state, {"optimizer": "sgd"})
    True
    """
    with saving(folder, keep=keep) as write:
        return write(state, config)


@contextmanager
def saving(folder: Folder, *, keep: int = 3) -> Iterator[Write]:
    """Write checkpoints in the background while training goes on.

    A call copies the state, and returns while the copy is being written; the next one,
    and leaving, wait for it and raise what went wrong with it, such as a full disk.

    Where JAX runs as several processes, a state that lies on the devices of all of them
    (see `training.spread`) is written by all, each what it holds; all must call. One
    that lies on the devices of one process is written by the first process alone.

    Args:
      folder: as in `save`.
      keep: as in `save`.

    Yields:
      A function of a state and a configuration, which returns and raises as `save`.

    Raises:
      ValueError: if `keep` is less than 1, or the folder in a bucket of another kind.

    >>> import tempfile, jax, optax
    >>> from protojax.scale import checkpoints, training
    >>> state = training.init({"w": 1.0}, optax.sgd(0.1), key=jax.random.key(0))
    >>> folder = tempfile.mkdtemp()
    >>> with checkpoints.saving(folder) as write:
    ...     write(state, {"rate": 0.1})
    True
    >>> checkpoints.steps(folder)
    [0]
    """
    if keep < 1:
        raise ValueError(f"`keep` must be 1 or more, got {keep}")
    path = _path(folder)
    with ExitStack() as stack:

        @functools.cache
        def manager(alone: bool) -> ocp.CheckpointManager:
            with _told(folder, OSError):
                path.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=True,
                create=False,
                multiprocessing_options=_processes(alone),
            )
            made = stack.enter_context(ocp.CheckpointManager(path, options=options))
            stack.callback(_finish, made, folder)
            return made

        def write(state: State, config: Mapping[str, Any]) -> bool:
            alone = all(map(_is_at_hand, jax.tree.leaves(state)))
            if alone and jax.process_index():
                return False
            return _write(manager(alone), folder, state, config)

        yield write


def _write(
    manager: ocp.CheckpointManager,
    folder: Folder,
    state: State,
    config: Mapping[str, Any],
) -> bool:
    # Training goes on in the memory of the state that it was given.
    state = jax.tree.map(jnp.copy, state)
    step, latest = int(state.step), manager.latest_step()
    if latest is not None and latest > step:
        raise ValueError(
            f"`folder` {folder} holds step {latest}, later than {step}, the step "
            "to be saved: use another folder, or remove those checkpoints"
        )
    if latest == step:
        return False
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state._asdict()),
        config=ocp.args.JsonSave(dict(config)),
        arrays=ocp.args.JsonSave(_inventory(state)),
    )
    _finish(manager, folder)  # or its error would be taken for this one's
    with _told(folder, OSError):
        return bool(manager.save(step, args=items))


def _finish(manager: ocp.CheckpointManager, folder: Folder) -> None:
    """Wait for what is being written."""
    with _told(folder, ValueError, OSError):
        manager.wait_until_finished()


@contextmanager
def _told(folder: Folder, *errors: type[Exception]) -> Iterator[None]:
    """What goes wrong with writing is called by its name."""
    try:
        yield
    except errors as error:
        raise UnwrittenCheckpoint(
            f"a checkpoint in {folder} could not be written ({error}): there are "
            f"{steps(folder)}. Make room, or the folder writable, and go on from these"
        ) from error


def _is_at_hand(leaf: Any) -> bool:
    """Whether an array lies on the devices of this process alone."""
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _processes(alone: bool) -> ocp.options.MultiprocessingOptions:
    """Who takes part in writing or reading: this process, or all."""
    if not alone or jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    here = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=here,
        active_processes={here},
        barrier_sync_key_prefix=f"process-{here}",
    )


def restore(folder: Folder, like: State, *, step: int | None = None) -> State:
    """Read a checkpoint.

    Args:
      folder: where the checkpoints of one training are.
      like: a state of the same structure, shapes and types, say `training.init(...)`
        or `jax.eval_shape` of it; arrays are put where its arrays are. Where those are
        on the devices of several processes, all of them must call.
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
    alone = all(leaf.sharding.is_fully_addressable for leaf in jax.tree.leaves(wanted))
    with _reading(folder, step, alone) as (manager, found):
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
    with _reading(folder, step, True) as (manager, found):
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
    return sorted(ocp.utils.checkpoint_steps(_path(folder)))


def _path(folder: Folder) -> epath.Path:
    path = epath.Path(folder)
    if storage.is_bucket(path) and not os.fspath(path).startswith("gs://"):
        raise ValueError(
            f"`folder` is {os.fspath(path)}: Orbax keeps checkpoints on disks and in"
            " gs:// alone, pass a folder there"
        )
    return path if storage.is_bucket(path) else path.expanduser().resolve()


@contextmanager
def _reading(
    folder: Folder, step: int | None, alone: bool
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
    options = ocp.CheckpointManagerOptions(
        create=False, multiprocessing_options=_processes(alone)
    )
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
