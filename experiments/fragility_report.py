"""What `experiments.fragility` shows at its end, made from the rows that it wrote."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments import hessian_report, shown
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from experiments.fragility import Config

METRICS = ("overlap", "rank", "center")

Rows = shown.Rows
Names = shown.Names


def write(config: "Config", folder: pathlib.Path, *, k: int, pixels: int) -> None:
    """Write the report of a folder of rows."""
    rows = report.read(folder)
    names = {
        "overlap": f"top-{k} overlap",
        "rank": "rank correlation",
        "center": "center shift (pixels)",
        "top_k": f"top-{k} attack",
        "mass_center": "mass-center attack",
        "mass_center_truncated": "mass-center attack (truncated)",
        "random": "random signs",
        "random_best": "best of random signs, by top-k",
        "random_center": "best of random signs, by center",
        "radius": "L∞",
        "attribution": "explanation",
        "deep_lift": "DeepLIFT",
        "deep_lift_winner_take_all": "DeepLIFT (the authors' pooling)",
        "integrated_gradients_of_probability": "integrated gradients (attacked on those"
        " of the probability)",
        "smooth_gradient": "SmoothGrad",
        "smooth_gradient_one_draw": "SmoothGrad (attacked on one draw)",
    }
    sections, numbers = [_protocol(config, rows, k, pixels)], []
    for attribution in config.attributions:
        chosen = [row for row in rows if row["attribution"] == attribution]
        chance = _chance(chosen, k, pixels)
        sections.append(_explained(attribution, chosen, chance, names))
        numbers += report.summary(
            chosen,
            by=["attribution", "attack", "radius"],
            values=[*METRICS, *_counted(rows)],
            chance=chance,
        )
    kept = report.arrays(folder)
    if kept:
        sections.append(_seen(config, kept, rows, names))
    if "targeted" in config.attacks:
        sections.append(_aimed(config, rows, names))
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


def _chance(rows: Rows, k: int, pixels: int) -> dict[str, float]:
    """What an unrelated map would give, and a uniform one, which differs by map."""
    uniform = report.estimate(rows, "center_of_uniform").mean
    center = {} if uniform is None else {"center": uniform}
    return {"overlap": k / pixels, "rank": 0.0, **center}


def _counted(rows: Rows) -> list[str]:
    always = ["found", "stalled", "twin_agrees", "linf"]
    known = ["label_kept", "confidence_before", "confidence_after"]
    aim = ["quarter_before", "quarter_after"]
    truth = ["parts_area", "on_parts_before", "on_parts_after"]
    return [name for name in [*always, *known, *aim, *truth] if name in rows[0]]


def _protocol(config: "Config", rows: Rows, k: int, pixels: int) -> pages.Section:
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
        f" {shown.share(attacked, 'found')} of their rows that are not stalled"
        " (`found`).\n"
        f"- {shown.stalled(rows)}\n"
        f"- {_twin(config, rows)}\n"
        f"- **Chance:** an unrelated map shares {k / pixels:.3f} of the top {k} pixels"
        " and has rank correlation 0; how far away the center of a uniform map is,"
        " each explanation's table says.",
        "Tables show means, 95 % bootstrap intervals over images, and n.",
    ]
    return pages.Section("What was done", text)


def _twin(config: "Config", rows: Rows) -> str:
    if not rows[0]["beta"]:
        return shown.without_relu(rows)
    chosen = "chosen from the activations" if config.beta is None else "as given"
    agree = report.estimate([{**row, "stalled": False} for row in rows], "twin_agrees")
    return (
        "Attacks follow a softplus twin of the network, whose sharpness is"
        f" {rows[0]['beta']:.3g}, {chosen}; it sees the same class as the network in"
        f" {report.number(agree.mean, '.0%')} of the rows. (DeepLIFT and LRP need no"
        " twin, unless they are attacked by `eigenvector`.)"
    )


def _explained(
    attribution: str, rows: Rows, chance: Mapping[str, float], names: Names
) -> pages.Section:
    curves = figures.curves(
        rows, x="radius", lines="attack", values=METRICS, chance=chance, names=names
    )
    picture = pages.Picture(
        curves,
        "Three measures of how far the explanation moved, against the size of the"
        " perturbation. Lower overlap, lower correlation and larger shift mean a more"
        " fragile explanation. Bands: 95 % intervals.",
        f"Curves of three metrics against radius for {attribution}.",
    )
    tables = shown.tables(
        *(rows, METRICS),
        rows_by="attack",
        columns_by="radius",
        of="of the explanations before and after the attack.",
        chance=chance,
        names=names,
    )
    title = report.label(attribution, names)
    held = {"methods": "attack", "columns_by": "radius", "names": names}
    blocks = [picture, *tables, *shown.paired(rows, "overlap", **held)]
    return pages.Section(title[0].upper() + title[1:], blocks)


def _seen(
    config: "Config", kept: Sequence[dict], rows: Rows, names: Names
) -> pages.Section:
    radius = max(row["radius"] for row in rows)
    attack = config.attacks[0]
    found = {(r["id"], r["attribution"], r["attack"], r["radius"]): r for r in rows}
    blocks: list[Any] = []
    for attribution in config.attributions:
        chosen = [
            one
            for one in kept
            if (one["attribution"], one["attack"], one["radius"])
            == (attribution, attack, radius)
        ]
        if not chosen:
            continue
        figure = figures.panels(
            [
                [one[name] for name in ("image", "before", "perturbed", "after")]
                for one in chosen
            ],
            titles=["image", "explanation", "perturbed", "its explanation"],
            notes=[
                _notes(found[one["id"], attribution, attack, radius]) for one in chosen
            ],
        )
        caption = (
            f"{report.label(attribution, names)}, {attack} attack,"
            f" {report.label(radius, {})}."
        )
        alt = "Images and explanation maps before and after the attack."
        blocks.append(pages.Picture(figure, caption, alt))
    return pages.Section("What it looks like", blocks)


def _notes(row: report.Row) -> list[str]:
    """What stands beneath the four pictures of a row."""
    sure, still_sure = (
        report.number(row[f"confidence_{when}"], ".0%") for when in ("before", "after")
    )
    overlap, rank = (report.number(row[name], ".2f") for name in ("overlap", "rank"))
    shift = report.number(row["center"], ".1f")
    return [
        f"class {row['label']}, {sure}",
        "stalled" if row["stalled"] else "",
        f"class {row['label']}, {still_sure}",
        f"overlap {overlap}, rank {rank}\nshift {shift} px",
    ]


def _aimed(config: "Config", rows: Rows, names: Names) -> pages.Section:
    return pages.Section(
        "Aim of the targeted attack",
        [
            "The targeted attack draws an explanation into the quarter of the image"
            " that held least of it. This is what each map holds there.",
            _held(
                config,
                rows,
                "quarter",
                {**names, "share": "share in the quarter"},
                chance=0.25,
                of="chance is a quarter",
            ),
        ],
    )


def _against_truth(config: "Config", rows: Rows, names: Names) -> pages.Section:
    return pages.Section(
        "Against the truth",
        [
            "The birds are drawn, so it is known which parts tell a bird's class from"
            " the one that the network holds for the next likely. This is the share of"
            " each explanation that lies on those parts.",
            _held(
                config,
                rows,
                "on_parts",
                {**names, "share": "share on deciding parts"},
                chance=report.estimate(rows, "parts_area").mean,
                of="chance is the share of the image that those parts take up",
            ),
        ],
    )


def _held(
    config: "Config",
    rows: Rows,
    region: str,
    names: Names,
    *,
    chance: float | None,
    of: str,
) -> pages.Table:
    """What explanations hold of a region before, and after each attack."""
    radius = max(row["radius"] for row in rows)
    chosen = [row for row in rows if row["radius"] == radius]
    clean = [
        {**row, "attack": "before", "share": row[f"{region}_before"]}
        for row in chosen
        if row["attack"] == config.attacks[0]
    ]
    text = report.table(
        [*clean, *({**row, "share": row[f"{region}_after"]} for row in chosen)],
        rows_by="attribution",
        columns_by="attack",
        value="share",
        chance=chance,
        names=names,
    )
    at = report.label(radius, {})
    return pages.Table(text, f"Before, and after each attack at {at}; {of}.")
