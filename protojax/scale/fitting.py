"""How many examples a device works on at once: as many as its memory has room for.

What a program needs is known when it is compiled. So each is compiled for a whole
chunk, and where that is too much, again for as many examples as fit. What is written
does not depend on it.
"""

import logging
import math
import pathlib

from jax.sharding import Mesh

from protojax.scale import programs

_log = logging.getLogger(__name__)

_SHARE = 0.8  # of the memory that is free: others want some, and it is fragmented
_PARTS = 256  # of one setting, at most: what is lost with a part is little enough
_MEMORY_FILE = pathlib.Path("/proc/meminfo")
_CONTAINERS = pathlib.Path("/sys/fs/cgroup")
_CONTAINER = (  # its limit, what it holds, and what of that is a cache of files
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def usual_chunk(mesh: Mesh, count: int) -> int:
    """How many examples make a part where no number is given.

    Args:
      mesh: the devices.
      count: of the examples.

    Returns:
      8 per device where they are CPUs, whose cores are soon busy, 64 on others; of
      very many examples so many that there are few parts, as a file costs milliseconds.
    """
    each = 8 if mesh.devices.flat[0].platform == "cpu" else 64
    return max(each * mesh.size, math.ceil(count / _PARTS))


def room(mesh: Mesh) -> float:
    """The memory that a program may take on each of the devices.

    Args:
      mesh: the devices.

    Returns:
      Bytes, a part of what is free; infinity where the system does not tell.
    """
    stats = [device.memory_stats() or {} for device in mesh.devices.flat]
    if all("bytes_limit" in each for each in stats):
        free = min(each["bytes_limit"] - each["bytes_in_use"] for each in stats)
    else:
        free = _host_memory() / mesh.size
    return _SHARE * free


def fitted(
    source: programs.Source, setting: programs.Setting, limit: float
) -> programs.Program:
    """Compile for a chunk, or for as many of its examples at once as fit.

    Args:
      source: the function, and the chunk.
      setting: any of the settings of the program.
      limit: bytes on each device, see `room`.

    Returns:
      The program; its `lanes` say how many examples it takes, one per device at least.
    """
    program = programs.compiled(source, setting, programs.lanes(source))
    seconds = program.seconds
    while (need := programs.memory(program)) > limit:
        share = program.lanes // source.mesh.size
        if share == 1:
            _log.warning(
                "one example on each device needs %.0f MiB, and %.0f MiB are free: "
                "expect to run out of memory",
                *(need / 2**20, limit / 2**20),
            )
            break
        fewer = min(share // 2, max(1, math.floor(share * limit / need)))
        program = programs.compiled(source, setting, fewer * source.mesh.size)
        seconds += program.seconds
    return program._replace(seconds=seconds)


def _host_memory() -> float:
    """What is free on this machine, or in this container, where that is less."""
    free = [_container_memory(*names) for names in _CONTAINER]
    if _MEMORY_FILE.exists():
        lines = _MEMORY_FILE.read_text().replace(":", "").splitlines()
        free.append(1024.0 * _fact(lines, "MemAvailable"))
    return min(free)


def _container_memory(limit: str, used: str, stat: str, dropped: str) -> float:
    most = _CONTAINERS / limit
    if not most.exists() or (bytes_ := most.read_text().strip()) == "max":
        return math.inf
    lines = (_CONTAINERS / stat).read_text().splitlines()
    held = int((_CONTAINERS / used).read_text()) - _fact(lines, dropped)
    return float(int(bytes_) - held)


def _fact(lines: list[str], name: str) -> int:
    return next(int(line.split()[1]) for line in lines if line.split()[0] == name)
