"""The page at the end of an experiment: one HTML file, the same as Markdown, and JSON.

A page is a list of sections; a section is text, tables and pictures. Pictures and
styles lie inside the HTML file, so that it can be sent, kept and printed as it is.
"""

import base64
import functools
import html
import io
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from protojax.scale import exports, report, storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Table(NamedTuple):
    """A table with its caption.

    Attributes:
      text: Markdown, as `report.table` gives it.
      caption: what it shows, in a sentence.
    """

    text: str
    caption: str


class Picture(NamedTuple):
    """A figure with its caption.

    Attributes:
      figure: from `figures`, or any matplotlib figure.
      caption: what it shows, in a sentence.
      alt: what somebody who cannot see it should know.
    """

    figure: "Figure"
    caption: str
    alt: str


class Section(NamedTuple):
    """One part of a page.

    Attributes:
      title: its heading.
      blocks: in order; text is Markdown (paragraphs, lists that begin with `- `,
        fenced code, `code`, **bold**, links).
    """

    title: str
    blocks: Sequence[str | Table | Picture]


def write(
    folder: str | os.PathLike[str],
    *,
    title: str,
    sections: Sequence[Section],
    numbers: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> pathlib.Path:
    """Write `report.html`, `report.md` with its `figures/`, and `summary.json`.

    For papers there are the figures as PDF, the tables as LaTeX and CSV in `tables/`,
    and the BibTeX of the methods that the provenance names in `references.bib`. Of
    several processes the first one writes.

    Args:
      folder: the folder of results.
      title: of the page.
      sections: what it shows.
      numbers: every number of its tables, from `report.summary`; becomes the entry
        `numbers` of `summary.json`, beside `title` and `provenance`.
      provenance: from `report.provenance`, shown last.

    Returns:
      The path of `report.html`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write(folder, title="A page", sections=[Section("What", ["So."])],
    ...                  numbers=[], provenance={"rows": 0})
    ...     page.name, sorted(p.name for p in page.parent.iterdir())
    ('report.html', ['report.html', 'report.md', 'summary.json', 'tables'])
    """
    folder = storage.place(folder)
    path = folder / "report.html"
    if jax.process_index():
        return path
    made = Section("How this was made", [_provenance(provenance)])
    sections = [*sections, made]
    lines = [f"# {title}"]
    for number, section in enumerate(sections):
        lines.append(f"## {section.title}")
        for place, block in enumerate(section.blocks):
            name = f"{number + 1}-{place + 1}-{_slug(section.title)}"
            lines.append(_markdown(block, f"figures/{name}.png"))
            for file, contents in _exported(block, name):
                storage.write_bytes(folder / file, contents)
    text = "\n\n".join(lines) + "\n"
    storage.write_bytes(folder / "report.md", text.encode())
    summary = _summary(title, numbers, provenance)
    storage.write_bytes(folder / "summary.json", summary.encode())
    if papers := report.bibliography(provenance):
        storage.write_bytes(folder / "references.bib", papers.encode())
    storage.write_bytes(path, render(title, sections).encode())
    return path


def render(title: str, sections: Sequence[Section]) -> str:
    """A page as one HTML text that needs no other file.

    Args:
      title: of the page.
      sections: what it shows.

    Returns:
      The text.

    >>> "<h2>What</h2>" in render("A page", [Section("What", ["It is **so**."])])
    True
    """
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        blocks = "\n".join(_block(block) for block in section.blocks)
        heading = f"<h2>{html.escape(section.title)}</h2>"
        body.append(f"<section>\n{heading}\n{blocks}\n</section>")
    return _PAGE.format(
        title=html.escape(title), style=_CSS.strip(), body="\n".join(body)
    )


def _exported(block: str | Table | Picture, name: str) -> Iterator[tuple[str, bytes]]:
    """The files of a block: what is in them, by name."""
    if isinstance(block, Picture):
        yield f"figures/{name}.png", _png(block.figure)
        yield f"figures/{name}.pdf", _pdf(block.figure)
    elif isinstance(block, Table):
        latex = exports.as_latex(block.text, block.caption)
        yield f"tables/{name}.tex", f"{latex}\n".encode()
        yield f"tables/{name}.csv", exports.as_csv(block.text).encode()


def _summary(
    title: str, numbers: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]
) -> str:
    """The same as JSON, each number in a line."""
    plain = functools.partial(json.dumps, default=str, allow_nan=False)
    lines = ",\n    ".join(plain(number) for number in numbers)
    made = plain(provenance, indent=2).replace("\n", "\n  ")
    return (
        f'{{\n  "title": {plain(title)},\n  "numbers": [\n    {lines}\n  ],\n'
        f'  "provenance": {made}\n}}\n'
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "figure"


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _pdf(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


def _provenance(facts: Mapping[str, Any]) -> Table:
    lines = ["| | |", "|---|---|"]
    for name, value in facts.items():
        if name == "config":
            continue
        shown = _fact(name, value)
        if shown:
            label = name.removesuffix("_seconds").replace("_", " ")
            lines.append(f"| {label} | {_escaped(shown)} |")
    for config in facts.get("config", []):
        knobs = ", ".join(f"`{name}={value}`" for name, value in config.items())
        lines.append(f"| configuration | {_escaped(knobs)} |")
    return Table("\n".join(lines), "Command, code, versions, devices and time.")


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _fact(name: str, value: Any) -> str:
    if name.endswith("_seconds"):
        return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"
    if name == "command":
        return "; ".join(f"`{command}`" for command in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(filter(None, (_fact("", item) for item in value)))
    return str(value)


def _markdown(block: str | Table | Picture, path: str) -> str:
    if isinstance(block, Table):
        return f"{block.text}\n\n*{block.caption}*"
    if isinstance(block, Picture):
        return f"![{block.alt}]({path})\n\n*{block.caption}*"
    return block.strip()


def _block(block: str | Table | Picture) -> str:
    if isinstance(block, Table):
        return _table(block.text.splitlines(), block.caption)
    if isinstance(block, Picture):
        return _picture(block)
    fences = re.split(r"^```\w*\n(.*?)^```$", block.strip(), flags=re.M | re.S)
    parts = []
    for number, part in enumerate(fences):
        if number % 2:  # re.split puts what was fenced at the odd places
            parts.append(f"<pre>{html.escape(part.rstrip())}</pre>")
        else:
            paragraphs = filter(None, (p.strip() for p in re.split(r"\n\s*\n", part)))
            parts.extend(_paragraph(p.splitlines()) for p in paragraphs)
    return "\n".join(parts)


def _paragraph(lines: list[str]) -> str:
    if all(line.startswith("|") for line in lines):
        return _table(lines, "")
    if lines[0].startswith("- "):
        items = re.split(r"^- ", "\n".join(lines), flags=re.M)[1:]
        return "<ul>" + "".join(f"<li>{_inline(i)}</li>" for i in items) + "</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _inline(text: str) -> str:
    """Code, bold and links; all else is text."""
    pieces = re.split(r"`([^`]+)`", text)
    for number, piece in enumerate(pieces):
        piece = html.escape(piece)
        if number % 2:
            pieces[number] = f"<code>{piece}</code>"
            continue
        piece = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", piece)
        link = r"\[([^\]]+)\]\((https?:[^)\s]+|[\w./#-][^):\s]*)\)"
        pieces[number] = re.sub(link, r'<a href="\2">\1</a>', piece)
    return "".join(pieces)


def _table(lines: Sequence[str], caption: str) -> str:
    head, *rows = exports.cells(lines)
    above = f"<caption><span>{_inline(caption)}</span></caption>" if caption else ""
    if any(head):
        titles = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in head)
        above += f"<thead><tr>{titles}</tr></thead>"
    body = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in rows)
    return f'<div class="wide"><table>{above}<tbody>{body}</tbody></table></div>'


_ESTIMATE = re.compile(r"(\S+) (\[\S+, \S+\] )?(p=\S+ )?(n=\d+(?:, \d+ left out)?)")


def _cells(row: Iterable[str]) -> Iterable[str]:
    first, *rest = row
    yield f'<th scope="row">{_inline(first)}</th>'
    for cell in rest:
        found = _ESTIMATE.fullmatch(cell)
        if found:
            mean, interval, p, count = found.groups()
            tested = f"{p.replace('p=', 'p = ').strip()}, " if p else ""
            under = f"{interval or ''}<br>{tested}{count.replace('n=', 'n = ')}"
            yield f"<td class=number><b>{mean}</b><small>{under}</small></td>"
        else:
            yield f"<td>{_inline(cell)}</td>"


def _picture(picture: Picture) -> str:
    """Drawings as SVG, what holds images as PNG."""
    raster = any(axis.images for axis in picture.figure.axes)
    kind, data = (
        ("png", _png(picture.figure)) if raster else ("svg+xml", _svg(picture.figure))
    )
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    wide, high = picture.figure.get_size_inches()
    width = round(wide * 96)
    broad = ' class="broad"' if wide > 2.2 * high else ""
    return (
        f'<figure{broad}><img src="{source}" alt="{html.escape(picture.alt)}" '
        f'style="width:{width}px"><figcaption>{_inline(picture.caption)}'
        "</figcaption></figure>"
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_CSS = """
:root { --ink: #1f2328; --quiet: #5f6773; --line: #e2e5ea; --accent: #0072b2;
  color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 1rem;
  text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 0 0 0.6rem; padding-top: 1.4rem;
  border-top: 1px solid var(--line); }
section { margin-top: 2.2rem; }
p, ul { max-width: 44rem; margin: 0 0 1rem; }
a { color: var(--accent); }
code, pre { font: 0.88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { background: #f3f4f6; padding: 0.1em 0.3em; border-radius: 4px;
  overflow-wrap: anywhere; }
pre { background: #f3f4f6; padding: 0.9rem 1rem; border-radius: 6px; overflow-x: auto; }
.wide { overflow-x: auto; margin: 0 0 1.6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: 0.95rem; }
caption { text-align: left; color: var(--quiet); font-size: 0.9rem;
  padding-bottom: 0.5rem; }
caption span { display: block; position: sticky; left: 0;
  max-width: min(44rem, calc(100vw - 2rem)); }
th, td { padding: 0.45rem 1.4rem 0.45rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 1.5px solid var(--ink); font-weight: 600; }
tbody th { font-weight: 500; white-space: nowrap; }
td.number { white-space: nowrap; }
td.number b { font-weight: 600; }
td.number small { display: block; color: var(--quiet); font-size: 0.8rem;
  line-height: 1.35; }
figure { margin: 0 0 1.8rem; }
img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--quiet); font-size: 0.9rem; max-width: 44rem;
  margin-top: 0.5rem; }
@media screen and (max-width: 40rem) { main { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.5rem; } .broad { overflow-x: auto; }
  .broad img { max-width: none; width: 46rem !important; }
  .broad figcaption { position: sticky; left: 0; max-width: calc(100vw - 2rem); } }
@media print { main { max-width: none; padding: 0; } body { font-size: 10.5pt; }
  section { break-inside: auto; } figure, tr { break-inside: avoid; }
  .wide { overflow: visible; } a { color: inherit; } }
"""
