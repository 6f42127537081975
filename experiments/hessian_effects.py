"""What curvature does, in the report of `hessian`: predictions, attacks, dimensions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments import explained, hessian_tables, shown
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from experiments.hessian import Config

Rows = hessian_tables.Rows
Part = hessian_tables.Part
Names = hessian_tables.Names

METRICS = ("overlap", "rank")
NULL = "random_best"
"""The attack that the others are compared with, image by image."""


def turned(config: "Config", rows: Rows) -> Part:
    """What first order predicts, and what moves."""
    fields = {"hessian": "gradient", "jacobian": "normalized map"}
    curves, ratios = [], []
    for row in rows:
        base = {"id": row["id"], "stalled": row["stalled"]}
        field = fields[row["operator"]]
        for place, length in enumerate(config.lengths):
            at = {**base, "length": length}
            for way in ("leading", "random"):
                predicted = row[f"{way}_predicted_{place}"]
                curves.append({**at, "what": f"{way}: predicted", field: predicted})
                for net in ("twin", "network"):
                    moved = row[f"{way}_{net}_{place}"]
                    curves.append({**at, "what": f"{way}: {net}", field: moved})
                    if predicted and moved is not None:
                        what = f"{field}, {way}: {net}"
                        ratios.append({**at, "what": what, "ratio": moved / predicted})
    names = {"length": "length, gray levels", "ratio": "moved / predicted"}
    of_table = {**names, "length": "length"}
    figure = figures.curves(
        curves,
        x="length",
        lines="what",
        values=[*fields.values()],
        names=names,
        logarithmic="xy",
    )
    tables = [
        pages.Table(
            report.table(
                ratios,
                rows_by="what",
                columns_by="length",
                value="ratio",
                names=of_table,
            ),
            "What moves, divided by what was predicted for the step.",
        )
    ]
    tables += [
        pages.Table(
            report.table(
                [row for row in curves if field in row],
                rows_by="what",
                columns_by="length",
                value=field,
                names=of_table,
            ),
            f"Change of the {field}, relative to its length.",
        )
        for field in fields.values()
    ]
    blocks = [
        "Steps of some lengths along the leading vector and along a random direction."
        " To first order the gradient moves by the length of a step times the leading"
        " eigenvalue, and its normalized map by the length times the leading singular"
        " value of the Jacobian. Beside these predictions, for the twin, is what really"
        " moves: of the twin, and of the network. Changes are relative to the length of"
        " the gradient or map; the length of a step is the root mean square change of a"
        " pixel.",
        pages.Picture(
            figure,
            "Relative change against the length of the step, both on logarithmic axes."
            " Where a line leaves its prediction, first order ends.",
            "Predicted and measured changes of gradient and map against the step.",
        ),
        *tables,
    ]
    numbers = report.summary(ratios, by=["what", "length"], values=["ratio"])
    for field in fields.values():
        chosen = [row for row in curves if field in row]
        numbers += report.summary(chosen, by=["what", "length"], values=[field])
    return pages.Section("Predicted and measured", blocks), numbers


def attacked(
    config: "Config", rows: Rows, kept: Sequence[dict], shape: tuple[int, ...]
) -> list[Part]:
    """Attacks of equal budget, with a section for each explanation."""
    pixels = shape[0] * shape[1]
    k = explained.k_of(config.k, kept[0]["image"])
    chance = {"overlap": k / pixels, "rank": 0.0}
    names = {
        "overlap": f"top-{k} overlap",
        "rank": "rank correlation",
        "gain": f"overlap, less that of the best of {config.budget} random",
        "found": "images moved with the label kept",
        "confidence_after": "confidence after",
        "radius": "L∞",
        "hessian": "eigenvector (H)",
        "jacobian": "singular vector (J)",
        "jacobian_across": "J, across the margin",
        "gradient": "gradient signs",
        "random": "random signs",
        NULL: f"best of {config.budget} random",
        "top_k": f"top-{k}, {config.budget} steps",
        "deep_lift": "DeepLIFT",
    }
    text = [
        f"L∞ attacks of equal budget: {config.budget} products with the Hessian of the"
        " twin's logit, or as many, and two more, with the Jacobian of the twin's map"
        " and its transpose;"
        f" {config.budget} steps of the top-{k} attack; {config.budget} random draws."
        " Along leading vectors, signs are carried on to a fixed point of the box, both"
        " ways. Every attack but the single random draw returns that image from whose"
        " top pixels most saliency has left, among those that keep the label, or the"
        " image as it was, and is judged on the network itself. The signs of the"
        " logit's gradient are those of the attack on the prediction, for comparison.",
        f"**Chance:** an unrelated map shares {chance['overlap']:.3f} of the top {k}"
        " pixels and has rank correlation 0.",
    ]
    parts: list[Part] = [(pages.Section("Attacks of equal budget", text), [])]
    for attribution in config.attributions:
        chosen = _paired([row for row in rows if row["attribution"] == attribution])
        pictures = [one for one in kept if one["attribution"] == attribution]
        parts.append(_of_map(attribution, chosen, pictures, chance, names))
    return parts


def _of_map(
    attribution: str,
    rows: Rows,
    kept: Sequence[dict],
    chance: Mapping[str, float],
    names: Names,
) -> Part:
    figure = figures.curves(
        rows, x="radius", lines="attack", values=METRICS, chance=chance, names=names
    )
    values = [*METRICS, "gain", "found", "confidence_after"]
    if not any(row["gain"] is not None for row in rows):
        values.remove("gain")
    tables = [
        pages.Table(
            report.table(
                rows,
                rows_by="attack",
                columns_by="radius",
                value=value,
                chance=chance.get(value),
                names=names,
            ),
            f"{names[value][0].upper()}{names[value][1:]}.",
        )
        for value in values
    ]
    held = {"methods": "attack", "columns_by": "radius", "names": names}
    tables += shown.paired(rows, "overlap", **held, against=NULL)
    picture = pages.Picture(
        figure,
        "What stays of the explanation; lower is a stronger attack. Bands: 95 %"
        " intervals.",
        f"Overlap and rank correlation against radius for {attribution}.",
    )
    title = "Of the gradient map"
    if attribution != "gradient":
        title = f"Of the map of {report.label(attribution, names)}"
    numbers = report.summary(
        rows,
        by=["attribution", "attack", "radius"],
        values=[*values, "center", "moved", "label_kept", "linf"],
        chance=chance,
    )
    return pages.Section(title, [picture, *tables, _seen(kept, names)]), numbers


def _paired(rows: Rows) -> list[dict[str, Any]]:
    """Rows with their overlap beyond that of the null on the same image."""
    null = {
        (row["id"], row["radius"]): row["overlap"]
        for row in rows
        if row["attack"] == NULL
    }
    found = []
    for row in rows:
        other = null.get((row["id"], row["radius"]))
        known = other is not None and row["overlap"] is not None
        found.append({**row, "gain": row["overlap"] - other if known else None})
    return found


def _seen(kept: Sequence[dict], names: Names) -> pages.Picture:
    radius = max(one["radius"] for one in kept)
    chosen = [one for one in kept if one["radius"] == radius]
    titles = ["before", *(report.label(one["attack"], names) for one in chosen)]
    images = [chosen[0]["image"], *(one["perturbed"] for one in chosen)]
    maps = [chosen[0]["before"], *(one["after"] for one in chosen)]
    return pages.Picture(
        figures.panels([images, maps], titles=titles),
        f"One image and its explanation, before and after each attack of"
        f" {report.label(radius, {})}.",
        "Images and maps before and after each attack.",
    )


def widths(rows: Rows, size: int) -> Part:
    """Untrained networks as a null of the angle."""
    names = {
        "angle": "angle (degrees)",
        "angle_orthogonal": "angle, if units were orthogonal",
        "cosine": "cosine",
        "angle_random": "angle to a random direction",
        "units": "units",
    }
    values = [name for name in names if name != "units"]
    numbers = report.summary(rows, by=["units"], values=values)
    blocks = [
        f"Untrained networks of two layers on {size} inputs, with random weights: one"
        " more null. Where the weights of the units are orthogonal, which random ones"
        " nearly are while there are fewer units than inputs, they are the"
        " eigenvectors, and the gradient is a mixture of them all. The angle then"
        " follows from the share of the leading one in it. **It nears 90 degrees with"
        " the number of units alone, trained or not.**",
        pages.Table(
            hessian_tables.across(numbers, "units", values, names), "Means over draws."
        ),
    ]
    return pages.Section("Networks that nobody trained", blocks), numbers


def grown(rows: Rows) -> Part:
    """What the dimension does to a gradient, and to its normalized map."""
    lines = {
        ("neuron", "gradient"): ("gradient", "neuron"),
        ("neuron", "predicted"): ("gradient", "neuron, predicted"),
        ("two_layers", "gradient"): ("gradient", "eigenvector"),
        ("two_layers", "random"): ("gradient", "random signs"),
        ("neuron", "map"): ("map", "neuron"),
        ("two_layers", "map"): ("map", "eigenvector"),
        ("two_layers", "map_jacobian"): ("map", "singular vector"),
        ("two_layers", "map_random"): ("map", "random signs"),
    }
    long = [
        {
            "id": row["id"],
            "dimension": row["dimension"],
            "stalled": net == "two_layers" and row["stalled"],
            "what": what,
            value: row[name],
        }
        for (net, name), (value, what) in lines.items()
        for row in rows
        if row["net"] == net
    ]
    names = {
        "gradient": "gradient, relative change",
        "map": "normalized map, share moved",
        "what": "1/255",
    }
    figure = figures.curves(
        long,
        x="dimension",
        lines="what",
        values=["gradient", "map"],
        names=names,
        logarithmic="x",
    )
    numbers, tables = [], []
    for value in ("gradient", "map"):
        chosen = [row for row in long if value in row]
        numbers += report.summary(chosen, by=["what", "dimension"], values=[value])
        table = report.table(
            chosen, rows_by="what", columns_by="dimension", value=value, names=names
        )
        tables.append(pages.Table(table, f"{names[value].capitalize()}."))
    terms = {
        "gradient": "relative change, measured",
        "predicted": "predicted, both terms",
        "first_term": "first term",
        "second_term": "second term",
    }
    of_loss = report.summary(
        [row for row in rows if row["net"] == "loss"],
        by=["dimension"],
        values=[*terms],
    )
    blocks = [
        "Every pixel changes by one gray level, in networks whose units have weights of"
        " the same length in every dimension. A single **neuron** of a sigmoid, along"
        " the signs of its weights: the gradient changes by ε‖w‖₁ γ″/γ′, which grows"
        " with the square root of the dimension. This is the paper's argument. But all"
        " its entries change by the same factor, and the *normalized* map, at which the"
        " paper's metrics look, does not move at all, in any dimension. Two layers, the"
        " other lines, are the least network in which it can: here along leading"
        " vectors and along random signs.",
        pages.Picture(
            figure,
            "Changes against the dimension of the input.",
            "Relative change of the gradient and share of the map that moved.",
        ),
        *tables,
        "The same for influence functions, which see of a test image the gradient of"
        " its loss in the weights. For a neuron and the loss |1 − γ(wᵀx)| its entries"
        " change by (wᵀδ) γ″/γ′ + δᵢ / xᵢ. All share the first term, which grows; the"
        " second does not.",
        pages.Table(
            hessian_tables.across(of_loss, "dimension", [*terms], terms),
            "Root mean squares over the entries, means over draws.",
        ),
    ]
    return pages.Section("What the dimension does", blocks), [*numbers, *of_loss]
