"""Sweeps: a pure function of one example over a grid of settings and many examples.

Here alone a batch, a device and a file meet: the function becomes one compiled program
per combination of its static settings, examples are spread over the local devices, and
every finished chunk is a Parquet part that a later run finds and leaves alone. The
function itself knows nothing of it.
"""

import functools
import itertools
import logging
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from protojax.contracts import Key, PyTree
from protojax.scale import fitting, identity, programs, progress, rows, storage

_log = logging.getLogger(__name__)

Setting = Mapping[str, Any]


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, the last axis running fastest.

    Args:
      **axes: the values of each setting.

    Returns:
      The settings. Lists of settings are joined by `+`.

    >>> grid(attack=["top_k", "center"], radius=[0.1, 0.2])[1]
    {'attack': 'top_k', 'radius': 0.2}
    """
    for name, values in axes.items():
        if isinstance(values, str):
            raise ValueError(f"`{name}` is the text {values!r}: pass a list of values")
    combinations = itertools.product(*axes.values())
    return [dict(zip(axes, values, strict=True)) for values in combinations]


def run(
    one: programs.One,
    weights: PyTree,
    settings: Iterable[Setting],
    examples: PyTree,
    folder: str | pathlib.Path,
    *,
    key: Key,
    chunk: int | None = None,
    keep: Sequence[int] = (),
    devices: Sequence[jax.Device] | None = None,
) -> None:
    """Evaluate a function at every setting and example, into a folder of results.

    Settings that are floats are traced, so that they share a program; all others
    (counts, names, flags) are static and cost one compilation per combination. The
    key of an example is `fold_in(key, id)` at every setting: comparisons between
    settings are paired, and no result depends on chunks, devices or order.

    The folder gets `rows/*.parquet`, one part per setting and chunk: the `id`, the
    setting, every scalar of the result (NaN and infinities as null), the `seconds`
    per example. What is there already is not computed again. Ctrl-C and SIGTERM
    finish the part in flight and leave.

    Args:
      one: `one(weights, example, key, **setting) -> {name: value}`, of one example;
        pure and traceable. Scalars become columns, arrays go to `keep`.
      weights: what the function needs besides the example; passed to the program.
      settings: the settings, see `grid`.
      examples: arrays with the examples along their first axis, `[N, ...]`. If it is
        a dict with `"id"`, these are the examples' ids (else 0 to N - 1).
      folder: where results go. It holds one sweep: another function, key, weights,
        examples, chunk or `keep` is refused.
      key: folded with the ids.
      chunk: examples per part, all at once. If not given, what the folder holds, else
        8 per CPU device or 64 per other; then so many of them at once as the programs
        have memory for.
      keep: ids whose arrays are written too, into `arrays/*.npz`.
      devices: the devices to use, all local ones if not given.

    Raises:
      ValueError: bad settings, ids or results; a folder of another sweep; a damaged
        part. Each says which, and what to do.
      KeyboardInterrupt: after Ctrl-C or SIGTERM, when the part in flight is written.

    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> import pyarrow.parquet as pq
    >>> def one(weights, x, key, *, power):
    ...     return {"loss": jnp.sum(weights * x**power)}
    >>> images, key = jnp.ones([3, 2]), jax.random.key(0)
    >>> with tempfile.TemporaryDirectory() as out:
    ...     run(one, jnp.ones(2), grid(power=[1.0, 2.0]), images, out, key=key)
    ...     pq.read_table(f"{out}/rows").column_names
    ['id', 'power', 'loss', 'seconds']
    """
    folder = pathlib.Path(folder)
    table = programs.checked(settings)
    columns = rows.types(table)
    recorded = _recorded_chunk(folder) if chunk is None else chunk
    source = _source(one, weights, examples, key, recorded, keep, devices)
    sweep = _identity(source)
    config = storage.claim(folder, "sweep", sweep)
    calls = _calls(folder, table, source, sweep)
    total = len(table) * len(source.ids)
    done = total - sum(len(_chunk_ids(source, call.chunk)) for call in calls)
    _log.info("%d rows, %d of them done; on %s", total, done, _devices(source))
    facts = {"config": config, "devices": _devices(source), **storage.versions()}
    with progress.finishing(folder) as stop, progress.bar(total, done) as step:
        source = programs.place(source)
        limit = fitting.room(source.mesh) if chunk is None else math.inf
        for program, batches, call in _prepared(source, calls, limit):
            stop()
            result = programs.evaluate(source, program, call.setting, batches)
            made = {"compile_seconds": program.seconds, **facts}
            _write(folder, call, result, columns, made)
            step(len(result.ids))


class Program(NamedTuple):
    """What a plan knows of one compiled program.

    Attributes:
      static: the settings that it is compiled for.
      settings: how many settings run through it.
      examples: how many examples of each.
      lanes: how many examples at once.
      bytes: memory on each device: arguments, results and temporaries.
      compile_seconds: how long its compilation took.
      seconds: expected time for all its settings and examples, compilation included.
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
    settings: Iterable[Setting],
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
    >>> planned = plan(one, jnp.ones(2), grid(power=[1.0, 2.0]), jnp.ones([3, 2]))
    >>> len(planned), planned[0].settings, planned[0].examples
    (1, 2, 3)
    """
    table = programs.checked(settings)
    rows.types(table)
    key = jax.random.key(0)  # any will do for a cost
    given = _source(one, weights, examples, key, chunk, keep, devices)
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
            f"| {_duration(program.compile_seconds)} | {_duration(program.seconds)} |"
        )
    rows = sum(p.settings * p.examples for p in planned)
    most = max((p.bytes for p in planned), default=0)
    count = f"{len(planned)} program{'s' * (len(planned) != 1)}"
    seconds = _duration(sum(p.seconds for p in planned))
    return "\n".join(lines) + (
        f"\n\n{count}, {rows:,} rows, at most {most / 2**20:,.0f} MiB per device, "
        f"about {seconds}."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 1 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _recorded_chunk(folder: pathlib.Path) -> int | None:
    return storage.config(folder).get("sweep", {}).get("chunk")


def _source(
    one: programs.One,
    weights: PyTree,
    examples: PyTree,
    key: Key,
    chunk: int | None,
    keep: Sequence[int],
    devices: Sequence[jax.Device] | None,
) -> programs.Source:
    if not identity.is_key(key):
        raise ValueError(f"`key` is {key!r}: pass a typed key, jax.random.key(0)")
    if chunk is not None and chunk < 1:
        raise ValueError(f"`chunk` is {chunk}: pass at least 1")
    mesh, ids = programs.mesh(devices), _ids(examples)
    missing = sorted({int(i) for i in keep} - set(ids.tolist()))
    if missing:
        raise ValueError(f"`keep` names {missing}: pass ids of the examples")
    kept = frozenset(int(i) for i in keep)
    chunk = chunk or fitting.usual_chunk(mesh)
    return programs.Source(one, weights, examples, ids, key, chunk, kept, mesh)


def _ids(examples: PyTree) -> np.ndarray:
    """`[N]` the examples' ids, checked to be usable as keys."""
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(examples)}
    if len(counts) != 1 or () in counts or (0,) in counts:
        raise ValueError(
            f"`examples` has leading axes {sorted(counts)}: pass arrays with the same, "
            "non-zero number of examples along their first axis"
        )
    named = isinstance(examples, dict) and "id" in examples
    ids = np.asarray(examples["id"]) if named else np.arange(next(iter(counts))[0])
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"`id` is {ids.dtype}{list(ids.shape)}: pass [N] integers")
    if ids.min() < 0 or ids.max() >= 2**32:
        raise ValueError(f"`id` spans {ids.min()} to {ids.max()}: pass 0 to 2**32 - 1")
    if len(np.unique(ids)) < len(ids):
        values, counted = np.unique(ids, return_counts=True)
        raise ValueError(f"`id` {values[counted > 1][0]} comes twice: make ids unique")
    return ids.astype(np.int64)


def _chunks(source: programs.Source) -> int:
    return math.ceil(len(source.ids) / source.chunk)


def _chunk_ids(source: programs.Source, index: int) -> np.ndarray:
    return source.ids[index * source.chunk : (index + 1) * source.chunk]


def _identity(source: programs.Source) -> dict[str, Any]:
    """What all rows of a folder have in common, as far as it can be known."""
    return {
        "function": identity.name(source.one),
        "weights": identity.digest(source.weights),
        "examples": identity.digest(source.examples),
        "key": identity.digest(source.key),
        "chunk": source.chunk,
        "keep": sorted(source.keep),
    }


def _devices(source: programs.Source) -> str:
    kind = source.mesh.devices.flat[0].device_kind
    return f"{source.mesh.size} x {kind}"


class _Call(NamedTuple):
    group: int  # of settings that share a program
    position: int  # of the setting in the sweep
    chunk: int  # its number
    setting: Setting


def _calls(
    folder: pathlib.Path,
    settings: Sequence[Setting],
    source: programs.Source,
    sweep: Mapping[str, Any],
) -> list[_Call]:
    """What is still to do, program by program, chunk by chunk."""
    chunks = range(_chunks(source))
    groups = enumerate(programs.groups(settings))
    position = {id(setting): number for number, setting in enumerate(settings)}
    calls = [
        _Call(number, position[id(setting)], index, setting)
        for number, group in groups
        for index in chunks
        for setting in group
    ]
    there = set((folder / "rows").glob("*.parquet"))
    parts = {rows.path(folder, call.setting, call.chunk): call for call in calls}
    rows.check([part for part in parts if part in there], sweep)
    return [call for part, call in parts.items() if part not in there]


def _prepared(
    source: programs.Source, calls: Sequence[_Call], limit: float
) -> Iterator[tuple[programs.Program, list[programs.Batch], _Call]]:
    """Calls with their program and chunk, each made when it is first needed."""
    for _, group in itertools.groupby(calls, lambda call: call.group):
        program = None
        for index, same in itertools.groupby(group, lambda call: call.chunk):
            settings = list(same)
            program = program or fitting.fitted(source, settings[0].setting, limit)
            batches = programs.batches(source, index, program.lanes)
            for call in settings:
                yield program, batches, call


def _calls_of(source: programs.Source, program: programs.Program) -> int:
    """How often a program is called for one setting."""
    sizes = [len(_chunk_ids(source, index)) for index in range(_chunks(source))]
    return sum(math.ceil(size / program.lanes) for size in sizes)


def _write(
    folder: pathlib.Path,
    call: _Call,
    result: programs.Evaluation,
    columns: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Arrays first: where the part is, its arrays are."""
    part = rows.path(folder, call.setting, call.chunk)
    if result.kept.size:
        named: dict[str, Any] = {
            "id": result.kept,
            "setting": rows.text(call.setting),
            **result.arrays,
        }
        arrays = folder / "arrays" / f"{part.stem}.npz"
        storage.write(arrays, functools.partial(np.savez, **named))
    values = (result.ids, result.scalars, result.seconds)
    facts = {"position": call.position, "chunk": call.chunk, **facts}
    rows.write(part, call.setting, *values, columns=columns, facts=facts)
