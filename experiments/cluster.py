"""Being one of several processes: how JAX's runtime is joined, and left again."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax

from protojax.scale import storage
from protojax.scale.sweeps import sharing

_TOLD = ("coordinator_address", "num_processes", "process_id")
_LEFT = ".left-{}"  # a file that a process leaves when it is gone
_PATIENCE = 60.0  # seconds that the first waits for it


def join() -> None:
    """Become one of the processes of a cluster, before JAX looks for devices.

    JAX finds the others itself under SLURM, Open MPI and on TPUs; anywhere else three
    variables of the environment say where they are. A process that is lost takes no
    other with it, but for the first, through which they find each other.
    """
    jax.config.update("jax_enable_recoverability", True)
    told = {name: os.environ.get(f"JAX_{name.upper()}") for name in _TOLD}
    if None in told.values():
        jax.distributed.initialize()
        return
    address, count, index = told.values()
    jax.distributed.initialize(
        address, int(count), int(index), cluster_detection_method="deactivate"
    )


@contextlib.contextmanager
def leaving_last(folder: pathlib.Path) -> Iterator[None]:
    """Let the first process leave last: JAX ends the others when it goes."""
    count, index = jax.process_count(), jax.process_index()
    others = [folder / _LEFT.format(number) for number in range(1, count)]
    if index == 0:
        _forget(others)
    try:
        yield
    finally:
        if index:
            jax.distributed.shutdown()
            storage.write_bytes(others[index - 1], b"")
        else:
            left = lambda: storage.listed(folder, _LEFT.format("*"))  # noqa: E731
            sharing.awaited(others, left, _PATIENCE, lambda: None)
            _forget(others)


def _forget(files: list[pathlib.Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
