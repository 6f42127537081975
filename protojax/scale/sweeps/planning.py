"""What a sweep would cost, tried on a single example."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax

from protojax.contracts import PyTree
from protojax.scale import fitting, programs, progress, rows
from protojax.scale.sweeps import streams


class Program(NamedTuple):
    """What a plan knows of one compiled program.

    Attributes:
      static: the settings that it is compiled for.
      settings: how many settings run through it.
      examples: how many examples of each.
      lanes: how many examples at once.
      bytes: memory on each device: arguments, results and temporaries.
      compile_seconds: how long its compilation took.
      seconds: expected time for all its settings and examples, compilation included,
        where one process does all.
    """

    static: dict[str, Any]
    settings: int
    examples: int
    lanes: int
    bytes: int
    compile_seconds: float
    seconds: float


def plan(
    one: programs.One,
    weights: PyTree,
    settings: Iterable[programs.Setting],
    examples: PyTree,
    *,
    chunk: int | None = None,
    keep: Sequence[int] = (),
    devices: Sequence[jax.Device] | None = None,
) -> list[Program]:
    """What a sweep would cost: programs, memory, expected time; nothing is written.

    Each program is compiled as the sweep would, and its memory read off. No count of
    operations is to be trusted inside loops, so the time is measured: each program
    runs once on one device with a single example. The estimate takes a chunk to cost
    as much per example as that one, which is about right on a CPU and too long on an
    accelerator.

    Args:
      one: as in `run`.
      weights: as in `run`.
      settings: as in `run`.
      examples: as in `run`.
      chunk: as in `run`.
      keep: as in `run`.
      devices: as in `run`.

    Returns:
      One `Program` for each combination of static settings.

    >>> import jax.numpy as jnp
    >>> def one(weights, x, key, *, power):
    ...     return {"loss": jnp.sum(weights * x**power)}
    >>> settings = [{"power": 1.0}, {"power": 2.0}]
    >>> planned = plan(one, jnp.ones(2), settings, jnp.ones([3, 2]))
    >>> len(planned), planned[0].settings, planned[0].examples
    (1, 2, 3)
    """
    table = programs.checked(settings)
    rows.types(table)
    key = jax.random.key(0)  # any will do for a cost
    given = streams.source(one, weights, examples, key, chunk, keep, devices)
    source = programs.place(given)
    first = programs.mesh(source.mesh.devices.tolist()[:1])
    alone = programs.place(given._replace(chunk=1, mesh=first))
    (one_example,) = programs.batches(alone, 0, 1)
    limit = fitting.room(source.mesh) if chunk is None else math.inf
    planned = []
    for members in programs.groups(table):
        program = fitting.fitted(source, members[0], limit)
        single = programs.compiled(alone, members[0], 1)
        seconds = programs.evaluate(alone, single, members[0], [one_example]).seconds
        shares = len(members) * _calls_of(source, program) * program.lanes
        planned.append(
            Program(
                static=programs.static(members[0]),
                settings=len(members),
                examples=len(source.ids),
                lanes=program.lanes,
                bytes=programs.memory(program),
                compile_seconds=program.seconds,
                seconds=program.seconds + seconds * shares / source.mesh.size,
            )
        )
    return planned


def outline(planned: Sequence[Program]) -> str:
    """A plan as a Markdown table with its sum.

    Args:
      planned: from `plan`.

    Returns:
      The text.

    >>> print(outline([Program({"k": 5}, 4, 24, 8, 3 * 2**20, 2.0, 90.0)]))
    | program | settings | examples | at once | memory per device | compilation | \
all, estimated |
    |---|---|---|---|---|---|---|
    | k=5 | 4 | 24 | 8 | 3 MiB | 2 s | 2 min |
    <BLANKLINE>
    1 program, 96 rows, at most 3 MiB per device, about 2 min.
    """
    lines = [
        "| program | settings | examples | at once | memory per device | "
        "compilation | all, estimated |",
        "|---|---|---|---|---|---|---|",
    ]
    for program in planned:
        name = ", ".join(f"{k}={v}" for k, v in program.static.items()) or "(the only)"
        lines.append(
            f"| {name} | {program.settings} | {program.examples} | {program.lanes} "
            f"| {program.bytes / 2**20:,.0f} MiB "
            f"| {progress.duration(program.compile_seconds)} "
            f"| {progress.duration(program.seconds)} |"
        )
    rows = sum(p.settings * p.examples for p in planned)
    most = max((p.bytes for p in planned), default=0)
    count = f"{len(planned)} program{'s' * (len(planned) != 1)}"
    seconds = progress.duration(sum(p.seconds for p in planned))
    return "\n".join(lines) + (
        f"\n\n{count}, {rows:,} rows, at most {most / 2**20:,.0f} MiB per device, "
        f"about {seconds}."
    )


def _calls_of(source: programs.Source, program: programs.Program) -> int:
    """How often a program is called for one setting."""
    sizes = [
        len(streams.chunk_ids(source, index)) for index in range(streams.chunks(source))
    ]
    return sum(math.ceil(size / program.lanes) for size in sizes)
