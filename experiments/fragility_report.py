"""What `experiments.fragility` shows at its end, made from the rows that it wrote."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments import hessian_report
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from experiments.fragility import Config

METRICS = ("overlap", "rank", "center")


def write(config: "Config", folder: pathlib.Path, *, k: int, pixels: int) -> None:
    """Write the report of a folder of rows."""
    rows = report.read(folder)
    uniform = report.estimate(rows, "center_of_uniform").mean
    chance = {"overlap": k / pixels, "rank": 0.0, "center": uniform or 0.0}
    names = {
        "overlap": f"top-{k} overlap",
        "rank": "rank correlation",
        "center": "center shift (pixels)",
        "top_k": f"top-{k}",
        "mass_center": "mass center",
        "mass_center_truncated": "mass center (truncated)",
        "random": "random signs",
        "random_best": "best of random signs, by top-k",
        "random_center": "best of random signs, by center",
        "radius": "L∞",
        "attribution": "explanation",
        "deep_lift": "DeepLIFT",
        "deep_lift_winner_take_all": "DeepLIFT (the authors' pooling)",
        "smooth_gradient": "SmoothGrad",
        "smooth_gradient_one_draw": "SmoothGrad (attacked on one draw)",
    }
    by = ["attribution", "attack", "radius"]
    numbers = report.summary(
        rows, by=by, values=[*METRICS, *_counted(rows)], chance=chance
    )
    sections = [_protocol(config, rows, chance, k)]
    for attribution in config.attributions:
        chosen = [row for row in rows if row["attribution"] == attribution]
        sections.append(_explained(attribution, chosen, chance, names))
    kept = report.arrays(folder)
    if kept:
        sections.append(_seen(config, kept, rows, names))
    if "on_parts_before" in rows[0]:
        sections.append(_against_truth(config, rows, names))
    if config.hessian:
        section, curved = hessian_report.glance(folder / "hessian", pixels)
        sections.append(section)
        numbers += curved
    pages.write(
        folder,
        title=f"Fragility of explanations: {config.model}",
        sections=sections,
        numbers=numbers,
        provenance=report.provenance(folder),
    )


def _counted(rows: Sequence[report.Row]) -> list[str]:
    always = ["found", "stalled", "twin_agrees", "linf"]
    known = ["label_kept", "confidence_before", "confidence_after"]
    truth = ["parts_area", "on_parts_before", "on_parts_after"]
    return [name for name in [*always, *known, *truth] if name in rows[0]]


def _share(rows: Sequence[report.Row], column: str) -> str:
    values = [float(row[column]) for row in rows if row[column] is not None]
    return f"{sum(values) / max(len(values), 1):.0%}"


def _protocol(
    config: "Config", rows: Sequence[report.Row], chance: Mapping[str, float], k: int
) -> pages.Section:
    images = len({row["id"] for row in rows})
    attacked = [row for row in rows if not row["attack"].startswith("random")]
    text = [
        f"Each explanation of the logit of the predicted class, for **{images} images**"
        f" that `{config.model}` classifies correctly, is attacked within an L∞ ball."
        " The maps are summed absolute values over channels, divided by their sum. An"
        f" attack takes {config.steps} signed steps of {config.step_size:g}/255 and"
        " returns its most damaging iterate **among those that keep the label**, as"
        " measured on the network itself; where no iterate does, the image is returned"
        " as it was and counted as unmoved.",
        f"- The searching attacks found a better image that keeps the label in"
        f" {_share(attacked, 'found')} of their rows (`found`).\n"
        f"- {sum(bool(row['stalled']) for row in rows)} of {len(rows)} rows are"
        " **stalled** (no gradient to follow): they say nothing about robustness and"
        " are left out of every mean.\n"
        f"- {_twin(config, rows)}\n"
        f"- **Chance:** an unrelated map shares {chance['overlap']:.3f} of the top {k}"
        " pixels and has rank correlation 0; a uniform map's center is"
        f" {chance['center']:.1f} pixels away.",
        "Tables show means, 95 % bootstrap intervals over images, and n.",
    ]
    return pages.Section("What was done", text)


def _twin(config: "Config", rows: Sequence[report.Row]) -> str:
    if not rows[0]["beta"]:
        return "The network is smooth and is attacked through its own derivatives."
    chosen = "chosen from the activations" if config.beta is None else "as given"
    return (
        "Attacks follow a softplus twin of the network, whose sharpness is"
        f" {rows[0]['beta']:.3g}, {chosen}; it sees the same class as the network in"
        f" {_share(rows, 'twin_agrees')} of the rows. (DeepLIFT and LRP need no twin.)"
    )


def _explained(
    attribution: str,
    rows: Sequence[report.Row],
    chance: Mapping[str, float],
    names: Mapping[Any, str],
) -> pages.Section:
    curves = figures.curves(
        rows, x="radius", lines="attack", values=METRICS, chance=chance, names=names
    )
    blocks: list[Any] = [
        pages.Picture(
            curves,
            "Three measures of how far the explanation moved, against the size of the"
            " perturbation. Lower overlap, lower correlation and larger shift mean a"
            " more fragile explanation. Bands: 95 % intervals.",
            f"Curves of three metrics against radius for {attribution}.",
        )
    ]
    for value in METRICS:
        text = report.table(
            rows,
            rows_by="attack",
            columns_by="radius",
            value=value,
            chance=chance[value],
            names=names,
        )
        caption = f"{report.label(value, names)} with the explanation before."
        blocks.append(pages.Table(text, caption[0].upper() + caption[1:]))
    title = report.label(attribution, names)
    return pages.Section(title[0].upper() + title[1:], blocks)


def _seen(
    config: "Config",
    kept: Sequence[dict],
    rows: Sequence[report.Row],
    names: Mapping[Any, str],
) -> pages.Section:
    radius = max(row["radius"] for row in rows)
    found = {(r["id"], r["attribution"], r["attack"], r["radius"]): r for r in rows}
    blocks: list[Any] = []
    for attribution in config.attributions:
        pictures, notes = [], []
        for one in kept:
            if (one["attribution"], one["attack"]) != (attribution, config.attacks[0]):
                continue
            if one["radius"] != radius:
                continue
            row = found[one["id"], attribution, one["attack"], radius]
            pictures.append([one[p] for p in ("image", "before", "perturbed", "after")])
            notes.append(
                [
                    f"class {row['label']}, {row['confidence_before']:.0%}",
                    "",
                    f"class {row['label']}, {row['confidence_after']:.0%}",
                    f"overlap {row['overlap']:.2f}, rank {row['rank']:.2f}\n"
                    f"shift {row['center']:.1f} px",
                ]
            )
        if pictures:
            figure = figures.panels(
                pictures,
                titles=["image", "explanation", "perturbed", "its explanation"],
                notes=notes,
            )
            caption = (
                f"{report.label(attribution, names)}, {config.attacks[0]} attack,"
                f" {report.label(radius, {})}."
            )
            alt = "Images and explanation maps before and after the attack."
            blocks.append(pages.Picture(figure, caption, alt))
    return pages.Section("What it looks like", blocks)


def _against_truth(
    config: "Config", rows: Sequence[report.Row], names: Mapping[Any, str]
) -> pages.Section:
    radius = max(row["radius"] for row in rows)
    chosen = [row for row in rows if row["radius"] == radius]
    area = report.estimate(chosen, "parts_area").mean or 0.0
    clean = [
        {**row, "attack": "before", "share": row["on_parts_before"]}
        for row in chosen
        if row["attack"] == config.attacks[0]
    ]
    moved = [{**row, "share": row["on_parts_after"]} for row in chosen]
    text = report.table(
        [*clean, *moved],
        rows_by="attribution",
        columns_by="attack",
        value="share",
        chance=area,
        names={**names, "share": "share on deciding parts"},
    )
    return pages.Section(
        "Against the truth",
        [
            "The birds are drawn, so it is known which parts tell a bird's class from"
            " the one that the network holds for the next likely. This is the share of"
            " each explanation that lies on those parts.",
            pages.Table(
                text,
                f"Before, and after each attack at {report.label(radius, {})}; chance"
                " is the share of the image that those parts take up.",
            ),
        ],
    )
