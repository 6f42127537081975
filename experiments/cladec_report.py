"""What `experiments.cladec` shows at its end, made from the rows that it wrote."""

import functools
import operator
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cladec_judged, cladec_setup, cladec_training, shown
from protojax import cladec
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from experiments.cladec import Config, Members

NAMES = {
    "rec": "squared error",
    "rec_sum": "summed over pixels",
    "rec_ratio": "times that of the reference",
    "ssim": "SSIM",
    "ce": "cross-entropy",
    "accuracy": "accuracy",
    "same_label": "same label as the image",
    "evaluated": "accuracy of new classifiers",
    "reference": "reference (RefAE)",
    "random": "random encoder",
    "linear": "linear decoder",
    "principal": "PCA",
    "pgd": "projected gradient",
    "eigenvector": "Hessian eigenvector",
    "random_best": "best of random signs",
    "moved": "what is decoded moves by",
    "relative": "it moves, relative to another image",
    "image_moved": "the image moves by",
    "decoded_label_kept": "label of what is decoded kept",
    "label_kept": "label kept",
    "kept_by_layer": "kept by the layer",
    "integrated_gradients": "integrated gradients",
    "grad_cam": "Grad-CAM",
    "radius": "L∞",
    "map_by": "map",
    "value": "decoder",
}

MEASURES = ("rec", "rec_ratio", "ssim", "ce", "accuracy", "same_label", "evaluated")
MOVED = ("relative", "moved")
SHOWN = 6
"""Images of the comparison."""

_JUDGED = (
    "The classifier's word on an image that was decoded to please it is worth little;"
    " **accuracy of new classifiers** is that of ones which are trained on decoded"
    " images from scratch, and tested on decoded images."
)


def write(
    config: "Config",
    folder: pathlib.Path,
    setup: cladec_setup.Setup,
    found: "Members",
) -> None:
    """Write the report of a folder of rows."""
    judged = folder / "judged"
    places = [
        judged / cladec_training.name(layer, kind)
        for layer in found
        for kind in found[layer]
    ]
    rows = named([row for place in places for row in report.read(place)])
    sections = [_protocol(config, rows, setup)]
    sections += [
        _layer(config, setup, found, [row for row in rows if row["layer"] == layer])
        for layer in config.layers
    ]
    numbers = report.summary(rows, by=["layer", "decoder"], values=MEASURES)
    if config.maps:
        maps = labeled(report.read(folder))
        sections.append(_mapped(maps))
        numbers += report.summary(maps, by=["map_by"], values=["deletion", "insertion"])
        places.append(folder)
    if config.attacks:
        moved = report.read(folder / "attacked")
        sections.append(_attacked(config, moved, report.arrays(folder / "attacked")))
        by = ["layer", "attack", "alpha", "radius"]
        numbers += report.summary(moved, by=by, values=[*MOVED, "label_kept"])
        places.append(folder / "attacked")
    pages.write(
        folder,
        title=f"What layers know: {config.model}",
        sections=sections,
        numbers=numbers,
        provenance=report.provenance(*places),
    )


def named(rows: Sequence[report.Row]) -> list[dict[str, Any]]:
    """Rows with the name of their decoder, of which seeds are the sample.

    Squared errors are also divided by that of the reference of the same seed: a ratio
    is the same for means and sums. Over one that diverged there is none.
    """
    place = operator.itemgetter("layer", "seed")
    errors = {
        place(row): row["rec"]
        for row in rows
        if row["kind"] == "reference" and not row["stalled"]
    }
    return [
        {
            **row,
            "id": row["seed"],
            "rec_ratio": _ratio(row["rec"], errors.get(place(row))),
            "decoder": f"ClaDec, alpha {row['alpha']:.3g}"
            if row["kind"] == "cladec"
            else NAMES[row["kind"]],
        }
        for row in rows
    ]


def _ratio(error: float | None, reference: float | None) -> float | None:
    return error / reference if error is not None and reference else None


def labeled(rows: Sequence[report.Row]) -> list[dict[str, Any]]:
    """Rows of maps, those of a layer with its name."""
    return [
        {**row, "map_by": f"{NAMES.get(row['map_by'], row['map_by'])}, {row['layer']}"}
        if row["map_by"] in cladec_judged.DECODED
        else row
        for row in rows
    ]


def _protocol(
    config: "Config", rows: Sequence[report.Row], setup: cladec_setup.Setup
) -> pages.Section:
    facts = cladec_setup.facts(setup)
    diverged = sum(bool(row["stalled"]) for row in rows)
    shapes = ", ".join(
        f"`{name}` {list(shape)}" for name, shape in facts["shapes"].items()
    )
    decoder = {"authors": "authors' decoder", "small": "reproduction's small decoder"}
    right = f"has {facts['accuracy']:.1%} of {facts['test']} unseen images right"
    if config.labels == "predicted":
        right = f"gives the {facts['test']} unseen images their labels"
    text = [
        f"A classifier ({config.model}; it {right}) is frozen. From each of its layers"
        f" ({shapes}) the {decoder[config.decoder]} is trained to make the image again,"
        f" on {facts['train']} images, {config.epochs} epochs, {config.seeds} seeds:"
        " (1 - alpha) times the mean squared error of the pixels, plus alpha times the"
        f" classifier's cross-entropy on what is decoded, with the {config.labels}"
        " label.",
        "- **Reference**: the same decoder on an encoder of the same kind, trained with"
        " it, on reconstruction alone. What it restores and ClaDec does not, the"
        " classifier has discarded.\n"
        "- **Random encoder**: the classifier's kernels with their entries in another"
        " order, frozen: what the shape of the layer lets through.\n"
        f"- **Linear decoder** (ridge {cladec_training.RIDGE:g}) and **PCA** (of as"
        " many numbers as the code has, where there are at most"
        f" {cladec_training.LINEAR_AT_MOST}): closed forms.",
        *([_JUDGED] if config.evaluate else []),
        f"**{diverged} of {len(rows)} decoders diverged**: they are left out of every"
        " mean and counted. Intervals (95 % bootstrap) are over seeds.",
    ]
    return pages.Section("What was done", text)


def _layer(
    config: "Config",
    setup: cladec_setup.Setup,
    found: "Members",
    rows: Sequence[report.Row],
) -> pages.Section:
    layer = rows[0]["layer"]
    measures = [m for m in MEASURES if m != "evaluated" or config.evaluate]
    text = shown.measures(rows, measures, rows_by="decoder", names=NAMES)
    blocks: list[Any] = [
        pages.Table(
            text,
            "On unseen images: the squared error (a mean over pixels) and what it is of"
            " the reference's, seed by seed, the structural similarity, what the"
            " classifier makes of what is decoded, and what new classifiers do. Alpha"
            " is that of the mean; " + _sums(config, setup.train["image"][0].size),
        )
    ]
    blocks += shown.paired_measures(
        rows,
        [m for m in measures if m != "rec_ratio"],
        methods="decoder",
        names=NAMES,
        against=NAMES["reference"],
    )
    if len(config.alphas) > 2:
        blocks.append(_trade(rows))
    blocks.append(_compared(config, setup, found[layer], layer))
    return pages.Section(f"Layer {layer}", blocks)


def _sums(config: "Config", pixels: int) -> str:
    pairs = [
        f"{alpha:.3g} is {float(cladec.same_weight(alpha, pixels=pixels)):.3g}"
        for alpha in config.alphas
    ]
    return f"where squared errors are summed, {', '.join(pairs)}."


def _trade(rows: Sequence[report.Row]) -> pages.Picture:
    chosen = [
        {**row, "curve": "ClaDec", "place": max(row["alpha"], 1e-6)}
        for row in rows
        if row["kind"] == "cladec"
    ]
    figure = figures.curves(
        chosen,
        x="place",
        lines="curve",
        values=["rec", "ce"],
        names=NAMES | {"place": "alpha (0 is drawn at 1e-6)"},
        logarithmic="xy",
    )
    return pages.Picture(
        figure,
        "Reconstruction against classification: the squared error and the classifier's"
        " cross-entropy of what is decoded, over alpha. Bands: 95 % intervals.",
        "Two curves over alpha.",
    )


def _compared(
    config: "Config",
    setup: cladec_setup.Setup,
    kinds: dict[str, dict[str, Any]],
    layer: str,
) -> pages.Picture:
    images = jnp.asarray(setup.test["image"][:SHOWN])
    columns, titles = [np.asarray(images)], ["image"]
    for kind, members in kinds.items():
        one = functools.partial(
            cladec_training.explain, config, setup, layer, kind, setup.weights
        )
        each = jax.jit(jax.vmap(one, (None, 0)))
        for place in np.flatnonzero(members["seed"] == 0):
            params = cladec_training.pick(members["params"], place)
            columns.append(np.clip(np.asarray(each(params, images)), 0, 1))
            alpha = members["alpha"][place]
            titles.append(f"alpha {alpha:.2g}" if kind == "cladec" else NAMES[kind])
    pictures = [[_colored(column[i]) for column in columns] for i in range(len(images))]
    return pages.Picture(
        figures.panels(pictures, titles=titles, side=1.45),
        f"Unseen images, and what is made of the layer `{layer}`: by ClaDec for each"
        " alpha, and by what it is held against. All on one scale of gray.",
        "Images beside their reconstructions.",
    )


def _colored(image: np.ndarray) -> np.ndarray:
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def _mapped(rows: Sequence[report.Row]) -> pages.Section:
    names = NAMES | {"value": "map"}
    text = shown.measures(
        rows, ("deletion", "insertion"), rows_by="map_by", names=names
    )
    return pages.Section(
        "Held against saliency",
        [
            "Where a reconstruction agrees with the image, and where the classifier has"
            " kept what the reference restores (minus the excess error), read as"
            " relevance maps, beside maps of the score; all under the same blur. This"
            " comparison is ours.",
            pages.Table(
                text,
                "Area under the class probability as the most relevant pixels are"
                " blurred first (deletion, low is good) or brought back first"
                " (insertion, high is good).",
            ),
            *shown.paired_measures(
                rows, ("deletion", "insertion"), methods="map_by", names=names
            ),
        ],
    )


def _attacked(
    config: "Config", rows: Sequence[report.Row], kept: Sequence[dict[str, Any]]
) -> pages.Section:
    long = [
        {**row, "line": f"{NAMES[row['attack']]}, alpha {row['alpha']:.3g}"}
        for row in rows
    ]
    blocks: list[Any] = [
        "What is decoded is an explanation, and can be attacked like any: the image is"
        " changed within an L∞ ball so that its label stays and what is decoded moves"
        " (root mean square), relative to its distance to what is decoded of another"
        f" image. Label kept: {shown.share(rows, 'label_kept')}.",
        shown.stalled(rows, why="no gradient to follow, or the decoder diverged"),
    ]
    for layer in config.layers:
        of_layer = [row for row in long if row["layer"] == layer]
        figure = figures.curves(
            of_layer, x="radius", lines="line", values=MOVED, names=NAMES
        )
        blocks.append(
            pages.Picture(
                figure,
                f"Layer `{layer}`: how far the explanation moves, against the size of"
                " the perturbation. Bands: 95 % intervals.",
                "Curves of distance against radius.",
            )
        )
        text = report.table(
            of_layer,
            rows_by="line",
            columns_by="radius",
            value="decoded_label_kept",
            names=NAMES | {"line": "attack"},
        )
        blocks.append(
            pages.Table(
                text,
                f"Layer `{layer}`: share of images for which the classifier calls what"
                " is decoded the same as before.",
            )
        )
        held = {"methods": "line", "columns_by": "radius", "names": NAMES}
        blocks += shown.paired(of_layer, MOVED[0], **held)
    if kept:
        blocks.append(_seen(kept, rows))
    return pages.Section("Explanations under attack", blocks)


def _seen(kept: Sequence[dict[str, Any]], rows: Sequence[report.Row]) -> pages.Picture:
    largest = max(row["radius"] for row in rows)
    shown_by = [
        one
        for one in kept
        if one["radius"] == largest
        and one["attack"] == rows[0]["attack"]
        and one["alpha"] == rows[0]["alpha"]
    ]
    names = ("image", "perturbed", "before", "after")
    pictures = [
        [_colored(np.clip(one[name], 0, 1)) for name in names] for one in shown_by[:6]
    ]
    notes = [["", "", one["layer"], ""] for one in shown_by[:6]]
    return pages.Picture(
        figures.panels(
            pictures,
            titles=["image", "attacked", "decoded before", "after"],
            notes=notes,
            side=1.45,
        ),
        f"Under {NAMES[rows[0]['attack']]} at {report.label(largest, {})}.",
        "Images and what is decoded of them, before and after an attack.",
    )
