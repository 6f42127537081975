"""Tables of the report of `hessian`, beside those that `protojax.report` makes."""

from collections.abc import Mapping, Sequence
from typing import Any

from protojax.scale import pages, report

Names = Mapping[Any, str]
Numbers = Sequence[Mapping[str, Any]]
Rows = Sequence[report.Row]
Part = tuple[pages.Section, list[dict[str, Any]]]
"""A section, and its numbers for summary.json."""


def quantities(numbers: Numbers, names: Names) -> str:
    """One number a line."""
    lines = ["| quantity | mean |", "|---|---|"]
    for number in numbers:
        lines.append(f"| {report.label(number['value'], names)} | {cell(number)} |")
    return "\n".join(lines)


def across(numbers: Numbers, axis: str, values: Sequence[str], names: Names) -> str:
    """Some columns, a line each, against the values of another one."""
    found = report.sort(number[axis] for number in numbers)
    heads = [f"{report.label(axis, names)} {one:g}" for one in found]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for value in values:
        of = {n[axis]: cell(n) for n in numbers if n["value"] == value}
        cells = [of[one] for one in found]
        lines.append(f"| {report.label(value, names)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(number: Mapping[str, Any], form: str = ".3g") -> str:
    """A mean with its interval and n, at any scale."""
    text = report.number(number["mean"], form)
    if number["low"] is not None:
        text += f" [{number['low']:{form}}, {number['high']:{form}}]"
    return f"{text} n={number['n']}"
