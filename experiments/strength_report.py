"""What `experiments.strength` shows at its end, made from the rows that it wrote."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments import shown
from experiments.explained import SHARPNESS
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.strength import Config

METRICS = ("overlap", "rank")
FOLDERS = ("", "transfer", "noise")

Names = shown.Names
Part = tuple[pages.Section, list[dict[str, Any]]]  # and its numbers for summary.json


def write(config: "Config", folder: pathlib.Path, *, k: int, pixels: int) -> None:
    """Write the report of a folder with its three sweeps."""
    rows, transfer, noise = (report.read(folder / name) for name in FOLDERS)
    pictures = report.arrays(folder / "transfer")
    chance = {"overlap": k / pixels, "rank": 0.0}
    names = {
        "overlap": f"top-{k} overlap",
        "rank": "rank correlation",
        "deep_lift": "DeepLIFT",
        "input_x_gradient": "input × gradient",
        "smooth_gradient": "SmoothGrad",
        "attack_on": "attack on",
        "random": "random signs",
    }
    parts = [
        _climbed(config, rows, chance, names),
        _sharpened(config, rows, chance, names),
        _transferred(config, transfer, pictures, chance, names),
        _seeded(config, noise, chance, names),
    ]
    pages.write(
        folder,
        title=f"Strength of the top-k attack: {config.model}",
        sections=[
            _protocol(config, rows, chance, k),
            *(section for section, _ in parts),
        ],
        numbers=[number for _, numbers in parts for number in numbers],
        provenance=report.provenance(*(folder / name for name in FOLDERS)),
    )


def _protocol(
    config: "Config", rows: shown.Rows, chance: Mapping[str, float], k: int
) -> pages.Section:
    images = len({row["id"] for row in rows})
    text = [
        f"The top-k attack is run on **{images} images** that `{config.model}`"
        f" classifies correctly, within an L∞ ball of {config.radius:g}/255, in signed"
        f" steps of {config.step_size:g}/255. It returns its most damaging iterate that"
        " keeps the label, as measured on the network itself, or the image as it was."
        f" All is judged on the network itself: how many of the {k} most salient pixels"
        " stay (lower is a stronger attack), and Spearman's correlation of the maps.",
        f"- Path maps are climbed with {config.attack_points} points or samples and"
        f" judged with {config.points}. What is random in a map is judged with another"
        " draw than was attacked, except where the text says so.\n"
        f"- **Chance:** an unrelated map shares {chance['overlap']:.3f} of the top {k}"
        " pixels and has rank correlation 0.",
        "Tables show means, 95 % bootstrap intervals over images, and n; a climb that"
        " found no gradient to follow (stalled) is left out and counted.",
    ]
    if not rows[0]["beta"]:
        text.append(shown.without_relu(rows))
    return pages.Section("What was done", text)


def _climbed(
    config: "Config",
    rows: shown.Rows,
    chance: Mapping[str, float],
    names: Names,
) -> Part:
    usual = [row for row in rows if row["sharpness"] == SHARPNESS]
    long = []
    for row in usual:
        starts = {"best": "the image itself"}
        if row["starts"]:
            one, best = "one random start", f"best of {row['starts']} random starts"
            starts = {"first": one, "best": best}
        long += [{**_picked(row, which), "start": s} for which, s in starts.items()]
    alone = [row for row in long if row["starts"] == 0]
    explained = report.label(config.attribution, names)
    blocks = [
        f"The attack on {explained} with more steps, and from random points of the ball"
        f" in place of the image. {config.starts} starts of {config.climb} steps cost"
        f" as much as one climb of {config.starts * config.climb}.",
        *_tables(long, "start", "steps", chance, names),
        *_paired(long, "start", "steps", names, "the image itself"),
        pages.Picture(
            _curves(alone, "steps", "start", chance, names),
            "Damage against the number of steps, climbing from the image itself. Where"
            " the curve is still falling, fewer steps tell too little.",
            "Overlap and rank correlation against steps.",
        ),
    ]
    numbers = report.summary(
        long, by=["start", "steps"], values=[*METRICS, "found"], chance=chance
    )
    return pages.Section("Steps and random starts", blocks), numbers


def _sharpened(
    config: "Config",
    rows: shown.Rows,
    chance: Mapping[str, float],
    names: Names,
) -> Part:
    chosen = [
        _picked(row, "best")
        for row in rows
        if (row["starts"], row["steps"]) == (0, config.climb)
    ]
    labels = {
        **names,
        "found": "images moved",
        "twin_agrees": "twin sees the same class",
    }
    values = [*METRICS, "twin_agrees", "found"]
    long = [
        {**row, "measure": labels[value], "mean": float(row[value])}
        for value in values
        for row in chosen
        if row[value] is not None
    ]
    table = report.table(
        long,
        rows_by="measure",
        columns_by="sharpness",
        value="mean",
        names={**labels, "sharpness": "c =", "mean": "measure"},
    )
    named = {**names, config.climb: f"{config.climb} steps"}
    figure = _curves(chosen, "sharpness", "steps", chance, named)
    blocks = [
        "A ReLU network's gradient is piecewise constant, so the attack follows a"
        " softplus twin of sharpness β = c / median |input of a ReLU|. A blunt twin is"
        " another network; a sharp one has curvature only where a unit is at its kink.",
        pages.Table(table, f"{config.climb} steps from the image itself."),
        pages.Picture(
            figure,
            "Damage against the twin's sharpness c.",
            "Overlap and rank correlation against sharpness.",
        ),
    ]
    numbers = report.summary(chosen, by=["sharpness"], values=values, chance=chance)
    return pages.Section("Sharpness of the twin", blocks), numbers


def _transferred(
    config: "Config",
    rows: shown.Rows,
    kept: Sequence[dict[str, Any]],
    chance: Mapping[str, float],
    names: Names,
) -> Part:
    long = [
        {
            "id": row["id"],
            "attack_on": row["attack_on"],
            "judged": name,
            "stalled": row["stalled"],
            **{what: row[f"{what}_{name}"] for what in METRICS},
        }
        for row in rows
        for name in (*config.attributions, *config.bystanders)
    ]
    found = report.summary(rows, by=["attack_on"], values=["found"])
    moved = ", ".join(
        f"{report.label(n['attack_on'], names)} {n['mean']:.0%}"
        for n in found
        if n["mean"] is not None
    )
    blocks = [
        f"Each line attacks one explanation for {config.climb} steps; each column says"
        " how much of another one stayed. The last line is the level to compare with:"
        " random signs of the same size, which look for nothing. A column of SmoothGrad"
        " or integrated gradients is judged with more points than were climbed.",
        *_tables(long, "attack_on", "judged", chance, names),
        *_paired(long, "attack_on", "judged", names, "random"),
        f"Images that were moved with the label kept, by attack: {moved}.",
        _seen(config, kept, names),
    ]
    numbers = report.summary(
        long, by=["attack_on", "judged"], values=METRICS, chance=chance
    )
    return pages.Section("Transfer between explanations", blocks), [*numbers, *found]


def _seen(
    config: "Config", kept: Sequence[dict[str, Any]], names: Names
) -> pages.Picture:
    judged = (*config.attributions, *config.bystanders)
    titles = ["image", *(report.label(name, names) for name in judged)]
    pictures = [[kept[0]["image"], *kept[0]["before"]]]
    notes = [["before", *("" for _ in judged)]]
    for one in kept:
        pictures.append([one["perturbed"], *one["after"]])
        label = report.label(one["attack_on"], names)
        notes.append([f"after {label}", *("" for _ in judged)])
    return pages.Picture(
        figures.panels(pictures, titles=titles, notes=notes),
        "One image and its explanations: before, and after each attack.",
        "Maps of all explanations before and after each attack.",
    )


def _seeded(
    config: "Config",
    rows: shown.Rows,
    chance: Mapping[str, float],
    names: Names,
) -> Part:
    kinds = {
        "own": "the noise that picked the iterate",
        "other": "other noise, as many samples",
        "many": f"other noise, {config.points} samples",
        "floor": "no attack: two draws of noise",
    }
    drawn = {
        "smooth_gradient_one_draw": "one draw",
        "smooth_gradient": "a draw at each step",
    }
    long = [
        {
            "id": row["id"],
            "attack": f"{row['samples']} samples, {drawn[row['attack_on']]}",
            "judged": kind,
            "stalled": row["stalled"],
            **{what: row[f"{what}_{name}"] for what in METRICS},
        }
        for row in rows
        for name, kind in kinds.items()
    ]
    blocks = [
        "SmoothGrad averages over random noise. The attack climbs maps of as many"
        f" samples as each line says, for {config.climb} steps: all of one draw, or"
        " each of its own. The first column judges by the draw that picked the iterate"
        " (and that was climbed, where there is but one), which nobody else would use:"
        " it is not the attack's success. The next two compare the map before and after"
        " under noise that the attack has not seen. The last says how much two draws"
        " differ with no attack.",
        *_tables(long, "attack", "judged", chance, names),
    ]
    numbers = report.summary(
        long, by=["attack", "judged"], values=METRICS, chance=chance
    )
    return pages.Section("SmoothGrad under other noise", blocks), numbers


def _picked(row: report.Row, which: str) -> dict[str, Any]:
    """A row with the results of one of its climbs under their plain names."""
    return {**row, **{what: row[f"{which}_{what}"] for what in (*METRICS, "found")}}


def _tables(
    rows: shown.Rows,
    rows_by: str,
    columns_by: str,
    chance: Mapping[str, float],
    names: Names,
) -> list[pages.Table]:
    return shown.tables(
        *(rows, METRICS),
        rows_by=rows_by,
        columns_by=columns_by,
        of="of the map with the one before.",
        chance=chance,
        names=names,
    )


def _paired(
    rows: shown.Rows, methods: str, columns_by: str, names: Names, against: str
) -> list[pages.Table]:
    held = {"methods": methods, "columns_by": columns_by, "names": names}
    return shown.paired(rows, "overlap", **held, against=against)


def _curves(
    rows: shown.Rows,
    x: str,
    lines: str,
    chance: Mapping[str, float],
    names: Names,
) -> "Figure":
    """Curves along a logarithmic axis."""
    figure = figures.curves(
        rows, x=x, lines=lines, values=METRICS, chance=chance, names=names
    )
    ticks = report.sort(row[x] for row in rows)
    for axis in figure.axes:
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    return figure
