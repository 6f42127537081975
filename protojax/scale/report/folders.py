"""What sweeps left in their folders: rows, arrays, and how they were made."""

import glob
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protojax.scale import rows as parts
from protojax.scale import storage


def read(*patterns: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All rows of one or several result folders.

    Args:
      *patterns: folders that sweeps wrote, or patterns such as `"runs/*"`.

    Returns:
      One dict per row: `id`, the setting, the results (None where a value was not
      finite), `seconds`. In the order of settings, then chunks.

    Raises:
      ValueError: no rows, or a damaged part.

    >>> import tempfile, jax
    >>> from protojax import sweeps
    >>> one = lambda weights, x, key: {"sum": x.sum()}
    >>> with tempfile.TemporaryDirectory() as out:
    ...     sweeps.run(one, None, [{}], jax.numpy.ones([3, 2]), out,
    ...                key=jax.random.key(0))
    ...     [row["sum"] for row in read(out)]
    [2.0, 2.0, 2.0]
    """
    return [row for part in _parts(patterns) for row in _table(part).to_pylist()]


def folders(*patterns: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The folders that patterns stand for.

    Args:
      *patterns: folders, or patterns such as `"runs/*"`; also in buckets, there in the
        last part of the address.

    Returns:
      The folders, those of a pattern in alphabetical order.

    Raises:
      ValueError: there is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     home in [str(path) for path in folders(f"{home[:-1]}?")]
    True
    """
    found: list[pathlib.Path] = []
    for each in patterns:
        pattern = storage.place(each)
        if storage.is_bucket(pattern):
            matches = sorted(pattern.parent.glob(pattern.name))
        else:
            matches = [pathlib.Path(m) for m in sorted(glob.glob(str(pattern)))]
        if not matches:
            raise ValueError(f"no folder {each}: pass one that a sweep wrote")
        found += matches
    return found


def arrays(*patterns: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The arrays that were kept, one dict for each example and setting.

    Args:
      *patterns: as for `read`.

    Returns:
      Dicts with `id`, the setting and the arrays, in the order of `read`.

    >>> import tempfile, jax
    >>> from protojax import sweeps
    >>> one = lambda weights, x, key: {"twice": 2 * x}
    >>> with tempfile.TemporaryDirectory() as out:
    ...     sweeps.run(one, None, [{}], jax.numpy.ones([3, 2]), out,
    ...                key=jax.random.key(0), keep=[1])
    ...     [(kept["id"], kept["twice"].tolist()) for kept in arrays(out)]
    [(1, [2.0, 2.0])]
    """
    found = []
    for part in _parts(patterns):
        path = part.parents[1] / "arrays" / f"{part.stem}.npz"
        if path.exists():
            with path.open("rb") as raw, np.load(raw) as file:
                kept = dict(file)
            setting = json.loads(str(kept.pop("setting")))
            for number, ident in enumerate(kept.pop("id").tolist()):
                values = {name: value[number] for name, value in kept.items()}
                found.append({"id": ident, **setting, **values})
    return found


def provenance(*patterns: str | os.PathLike[str]) -> dict[str, Any]:
    """How the rows of folders were made.

    Args:
      *patterns: as for `read`.

    Returns:
      Commands, configurations, versions, commits, devices (each a list, without
      repetitions), the numbers of parts, rows and nulls, and the seconds spent in
      programs and in compiling them.

    >>> import tempfile, jax
    >>> from protojax import sweeps
    >>> with tempfile.TemporaryDirectory() as out:
    ...     sweeps.run(lambda *_: {}, None, [{}], jax.numpy.ones([3]), out,
    ...                key=jax.random.key(0))
    ...     provenance(out)["rows"]
    3
    """
    made = [parts.metadata(part) for part in _parts(patterns)]
    config = [facts["config"] for facts in made]
    nulls: dict[str, int] = {}
    for facts in made:
        for name, count in facts["nulls"].items():
            nulls[name] = nulls.get(name, 0) + count
    return {
        "command": _distinct(c.get("command") for c in config),
        "config": _distinct(c.get("config") for c in config),
        "protojax": _distinct(facts["protojax"] for facts in made),
        "commit": _distinct(facts["commit"] for facts in made),
        "packages": _distinct(facts["packages"] for facts in made),
        "devices": _distinct(facts["devices"] for facts in made),
        "parts": len(made),
        "rows": sum(facts["rows"] for facts in made),
        "nulls": nulls,
        "run_seconds": sum(facts["run_seconds"] for facts in made),
        "compile_seconds": sum({facts["compile_seconds"] for facts in made}),
    }


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Without None and repetitions, in order; the values may be dicts."""
    seen = {json.dumps(v, sort_keys=True): v for v in values if v is not None}
    return list(seen.values())


def _parts(patterns: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    found: list[tuple[int, int, int, pathlib.Path]] = []
    for number, folder in enumerate(folders(*patterns)):
        paths = list((folder / "rows").glob("*.parquet"))
        if not paths:
            raise ValueError(f"no rows in {folder}: pass the folder given as `--out`")
        for path in paths:
            facts = parts.metadata(path)
            found.append((number, facts["position"], facts["chunk"], path))
    return [path for *_, path in sorted(found)]


def _table(part: pathlib.Path) -> pa.Table:
    try:
        with part.open("rb") as file:
            return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise parts.unreadable(part, error) from error
