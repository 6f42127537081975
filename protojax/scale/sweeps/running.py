"""A grid of settings, and the running of a sweep."""

import functools
import itertools
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from protojax.contracts import Key, PyTree
from protojax.scale import fitting, programs, progress, rows, storage
from protojax.scale.sweeps import sharing, streams

_log = logging.getLogger(__name__)

Setting = Mapping[str, Any]


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, the last axis running fastest.

    Args:
      **axes: the values of each setting.

    Returns:
      The settings. Lists of settings are joined by `+`.

    Raises:
      ValueError: an axis is a text, of which the letters would be the values.

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
    folder: str | os.PathLike[str],
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

    Where JAX runs as several processes (`jax.distributed`) and all of them call this
    with the same arguments, each does the parts that are its own and waits for those of
    the others: all rows are there when it returns. They meet in the folder alone. If
    none has come from the others for a minute, and for twice as long as the slowest
    part took here (for ten minutes where there was none to do), who is left does what
    is missing.

    Args:
      one: `one(weights, example, key, **setting) -> {name: value}`, of one example;
        pure and traceable. Scalars become columns, arrays go to `keep`.
      weights: what the function needs besides the example; passed to the program.
      settings: the settings, see `grid`.
      examples: arrays with the examples along their first axis, `[N, ...]`. If it is
        a dict with `"id"`, these are the examples' ids (else 0 to N - 1).
      folder: where results go, also in a bucket (`gs://`, `s3://`). It holds one
        sweep: another function, key, weights, examples, chunk or `keep` is refused.
      key: folded with the ids.
      chunk: examples per part, all at once. If not given, what the folder holds, else
        8 per CPU device or 64 per other, and more where that would be hundreds of
        parts; then so many of them at once as the programs have memory for.
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
    folder = storage.place(folder)
    table = programs.checked(settings)
    columns = rows.types(table)
    if chunk is None:
        recorded = storage.config(folder).get("sweep", {}).get("chunk")
    else:
        recorded = chunk
    source = streams.source(one, weights, examples, key, recorded, keep, devices)
    identity = streams.identified(source)
    config = storage.claim(folder, "sweep", identity)
    for place in (folder, folder / "rows", folder / "arrays"):
        storage.tidy(place)
    calls, there = _calls(folder, table, source), _there(folder)
    rows.check([call.part for call in calls if call.part in there], identity)
    me = {"index": jax.process_index(), "count": jax.process_count()}
    owned = {c.part for c in calls if sharing.is_own(c.position, c.chunk, **me)}
    own = [call for call in calls if call.part in owned]
    _announce(folder, source, calls, there, me)
    with progress.finishing(folder) as stop:
        source = programs.place(source)
        sweep = _Sweep(
            folder,
            source,
            columns=columns,
            facts={"config": config, "devices": _devices(source)} | storage.versions(),
            limit=fitting.room(source.mesh) if chunk is None else math.inf,
            compiled={},
        )
        longest = _fill(sweep, own, stop)
        gone = sharing.awaited(
            [call.part for call in calls if call.part not in owned],
            functools.partial(_there, folder),
            sharing.patience(longest),
            stop,
        )
        if gone:
            _log.warning(
                "taking over %d parts that nobody has done (do all see %s?)",
                *(len(gone), folder),
            )
            left = [call for call in calls if call.part in set(gone)]
            _fill(sweep, sharing.turned(left, **me), stop)


class _Call(NamedTuple):
    part: pathlib.Path  # where its rows go
    group: int  # of settings that share a program
    position: int  # of the setting in the sweep
    chunk: int  # its number
    setting: Setting


class _Sweep(NamedTuple):
    folder: pathlib.Path
    source: programs.Source
    columns: Mapping[str, Any]
    facts: Mapping[str, Any]  # how the parts are made
    limit: float  # of memory on each device
    compiled: dict[int, programs.Program]  # of each group, once it was needed


def _calls(
    folder: pathlib.Path, settings: Sequence[Setting], source: programs.Source
) -> list[_Call]:
    """All that is to be there in the end, program by program, chunk by chunk."""
    chunks = range(streams.chunks(source))
    position = {id(setting): number for number, setting in enumerate(settings)}
    return [
        _Call(
            rows.path(folder, setting, index),
            number,
            position[id(setting)],
            index,
            setting,
        )
        for number, group in enumerate(programs.groups(settings))
        for index in chunks
        for setting in group
    ]


def _there(folder: pathlib.Path) -> set[pathlib.Path]:
    return storage.listed(folder / "rows", "*.parquet")


def _announce(
    folder: pathlib.Path,
    source: programs.Source,
    calls: Sequence[_Call],
    there: Collection[pathlib.Path],
    me: Mapping[str, int],
) -> None:
    sizes = [(call.part in there, _size(source, call)) for call in calls]
    total, done = (sum(n for d, n in sizes if d or every) for every in (True, False))
    among = ", process {index} of {count}".format(**me) if me["count"] > 1 else ""
    _log.info(
        "%s: %d of %d rows are done; on %s%s",
        *(folder.name, done, total, _devices(source), among),
    )


def _devices(source: programs.Source) -> str:
    kind = source.mesh.devices.flat[0].device_kind
    return f"{source.mesh.size} x {kind}"


def _size(source: programs.Source, call: _Call) -> int:
    return len(streams.chunk_ids(source, call.chunk))


def _fill(sweep: _Sweep, calls: Sequence[_Call], stop: Callable[[], None]) -> float:
    """Do what of these is not there; the seconds that the slowest part took."""
    source, longest = sweep.source, 0.0
    there = _there(sweep.folder)
    todo = [call for call in calls if call.part not in there]
    total, left = (sum(_size(source, call) for call in some) for some in (calls, todo))
    with progress.bar(total, total - left) as step:
        begin = time.monotonic()
        for program, batches, call in _prepared(sweep, todo):
            stop()
            if not storage.is_there(call.part):  # another process may have done it
                result = programs.evaluate(source, program, call.setting, batches)
                _write(sweep, call, result, program.seconds)
            step(_size(source, call))
            now = time.monotonic()
            begin, longest = now, max(longest, now - begin)
    return longest


def _prepared(
    sweep: _Sweep, calls: Sequence[_Call]
) -> Iterator[tuple[programs.Program, list[programs.Batch], _Call]]:
    """Calls with their program and chunk, each made when it is first needed."""
    source, compiled = sweep.source, sweep.compiled
    together = lambda call: (call.group, call.chunk)  # noqa: E731
    for (group, index), same in itertools.groupby(calls, together):
        settings = list(same)
        if group not in compiled:
            setting = settings[0].setting
            compiled[group] = fitting.fitted(source, setting, sweep.limit)
        program = compiled[group]
        batches = programs.batches(source, index, program.lanes)
        for call in settings:
            yield program, batches, call


def _write(
    sweep: _Sweep, call: _Call, result: programs.Evaluation, compile_seconds: float
) -> None:
    """Arrays first: where the part is, its arrays are.

    A folder without parts may be claimed by another sweep while this one compiles.
    """
    claimed, ours = storage.config(sweep.folder), sweep.facts["config"]["sweep"]
    path = sweep.folder / "config.json"
    storage.refuse(path, claimed.get("sweep", ours), ours)
    if result.kept.size:
        named: dict[str, Any] = {
            "id": result.kept,
            "setting": rows.text(call.setting),
            **result.arrays,
        }
        arrays = sweep.folder / "arrays" / f"{call.part.stem}.npz"
        storage.write(arrays, functools.partial(np.savez, **named))
    facts = {"position": call.position, "chunk": call.chunk, **sweep.facts}
    rows.write(
        call.part,
        call.setting,
        *(result.ids, result.scalars, result.seconds),
        columns=sweep.columns,
        facts={"compile_seconds": compile_seconds, **facts},
    )
