"""Paired tests: whether two methods differ on the same examples."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from protojax.scale.report import estimates, tables


class Difference(NamedTuple):
    """The mean difference of two methods on the same examples.

    Attributes:
      first: the method that is subtracted from.
      second: the method that is subtracted.
      mean: of the differences, None if no example has both.
      low: lower end of its bootstrap interval, None for fewer than two examples.
      high: upper end.
      p: of the Wilcoxon signed-rank test, two-sided; None as above.
      holm: the same, corrected by Holm for all that were tested together.
      n: examples that both methods have.
      left_out: rows that were stalled or have no number.
    """

    first: Any
    second: Any
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    holm: float | None
    n: int
    left_out: int


def compare(
    rows: Sequence[estimates.Row],
    value: str,
    *,
    methods: str,
    against: Any = None,
    level: float = 0.95,
) -> list[Difference]:
    """Compare methods on the same examples, pair by pair.

    What a sweep gives is paired: every setting sees the same examples with the same
    random numbers. Rows of a method on one example are averaged first, and rows are
    left out as by `estimate`. Differences of zero are split between both signs; where
    all are zero, p is 1.

    Args:
      rows: from `read`, such as those of one radius.
      value: the column that is compared.
      methods: the column that holds the methods.
      against: one of them that all others are compared with; all pairs if not given.
      level: of the intervals.

    Returns:
      The differences, in order of the methods' appearance.

    Raises:
      ValueError: no row has one of the columns, or none is of the method `against`.

    References:
      Wilcoxon, Individual Comparisons by Ranking Methods, 1945; Pratt and Gibbons,
      Concepts of Nonparametric Theory, 1981, for the zeros; Holm, A Simple Sequentially
      Rejective Multiple Test Procedure, 1979.

    >>> rows = [{"id": i, "attack": a, "overlap": 0.1 * i + 0.5 * (a == "random")}
    ...         for i in range(8) for a in ("top_k", "random")]
    >>> (found,) = compare(rows, "overlap", methods="attack")
    >>> round(found.mean, 3), round(found.p, 4), found.n
    (-0.5, 0.0078, 8)
    """
    for column in (value, methods):
        estimates.check(rows, column)
    groups: dict[Any, list[estimates.Row]] = {}
    for row in rows:
        groups.setdefault(row.get(methods), []).append(row)
    if against is not None and against not in groups:
        raise ValueError(
            f"`against` is {against!r}, and no row has it as `{methods}`: choose from "
            f"{', '.join(map(repr, groups))}"
        )
    found = {name: estimates.means(group, value) for name, group in groups.items()}
    names = estimates.sort(groups)
    pairs = (
        itertools.combinations(names, 2)
        if against is None
        else ((name, against) for name in names if name != against)
    )
    each = [_difference(a, b, found, level) for a, b in pairs]
    corrected = holm([d.p for d in each])
    return [d._replace(holm=p) for d, p in zip(each, corrected, strict=True)]


def _difference(
    first: Any,
    second: Any,
    found: Mapping[Any, tuple[Mapping[Any, float], int]],
    level: float,
) -> Difference:
    (a, out_a), (b, out_b) = found[first], found[second]
    both = [ident for ident in a if ident in b]
    apart = np.array([a[ident] - b[ident] for ident in both])
    mean = float(apart.mean()) if both else None
    low = high = p = None
    if len(both) > 1:
        low, high = estimates.interval(apart, level=level)
        p = 1.0
        if np.any(apart):
            p = float(scipy.stats.wilcoxon(apart, zero_method="zsplit").pvalue)
    return Difference(first, second, mean, low, high, p, None, len(both), out_a + out_b)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values of tests that were made together.

    Args:
      values: the p-values; None is passed on, and not counted.

    Returns:
      Those by which errors of the first kind stay below their level in all together.

    References:
      Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        corrected[place] = least
    return corrected


def compared(
    rows: Sequence[estimates.Row],
    *,
    methods: str,
    columns_by: str,
    value: str,
    against: Any = None,
    names: Mapping[Any, str] | None = None,
) -> str:
    """Paired differences of one column as a Markdown table.

    All tests of the table are corrected together.

    Args:
      rows: from `read`.
      methods: the column that holds the methods; each pair is a row of the table.
      columns_by: the column that becomes the table's columns, such as the radius.
      value: the column that is compared.
      against: see `compare`.
      names: how columns and values are written, where not as they are.

    Returns:
      The table: mean differences with intervals, p-values after Holm, and n.

    Raises:
      ValueError: as for `compare`.

    >>> rows = [{"id": i, "attack": a, "radius": 0.1, "overlap": i + (a == "random")}
    ...         for i in range(8) for a in ("top_k", "random")]
    >>> print(compared(rows, methods="attack", columns_by="radius", value="overlap"))
    | overlap, paired differences | radius 0.1 |
    |---|---|
    | top k - random | -1.00 [-1.00, -1.00] p=0.0078 n=8 |
    """
    names = names or {}
    estimates.check(rows, columns_by)
    across = estimates.sort(row.get(columns_by) for row in rows)
    each = {
        place: compare(
            [row for row in rows if row.get(columns_by) == place],
            value,
            methods=methods,
            against=against,
        )
        for place in across
    }
    flat = [(place, found) for place in across for found in each[place]]
    corrected = holm([found.p for _, found in flat])
    cells = {
        (place, found.first, found.second): _cell(found._replace(holm=p))
        for (place, found), p in zip(flat, corrected, strict=True)
    }
    pairs = dict.fromkeys((found.first, found.second) for _, found in flat)
    axis = tables.label(columns_by, names)
    heads = [
        ("" if isinstance(place, str) else f"{axis} ") + tables.label(place, names)
        for place in across
    ]
    corner = f"{tables.label(value, names)}, paired differences"
    lines = [tables.line([corner, *heads]), "|" + "---|" * (len(across) + 1)]
    for first, second in pairs:
        label = f"{tables.label(first, names)} - {tables.label(second, names)}"
        found = [cells.get((place, first, second), "-") for place in across]
        lines.append(tables.line([label, *found]))
    return "\n".join(lines)


def _cell(found: Difference) -> str:
    text = tables.decimal(found.mean)
    if found.low is not None:
        ends = (tables.decimal(e, like=found.mean) for e in (found.low, found.high))
        text += f" [{', '.join(ends)}] p={tables.number(found.holm, '.2g')}"
    text += f" n={found.n}"
    return f"{text}, {found.left_out} left out" if found.left_out else text
