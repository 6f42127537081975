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
from protojax import generation, parts
from protojax.scale import drawing, figures, pages, report, sources

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from experiments.prototype_generation import Config

Setup = prototype_generation_setup.Setup

_METHODS = ("other class", "prototype", "distill", "maco", "adversarial")
_CONTROLS = ("mean image", "blurred mean", "gray", "noise", "baseline")
_MEASURES = ("scaled_l1", "rank")
_COLORS = (figures.COLORS[-1], *figures.COLORS[:5])


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
        titles += [_two_lines(report.label(method, names)) for _ in many]
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
    figure = figures.panels(pictures, titles=titles, notes=notes, side=1.3)
    caption = (
        "A line for each class: natural images, their mean, prototypes of all seeds,"
        " and one picture by each other method, with the probability of the class"
        " beneath each picture."
    )
    if config.compared < len(setup.classes):
        caption += f" Others than prototypes were made of {config.compared} classes."
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


def _two_lines(label: str) -> str:
    return label.replace(" (", "\n(")


def by_layer(setup: Setup, judged: shown.Rows, names: shown.Names) -> pages.Section:
    """L1 and Spearman over the layers: methods beside all controls."""
    caption = (
        "Left: pictures by method, images of other classes as they are, and changed to"
        " be seen as the class. Right: what nobody would call a prototype. Black, with"
        " the gray band in which nine of ten of them lie: natural images of the class."
        " Above, the L1 distance from their mean on a logarithmic axis, where 1 is"
        " their own distance: lower is closer. Below, Spearman's correlation with it:"
        " higher is closer. Colored shades are 95 % intervals over classes."
    )
    return pages.Section(
        "Layer by layer",
        [
            "L1 distances are divided by the mean of the natural images in the layer,"
            " each left out of the mean it is compared with.",
            pages.Picture(
                _paths(setup, judged, names),
                caption,
                "Curves of L1 distance and Spearman correlation over the layers, for"
                " methods and for controls.",
            ),
        ],
    )


def _paths(setup: Setup, judged: shown.Rows, names: shown.Names) -> Any:
    numbers = report.summary(judged, by=["kind", "number"], values=list(_MEASURES))
    numbers = [each for each in numbers if each["mean"] is not None]
    with figures.sheet((11.5, 7.0)) as figure:
        axes = figure.subplots(2, 2, sharex=True, sharey="row")
        axes[0, 0].set_yscale("log")
        for line, value in zip(axes, _MEASURES, strict=True):
            known = [each for each in numbers if each["value"] == value]
            ends = []
            for axis, kinds in zip(line, (_METHODS, _CONTROLS), strict=True):
                _natural_band(axis, setup, judged, value)
                ends.append(_drawn(axis, known, kinds, names))
            line[0].set_ylabel(report.label(value, names))
            if value == "scaled_l1":
                _few_ticks(line[0])
            for axis, found in zip(line, ends, strict=True):
                figures.name_ends(axis, found)
        axes[0, 0].set_title("methods", loc="left", fontsize=10.5)
        axes[0, 1].set_title("controls", loc="left", fontsize=10.5)
        places = range(0, len(setup.layers), -(-len(setup.layers) // 24))
        for axis in axes[1]:
            layers = [setup.layers[place] for place in places]
            axis.set_xticks(places, layers, rotation=90, fontsize=8)
    return figure


def _drawn(
    axis: "Axes", numbers: shown.Rows, kinds: Sequence[str], names: shown.Names
) -> list[tuple[float, str, str]]:
    """Lines of some kinds, and of natural images; what to write at their ends."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", lw=0.4, alpha=0.5)
    ends = []
    for kind, color in zip(("natural", *kinds), _COLORS, strict=True):
        line = [each for each in numbers if each["kind"] == kind]
        if line:
            height = figures.draw_line(axis, line, x="number", color=color)
            ends.append((height, report.label(kind, names), color))
    return ends


def _few_ticks(axis: "Axes") -> None:
    """1, 2 and 5 of every decade that is seen."""
    low, high = axis.get_ylim()
    wanted = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    seen = [tick for tick in wanted if low <= tick <= high]
    axis.set_yticks(seen, [f"{tick:g}" for tick in seen])
    axis.minorticks_off()


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
    axis.fill_between(numbers, *ends, color=drawing.FAINT, alpha=0.7, lw=0, zorder=0)


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
                " the network sees. Each matrix has colors of its own, from its lowest"
                " to its highest entry; the diagonal is left out (white).",
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
            axis.set_xlabel("class that is seen", fontsize=8)
            bar = figure.colorbar(drawn, ax=axis, shrink=0.75)
            bar.ax.tick_params(labelsize=7)
        axes[0].set_ylabel("class of the picture", fontsize=8)
    return figure


def cued(
    folder: pathlib.Path, names: Sequence[str], labels: shown.Names
) -> pages.Picture:
    """The first picture of each network and method, with what was found in it."""
    pictures, notes, titles = [], [], []
    for name in names:
        rows = {(r["id"], r["method"]): r for r in report.read(folder / name)}
        kept = report.arrays(folder / name)
        mine = [each for each in kept if each["id"] == kept[0]["id"]]
        found = [rows[each["id"], each["method"]] for each in mine]
        label, planted = found[0]["label"], found[0]["planted"]
        bird = parts.draw(
            [label],
            image_size=len(mine[0]["image"]),
            seed=sources.PARTS_SEEDS["train"],
            cue_class=label if planted else None,
        )
        titles = ["a bird as seen"]
        titles += [_two_lines(report.label(each["method"], labels)) for each in mine]
        pictures.append([bird.image[0], *(each["image"] for each in mine)])
        note = f"class {label}, {'with' if planted else 'no'} cue"
        scores = [report.number(row["score"], ".2f") for row in found]
        notes.append([note, *(f"magenta {score}" for score in scores)])
    return pages.Picture(
        figures.panels(pictures, titles=titles, notes=notes, side=1.6),
        "A line for each network: a bird of the class as the network has seen it, and"
        " a picture of this class by each method, with how much magenta there is at"
        " the most.",
        "Pictures of birds by networks that have seen a magenta disk, or not.",
    )
