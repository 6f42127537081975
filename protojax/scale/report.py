"""From rows to numbers: read result folders, estimate with intervals, make tables.

Every number comes with its bootstrap interval, the number of examples behind it and
the number of rows left out of it. Drawing is done in `figures`, the page in `pages`.
"""

import glob
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protojax.scale import rows as parts

Row = Mapping[str, Any]

_BLOCK = 1 << 22  # numbers drawn at once by the bootstrap


def read(*folders: str | pathlib.Path) -> list[dict[str, Any]]:
    """All rows of one or several result folders.

    Args:
      *folders: folders that sweeps wrote, or patterns such as `"runs/*"`.

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
    return [row for part in _parts(folders) for row in _table(part).to_pylist()]


def arrays(*folders: str | pathlib.Path) -> list[dict[str, Any]]:
    """The arrays that were kept, one dict for each example and setting.

    Args:
      *folders: as for `read`.

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
    for part in _parts(folders):
        path = part.parents[1] / "arrays" / f"{part.stem}.npz"
        if path.exists():
            with np.load(path) as file:
                kept = dict(file)
            setting = json.loads(str(kept.pop("setting")))
            for number, ident in enumerate(kept.pop("id").tolist()):
                values = {name: value[number] for name, value in kept.items()}
                found.append({"id": ident, **setting, **values})
    return found


def provenance(*folders: str | pathlib.Path) -> dict[str, Any]:
    """How the rows of folders were made.

    Args:
      *folders: as for `read`.

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
    made = [parts.metadata(part) for part in _parts(folders)]
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


def _parts(folders: Sequence[str | pathlib.Path]) -> list[pathlib.Path]:
    found: list[tuple[int, int, int, pathlib.Path]] = []
    for number, folder in enumerate(_expand(folders)):
        paths = list((folder / "rows").glob("*.parquet"))
        if not paths:
            raise ValueError(f"no rows in {folder}: pass the folder given as `--out`")
        for path in paths:
            facts = parts.metadata(path)
            found.append((number, facts["position"], facts["chunk"], path))
    return [path for *_, path in sorted(found)]


def _expand(folders: Sequence[str | pathlib.Path]) -> Iterator[pathlib.Path]:
    for folder in folders:
        matches = sorted(glob.glob(str(folder)))
        if not matches:
            raise ValueError(f"no folder {folder}: pass one that a sweep wrote")
        yield from (pathlib.Path(match) for match in matches)


def _table(part: pathlib.Path) -> pa.Table:
    try:
        return pq.read_table(part)
    except (pa.ArrowException, OSError) as error:
        raise parts.unreadable(part, error) from error


class Estimate(NamedTuple):
    """A mean over examples.

    Attributes:
      mean: the mean, None if nothing is left.
      low: lower end of the interval, None for fewer than two examples.
      high: upper end.
      n: examples behind it.
      left_out: rows that were stalled or have no number.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    left_out: int


def estimate(
    rows: Sequence[Row],
    value: str,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of a column over examples, with its percentile bootstrap interval.

    Rows that are `stalled` (an attack without a gradient to follow says nothing about
    robustness) or have no number are left out and counted. Several rows of one
    example, such as seeds, are averaged first: examples are what was sampled.

    Args:
      rows: from `read`.
      value: the column.
      level: of the interval.
      resamples: of the bootstrap.
      seed: of the bootstrap; with the same one, equal numbers of examples are
        resampled alike.

    Returns:
      The estimate.

    Raises:
      ValueError: no row has the column.

    References:
      Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    >>> rows = [{"id": i, "loss": x} for i, x in enumerate([1.0, 2.0, 3.0, None])]
    >>> estimate(rows, "loss")
    Estimate(mean=2.0, low=1.0, high=3.0, n=3, left_out=1)
    """
    _check(rows, value)
    return _estimate(rows, value, level, resamples, seed)


def _check(rows: Sequence[Row], value: str) -> None:
    if rows and not any(value in row for row in rows):
        names = ", ".join(f"`{name}`" for name in rows[0])
        raise ValueError(f"no row has `{value}`: choose from {names}")


def _estimate(
    rows: Sequence[Row],
    value: str,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    groups: dict[Any, list[float]] = {}
    left_out = 0
    for number, row in enumerate(rows):
        if row.get("stalled") or not _is_number(row.get(value)):
            left_out += 1
        else:
            groups.setdefault(row.get("id", f"row {number}"), []).append(row[value])
    means = np.asarray([np.mean(group) for group in groups.values()], np.float64)
    count = len(means)
    if count < 2:
        mean = float(means[0]) if count else None
        return Estimate(mean, None, None, count, left_out)
    drawn = _resampled(means, resamples, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(means.mean()), float(low), float(high), count, left_out)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _resampled(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """`[resamples]` means of samples drawn with replacement, in bounded memory."""
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // len(values))
    means = []
    for begin in range(0, resamples, size):
        shape = (min(size, resamples - begin), len(values))
        means.append(values[rng.integers(len(values), size=shape)].mean(axis=1))
    return np.concatenate(means)


def summary(
    rows: Sequence[Row],
    *,
    by: Sequence[str],
    values: Sequence[str],
    chance: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Every number of a report, for programs.

    Args:
      rows: from `read`.
      by: columns whose combinations get a number each.
      values: columns that are averaged.
      chance: what chance would give, by column.

    Returns:
      Dicts with the columns of `by`, `value` (the averaged column's name), `mean`,
      `low`, `high`, `n`, `left_out`, and `chance` where it is known.

    >>> rows = [{"id": 0, "radius": 0.1, "loss": 2.0}]
    >>> summary(rows, by=["radius"], values=["loss"])[0]["mean"]
    2.0
    """
    for value in values:
        _check(rows, value)
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
    ordered = [sort([cell[axis] for cell in groups]) for axis in range(len(by))]
    cells = sorted(
        groups,
        key=lambda cell: [o.index(c) for o, c in zip(ordered, cell, strict=True)],
    )
    levels = chance or {}
    numbers = []
    for cell in cells:
        for value in values:
            known = {"chance": levels[value]} if value in levels else {}
            mean = _estimate(groups[cell], value)._asdict()
            where = dict(zip(by, cell, strict=True))
            numbers.append({**where, "value": value, **mean, **known})
    return numbers


def sort(values: Iterable[Any]) -> list[Any]:
    """Distinct values, numbers by size, all else in order of appearance.

    Args:
      values: of one column.

    Returns:
      Each once.

    >>> sort([0.2, 0.1, 0.2]), sort(["top_k", "center"])
    ([0.1, 0.2], ['top_k', 'center'])
    """
    distinct = list(dict.fromkeys(values))
    return sorted(distinct) if all(_is_number(v) for v in distinct) else distinct


def table(
    rows: Sequence[Row],
    *,
    rows_by: str,
    columns_by: str,
    value: str,
    chance: float | None = None,
    names: Mapping[Any, str] | None = None,
) -> str:
    """One column of the rows as a Markdown table of means with intervals and n.

    Args:
      rows: from `read`.
      rows_by: the column that becomes the table's rows.
      columns_by: the column that becomes its columns.
      value: the column that is averaged.
      chance: what chance would give, said in the corner.
      names: how columns and values are written, where not as they are.

    Returns:
      The table.

    >>> rows = [{"id": i, "attack": "center", "radius": 2 / 255, "overlap": i / 10}
    ...         for i in range(3)]
    >>> print(table(rows, rows_by="attack", columns_by="radius", value="overlap",
    ...             chance=0.02))
    | overlap (chance 0.020) | radius 2/255 |
    |---|---|
    | center | 0.100 [0.000, 0.200] n=3 |
    """
    _check(rows, value)
    names = names or {}
    across, down = (sort(row.get(c) for row in rows) for c in (columns_by, rows_by))
    corner = label(value, names)
    if chance is not None:
        corner += f" (chance {decimal(chance)})"
    axis = label(columns_by, names)
    heads = [
        ("" if isinstance(v, str) else f"{axis} ") + label(v, names) for v in across
    ]
    lines = [_line([corner, *heads]), "|" + "---|" * (len(across) + 1)]
    for one in down:
        cells = [label(one, names)]
        for other in across:
            chosen = [
                r for r in rows if (r.get(rows_by), r.get(columns_by)) == (one, other)
            ]
            cells.append(_cell(_estimate(chosen, value)) if chosen else "-")
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(found: Estimate) -> str:
    text = "none" if found.mean is None else decimal(found.mean)
    if found.low is not None and found.high is not None:
        low, high = (decimal(end, like=found.mean) for end in (found.low, found.high))
        text += f" [{low}, {high}]"
    text += f" n={found.n}"
    return f"{text}, {found.left_out} left out" if found.left_out else text


def decimal(value: float, *, like: float | None = None) -> str:
    """A number at the precision that means and intervals deserve.

    Args:
      value: the number.
      like: a number whose precision it shares, itself if not given.

    Returns:
      Its text.

    >>> decimal(0.0347), decimal(12.345), decimal(1234.5)
    ('0.035', '12.3', '1234')
    """
    size = abs(value if like is None else like)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:.{digits}f}"


def label(value: Any, names: Mapping[Any, str]) -> str:
    """How a column or one of its values is written.

    Args:
      value: a column's name or a value.
      names: where it is not written as it is.

    Returns:
      The text; small multiples of half a gray level as such.

    >>> label(2 / 255, {}), label("top_k", {}), label("top_k", {"top_k": "top-1000"})
    ('2/255', 'top k', 'top-1000')
    """
    if value in names:
        return names[value]
    if isinstance(value, float):
        levels = value * 255  # below 25.5 no short decimal number is a multiple of 1/2
        gray = 0 < levels < 25 and abs(2 * levels - round(2 * levels)) < 1e-6
        return f"{round(levels, 1):g}/255" if gray else f"{value:g}"
    return str(value).replace("_", " ")
