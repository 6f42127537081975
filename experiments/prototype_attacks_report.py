"""What `experiments.prototype_attacks` shows at its end, made from what it wrote."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import protopnet_pictures, repeated, shown
from protojax import prototypes
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from experiments.prototype_attacks import Config
    from experiments.repeated import Rows

KINDS = ("aims", "moved", "literal", "absent", "accuracy")
"""Folders of sweeps in that of each network."""
GREEN = (0.1, 0.75, 0.2)
NAMES = {
    "trained": "training",
    "standard": "standard",
    "adversarial": "adversarial (FGSM)",
    "search": "projected gradient ascent",
    "through_jpeg": "the same, through compression",
    "random": "best of as many random signs",
    "april": "April 2021: the most similar prototype",
    "may": "May 2021: until one of several succeeds",
    "clean": "as they are",
    "robust": "PGD, 10 steps",
    "left": "left its source (all that the authors ask)",
    "arrived": "is found in the target",
    "kept": "is found at least as well as before",
    "label_kept": "the prediction stays",
    "success": "success",
    "success_compressed": "success that outlives compression",
    "gone": "gone",
    "gone_label_kept": "gone, the prediction stays",
    "whole": "the target is the whole map",
    "on_head": "a prototype of the class is found on the head",
    "worth": "and there is something to aim at outside of its crop",
}


def write(
    config: "Config", folder: pathlib.Path, patches: Mapping[int, np.ndarray]
) -> None:
    """Write the report of a folder of networks.

    Args:
      config: the configuration.
      folder: with a folder for each network.
      patches: images of what prototypes of the first network are, by prototype.
    """
    aims, moved, literal, absent, told = (
        repeated.gathered(config, folder, kind) for kind in KINDS
    )
    parts = ["left", "arrived", "kept", "label_kept", "success", "success_compressed"]
    shares = functools.partial(report.summary, estimator=report.proportion)
    by = ["trained", "attack"]
    numbers = [
        *shares(told, by=["trained"], values=["clean", "robust"]),
        *shares(aims, by=["trained"], values=["on_head", "worth"]),
        *shares(moved, by=by, values=parts),
        *shares(
            literal, by=["protocol", *by], values=["success", "label_kept", "kept"]
        ),
        *shares(absent, by=by, values=["gone", "gone_label_kept", "label_kept"]),
        *report.summary(absent, by=by, values=["before", "after", "rank"]),
        *report.summary(moved, by=by, values=["before", "after", "target_after"]),
    ]
    first = repeated.first(config, folder)
    pages.write(
        folder,
        title=f"Does this look like that? {config.network.backbone}",
        sections=[
            _protocol(config),
            _accuracy(config, told),
            _stomach(aims, moved, parts),
            _seen(first, "moved", "The head on the stomach", patches),
            _literal(literal),
            _absent(config, absent),
            _seen(first, "absent", "Gone", patches),
        ],
        numbers=numbers,
        provenance=report.provenance(*(folder / "*-*" / kind for kind in KINDS)),
    )


def _protocol(config: "Config") -> pages.Section:
    ball = {"linf": "L∞", "l2": "L2"}[config.norm]
    starts = f"{config.restarts} random start{'s' * (config.restarts > 1)}"
    trainings = " and ".join(map(_named, config.trained))
    return pages.Section(
        "What was done",
        [
            f"Networks of prototypes on `{config.network.backbone}` were trained"
            f" ({trainings}; {repeated.told(config)}). Of the test images that all"
            f" networks of a seed classify correctly **up to {config.images}** are"
            f" attacked within an {ball} ball of {config.radius:g}/255, by"
            f" {config.steps} steps of {config.step_size:g}/255 from {starts}; the best"
            " iterate counts.",
            "- **Source**: the places that the crop which ProtoPNet shows of a"
            " prototype reaches into, on the image as it is.\n"
            "- **Target**: the places on the stomach (of images of which nothing is"
            " known, the quarter where the prototype is found least) without those of"
            " the source. Only the pixels of the target may change.\n"
            "- **Prototype**: the most similar one of the class that is found on the"
            " head. Images in which there is none, or no target, are not asked (of"
            " images of which nothing is known: the most similar one of the class).\n"
            "- **Success**: the prototype is found in the target, at least as well as"
            " it was found before, and the prediction stays.",
            "Shares come with Wilson's 95 % intervals, means with the bootstrap's;"
            " images are what was sampled, seeds are averaged. Where nothing could be"
            " tried, the image is left out and counted.",
        ],
    )


def _named(name: str) -> str:
    return NAMES.get(name, name)


def _accuracy(config: "Config", told: "Rows") -> pages.Section:
    text = shown.measures(
        told,
        ("clean", "robust"),
        rows_by="trained",
        names=NAMES | {"value": "accuracy"},
        estimator=report.proportion,
    )
    caption = (
        "Share of all test images that are told right, as they are and under an attack"
        f" on the label of {config.against[0]:g}/255 by 10 steps."
    )
    cost = shown.paired_measures(
        told, ("clean", "robust"), methods="trained", names=NAMES
    )
    return pages.Section("What the remedy costs", [pages.Table(text, caption), *cost])


def _stomach(aims: "Rows", moved: "Rows", parts: Sequence[str]) -> pages.Section:
    table = functools.partial(
        report.table, names=NAMES, estimator=report.proportion, columns_by="trained"
    )
    first = moved[0]["attack"]
    made_of = shown.measures(
        [row for row in moved if row["attack"] == first],
        parts,
        columns_by="trained",
        names=NAMES | {"value": "share"},
        estimator=report.proportion,
    )
    where = shown.measures(
        aims,
        ("on_head", "worth"),
        columns_by="trained",
        names=NAMES | {"value": "share of the images classified correctly"},
        estimator=report.proportion,
    )
    return pages.Section(
        "A head on the stomach",
        [
            pages.Table(where, "Where there is a head to be moved."),
            pages.Table(
                table(moved, rows_by="attack", value="success"),
                "Success of the attacks.",
            ),
            pages.Table(
                table(moved, rows_by="attack", value="success_compressed"),
                "The same, asked of the attacked image after compression.",
            ),
            *_paired(moved, "success"),
            pages.Table(made_of, f"What success is made of, for {_named(first)}."),
        ],
    )


def _paired(rows: "Rows", value: str) -> list[pages.Table]:
    """Attacks on each training, and trainings under each attack, image by image."""
    return [
        *shown.paired(
            *(rows, value), methods="attack", columns_by="trained", names=NAMES
        ),
        *shown.paired(
            *(rows, value), methods="trained", columns_by="attack", names=NAMES
        ),
    ]


def _literal(literal: "Rows") -> pages.Section:
    whole = report.number(report.proportion(literal, "whole").mean, ".0%")
    rows = [
        {**row, "how": f"{_named(row['protocol'])}; {_named(row['attack'])}"}
        for row in literal
    ]
    table = functools.partial(
        report.table,
        rows,
        rows_by="how",
        columns_by="trained",
        names=NAMES,
        estimator=report.proportion,
    )
    return pages.Section(
        "As the authors' code counts",
        [
            "It asks the most similar prototypes, of whatever class, to be found"
            " anywhere but where they are. What is left of the map without the source"
            f" is closed to a rectangle: the whole map in {whole} of these images, so"
            " that all pixels may change and nothing is said about the source. Success"
            " is that the largest similarity has left it.",
            pages.Table(table(value="success"), "Success as it is counted there."),
            pages.Table(
                table(value="label_kept"),
                "Where the prediction stays, which the code does not ask.",
            ),
        ],
    )


def _absent(config: "Config", absent: "Rows") -> pages.Section:
    table = functools.partial(
        report.table, absent, rows_by="attack", columns_by="trained", names=NAMES
    )
    share = functools.partial(table, estimator=report.proportion)
    names = {"after": "similarity after", "before": "similarity before"}
    means = [
        pages.Table(
            table(value=value, names=NAMES | names),
            f"Largest similarity to the prototype {value} the attack.",
        )
        for value in names
    ]
    return pages.Section(
        "A prototype disappears",
        [
            "The most similar prototype is to be found nowhere; only pixels of the crop"
            f" that is shown of it may change. It is gone if {config.shown} others are"
            " more similar: those that an explanation shows.",
            *means,
            pages.Table(share(value="gone"), "Share of images in which it is gone."),
            *_paired(absent, "gone"),
            pages.Table(
                share(value="gone_label_kept"), "The same, and the prediction stays."
            ),
        ],
    )


def _seen(
    folder: pathlib.Path, kind: str, title: str, patches: Mapping[int, np.ndarray]
) -> pages.Section:
    """Images before and after the attack, with what the prototype is and where."""
    found = {
        row["id"]: row
        for row in report.read(folder / kind)
        if row["attack"] == "search"
    }
    pictures, notes = [], []
    for kept in report.arrays(folder / kind):
        row = found.get(kept["id"])
        if row is None or kept["attack"] != "search" or row["stalled"]:
            continue
        panels, note = _before_and_after(kept, row, patches)
        pictures.append(panels)
        notes.append(note)
    if not pictures:
        return pages.Section(title, ["Nothing to see: no image had a target."])
    figure = figures.panels(
        pictures,
        titles=["prototype", "image", "found here", "perturbed", "found then"],
        notes=notes,
    )
    caption = (
        "What the prototype is; the image, with the box that is shown of it (yellow)"
        " and the pixels that may change (green); where it is found; the same after"
        " the attack. Heat maps share their scale."
    )
    alt = "Images and heat maps of prototypes before and after an attack."
    return pages.Section(title, [pages.Picture(figure, caption, alt)])


def _before_and_after(
    kept: Mapping[str, np.ndarray],
    row: Mapping[str, Any],
    patches: Mapping[int, np.ndarray],
) -> tuple[list[np.ndarray], list[str]]:
    size = kept["image"].shape[:2]
    large = [
        np.asarray(prototypes.enlarge(kept[name], size))
        for name in ("map_before", "map_after")
    ]
    ends = min(a.min() for a in large), max(a.max() for a in large)
    mask = kept["source"]  # pixels, where a prototype disappears
    if "target" in kept:
        mask = np.asarray(prototypes.cell_pixels(kept["target"], size))
    panels = [patches.get(int(row["prototype"]), np.ones_like(kept["image"]))]
    for name, a in zip(("image", "perturbed"), large, strict=True):
        box = np.asarray(prototypes.high_crop(a))
        picture = outlined(kept[name], mask)
        panels.append(protopnet_pictures.boxed(picture, box))
        panels.append(protopnet_pictures.overlaid(kept[name], a, ends=ends))
    label = "stays" if row["label_kept"] else "another"
    notes = [
        f"prototype {row['prototype']}",
        f"class {row['label']}",
        f"similarity {kept['map_before'].max():.2f}",
        f"class: {label}",
        f"similarity {kept['map_after'].max():.2f}",
    ]
    return panels, notes


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image with a green line around a mask, outside of it."""
    wide = np.pad(mask, 1)
    near = wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    out = image.copy()
    out[near & ~mask] = GREEN
    return out
