"""Tables of means, and how numbers and names are written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from protojax.scale.report import estimates


def table(
    rows: Sequence[estimates.Row],
    *,
    rows_by: str,
    columns_by: str,
    value: str,
    chance: float | None = None,
    names: Mapping[Any, str] | None = None,
    estimator: estimates.Estimator = estimates.estimate,
) -> str:
    """One column of the rows as a Markdown table of means with intervals and n.

    Args:
      rows: from `read`.
      rows_by: the column that becomes the table's rows.
      columns_by: the column that becomes its columns.
      value: the column that is averaged.
      chance: what chance would give, said in the corner.
      names: how columns and values are written, where not as they are.
      estimator: makes the means and intervals, such as `proportion`.

    Returns:
      The table.

    Raises:
      ValueError: no row has one of the columns.

    >>> rows = [{"id": i, "attack": "center", "radius": 2 / 255, "overlap": i / 10}
    ...         for i in range(3)]
    >>> print(table(rows, rows_by="attack", columns_by="radius", value="overlap",
    ...             chance=0.02))
    | overlap (chance 0.020) | radius 2/255 |
    |---|---|
    | center | 0.100 [0.000, 0.200] n=3 |
    """
    names = names or {}
    numbers = estimates.summary(
        rows, by=[rows_by, columns_by], values=[value], estimator=estimator
    )
    cells = {(n[rows_by], n[columns_by]): _cell(n) for n in numbers}
    down, across = (
        estimates.sort(row.get(column) for row in rows)
        for column in (rows_by, columns_by)
    )
    corner = label(value, names)
    if chance is not None:
        corner += f" (chance {decimal(chance)})"
    axis = label(columns_by, names)
    heads = [
        ("" if isinstance(v, str) else f"{axis} ") + label(v, names) for v in across
    ]
    lines = [line([corner, *heads]), "|" + "---|" * (len(across) + 1)]
    for one in down:
        found = [cells.get((one, other), "-") for other in across]
        lines.append(line([label(one, names), *found]))
    return "\n".join(lines)


def line(cells: Iterable[str]) -> str:
    """One line of a Markdown table.

    Args:
      cells: their texts.

    Returns:
      The line.

    >>> line(["a", "b"])
    '| a | b |'
    """
    return "| " + " | ".join(cells) + " |"


def _cell(found: Mapping[str, Any]) -> str:
    text = decimal(found["mean"])
    if found["low"] is not None:
        low, high = (decimal(found[end], like=found["mean"]) for end in ("low", "high"))
        text += f" [{low}, {high}]"
    text += f" n={found['n']}"
    return f"{text}, {found['left_out']} left out" if found["left_out"] else text


def decimal(value: float | None, *, like: float | None = None) -> str:
    """A number at the precision that means and intervals deserve.

    Args:
      value: the number, or None.
      like: a number whose precision it shares, itself if not given.

    Returns:
      Its text.

    >>> decimal(0.00347), decimal(0.0347), decimal(12.345), decimal(1234.5)
    ('0.0035', '0.035', '12.3', '1234')
    """
    size = abs((value if like is None else like) or 0.0)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    if 1e-5 < size < 0.01:
        digits = 1 - math.floor(math.log10(size))
    return number(value, f".{digits}f")


def number(value: float | None, form: str = ".3g") -> str:
    """A number that may be missing, as what is not finite is in rows and means.

    Args:
      value: the number, or None.
      form: as after the colon of a format.

    Returns:
      Its text; "none" for none.

    >>> number(0.5, ".0%"), number(None, ".0%")
    ('50%', 'none')
    """
    return "none" if value is None or math.isnan(value) else format(value, form)


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
