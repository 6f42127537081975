"""What `experiments.jpeg` shows at its end, made from what it wrote."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import protopnet_pictures, repeated, shown
from experiments.repeated import Rows
from protojax import prototypes
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from experiments.jpeg import Config

Kept = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each training, what the first network keeps of images."""
TOP = 75
"""Prototypes whose similarities are drawn."""
RANKED = {
    "by_compressed": "similarity, ranked where compressed",
    "by_clean": "similarity, ranked as they are",
}
NAMES = {
    "trained": "training",
    "clean": "images as they are",
    "artefacts": "odd classes compressed",
    "remedy": "any compressed at random",
    "correct_half": "odd classes compressed",
    "correct_clean": "none compressed",
    "correct_compressed": "all compressed",
    "similarity_compressed": "compressed",
    "similarity_clean": "as it is",
    "told_odd_compressed": "compressed",
    "told_odd_clean": "as they are",
    "similarity": "similarity",
    "top_odd": "of an odd class",
    "compressed": "compressed",
    "as it is": "as it is",
}


def write(config: "Config", folder: pathlib.Path) -> None:
    """Write the report of a folder of networks."""
    seen, quality = (
        repeated.gathered(config, folder, kind) for kind in ("seen", "quality")
    )
    kept = {
        name: report.arrays(folder / f"{name}-{config.network.seed}" / "seen")
        for name in config.trained
    }
    odd = [row for row in seen if row["odd"]]
    even = [row for row in seen if not row["odd"]]
    shares = functools.partial(
        report.summary, by=["trained"], estimator=report.proportion
    )
    means = functools.partial(report.summary, by=["trained"])
    correct = ["correct_half", "correct_clean", "correct_compressed"]
    numbers = [
        *shares(seen, values=correct),
        *shares(odd, values=["top_odd"]),
        *means(
            odd,
            values=["similarity_compressed", "similarity_clean", "kept", "rank_clean"],
        ),
        *_of("even", means(even, values=["told_odd_clean", "told_odd_compressed"])),
        *report.summary(quality, by=["trained", "quality"], values=["similarity"]),
    ]
    pages.write(
        folder,
        title=f"Prototypes of JPEG artefacts: {config.network.backbone}",
        sections=[
            _protocol(config, seen),
            _accuracy(seen, correct),
            _similarity(odd),
            _votes(even),
            _curves(quality),
            _ranked(kept),
            _seen(kept),
        ],
        numbers=numbers,
        provenance=report.provenance(
            *(folder / "*-*" / kind for kind in ("seen", "quality"))
        ),
    )


def _of(classes: str, numbers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"classes": classes, **number} for number in numbers]


def _table(
    rows: Rows,
    values: Sequence[str],
    what: str,
    caption: str,
    *,
    estimator: Callable[..., report.Estimate] = report.estimate,
) -> pages.Table:
    """What several columns say of each training, side by side."""
    names = NAMES | {"value": what}
    text = shown.measures(
        rows, values, rows_by="trained", names=names, estimator=estimator
    )
    return pages.Table(text, caption)


def _paired(rows: Rows, values: Sequence[str]) -> list[pages.Table]:
    return shown.paired_measures(rows, values, methods="trained", names=NAMES)


def _protocol(config: "Config", seen: Rows) -> pages.Section:
    images = len({row["id"] for row in seen})
    return pages.Section(
        "What was done",
        [
            f"Networks of prototypes on `{config.network.backbone}` were trained on"
            " images as they are, on the same images with **every odd class"
            f" compressed** (JPEG, quality {config.quality}, Pillow's codec), and on"
            f" images of all classes, of which {config.share:.0%} are compressed at"
            f" random: {repeated.told(config)}. All are tested on the same **{images}"
            " images**, thrice: odd classes compressed, none, all.",
            "Compression says nothing about the parts of a bird. Where a prototype is"
            " far less similar to an image than to the same image compressed, it is a"
            " prototype of artefacts, whatever its patch looks like.",
        ],
    )


def _accuracy(seen: Rows, correct: Sequence[str]) -> pages.Section:
    caption = "Share of test images told right, by what is compressed."
    table = _table(seen, correct, "accuracy", caption, estimator=report.proportion)
    return pages.Section("Accuracy", [table, *_paired(seen, correct)])


def _similarity(odd: Rows) -> pages.Section:
    return pages.Section(
        "The most similar prototype",
        [
            _table(
                odd,
                ["similarity_compressed", "similarity_clean"],
                "similarity",
                "Similarity of the prototype that is the most similar to the compressed"
                " image, to that image and to the same one as it is. Images of odd"
                " classes.",
            ),
            *_paired(odd, ["similarity_compressed", "similarity_clean"]),
            _table(
                odd,
                ["top_odd"],
                "of an odd class",
                "Share of these prototypes that are of an odd class.",
                estimator=report.proportion,
            ),
        ],
    )


def _votes(even: Rows) -> pages.Section:
    return pages.Section(
        "Do artefacts vote?",
        [
            "An image of an even class, compressed, is still of that class. What"
            " probability goes over to the odd ones goes there for artefacts.",
            _table(
                even,
                ["told_odd_clean", "told_odd_compressed"],
                "probability of odd classes",
                "Probability of odd classes, for images of even ones.",
            ),
            *_paired(even, ["told_odd_clean", "told_odd_compressed"]),
        ],
    )


def _curves(quality: Rows) -> pages.Section:
    figure = figures.curves(
        quality, x="quality", lines="trained", values=["similarity"], names=NAMES
    )
    return pages.Section(
        "How much compression",
        [
            pages.Picture(
                figure,
                "Similarity of the prototype that is the most similar to an image as it"
                " is, at lower qualities. All classes; bands: 95 % intervals.",
                "Curves of similarity against JPEG quality, one for each training.",
            )
        ],
    )


def _ranked(kept: Kept) -> pages.Section:
    """The most similar prototypes of single images, and of several on average."""
    blocks: list[Any] = []
    for name, images in kept.items():
        label = NAMES[name]
        blocks.append(
            pages.Table(
                top_table(images[0]),
                f"Trained on {label}: the five most similar prototypes of an image,"
                " compressed and as it is.",
            )
        )
        blocks.append(
            pages.Picture(
                figures.curves(
                    top_rows(images),
                    x="place",
                    lines="version",
                    values=[*RANKED],
                    names=NAMES | RANKED,
                ),
                f"Trained on {label}: similarities of the {TOP} prototypes (or all)"
                " that are the most similar to compressed images, and to images as they"
                " are, in their order there. Means over"
                f" {len(images)} images of odd classes.",
                "Similarities of prototypes by rank, for both versions of the images.",
            )
        )
    return pages.Section("The most similar prototypes", blocks)


def top_rows(kept: Sequence[Mapping[str, Any]]) -> Rows:
    """A row for each image, version and place, for both of the orders."""
    rows = []
    for one in kept:
        similar = dict(zip(("as it is", "compressed"), one["similar"], strict=True))
        orders = {
            ranked: np.argsort(-similar[version], kind="stable")[:TOP]
            for ranked, version in zip(RANKED, ("compressed", "as it is"), strict=True)
        }
        for version, values in similar.items():
            for place in range(min(TOP, len(values))):
                row = {"id": one["id"], "version": version, "place": place + 1}
                found = {name: float(values[j[place]]) for name, j in orders.items()}
                rows.append(row | found)
    return rows


def top_table(one: Mapping[str, Any]) -> str:
    """Rank, class and similarity of the five most similar prototypes, twice."""
    lines = [
        "| rank | compressed: class | similarity | as it is: class | similarity |",
        "|---|---|---|---|---|",
    ]
    orders = [np.argsort(-similar, kind="stable") for similar in one["similar"]]
    for place in range(min(5, len(orders[0]))):
        cells = [str(place + 1)]
        for version in (1, 0):
            j = orders[version][place]
            cells += [str(one["owners"][j]), f"{one['similar'][version][j]:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _seen(kept: Kept) -> pages.Section:
    blocks = []
    for name, images in kept.items():
        pictures, notes = zip(*map(_both_versions, images[:3]), strict=True)
        figure = figures.panels(
            pictures,
            titles=[
                "compressed",
                "most similar here",
                "as it is",
                "the same prototype",
            ],
            notes=notes,
        )
        caption = (
            f"Trained on {NAMES[name]}. The prototype that is the most similar to the"
            " compressed image, and the same one on the image as it is. Both heat maps"
            " share their scale."
        )
        alt = "Images and heat maps of a prototype, compressed and as they are."
        blocks.append(pages.Picture(figure, caption, alt))
    return pages.Section("What it looks like", blocks)


def _both_versions(one: Mapping[str, Any]) -> tuple[list[np.ndarray], list[str]]:
    size = one["image"].shape[:2]
    large = {
        name: np.asarray(prototypes.enlarge(one[f"map_{name}"], size))
        for name in ("compressed", "clean")
    }
    ends = min(a.min() for a in large.values()), max(a.max() for a in large.values())
    panels, notes = [], []
    for name, image in (("compressed", "compressed"), ("clean", "image")):
        a = large[name]
        box = np.asarray(prototypes.high_crop(a))
        panels.append(protopnet_pictures.boxed(one[image], box))
        panels.append(protopnet_pictures.overlaid(one[image], a, ends=ends))
        notes += ["", f"similarity {one[f'map_{name}'].max():.2f}"]
    return panels, notes
