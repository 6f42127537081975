"""What the reports of several experiments say or show in the same way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protojax.scale import pages, report

Rows = Sequence[report.Row]
Names = Mapping[Any, str]

OTHER = "another image"
"""What stands among the attacks for no attack: another test image of the class."""


def share(rows: Rows, column: str) -> str:
    """In how many of the rows that are not stalled something is so, in percent."""
    seen = [
        float(row[column])
        for row in rows
        if not row["stalled"] and row[column] is not None
    ]
    return report.number(sum(seen) / len(seen) if seen else None, ".0%")


def stalled(rows: Rows, *, why: str = "no gradient to follow") -> str:
    """How many rows say nothing."""
    count = sum(bool(row["stalled"]) for row in rows)
    return (
        f"{count} of {len(rows)} rows are **stalled** ({why}): they say nothing about"
        " robustness and are left out of every mean."
    )


def without_relu(rows: Rows) -> str:
    """How a network is attacked in which no ReLU was found, and what that may hide."""
    text = (
        "No ReLU was found in the network: it has no twin, and its own derivatives are"
        " followed."
    )
    if any(row["stalled"] for row in rows):
        text += (
            " **Rows are stalled: has it other kinks?** A network that is piecewise"
            " linear in a way that was not recognized leaves nothing to climb; write"
            " its non-linearity as `jax.nn.relu`."
        )
    return text


def measures(
    rows: Rows,
    values: Sequence[str],
    *,
    names: Names,
    rows_by: str = "measure",
    columns_by: str = "measure",
    estimator: Callable[..., report.Estimate] = report.estimate,
) -> str:
    """A table of several columns of the rows, side by side or one below the other.

    They are the rows or the columns of the table, whichever is not by something else;
    the name of `value` stands in its corner.
    """
    return report.table(
        _long(rows, values),
        rows_by=rows_by,
        columns_by=columns_by,
        value="value",
        names=names,
        estimator=estimator,
    )


def _long(rows: Rows, values: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {**row, "measure": value, "value": row.get(value)}
        for value in values
        for row in rows
    ]


def paired(
    rows: Rows,
    value: str,
    *,
    methods: str,
    columns_by: str,
    names: Names,
    against: Any = None,
) -> list[pages.Table]:
    """What each method gives beyond one of them, the first if none is named.

    There is no table where there is one method, or where none is held against another.
    """
    known = report.sort(row[methods] for row in rows)
    base = known[0] if against is None else against
    places = {row[columns_by] for row in rows if row[methods] == base}
    held = [row for row in rows if row[columns_by] in places]
    if not places or len({row[methods] for row in held}) < 2:
        return []
    text = report.compared(
        held,
        methods=methods,
        columns_by=columns_by,
        value=value,
        against=base,
        names=names,
    )
    caption = (
        f"{report.label(value, names)}, less that of {report.label(base, names)},"
        " paired by what is sampled (n), with 95 % intervals and p of Wilcoxon's"
        " signed-rank test after Holm."
    )
    return [pages.Table(text, caption[0].upper() + caption[1:])]


def paired_measures(
    rows: Rows,
    values: Sequence[str],
    *,
    methods: str,
    names: Names,
    against: Any = None,
) -> list[pages.Table]:
    """The same of several columns, side by side."""
    return paired(
        _long(rows, values),
        "value",
        methods=methods,
        columns_by="measure",
        names={**names, "value": "measure"},
        against=against,
    )


def others(rows: Rows, by: str, values: Sequence[str]) -> list[dict[str, Any]]:
    """The distance to another image of the class, as if `OTHER` were an attack.

    It is in the rows of every attack, as `VALUE_other`, and counts once.
    """
    return [
        {**row, by: OTHER, **{value: row[f"{value}_other"] for value in values}}
        for row in rows
        if row[by] == rows[0][by]
    ]


def tables(
    rows: Rows,
    values: Sequence[str],
    *,
    rows_by: str,
    columns_by: str,
    of: str,
    chance: Mapping[str, float],
    names: Names,
) -> list[pages.Table]:
    """One table of means for each of some columns; `of` ends their captions."""
    found = []
    for value in values:
        text = report.table(
            rows,
            rows_by=rows_by,
            columns_by=columns_by,
            value=value,
            chance=chance.get(value),
            names=names,
        )
        caption = f"{report.label(value, names)} {of}"
        found.append(pages.Table(text, caption[0].upper() + caption[1:]))
    return found
