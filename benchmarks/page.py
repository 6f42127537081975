"""Put the results of record into docs/benchmarks.md, and their ratios into README.md.

python -m benchmarks.page

A table stands between `<!-- NAME -->` and `<!-- end -->`, and holds what
benchmarks/results/NAME.json does; `ratios` is the short one of some works.
"""

import json
import pathlib
import re
from collections.abc import Sequence

from benchmarks import timing

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "benchmarks.md", ROOT / "README.md"]
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
PEERS = ["PyTorch", "Captum", "curvlinops", "PyHessian"]
CHOSEN = {
    "fragility": [
        *("gradient", "integrated gradients", "DeepLIFT"),
        *("top-k attack step", "whole attack, best iterate on the network"),
    ],
    "curvature": ["input product", "input Lanczos 20", "parameter product", "trace"],
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
        name = marker["name"]
        made = ratios() if name == "ratios" else markdown(_results(name))
        return f"<!-- {name} -->\n{made}\n<!-- end -->"

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


def ratios() -> str:
    """How many times faster than each peer we are at some works, in all of its forms.

    Returns:
      Markdown: a line for each work, from its slowest ratio to its fastest.
    """
    lines = [f"| | {' | '.join(PEERS)} |", "|---|" + "--:|" * len(PEERS)]
    for name, works in CHOSEN.items():
        rows = _results(name)
        for work in works:
            of = [row for row in rows if row["work"] == work and row["ratio_to_peer"]]
            cells = [_span([r for r in of if _library(r) == peer]) for peer in PEERS]
            lines.append(f"| {work} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _results(name: str) -> Sequence[timing.Row]:
    return json.loads((RESULTS / f"{name}.json").read_text())["rows"]


def _library(row: timing.Row) -> str:
    named = (peer for peer in PEERS[1:] if peer in str(row["peer"]))
    return next(named, PEERS[0])


def _span(rows: Sequence[timing.Row]) -> str:
    found = sorted({f"{row['ratio_to_peer']:.1f}" for row in rows}, key=float)
    return " to ".join(dict.fromkeys((found[0], found[-1]))) if found else "–"


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
    for page in PAGES:
        page.write_text(filled(page.read_text()))
