"""Which part of a natural image a class needs: masks, and what is said of them."""

import functools
import pathlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import prototype_generation_setup, shown, studies
from protojax import generation, objectives
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.scale import figures, overlays, pages, report

if TYPE_CHECKING:
    from experiments.prototype_generation import Config

Setup = prototype_generation_setup.Setup

_STEPS = 128
_PRICE = 0.1
"""Of the logit of the image's class: what it costs to keep all of the image."""
VALUES = ("area", "probability", "shown", "covered", "other_shown")
NAMES = {
    "area": "(area of the mask)",
    "probability": "the whole image",
    "shown": "the mask alone",
    "covered": "all but the mask",
    "other_shown": "another class, its mask alone",
    "value": "probability of the class, of",
}


def one(
    fn: Fn, config: "Config", weights: PyTree, example: dict[str, Array], key: Key
) -> dict[str, Array]:
    """Isolate the class of an image, and another one, from the baseline behind it."""
    del key
    model, x = functools.partial(fn, weights["network"]), example["image"]
    background = weights["baseline"]
    price = _PRICE * jnp.abs(model(x)[example["label"]])

    def isolated(y: Array) -> Array:
        score = objectives.logit(model, y)
        return generation.isolate(
            score,
            x,
            background=background,
            steps=min(_STEPS, config.steps),
            area=price,
            roughness=0.5 * price,
            cells=min(14, x.shape[0] // 2),
        ).x

    def says(m: Array, y: Array) -> Array:
        return jax.nn.softmax(model(m * x + (1 - m) * background))[y]

    mask, other = (isolated(example[name]) for name in ("label", "other"))
    return {
        "label": example["label"],
        "area": mask.mean(),
        "probability": jax.nn.softmax(model(x))[example["label"]],
        "shown": says(mask, example["label"]),
        "covered": says(1 - mask, example["label"]),
        "other_shown": says(other, example["other"]),
        "image": x,
        "mask": mask[..., 0],
        "other_mask": other[..., 0],
    }


def study(config: "Config", setup: Setup, weights: PyTree) -> studies.Study:
    """One natural image of each class; the other class is the next."""
    labels = np.asarray(setup.classes, np.int32)
    examples = {
        "id": np.int64(labels),
        "label": labels,
        "other": np.roll(labels, -1),
        "image": setup.natural[:, 0],
    }
    look = functools.partial(one, setup.network.fn, config)
    few = {name: weights[name] for name in ("network", "baseline")}
    return studies.Study(look, [{}], examples, few, keep=examples["id"].tolist())


def section(folder: pathlib.Path) -> tuple[pages.Section, list[dict[str, Any]]]:
    """Masks over images, and what is left of the class."""
    rows, kept = report.read(folder), report.arrays(folder)
    pictures = [
        [
            each["image"],
            each["image"] * each["mask"][..., None],
            overlays.overlay(each["image"], each["mask"]),
            overlays.overlay(each["image"], each["other_mask"]),
        ]
        for each in kept[:6]
    ]
    others = [*rows[1:], rows[0]]
    notes = [
        [
            f"class {row['label']}: {report.number(row['probability'], '.0%')}",
            f"class {row['label']}: {report.number(row['shown'], '.0%')}",
            "",
            f"class {other['label']}: {report.number(row['other_shown'], '.0%')}",
        ]
        for row, other in zip(rows[:6], others[:6], strict=True)
    ]
    titles = ["image", "what is kept", "its mask", "mask of the next class"]
    figure = figures.panels(pictures, titles=titles, notes=notes)
    long = [{**row, "of": "natural images"} for row in rows]
    table = shown.measures(long, VALUES, names=NAMES, columns_by="of")
    return (
        pages.Section(
            "What a class needs of an image",
            [
                "A mask is learned that keeps the logit of the image's class, or of"
                " another one, and covers the rest with the baseline. To keep the whole"
                f" image costs {_PRICE} of its class's logit, and edges half of that.",
                pages.Picture(
                    figure,
                    "Natural images, what the mask keeps of them (black stands for the"
                    " baseline, which the network sees there), the mask (red is kept),"
                    " and the mask that keeps the next class of the same image."
                    " Beneath: the probability of a class, of the image or of what the"
                    " mask keeps.",
                    "Birds or objects, and masks over them.",
                ),
                pages.Table(table, "One natural image of each class."),
            ],
        ),
        report.summary(rows, by=[], values=VALUES),
    )
