"""Rows on disk: one Parquet part for each setting and chunk of a sweep.

A part is typed, says in its schema's metadata how it was made, and is there completely
or not at all. pandas, polars and DuckDB open the folder of parts as it is.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protojax.scale import storage

Setting = Mapping[str, Any]

_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def path(folder: pathlib.Path, setting: Setting, index: int) -> pathlib.Path:
    """Where the part of a setting and a chunk lies.

    Args:
      folder: the folder of results.
      setting: its setting.
      index: its chunk, counted from 0.

    Returns:
      The path, which depends on nothing else.
    """
    digest = hashlib.blake2b(text(setting).encode(), digest_size=8).hexdigest()
    return folder / "rows" / f"{digest}-{index:06d}.parquet"


def text(value: Any) -> str:
    """A setting or a tuple as JSON text.

    Args:
      value: numbers, text, tuples and dicts of them.

    Returns:
      The text, the same for equal values.
    """
    return json.dumps(value, sort_keys=True)


def types(settings: Sequence[Setting]) -> dict[str, pa.DataType]:
    """The columns that settings become.

    Args:
      settings: all settings of a sweep; one that lacks a name has null there.

    Returns:
      The type of each column; tuples become JSON text.

    Raises:
      ValueError: a setting has two types, or one that is no number, text or tuple.

    >>> types([{"radius": 0.1, "attack": "center"}, {"radius": 0.2}])
    {'radius': DataType(double), 'attack': DataType(string)}
    """
    found: dict[str, Any] = {}
    for setting in settings:
        for name, value in setting.items():
            kind = _type(name, value)
            known = found.setdefault(name, kind)
            if pa.null() in (known, kind):
                found[name] = kind if known == pa.null() else known
            elif known != kind:
                raise ValueError(
                    f"setting `{name}` is sometimes {known} and sometimes {kind} "
                    f"(as in {value!r}): write all its values alike, such as 1.0 for 1"
                )
    return found


def _type(name: str, value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, tuple):
        return pa.string()
    if type(value) not in _TYPES:
        raise ValueError(
            f"setting `{name}` is a {type(value).__name__} ({value!r}): pass a number, "
            "text, bool, None or a tuple of these"
        )
    return _TYPES[type(value)]


def write(
    target: pathlib.Path,
    setting: Setting,
    ids: np.ndarray,
    results: Mapping[str, np.ndarray],
    seconds: float,
    *,
    columns: Mapping[str, pa.DataType],
    facts: Mapping[str, Any],
) -> None:
    """Write one part, atomically.

    Args:
      target: from `path`.
      setting: the setting of all its rows.
      ids: `[n]` the examples.
      results: `[n]` each; NaN and infinities are written as null and counted.
      seconds: wall time of the chunk; every row gets its share.
      columns: from `types`.
      facts: how the part was made; goes into the metadata.
    """
    count = len(ids)
    arrays = {"id": pa.array(ids, pa.int64())}
    for name, kind in columns.items():
        value = setting.get(name)
        value = text(value) if isinstance(value, tuple) else value
        arrays[name] = pa.array([value] * count, kind)
    results = {name: _storable(values) for name, values in results.items()}
    bad = {name: ~np.isfinite(values) for name, values in results.items()}
    arrays |= {
        name: pa.array(values, mask=bad[name]) for name, values in results.items()
    }
    arrays["seconds"] = pa.array(np.full(count, seconds / count))
    nulls = {name: int(mask.sum()) for name, mask in bad.items() if mask.any()}
    found = {"rows": count, "nulls": nulls, "run_seconds": seconds}
    facts = {**facts, "setting": dict(setting), **found}
    table = pa.table(arrays).replace_schema_metadata({"protojax": json.dumps(facts)})
    save = functools.partial(pq.write_table, table, write_page_checksum=True)
    storage.write(target, save)


def _storable(values: np.ndarray) -> np.ndarray:
    """bfloat16 and float8 are unknown to Parquet, float16 to most readers of it."""
    if values.dtype.kind in "biu" or values.dtype in (np.float32, np.float64):
        return values
    return values.astype(np.float32)


def read(part: pathlib.Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a part.

    Args:
      part: a part that `sweeps.run` wrote.
      columns: which; all if None.

    Returns:
      The table.

    Raises:
      ValueError: the file cannot be read, or is not what was written.
    """
    try:
        with part.open("rb") as file:
            return pq.read_table(file, columns=columns, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(part, error) from error


def metadata(part: pathlib.Path) -> dict[str, Any]:
    """What a Parquet part says of its making.

    Args:
      part: a part that `sweeps.run` wrote.

    Returns:
      The setting, the configuration, versions, devices and times of the part.

    Raises:
      ValueError: the file cannot be read, or is no part of a sweep.
    """
    try:
        with part.open("rb") as file:
            entries = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise unreadable(part, error) from error
    if b"protojax" not in entries:
        raise ValueError(f"{part} was not written by a sweep: move it elsewhere")
    return json.loads(entries[b"protojax"])


def unreadable(part: pathlib.Path, error: Exception) -> ValueError:
    """The error to raise for a damaged part.

    Parts appear complete or not at all, so this is damage from outside, and the
    decision what to do with the file is left to its owner.

    Args:
      part: the part.
      error: what was met on reading it.

    Returns:
      The error, naming the file and the remedy.
    """
    return ValueError(
        f"{part} cannot be read ({error}): it was damaged after it was written. "
        "Delete it and run the same command again: only it is computed anew"
    )


def check(parts: Iterable[pathlib.Path], sweep: Mapping[str, Any]) -> None:
    """Make sure that parts are readable and of the same sweep.

    Args:
      parts: existing parts.
      sweep: what the parts must say they were made with.

    Raises:
      ValueError: a part is damaged, or was made with something else.
    """
    for part in parts:
        made = metadata(part).get("config", {}).get("sweep", {})
        storage.refuse(part, made, json.loads(json.dumps(sweep)))
