"""What there is: `python -m experiments` lists the scripts, a line each."""

import ast
import pathlib
from collections.abc import Iterator

_MAIN = 'if __name__ == "__main__":'


def scripts() -> Iterator[tuple[str, str]]:
    """Every script's name, and the first line of what it says of itself."""
    for path in sorted(pathlib.Path(__file__).parent.glob("[!_]*.py")):
        text = path.read_text()
        if f"\n{_MAIN}" in text:
            yield path.stem, (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


def listing() -> str:
    """All of them, with how one is run."""
    found = list(scripts())
    width = max(len(name) for name, _ in found)
    lines = [f"  {name:{width}}  {line}" for name, line in found]
    usage = "python -m experiments.SCRIPT [CONFIGURATION] [--knob value ...]"
    more = "`--help` after a script's name lists its knobs and configurations."
    return "\n".join([usage, "", *lines, "", more])


if __name__ == "__main__":
    print(listing())
