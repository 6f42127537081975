"""What sweeps left in their folders: rows, arrays, and how they were made."""

import glob
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from protojax.scale import rows as parts
from protojax.scale import storage


def read(*patterns: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All rows of one or several result folders.

    Args:
      *patterns: folders that sweeps wrote, or patterns such as `"runs/*"`; what is a
        folder is never taken for a pattern.

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
    found = (parts.read(path) for path, _ in _parts(patterns))
    return [row for table in found for row in table.to_pylist()]


def folders(*patterns: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The folders that patterns stand for.

    Args:
      *patterns: folders, or patterns such as `"runs/*"`; also in buckets, there in the
        last part of the address.

    Returns:
      The folders, each once, those of a pattern in alphabetical order.

    Raises:
      ValueError: there is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     home in [str(path) for path in folders(f"{home[:-1]}?")]
    True
    """
    if not patterns:
        raise ValueError("no folder is named: pass those that sweeps wrote")
    found: list[pathlib.Path] = []
    for each in patterns:
        pattern = storage.place(each)
        if pattern.exists():  # whatever its name, which may look like a pattern
            matches = [pattern]
        elif storage.is_bucket(pattern):
            matches = sorted(storage.listed(pattern.parent, pattern.name))
        else:
            matches = [pathlib.Path(m) for m in sorted(glob.glob(str(pattern)))]
        if not matches:
            raise ValueError(f"no folder {each}: pass one that a sweep wrote")
        found += matches
    once: dict[str, pathlib.Path] = {}
    for path in found:
        once.setdefault(os.path.realpath(path), path)
    return list(once.values())


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
    for part, facts in _parts(patterns):
        kept = _kept(part, facts)
        for number, ident in enumerate(kept.pop("id", [])):
            values = {name: value[number] for name, value in kept.items()}
            found.append({"id": int(ident), **facts["setting"], **values})
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
    made = [facts for _, facts in _parts(patterns)]
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


Part = tuple[pathlib.Path, dict[str, Any]]


def _parts(patterns: Sequence[str | os.PathLike[str]]) -> list[Part]:
    """Parts with what they say of their making, folder by folder."""
    return [part for folder in folders(*patterns) for part in _of(folder)]


def _of(folder: pathlib.Path) -> list[Part]:
    """The parts of a folder, in the order of settings, then chunks."""
    paths = sorted(storage.listed(folder / "rows", "*.parquet"))
    if not paths:
        raise ValueError(f"no rows in {folder}: pass the folder given as `--out`")
    found = [(path, parts.metadata(path)) for path in paths]
    first = found[0][1]["config"]["sweep"]
    for path, facts in found:
        sweep = facts["config"]["sweep"]
        if differing := sorted(k for k in first if first[k] != sweep.get(k)):
            raise ValueError(
                f"{folder} holds rows of two sweeps: {paths[0].name} and {path.name} "
                f"differ in `{differing[0]}`. Move those of one elsewhere"
            )
    return sorted(found, key=lambda part: (part[1]["position"], part[1]["chunk"]))


def _kept(part: pathlib.Path, facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays beside a part; none where none of its examples was to be kept."""
    path = part.parents[1] / "arrays" / f"{part.stem}.npz"
    wanted = facts["config"]["sweep"]["keep"]
    if not wanted or not set(wanted) & set(parts.read(part, ["id"])["id"].to_pylist()):
        return {}
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            return {name: file[name] for name in file if name != "setting"}
    except storage.DAMAGE as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it was damaged or removed after it was "
            f"written. Delete {part}, too, and run the same command again: only "
            "these are computed anew"
        ) from error
