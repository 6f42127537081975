r"""Hold what several runs left behind side by side, on one page.

    python -m experiments.compare "runs/fragility-*" --values overlap rank \
        --methods attack --by radius --out runs/compared

Every method gets its mean with an interval; pairs of methods are compared on the same
images. With `--methods run` the runs themselves are compared, which takes runs of the
same images.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

from experiments import cli
from protojax.scale import figures, pages, report, storage

Rows = Sequence[report.Row]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared."""

    values: tuple[str, ...] = ("overlap",)
    """Columns of the rows that are averaged."""
    methods: str = "attack"
    """The column that holds what is compared; `run` is the name of the run's folder."""
    by: str = "radius"
    """The column along which it is compared."""
    where: tuple[str, ...] = ()
    """Only rows for which this holds, such as attribution=gradient."""
    out: str = "runs/compared"
    """Where the page goes."""


def main(folders: tuple[str, ...], config: Config) -> None:
    """Read, compare, and write the page."""
    rows = chosen(gathered(folders, config), config)
    sections, numbers = [], []
    for value in config.values:
        sections.append(section(rows, value, config))
        numbers += report.summary(rows, by=[config.methods, config.by], values=[value])
    page = pages.write(
        config.out,
        title=f"{report.label(config.methods, {})} by {report.label(config.by, {})}",
        sections=sections,
        numbers=numbers,
        provenance=report.provenance(*folders),
    )
    print(f"report: {page}")


def gathered(folders: Sequence[str], config: Config) -> list[dict[str, Any]]:
    """The rows of all runs, each with the name of its run."""
    images = {run: _images(run) for run in report.folders(*folders)}
    if config.methods == "run" and len({*images.values()}) > 1:
        raise SystemExit(
            "compare: the runs are of different images, and cannot be paired: "
            "compare another column, or runs of the same images"
        )
    return [
        {"run": run.name, **row, "id": f"{row['id']} of {of}"}
        for run, of in images.items()
        for row in report.read(run)
    ]


def _images(run: pathlib.Path) -> str | None:
    """What tells a run's images from others that have the same numbers."""
    found: str | None = storage.config(run).get("sweep", {}).get("examples")
    return found


def chosen(rows: Rows, config: Config) -> Rows:
    """The rows for which the conditions hold."""
    for condition in config.where:
        name, _, wanted = condition.partition("=")
        rows = [row for row in rows if str(row.get(name)) == wanted]
        if not rows:
            raise SystemExit(f"compare: no row has {condition} (`--where`)")
    return rows


def section(rows: Rows, value: str, config: Config) -> pages.Section:
    """Means, paired differences, and curves where there is something to draw."""
    axes = {"columns_by": config.by, "value": value}
    means = report.table(rows, rows_by=config.methods, **axes)
    blocks: list[Any] = [pages.Table(means, "Means, with 95 % bootstrap intervals.")]
    methods = report.sort(row.get(config.methods) for row in rows)
    if len(methods) > 1:
        pairs = report.compared(rows, methods=config.methods, **axes)
        caption = (
            "Differences on the same images, with 95 % intervals and p of Wilcoxon's"
            " signed-rank test, corrected by Holm for all tests of the table."
        )
        blocks.append(pages.Table(pairs, caption))
    places = {row.get(config.by) for row in rows}
    if len(places) > 1 and all(isinstance(place, int | float) for place in places):
        curves = figures.curves(rows, x=config.by, lines=config.methods, values=[value])
        alt = f"Curves of {value} against {config.by}."
        blocks.append(pages.Picture(curves, "Bands: 95 % intervals.", alt))
    title = report.label(value, {})
    return pages.Section(title[0].upper() + title[1:], blocks)


def command(args: Sequence[str] | None = None) -> None:
    """From the command line."""
    tyro = cli.parser()
    folders = "folders of results, or patterns in quotes"
    fields: list[Any] = [
        (
            "folders",
            Annotated[
                tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help=folders)
            ],
        ),
        ("config", Annotated[Config, tyro.conf.arg(name="")]),
    ]
    options = dataclasses.make_dataclass("Options", fields, frozen=True)
    asked: Any = tyro.cli(
        options, prog="python -m experiments.compare", description=__doc__, args=args
    )
    with cli.one_line("compare"):
        main(asked.folders, asked.config)


if __name__ == "__main__":
    command()
