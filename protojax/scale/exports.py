"""Tables of a page for papers and spreadsheets: LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Sequence

_PIPE = re.compile(r"(?<!\\)\|")
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def cells(lines: Sequence[str]) -> list[list[str]]:
    r"""The cells of a Markdown table.

    Args:
      lines: the table; the second line is the rule below the heads.

    Returns:
      The heads, then the rows.

    >>> cells(["| a | b |", "|---|---|", "| 1 | x \\| y |"])
    [['a', 'b'], ['1', 'x | y']]
    """
    split = [[c.strip() for c in _PIPE.split(line.strip())[1:-1]] for line in lines]
    whole = [[c.replace("\\|", "|") for c in row] for row in split]
    return [whole[0], *whole[2:]]


def as_csv(text: str) -> str:
    r"""A Markdown table as comma-separated values.

    Args:
      text: of `pages.Table`.

    Returns:
      The same cells, a line for each row.

    >>> print(as_csv("| a | b |\n|---|---|\n| 1, 2 | `x` |"), end="")
    a,b
    "1, 2",x
    """
    out = io.StringIO()
    rows = [[_plain(c) for c in row] for row in cells(text.splitlines())]
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def as_latex(text: str, caption: str) -> str:
    r"""A Markdown table as a LaTeX table, with the rules of booktabs.

    Args:
      text: of `pages.Table`.
      caption: of the same.

    Returns:
      The `table` environment.

    >>> print(as_latex("| overlap | 2/255 |\n|---|---|\n| top_k | 0.10 |", "All."))
    \begin{table}
      \centering
      \caption{All.}
      \begin{tabular}{ll}
        \toprule
        overlap & 2/255 \\
        \midrule
        top\_k & 0.10 \\
        \bottomrule
      \end{tabular}
    \end{table}
    """
    head, *rows = ([_escaped(c) for c in row] for row in cells(text.splitlines()))
    line = lambda row: f"    {' & '.join(row)} \\\\"  # noqa: E731
    return "\n".join(
        [
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{_escaped(caption)}}}",
            f"  \\begin{{tabular}}{{{'l' * len(head)}}}",
            "    \\toprule",
            *([line(head), "    \\midrule"] if any(head) else []),
            *map(line, rows),
            "    \\bottomrule",
            "  \\end{tabular}",
            "\\end{table}",
        ]
    )


def _plain(text: str) -> str:
    """Without the marks of code and bold, and links without where they lead."""
    text = re.sub(r"\[([^\]]+)\]\([^)\s]+\)", r"\1", text)
    return text.replace("`", "").replace("**", "")


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in _plain(text))
