"""What `experiments.influence` shows at its end, made from the rows that it wrote."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import shown
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from experiments.influence import Config

METRICS = ("rank", "overlap")


def write(
    config: "Config",
    folder: pathlib.Path,
    facts: Mapping[str, Any],
    train: np.ndarray,
) -> None:
    """Write the report of a folder of rows."""
    rows = report.read(folder)
    chance = {"rank": 0.0, "overlap": config.top / config.train}
    names = {
        "rank": "rank correlation",
        "overlap": f"top-{config.top} overlap",
        "gradient_sign": "gradient sign (paper)",
        "feature_steps": "feature steps (their code)",
        "iterated": f"{config.steps} steps (ours)",
        "random": "random signs",
        "random_best": f"best of {config.steps} random",
        shown.OTHER: "another image of the class",
        "radius": "L∞",
        "size": "length of the influences, after / before",
        "top_after": f"sum over the former top {config.k}",
        "confidence_after": "confidence",
        "label_kept": "label kept",
    }
    long = [*rows, *shown.others(rows, "attack", METRICS)]
    by = ["attack", "radius"]
    counted = ["size", "top_before", "top_after", "confidence_before"]
    counted += ["confidence_after", "label_kept", "found", "stalled", "linf"]
    numbers = report.summary(long, by=by, values=METRICS, chance=chance)
    numbers += report.summary(rows, by=by, values=counted)
    truth, checked = _left_out(config, report.read(folder / "leaving_out"), facts)
    pages.write(
        folder,
        title=f"Fragility of influence functions: {config.model}",
        sections=[
            _protocol(config, rows, facts, chance),
            _moved(long, chance, names),
            _how(rows, names),
            _seen(config, report.arrays(folder), rows, train, names),
            truth,
        ],
        numbers=[*numbers, *checked],
        provenance=report.provenance(folder, folder / "leaving_out"),
    )


def _protocol(
    config: "Config",
    rows: Sequence[report.Row],
    facts: Mapping[str, Any],
    chance: Mapping[str, float],
) -> pages.Section:
    images = len({row["id"] for row in rows})
    right, tested = facts["accuracy"]
    searching = [row for row in rows if not row["attack"].startswith("random")]
    why = "no gradient to follow, or a linear system that was not solved"
    text = [
        f"A last layer of two classes is trained on {facts['features']} features of"
        f" `{config.model}` and **{config.train} images**, to the minimum of the mean"
        f" cross-entropy with an L2 penalty of {config.l2:g}. It tells"
        f" {facts['train_accuracy']:.1%} of its training images apart, and {right} of"
        f" {tested} others. The influence of each training image on a test image comes"
        " from the whole Hessian of this layer, penalty included. **Positive: it helps;"
        " without it the loss on the test image would be higher.**",
        f"For **{images} test images** that are classified correctly, an attack within"
        f" an L∞ ball looks for an image of the same label on which the {config.k} most"
        " helpful training images have less influence; where it finds none the image is"
        " returned as it was, and counted as unmoved. Random signs are taken whatever"
        " comes of them.",
        f"- The searching attacks found a better image that keeps the label in"
        f" {shown.share(searching, 'found')} of their rows that are not stalled.\n"
        f"- {shown.stalled(rows, why=why)}\n"
        f"- The largest entry of the gradient at the minimum is {facts['slope']:.1e}."
        f" The largest eigenvalue of the Hessian is {facts['curvature']:.2g}; what is"
        f" added to its diagonal is {config.l2 + config.damping:g}.\n"
        f"- **Chance:** unrelated influences share {chance['overlap']:.3f} of their top"
        f" {config.top} and have rank correlation 0. Two test images of one class are"
        " not unrelated: training images of their class help, and the others harm."
        " So each measure is also given between an image and **another test image of"
        " its class**: an attack that goes below that has moved the influences further"
        " than to another picture altogether.",
        "Tables show means, 95 % bootstrap intervals over test images, and n.",
    ]
    return pages.Section("What was done", text)


def _moved(
    rows: Sequence[report.Row], chance: Mapping[str, float], names: Mapping[Any, str]
) -> pages.Section:
    curves = figures.curves(
        rows, x="radius", lines="attack", values=METRICS, chance=chance, names=names
    )
    picture = pages.Picture(
        curves,
        "How much of the influences stays, against the size of the perturbation:"
        " Spearman's correlation over all training images, and the most helpful ones in"
        " common. Bands: 95 % intervals.",
        "Curves of rank correlation and overlap against radius.",
    )
    tables = shown.tables(
        *(rows, METRICS),
        rows_by="attack",
        columns_by="radius",
        of="of influences, before and after.",
        chance=chance,
        names=names,
    )
    held = {"methods": "attack", "columns_by": "radius", "names": names}
    blocks = [picture, *tables, *shown.paired(rows, "rank", **held)]
    return pages.Section("How far the influences move", blocks)


def _how(rows: Sequence[report.Row], names: Mapping[Any, str]) -> pages.Section:
    blocks: list[Any] = [
        "Every influence on a test image has one minus its confidence as a factor. To"
        " raise the confidence shrinks them all alike, which lowers what the formula of"
        " the paper climbs and changes no rank. So see how long the vector of"
        " influences is afterwards, what the formerly most helpful images still have of"
        " it once it is scaled to length one, and how confident the prediction has"
        " become."
    ]
    captions = {
        "size": "Length of the vector of influences, relative to that before.",
        "top_after": "Sum of the influences of the formerly most helpful training"
        " images, the vector scaled to length one.",
        "confidence_after": "Confidence after the attack, in the label before it.",
        "label_kept": "Share of images whose label stayed.",
    }
    for value, caption in captions.items():
        text = report.table(
            rows, rows_by="attack", columns_by="radius", value=value, names=names
        )
        blocks.append(pages.Table(text, caption))
    before = report.estimate(rows, "top_before").mean
    sure = report.estimate(rows, "confidence_before").mean
    if before is not None and sure is not None:
        blocks.append(
            f"Before any attack that sum is {before:.3f}, and the confidence is"
            f" {sure:.3f}."
        )
    return pages.Section("What the attacks do", blocks)


def _seen(
    config: "Config",
    kept: Sequence[dict[str, Any]],
    rows: Sequence[report.Row],
    train: np.ndarray,
    names: Mapping[Any, str],
) -> pages.Section:
    radius = min((row["radius"] for row in rows), key=lambda r: abs(r - 8 / 255))
    found = {(row["id"], row["attack"], row["radius"]): row for row in rows}
    ordinals = ["the most helpful", "the second", "the third", "the fourth"]
    ordinals += [f"number {place}" for place in range(5, config.k + 1)]
    most = min(config.k, 5)
    blocks: list[Any] = []
    for attack in config.attacks:
        if attack.startswith("random") or attack == "feature_steps":
            continue  # the latter looks as the paper's formula does
        lines = [
            _helped(one, found[one["id"], attack, radius], when, train, most)
            for one in kept
            if (one["attack"], one["radius"]) == (attack, radius)
            for when in ("before", "after")
        ]
        if lines:
            pictures, notes = zip(*lines, strict=True)
            figure = figures.panels(
                pictures, titles=["test image", *ordinals[:most]], notes=notes
            )
            caption = (
                f"{report.label(attack, names)}, {report.label(radius, {})}: each test"
                " image with the training images that help it most, and beneath it the"
                " attacked image with those that help it most then. Influences as"
                " vectors of length one."
            )
            alt = "Test images and their most helpful training images, before and after"
            blocks.append(pages.Picture(figure, caption, f"{alt} the attack."))
    return pages.Section("What it looks like", blocks)


def _helped(
    one: dict[str, Any], row: report.Row, when: str, train: np.ndarray, most: int
) -> tuple[list[np.ndarray], list[str]]:
    """An image beside the training images that help it most, and what is beneath."""
    helpful = one[f"helpful_{when}"][:most]
    values = one[f"values_{when}"][:most]
    sure = report.number(row[f"confidence_{when}"], ".1%")
    label = f"{when}: {sure} sure"
    notes = [f"influence {report.number(value, '.2f')}" for value in values]
    if when == "after":
        rank, overlap = (report.number(row[n], ".2f") for n in ("rank", "overlap"))
        label += f"\nrank {rank}, overlap {overlap}"
        places = one["place_before"][:most]
        notes = [f"{n}, was no. {p}" for n, p in zip(notes, places, strict=True)]
    image = one["image" if when == "before" else "perturbed"]
    return [image, *train[helpful]], [label, *notes]


def _left_out(
    config: "Config", rows: Sequence[report.Row], facts: Mapping[str, Any]
) -> tuple[pages.Section, list[dict[str, Any]]]:
    titles = {
        "correlation": "correlation",
        "rank": "rank correlation",
        "slope": "slope of actual on predicted",
        "outside": "length of the test gradient outside",
        "pairs": "eigenpairs",
        "value": "measure",
    }
    every = max(row["pairs"] for row in rows)
    whole = [row for row in rows if row["pairs"] == every]
    at_training = [row for row in rows if row["damping"] == config.l2]
    values = ["correlation", "rank", "slope"]
    of_damping = shown.measures(whole, values, columns_by="damping", names=titles)
    of_pairs = shown.measures(
        at_training, [*values, "outside"], columns_by="pairs", names=titles
    )
    count = min(config.leave_out, config.train)
    section = pages.Section(
        "Against leaving out",
        [
            f"An influence predicts what the loss on a test image gains when a training"
            f" image is left out: the influence divided by {config.train}. Here"
            f" {count} training images, drawn at random, were left out in turn and the"
            " layer trained anew (largest gradient entry"
            f" {facts['slope_without']:.1e}).",
            f"The damping that the training itself has is {config.l2:g}: with it the"
            " Hessian is that of what was minimized. Less or more keeps some of the"
            " order and loses the size. A slope above one is what one expects: to leave"
            " out an image that matters changes the Hessian too.",
            pages.Table(
                of_damping,
                "Over the images left out, for each test image; means over test images,"
                " 95 % intervals.",
            ),
            "Of a network too large for its whole Hessian one has leading eigenpairs"
            " alone, and the influences that go through them. What is outside of them"
            " is where the Hessian is flat, and its inverse large.",
            pages.Table(
                of_pairs,
                f"With fewer of the {every} eigenpairs, at the damping of the"
                " training.",
            ),
        ],
    )
    numbers = report.summary(rows, by=["damping", "pairs"], values=[*values, "outside"])
    return section, numbers
