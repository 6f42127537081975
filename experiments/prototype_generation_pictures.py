"""The pictures of a report on prototypes: grids, curves over layers, matrices."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from experiments import (
    prototype_generation_jobs,
    prototype_generation_setup,
    shown,
)
from protojax import generation
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from experiments.prototype_generation import Config

Setup = prototype_generation_setup.Setup

_METHODS = ("natural", "other class", "prototype", "distill", "maco", "adversarial")
_CONTROLS = ("mean image", "blurred mean", "gray", "noise", "baseline")


def grid(
    config: "Config",
    setup: Setup,
    made: Mapping[str, Any],
    jobs: shown.Rows,
    names: shown.Names,
) -> pages.Section:
    """All pictures: a line for each class, natural images first."""
    sure = {(r["method"], r["label"], r["seed"]): r["probability"] for r in jobs}
    titles = ["natural", "natural", "mean image"]
    for method in config.methods:
        many = range(config.seeds) if method == "prototype" else range(1)
        titles += [report.label(method, names) for _ in many]
    pictures, notes = [], []
    for place, label in enumerate(setup.classes):
        natural = setup.natural[place]
        row = [natural[0], natural[1], natural.mean(axis=0)]
        note = [f"class {label}", "", ""]
        for method in config.methods:
            many = range(config.seeds) if method == "prototype" else range(1)
            own = {seed: x for p, seed, x in made.get(method, ()) if p == place}
            row += [own.get(seed, np.ones_like(natural[0])) for seed in many]
            known = [sure.get((method, label, seed)) for seed in many]
            note += ["" if p is None else f"{p:.1%}" for p in known]
        pictures.append(row)
        notes.append(note)
    figure = figures.panels(pictures, titles=titles, notes=notes)
    caption = (
        "A line for each class: natural images, their mean, prototypes of all seeds,"
        " and one picture by each other method, with the probability of the class."
    )
    start = figures.panels([[made["baseline"]]], titles=["baseline"])
    return pages.Section(
        "What they look like",
        [
            pages.Picture(figure, caption, "Natural images beside generated pictures."),
            pages.Picture(
                start,
                "Where prototypes start: to the network no class more than another.",
                "One picture, noise with little structure.",
            ),
        ],
    )


def by_layer(setup: Setup, judged: shown.Rows, names: shown.Names) -> pages.Section:
    """L1 and Spearman over the layers: methods, then controls."""
    blocks: list[Any] = [
        "L1 distances are divided by the mean of the natural images in the layer, each"
        " left out of the mean it is compared with. The gray band is where nine of ten"
        " natural images of the class lie."
    ]
    for kinds, what in (
        (_METHODS, "Pictures by method, and natural images."),
        (("natural", *_CONTROLS), "Controls, and natural images."),
    ):
        rows = [row for row in judged if row["kind"] in kinds]
        rows.sort(key=lambda row: kinds.index(row["kind"]))
        figure = figures.curves(
            rows,
            x="number",
            lines="kind",
            values=["scaled_l1", "rank"],
            names={**names, "number": ""},
        )
        for axis, value in zip(figure.axes, ("scaled_l1", "rank"), strict=True):
            _natural_band(axis, setup, judged, value)
        blocks.append(
            pages.Picture(
                figure,
                f"{what} Bands of the lines: 95 % intervals over classes.",
                "Curves of L1 distance and Spearman correlation over the layers.",
            )
        )
    return pages.Section("Layer by layer", blocks)


def _natural_band(axis: "Axes", setup: Setup, judged: shown.Rows, value: str) -> None:
    numbers = range(len(setup.layers))
    ends = np.full((2, len(numbers)), np.nan)
    for number in numbers:
        seen = [
            row[value]
            for row in judged
            if row["kind"] == "natural" and row["number"] == number
        ]
        known = [v for v in seen if v is not None]
        if known:
            ends[:, number] = np.quantile(known, [0.05, 0.95])
    axis.fill_between(numbers, *ends, color="#d8dbe0", alpha=0.7, lw=0, zorder=0)
    step = -(-len(numbers) // 16)
    axis.set_xticks(numbers[::step], setup.layers[::step], rotation=90, fontsize=7)


def entangled(
    setup: Setup,
    kept: Sequence[dict[str, Any]],
    methods: Sequence[str],
    names: shown.Names,
) -> pages.Section:
    """Matrices of entanglement beside that of confusion, and how far they agree."""
    panels, lines = [], ["| pictures | probability and confusion | risen logits and"]
    lines[0] += " confusion | asymmetry of probabilities |"
    lines.append("|---|---|---|---|")
    for method in methods:
        probability, logit = prototype_generation_jobs.matrices(setup, kept, method)
        own = ~np.isnan(probability).any(axis=1)
        if own.sum() < 2:
            continue
        if method == methods[0]:
            panels = [probability, logit, setup.confusion]
        square = np.ix_(own, own)
        seen, risen, confused = (
            jnp.asarray(m[square]) for m in (probability, logit, setup.confusion)
        )
        pairs = [generation.matrix_correlation(m, confused) for m in (seen, risen)]
        found = [*pairs, generation.asymmetry(seen)]
        cells = [report.number(float(value), ".2f") for value in found]
        lines.append(f"| {report.label(method, names)} | {' | '.join(cells)} |")
    blocks: list[Any] = [
        "What else a picture of a class is taken for: the probabilities of all classes"
        " under random maps, and by how much their logits rise above the baseline's"
        " (means over seeds). Beside it, what natural images are taken for. The score"
        " is ours."
    ]
    if panels:
        titles = [
            f"{report.label(methods[0], names)}: probability",
            "risen logits",
            "confusion of natural images",
        ]
        blocks.append(
            pages.Picture(
                _matrices(setup, panels, titles),
                "Rows: the class that a picture stands for, or the label. Columns: what"
                " the network sees. Colors go from the lowest to the highest entry, the"
                " diagonal left out.",
                "Three matrices over classes.",
            )
        )
    table = pages.Table(
        "\n".join(lines),
        "Spearman's correlation of matrices, diagonals left out (none where nothing is"
        " confused), and how one-sided entanglement is, from 0 to 1.",
    )
    return pages.Section("Entanglement", [*blocks, table])


def _matrices(
    setup: Setup, matrices: Sequence[np.ndarray], titles: Sequence[str]
) -> Any:
    size = len(setup.classes)
    with figures.sheet((3.4 * len(matrices), 3.3)) as figure:
        axes = figure.subplots(1, len(matrices), squeeze=False)[0]
        for axis, matrix, title in zip(axes, matrices, titles, strict=True):
            away = np.where(np.eye(size, dtype=bool), np.nan, matrix)
            drawn = axis.imshow(away, cmap="magma")
            axis.set_title(title, fontsize=9)
            axis.set_xticks(range(size), setup.classes, fontsize=7, rotation=90)
            axis.set_yticks(range(size), setup.classes, fontsize=7)
            figure.colorbar(drawn, ax=axis, shrink=0.75)
    return figure


def cued(
    folder: pathlib.Path, names: Sequence[str], labels: shown.Names
) -> pages.Picture:
    """The first picture of each network and method, with what was found in it."""
    pictures, notes, titles = [], [], []
    for name in names:
        rows = {(r["id"], r["method"]): r for r in report.read(folder / name)}
        kept = report.arrays(folder / name)
        first = kept[0]["id"]
        mine = [each for each in kept if each["id"] == first]
        titles = [report.label(each["method"], labels) for each in mine]
        pictures.append([each["image"] for each in mine])
        found = [rows[first, each["method"]] for each in mine]
        notes.append(
            [
                f"{name.removeprefix('cue/')}, class {row['label']}:"
                f" {report.number(row['score'], '.2f')}"
                for row in found
            ]
        )
    return pages.Picture(
        figures.panels(pictures, titles=titles, notes=notes),
        "A picture by each network (the class in which it has seen the cue, or none)"
        " and method, with its class and how much magenta there is at the most.",
        "Pictures of birds by networks that have seen a magenta disk, or not.",
    )
