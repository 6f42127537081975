"""Means over examples, with their intervals and what was left out."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

Row = Mapping[str, Any]
"""One evaluation: the example's id, the setting, the results, by name."""

_BLOCK = 1 << 22  # numbers drawn at once by the bootstrap
_MANY = 100_000  # values of which the bootstrap tells nothing that is not known


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


Estimator = Callable[[Sequence[Row], str], Estimate]


def estimate(
    rows: Sequence[Row],
    value: str,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of a column over examples, with its percentile bootstrap interval.

    See `interval` for that of very many.

    Rows that are `stalled` (an attack without a gradient to follow says nothing about
    robustness) or have no number are left out and counted; of `stalled` itself all rows
    are averaged. Several rows of one example, such as seeds, are averaged first:
    examples are what was sampled.

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
    check(rows, value)
    found, left_out = _means(rows, value)
    count = len(found)
    if count < 2:
        mean = float(found[0]) if count else None
        return Estimate(mean, None, None, count, left_out)
    low, high = interval(found, level=level, resamples=resamples, seed=seed)
    return Estimate(float(found.mean()), low, high, count, left_out)


def check(rows: Sequence[Row], value: str) -> None:
    """Refuse a column that no row has.

    Args:
      rows: from `read`.
      value: the column.

    Raises:
      ValueError: names the columns that there are.

    >>> check([{"id": 0, "loss": 1.0}], "loss")
    """
    if rows and not any(value in row for row in rows):
        names = ", ".join(f"`{name}`" for name in rows[0])
        raise ValueError(f"no row has `{value}`: choose from {names}")


def proportion(rows: Sequence[Row], value: str, *, level: float = 0.95) -> Estimate:
    """Share of examples for which a column is true, with Wilson's score interval.

    Unlike the bootstrap's it has a width where all examples agree. Rows are left out as
    by `estimate`; of several rows of one example, such as seeds, the share counts, and
    examples are what was sampled.

    Args:
      rows: from `read`.
      value: the column, true or false, 1 or 0.
      level: of the interval.

    Returns:
      The estimate.

    Raises:
      ValueError: no row has the column, or one has a number outside of [0, 1].

    References:
      Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
      1927.

    >>> rows = [{"id": i, "found": True} for i in range(10)]
    >>> share = proportion(rows, "found")
    >>> share.mean, round(share.low, 3), share.high
    (1.0, 0.722, 1.0)
    """
    check(rows, value)
    found, left_out = _means(rows, value)
    count = len(found)
    if not count:
        return Estimate(None, None, None, 0, left_out)
    if found.min() < 0 or found.max() > 1:
        raise ValueError(
            f"`{value}` is no share: it spans {found.min()}, {found.max()}"
        )
    share, z = float(found.mean()), statistics.NormalDist().inv_cdf((1 + level) / 2)
    wide = 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / wide
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / wide
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Estimate(share, low, high, count, left_out)


def means(rows: Iterable[Row], value: str) -> tuple[dict[Any, float], int]:
    """The mean of each example, and how many rows were left out.

    Args:
      rows: from `read`.
      value: the column.

    Returns:
      The means by `id`, in order of appearance, and the number of rows.

    >>> means([{"id": 3, "x": 1.0}, {"id": 3, "x": 2.0}, {"id": 4, "x": None}], "x")
    ({3: 1.5}, 1)
    """
    places: dict[Any, int] = {}
    kept: list[float] = []
    at: list[int] = []
    total = 0
    for total, row in enumerate(rows, 1):
        aside = value != "stalled" and row.get("stalled")
        if not aside and _is_number(row.get(value)):
            kept.append(row[value])
            ident = row.get("id", f"row {total}")
            at.append(places.setdefault(ident, len(places)))
    sums = np.bincount(at, kept, minlength=len(places)) if kept else np.zeros(0)
    counts = np.bincount(at, minlength=len(places)) if kept else np.ones(0)
    averages = (sums / counts).tolist()
    return dict(zip(places, averages, strict=True)), total - len(kept)


def _means(rows: Sequence[Row], value: str) -> tuple[np.ndarray, int]:
    found, left_out = means(rows, value)
    return np.fromiter(found.values(), np.float64, len(found)), left_out


def interval(
    values: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean.

    Above a hundred thousand values it is the normal one, which it then does not differ
    from by more than resampling does by chance: means are normal up to about skewness /
    sqrt(n) of a standard error, and an end found by 2000 of them is off by 6 % of one.

    Args:
      values: `[n]`, two or more.
      level: of the interval.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Its lower and its upper end.

    References:
      Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    >>> interval(np.array([1.0, 2.0, 3.0]))
    (1.0, 3.0)
    """
    if len(values) > _MANY:
        wide = statistics.NormalDist().inv_cdf((1 + level) / 2)
        half = wide * float(values.std(ddof=1)) / math.sqrt(len(values))
        return float(values.mean()) - half, float(values.mean()) + half
    drawn = _resampled(values, resamples, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _is_number(value: Any) -> TypeGuard[float]:
    known = isinstance(value, int | float | np.bool_ | np.integer | np.floating)
    return known and math.isfinite(value)


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
    estimator: Estimator = estimate,
) -> list[dict[str, Any]]:
    """Every number of a report, for programs.

    Args:
      rows: from `read`.
      by: columns whose combinations get a number each.
      values: columns that are averaged.
      chance: what chance would give, by column.
      estimator: makes the means and intervals, such as `proportion`.

    Returns:
      Dicts with the columns of `by`, `value` (the averaged column's name), `mean`,
      `low`, `high`, `n`, `left_out`, and `chance` where it is known.

    Raises:
      ValueError: no row has one of the columns.

    >>> rows = [{"id": 0, "radius": 0.1, "loss": 2.0}]
    >>> summary(rows, by=["radius"], values=["loss"])[0]["mean"]
    2.0
    """
    for column in (*by, *values):
        check(rows, column)
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
            group = [{value: None, **row} for row in groups[cell]]
            mean = estimator(group, value)._asdict()
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
