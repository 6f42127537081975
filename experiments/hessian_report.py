"""What `experiments.hessian` shows at its end, made from the rows that it wrote."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import explained, hessian_effects, hessian_tables, shown
from protojax.scale import figures, pages, report

if TYPE_CHECKING:
    from experiments.hessian import Config

Rows = hessian_tables.Rows
Part = hessian_tables.Part

NAMES = {
    "angle": "angle (degrees)",
    "cosine": "cosine of the angle",
    "magnitude": "largest \\|eigenvalue\\|",
    "random_curvature": "\\|H u\\|, u random",
    "gradient_norm": "gradient norm",
    "residual": "residual of the leading pair, relative",
    "confidence": "confidence",
    "c": "c =",
    "logit_0": "leading eigenvalue, twin's logit",
    "frobenius": "Frobenius norm, twin's logit",
    "rank": "sum of squares / largest square",
    "cross_entropy_0": "leading eigenvalue, cross-entropy",
    "closed_form_differs": "difference of Lanczos from it, relative",
    "largest": "largest eigenvalue of the parameter Hessian",
    "smallest": "smallest",
    "trace": "its trace",
    "negative": "share of negative eigenvalues",
    "size": "magnitude / largest",
    "place": "place",
}
ANGLES = {
    "angle": "gradient and eigenvector",
    "angle_random": "null: random direction",
    "angle_other": "null: another image's gradient",
    "angle_range": "null: H times a random direction",
    "shuffled": "null: weights shuffled",
    "angle_cross_entropy": "contrast: cross-entropy",
}


def write(
    config: "Config",
    folder: pathlib.Path,
    studies: Sequence[str],
    *,
    shape: tuple[int, ...],
) -> None:
    """Write the report of a folder with its sweeps."""
    rows = {name: report.read(folder / name) for name in studies}
    kept = {
        name: report.arrays(folder / name)
        for name in ("spectra", "parameters", "equal_budget")
    }
    size = math.prod(shape)
    parts = [
        _angles(rows, size),
        _spectra(rows, kept, size),
        hessian_effects.turned(config, rows["turned"]),
        *hessian_effects.attacked(
            config, rows["equal_budget"], kept["equal_budget"], shape
        ),
        hessian_effects.widths(rows["widths"], size),
        hessian_effects.grown(rows["grown"]),
    ]
    pages.write(
        folder,
        title=f"The curvature behind fragile explanations: {config.model}",
        sections=[_protocol(config, rows, size), *(section for section, _ in parts)],
        numbers=[number for _, numbers in parts for number in numbers],
        provenance=report.provenance(*(folder / name for name in studies)),
    )


def _protocol(config: "Config", rows: Mapping[str, Rows], size: int) -> pages.Section:
    every = [row for each in rows.values() for row in each]
    stalled = sum(bool(row.get("stalled")) for row in every)
    beta = rows[""][0]["beta"]
    linear = rows["spectra"][0]["piecewise_linear"]
    why = shown.without_relu(rows[""])
    if beta:
        why = "Its logit " + (
            "is piecewise linear in the pixels, and its Hessian zero almost everywhere."
            if linear
            else "bends where its ReLUs do not, by its normalization, but least there."
        )
        why += (
            " So Hessians of logits are those of a twin with the same weights, not"
            f" trained further, and softplus of sharpness {beta:.3g} in the place of"
            " each ReLU."
        )
    text = [
        f"`{config.model}` explains the logit of the class that it predicts, of images"
        f" of {size} numbers that it classifies correctly: {len(rows[''])} images for"
        f" the angles, {len(rows['spectra'])} for the rest. {why} Hessians are never"
        " formed: their leading vectors come from Lanczos with full"
        " reorthogonalization, and every pair has its residual.",
        f"{stalled} of {len(every)} rows are **stalled** (an operator that is zero, or"
        " a climb without a gradient); they are left out of every mean. Tables show"
        " means, 95 % bootstrap intervals over images (or draws), and n.",
    ]
    return pages.Section("What was done", text)


def _angles(rows: Mapping[str, Rows], size: int) -> Part:
    long = _by_null(rows)
    seen = [row for row in long if not row["stalled"]]
    figure = figures.histograms(
        seen,
        value="angle",
        lines="of",
        bins=np.linspace(0, 90, 61).tolist(),
        names=NAMES,
    )
    figure.axes[0].set_yscale("log")
    numbers = report.summary(long, by=["of"], values=["angle", "cosine"])
    lines = ["| | angle | 5 %, median, 95 % | cosine |", "|---" * 4 + "|"]
    for of in dict.fromkeys(row["of"] for row in long):
        angle, cosine = (n for n in numbers if n["of"] == of)
        angles = (row["angle"] for row in seen if row["of"] == of)
        found = [one for one in angles if one is not None]
        quantiles = np.quantile(found, [0.05, 0.5, 0.95]).tolist() if found else []
        angle["quantiles"] = quantiles
        spread = ", ".join(f"{q:.1f}" for q in quantiles) or "none"
        means = [hessian_tables.cell(angle, ".2f"), spread]
        lines.append(
            f"| {of} | {' | '.join(means)} | {hessian_tables.cell(cosine, '.4f')} |"
        )
    sharp, sharpness = _by_sharpness(rows)
    values = ["magnitude", "random_curvature", "gradient_norm", "residual"]
    usual = report.summary(rows[""], by=["beta"], values=[*values, "confidence"])
    blocks = [
        "The angle between the gradient of the logit and the leading eigenvector of its"
        " input Hessian. **Near 90 degrees is where two directions are that have"
        f" nothing to do with each other:** the cosine of two random ones in {size}"
        f" dimensions is {math.sqrt(2 / (math.pi * size)):.4f} on average. So the angle"
        " is shown beside what else it could have been. With the same eigenvector: a"
        " random direction; the gradient at another image, which looks like a gradient"
        " and knows nothing of this one. With the same gradient: what the Hessian makes"
        " of a random direction, a mixture of all that it turns. With the same"
        " architecture: the network with the entries of its kernels shuffled, and a"
        " twin of the sharpness that suits it.",
        "A contrast is the cross-entropy of the network itself. Its curvature is that"
        " of the softmax: of two classes it turns the gradient along itself, and so it"
        " does where two of many matter. Whether the leading eigenvector is orthogonal"
        " to the gradient depends on which scalar is looked at.",
        pages.Picture(
            figure,
            "Shares of images; the scale is logarithmic, so that the narrow nulls and"
            " the wide rest can be read together.",
            "Histogram of angles beside their null distributions.",
        ),
        pages.Table("\n".join(lines), "Angles up to sign, from 0 to 90 degrees."),
        *shown.paired_measures(long, ["angle", "cosine"], methods="of", names=NAMES),
        pages.Table(hessian_tables.quantities(usual, NAMES), "Of the same images."),
        pages.Table(
            hessian_tables.across(sharpness, "c", ["angle", "cosine", *values], NAMES),
            "Twins of other sharpness, c over the size of what typically enters a ReLU,"
            f" on {sharp} images. Eigenvalues at different sharpness do not compare.",
        ),
    ]
    section = pages.Section("The angle, beside its null distributions", blocks)
    return section, [*numbers, *usual, *sharpness]


def _by_null(rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Angles in rows of their own, in the order of `ANGLES`."""
    long = []
    for name, of in ANGLES.items():
        mixed = name == "shuffled"
        for row in rows["shuffled" if mixed else ""]:
            angle = row["angle" if mixed else name]
            found = {"of": of, "angle": angle, "cosine": _cosine(angle)}
            long.append({"id": row["id"], "stalled": row["stalled"], **found})
    return long


def _cosine(degrees: float | None) -> float | None:
    return None if degrees is None else math.cos(math.radians(degrees))


def _by_sharpness(rows: Mapping[str, Rows]) -> tuple[int, list[dict[str, Any]]]:
    """How many images, and their numbers at each sharpness, the usual among them."""
    usual = rows[""][0]["beta"] or 1.0
    some = {row["id"] for row in rows["sharpness"]}
    long = [
        {
            **row,
            "c": round(explained.SHARPNESS * row["beta"] / usual, 6),
            "cosine": _cosine(row["angle"]),
        }
        for row in [*rows["sharpness"], *rows[""]]
        if row["id"] in some
    ]
    once = {(row["id"], row["c"]): row for row in long}
    values = ["angle", "cosine", "magnitude", "random_curvature", "gradient_norm"]
    numbers = report.summary([*once.values()], by=["c"], values=[*values, "residual"])
    return len(some), numbers


def _spectra(
    rows: Mapping[str, Rows], kept: Mapping[str, Sequence[dict]], size: int
) -> Part:
    seen, loss = rows["spectra"], rows["parameters"]
    closed = seen[0]["closed_form"]
    values = ["logit_0", "residual", "frobenius", "rank", "cross_entropy_0"]
    values += ["closed_form_differs"] * closed + ["confidence"]
    numbers = report.summary(seen, by=["beta"], values=values)
    of_loss = report.summary(
        loss, by=["parameters"], values=["largest", "smallest", "trace", "negative"]
    )
    long = [
        {
            "id": row["id"],
            "stalled": row["stalled"],
            "place": place,
            "of": of,
            "size": _relative(row[name], row[f"{kind}_0"]),
        }
        for kind, of in (("logit", "twin's logit"), ("cross_entropy", "cross-entropy"))
        for place, name in enumerate(_numbered(seen[0], f"{kind}_"), 1)
        for row in seen
    ]
    table = report.table(
        long, rows_by="place", columns_by="of", value="size", names=NAMES
    )
    cross = "by Lanczos"
    if closed:
        cross = (
            "the network is piecewise linear, so that this is the softmax's curvature"
            " seen through its Jacobian, has one eigenvalue less than there are"
            " classes, none of them negative, and is known in closed form"
        )
    blocks = [
        "Three Hessians. Of the twin's logit, in the pixels: by Lanczos quadrature from"
        " random directions. Of the cross-entropy of the network itself, in the pixels:"
        f" {cross}. And of the mean cross-entropy, in the parameters.",
        pages.Picture(
            _all_sizes(rows, kept, size),
            "How many eigenvalues there are of each size, as a share of all. Those"
            " within 0.00001 of zero are in the middle.",
            "Histograms of eigenvalues of three Hessians, on logarithmic axes.",
        ),
        pages.Table(table, "Leading eigenvalues, from the largest magnitude down."),
        pages.Table(
            hessian_tables.quantities(numbers, NAMES), "Input Hessians, over images."
        ),
        pages.Table(
            hessian_tables.quantities(of_loss, NAMES),
            f"The Hessian in {loss[0]['parameters']} parameters, over the random"
            " directions from which the quadrature starts: each finds its ends.",
        ),
    ]
    relative = report.summary(long, by=["of", "place"], values=["size"])
    return pages.Section("The spectra", blocks), [*numbers, *of_loss, *relative]


def _relative(value: float | None, to: float | None) -> float | None:
    return None if value is None else abs(value / (to or 1.0))


def _all_sizes(
    rows: Mapping[str, Rows], kept: Mapping[str, Sequence[dict]], size: int
) -> Any:
    """Eigenvalues of each operator relative to its largest, as many as there are."""
    found = []
    leading = {row["id"]: row for row in rows["spectra"]}
    for arrays in kept["spectra"]:
        row = leading[arrays["id"]]
        shares = arrays["shares"] / len(arrays["shares"])
        top = row["logit_0"] or 1.0
        found += _weighed("input, twin's logit", arrays["nodes"] / abs(top), shares)
        if row["closed_form"]:  # then these are all that there are
            values = [row[name] or 0.0 for name in _numbered(row, "cross_entropy_")]
            rest = 1 - len(values) / size
            sizes = np.array([*values, 0.0]) / (values[0] or 1.0)
            shares = [1 / size] * len(values) + [rest]
            found += _weighed("input, cross-entropy", sizes, shares)
    top = max(abs(row["largest"] or 0.0) for row in rows["parameters"]) or 1.0
    for arrays in kept["parameters"]:
        found += _weighed("parameters", arrays["nodes"] / top, arrays["shares"])
    found.sort(key=lambda row: row["operator"] == "parameters")
    powers = np.logspace(-5, 0, 16)
    figure = figures.histograms(
        found,
        value="eigenvalue",
        lines="operator",
        bins=[*(-powers[::-1]), *powers],
        weight="share",
        names={"eigenvalue": "eigenvalue, relative to the largest magnitude"},
    )
    (axis,) = figure.axes
    axis.set_xscale("symlog", linthresh=1e-5)
    axis.set_yscale("log")
    axis.set_xticks([-1, -1e-2, -1e-4, 0, 1e-4, 1e-2, 1])
    return figure


def _numbered(row: report.Row, start: str) -> list[str]:
    """Columns `start0`, `start1`, ..., in order."""
    return [f"{start}{i}" for i in range(len(row)) if f"{start}{i}" in row]


def _weighed(operator: str, nodes: Any, shares: Any) -> list[dict[str, Any]]:
    pairs = zip(np.ravel(nodes).tolist(), np.ravel(shares).tolist(), strict=True)
    return [
        {"operator": operator, "eigenvalue": node, "share": share}
        for node, share in pairs
        if math.isfinite(node)
    ]


def glance(folder: pathlib.Path, pixels: int) -> Part:
    """The section of `experiments.fragility` on its own few rows, and its numbers."""
    rows = report.read(folder)
    names = {
        "eigenvalue": "largest \\|eigenvalue\\|",
        "random_curvature": "\\|Hv\\| for a random direction v",
        "gradient_norm": "gradient norm",
        "angle": "angle between gradient and eigenvector (degrees)",
        "residual": "residual of the eigenpair, relative",
    }
    numbers = report.summary(rows, by=["beta"], values=[*names])
    null = 90 - math.degrees(math.sqrt(2 / (math.pi * 3 * pixels)))
    section = pages.Section(
        "The curvature behind it",
        [
            "The gradient turns fastest along the leading eigenvector of the input"
            " Hessian of the score (of the softplus twin, since the network itself is"
            " piecewise linear and has none). Where that direction is far from the"
            " gradient, the explanation can turn while the score stays. Two random"
            f" directions of this many dimensions meet at {null:.1f} degrees, so an"
            " angle near 90 alone is weak evidence; `experiments.hessian` holds it"
            " against more than that.",
            pages.Table(
                hessian_tables.quantities(numbers, names),
                "Means over images, 95 % intervals.",
            ),
        ],
    )
    return section, numbers
