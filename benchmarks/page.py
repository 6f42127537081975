"""Put the results of record into docs/benchmarks.md.

python -m benchmarks.page

A table stands between `<!-- NAME -->` and `<!-- end -->`, and holds what
benchmarks/results/NAME.json does.
"""

import json
import pathlib
import re
from collections.abc import Sequence

from benchmarks import timing

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"

HEADINGS = {
    "work": "work",
    "ours_s": "ours, ms",
    "peer": "peer",
    "peer_s": "peer, ms",
    "ratio_to_peer": "peer / ours",
    "ratio_to_floor": "ours / floor",
    "memory_mb": "ours, MB",
    "peer_memory_mb": "peer, MB",
    "compile_s": "compiling, s",
}


def filled(page: str) -> str:
    """Return the page with every table as its file of results has it.

    Args:
      page: Markdown with markers.

    Returns:
      The page, with new tables.

    Raises:
      FileNotFoundError: if a marker names no file of results.
    """

    def table(marker: re.Match) -> str:
        rows = json.loads((RESULTS / f"{marker['name']}.json").read_text())
        return f"<!-- {marker['name']} -->\n{markdown(rows)}\n<!-- end -->"

    return re.sub(
        r"<!-- (?P<name>[\w-]+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL
    )


def markdown(rows: Sequence[timing.Row]) -> str:
    """Rows as a table; columns that say nothing are left out, settings are lines.

    Args:
      rows: as made by `timing.row`.

    Returns:
      Markdown.
    """
    shown = [key for key in HEADINGS if any(row[key] is not None for row in rows)]
    lines = [
        "| " + " | ".join(HEADINGS[key] for key in shown) + " |",
        "|" + "|".join("---" if _is_text(key) else "--:" for key in shown) + "|",
    ]
    setting = None
    for row in rows:
        if row["setting"] != setting:
            setting = row["setting"]
            lines.append(f"| *{setting}* |" + " |" * (len(shown) - 1))
        lines.append("| " + " | ".join(_cell(key, row[key]) for key in shown) + " |")
    return "\n".join(lines)


def _is_text(key: str) -> bool:
    return key in timing.WIDTHS


def _cell(key: str, value: float | str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if key in ("ours_s", "peer_s"):
        return f"{1e3 * value:.3g}"
    return f"{value:.0f}" if key.endswith("memory_mb") else f"{value:.2f}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
