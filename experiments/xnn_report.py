"""What `experiments.xnn` shows at its end, made from the rows that it wrote."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import shown, xnn_methods, xnn_setup, xnn_study
from protojax import parts, srae
from protojax.scale import figures, overlays, pages, report

if TYPE_CHECKING:
    from experiments.xnn import Config

MEASURES = {
    "r2": "R²",
    "r2_class": "R² on the class",
    "rmse_share": "RMSE / range",
    "accuracy_before": "accuracy on the class",
    "accuracy_after": "the same, score replaced",
    "probability_moved": "probability moves by",
    "alive": "x-features alive",
    "significant": "significant for an image",
    "shared_variance": "squared correlation",
    "redundancy": "−log det",
    "stability": "found again",
    "explained_variance": "units explained",
    "hoyer": "Hoyer",
    "locality": "spread over parts",
    "largest_part": "share of the largest part",
    "on_bird": "on the bird",
    "variant": "follows a variant",
    "class": "follows the class",
}
"""Columns of the rows, and what they are called."""

FAITHFUL = (
    "r2",
    "r2_class",
    "rmse_share",
    "accuracy_before",
    "accuracy_after",
    "probability_moved",
)
APART = ("alive", "significant", "shared_variance", "redundancy", "stability")
CODES = ("explained_variance", "hoyer")
LOCAL = ("locality", "largest_part", "on_bird", "variant", "class")
CURVES = ("cosine", "top_share")
MOVED = (*CURVES, "top_kept", "overlap", "change")


def write(
    config: "Config",
    folder: pathlib.Path,
    setup: xnn_setup.Setup,
    concepts: xnn_study.Concepts,
    kinds: Sequence[Mapping[str, np.ndarray]],
) -> None:
    """Write the report of a folder of rows."""
    places = [folder / "judged" / method for method in config.methods]
    rows = by_class(places)
    values = [*FAITHFUL, *APART, *CODES, *(LOCAL if setup.known else ())]
    numbers = report.summary(rows, by=["method"], values=values)
    sections = [
        _protocol(config, rows, setup),
        _tables(rows, setup.known),
        _pictures(config, setup, concepts, kinds),
    ]
    if config.attacks:
        attacked = report.read(folder)
        sections.append(_attacked(config, attacked))
        by = ["attack_by", "radius"]
        others = shown.others(attacked, "attack_by", MOVED)
        values = [*MOVED, "label_kept"]
        numbers += report.summary([*attacked, *others], by=by, values=values)
        places.append(folder)
    pages.write(
        folder,
        title=f"Explanation networks: {config.model}, {config.layer}",
        sections=sections,
        numbers=numbers,
        provenance=report.provenance(*places),
    )


def by_class(places: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
    """Rows of all methods, of which classes are the sample, with their stability.

    What diverged says nothing of how stable the others are.
    """
    found = []
    for place in places:
        rows = report.read(place)
        kept = {one["id"]: one["features"] for one in report.arrays(place)}
        for row in rows:
            again = [
                float(np.mean(srae.matched(kept[row["id"]], kept[other["id"]])))
                for other in rows
                if other["label"] == row["label"]
                and other["seed"] != row["seed"]
                and not other["stalled"]
            ]
            stability = float(np.mean(again)) if again else None
            found.append({**row, "stability": stability, "id": row["label"]})
    return found


def _table(
    rows: Sequence[report.Row], values: Sequence[str], caption: str
) -> pages.Table:
    names = MEASURES | xnn_methods.NAMES | {"value": "method"}
    text = shown.measures(rows, values, rows_by="method", names=names)
    return pages.Table(text, caption)


def _protocol(
    config: "Config", rows: Sequence[report.Row], setup: xnn_setup.Setup
) -> pages.Section:
    facts = setup.facts
    networks = [row for row in rows if row["method"] in xnn_methods.NETWORKS]
    diverged = sum(bool(row["stalled"]) for row in rows)
    joint = "one network for all" if config.joint else "one network for each"
    accepted = sum(bool(row["accepted"]) for row in networks)
    text = [
        f"The layer `{config.layer}` of `{config.model}` gives **{facts['units']}"
        f" units** ({facts['dead_units']} of them constant). A network of"
        f" {' - '.join(map(str, (facts['units'], *config.widths, config.features)))}"
        f" units makes of them {config.features} x-features, of which a linear"
        f" read-out gives the score of a class: {len(setup.classes)} classes, {joint},"
        f" {config.seeds} seeds. Trained on {facts['train']} images, a tenth of which"
        f" decides when to stop; all numbers are of **{facts['test']} others**, "
        + (
            "of the classes that the classifier takes them for."
            if config.labels == "predicted"
            else f"of which the classifier has {facts['accuracy']:.1%} right."
        ),
        f"- Scores have a standard deviation of {facts['score_std']:.3g}, and are"
        f" scaled to {config.spread:g} in training; units to a mean square of one.\n"
        f"- {accepted} of {len(networks)} networks passed the acceptance rule within"
        f" {config.rounds} rounds; the others are their last round.\n"
        f"- **{diverged} of {len(rows)} networks diverged**: they are left out of every"
        " mean and counted.",
        "PCA, NMF and a TopK autoencoder know nothing of the classes; of their"
        f" {min(config.codes, facts['units'])} codes each class gets the"
        f" {config.features} that a Lasso leaves, with a read-out by least squares."
        " Lasso itself does so with the units.",
        "Tables show means with 95 % bootstrap intervals over classes (seeds are"
        " averaged first), and how many classes.",
    ]
    return pages.Section("What was done", text)


def _tables(rows: Sequence[report.Row], known: bool) -> pages.Section:
    blocks: list[Any] = [
        _table(
            rows,
            FAITHFUL,
            "Faithfulness on unseen images: the share of the score's variance that is"
            " explained, on all images and on those of the class; the error over the"
            " range of scores; the classifier's accuracy on the class, before and after"
            " its score is replaced; the mean absolute change of its probability.",
        ),
        _table(
            rows,
            APART,
            "Few and apart: x-features that vary at all; those that make up nine tenths"
            " of what speaks for the class, for an image of it; the mean squared"
            " correlation of two x-features, and minus the log-determinant of all"
            " correlations (zero is orthogonal, both); the correlation with the best"
            " match in another training.",
        ),
        _table(
            rows,
            CODES,
            "As codes: the share of the units' variance that is reconstructed, and how"
            " unevenly an image's x-features are (1: a single one).",
        ),
    ]
    if known:
        names = len(parts.PARTS) + 1
        blocks.append(
            _table(
                rows,
                LOCAL,
                "Against the known parts: the entropy of where an x-feature looks over"
                f" {parts.PARTS[0]}, ..., background, over that of {names} equal shares"
                " (low is local); the share of the part that gets most, and of all"
                " parts; the correlation of an x-feature with the one variant of a part"
                " that it follows best, and with the class itself.",
            )
        )
    blocks += shown.paired_measures(
        rows,
        [*FAITHFUL, *APART],
        methods="method",
        names=MEASURES | xnn_methods.NAMES,
    )
    return pages.Section("What the x-features are worth", blocks)


def _pictures(
    config: "Config",
    setup: xnn_setup.Setup,
    found: xnn_study.Concepts,
    kinds: Sequence[Mapping[str, np.ndarray]],
) -> pages.Section:
    method = xnn_methods.NAMES[config.methods[0]]
    blocks: list[Any] = [
        f"Of one network of each class ({method}), the first that did not diverge."
        " Colored is where an x-feature looks, by excitation backpropagation; bars in"
        " orange speak for the class, in blue against it."
    ]
    for place in range(len(setup.classes)):
        blocks.append(_concepts(setup, found, place))
    blocks.append(_breakdown(config, setup, found))
    if kinds:
        blocks.append(_kinds(kinds))
    return pages.Section("What the x-features look at", blocks)


def _name(setup: xnn_setup.Setup, c: int) -> str:
    if setup.known:
        return f"class {c}: {parts.describe(parts.CLASSES[c])}"
    return f"class {c}"


def _ranked(
    setup: xnn_setup.Setup, found: xnn_study.Concepts, place: int
) -> np.ndarray:
    own = setup.test["label"] == setup.classes[place]
    return np.argsort(-np.mean(found.parts[place, own], axis=0))


def _concepts(
    setup: xnn_setup.Setup, found: xnn_study.Concepts, place: int
) -> pages.Picture | str:
    c = setup.classes[place]
    own = setup.test["label"] == c
    pictures, notes = [], []
    for f in _ranked(setup, found, place):
        images = xnn_study.panel(setup, found, place, f)[:6]
        if len(images) < 6:
            continue  # dead, or nearly
        mean = float(np.mean(found.parts[place, own, f]))
        texts = []
        for index in found.top[place, f][:6]:
            adds, label = found.parts[place, index, f], setup.test["label"][index]
            texts.append(f"{adds:+.2f}, class {label}")
        texts[0] = f"x-feature {f + 1}:\nmean {mean:+.2f}\n{texts[0]}"
        pictures.append(images)
        notes.append(texts)
    if not pictures:
        return f"No x-feature of {_name(setup, c)} is active on six images."
    titles = ["largest", *(f"no. {n}" for n in range(2, 7))]
    figure = figures.panels(pictures, titles=titles, notes=notes, side=1.35)
    return pages.Picture(
        figure,
        f"{_name(setup, c)}. One line for each x-feature, by its mean contribution on"
        " images of the class: the images on which it is largest, what it contributes"
        " there, and what class they are of.",
        "Images with heat maps, a line for each x-feature.",
    )


def _breakdown(
    config: "Config", setup: xnn_setup.Setup, found: xnn_study.Concepts
) -> pages.Picture:
    names = [f"x-feature {f + 1}" for f in range(config.features)]
    pictures, values, notes = [], [], []
    for place in range(len(setup.classes)):
        index = found.typical[place]
        image, adds = setup.test["image"][index], found.parts[place, index]
        reach = float(np.max(np.abs(adds))) or 1.0
        maps = [
            overlays.overlay(image, np.nan_to_num(a), strength=abs(share) / reach)
            for a, share in zip(found.typical_maps[place], adds, strict=True)
        ]
        pictures.append([image, *maps])
        values.append(adds)
        shares = [f"{share + 0.0:+.2f}" for share in adds]
        notes.append([f"class {setup.classes[place]}", *shares])
    figure = overlays.breakdown(
        pictures, values, titles=["image", *names], names=names, notes=notes
    )
    return pages.Picture(
        figure,
        "What each x-feature adds to the score of the image's class (the image of the"
        " class with the largest sum); with the bias they sum to what the explanation"
        " network takes the score for. The darker a map, the less its x-feature"
        " counts.",
        "Images, bars of contributions, and heat maps.",
    )


def _kinds(found: Sequence[Mapping[str, np.ndarray]]) -> pages.Picture:
    titles = list(found[0])
    pictures = []
    for each in found:
        maps = [overlays.overlay(each["image"], each[name]) for name in titles[1:]]
        pictures.append([each["image"], *maps])
    return pages.Picture(
        figures.panels(pictures, titles=titles),
        "The strongest x-feature of each class on the image where it is largest, looked"
        " at in other ways. Excitation backpropagation is read at a layer, the others"
        " at the image; I-GOS colors what must be blurred for the x-feature to vanish.",
        "Images and four kinds of heat maps.",
    )


def _attacked(config: "Config", rows: Sequence[report.Row]) -> pages.Section:
    names: Mapping[Any, str] = {
        "top": f"{config.steps} steps (pgd)",
        "singular_vector": "singular vector",
        "eigenvector": "Hessian eigenvector",
        "random_best": f"best of {config.steps} random",
        shown.OTHER: "another image of the class",
        "attack_by": "attack",
        "radius": "L∞",
        "cosine": "cosine of contributions",
        "top_share": "share of the former top x-feature",
        "top_kept": "the top x-feature is the same",
        "overlap": "significant x-features in common",
        "change": "absolute change / absolute sum",
        "label_kept": "label kept",
    }
    long = [*rows, *shown.others(rows, "attack_by", MOVED)]
    images = len({row["id"] for row in rows})
    stalled = sum(bool(row["stalled"]) for row in rows)
    curves = figures.curves(
        long, x="radius", lines="attack_by", values=CURVES, names=names
    )
    blocks: list[Any] = [
        f"Contributions are explanations, and can be attacked like any: {images} images"
        " that are classified correctly, changed within an L∞ ball so that the label"
        " stays and the share of the largest contribution falls. A chance level is"
        " another test image of the class. The Hessian eigenvector moves the gradient"
        " of the score most, which need not be the contributions.",
        f"{stalled} of {len(rows)} rows are **stalled** (nothing to follow, say because"
        " a single x-feature has all, or its network diverged): they are left out and"
        " counted.",
        pages.Picture(
            curves,
            "How much of the contributions stays, against the size of the perturbation."
            " Bands: 95 % intervals.",
            "Curves of cosine and top share against radius.",
        ),
    ]
    for value in ("cosine", "top_share", "top_kept", "overlap", "label_kept"):
        chosen = rows if value == "label_kept" else long
        text = report.table(
            chosen, rows_by="attack_by", columns_by="radius", value=value, names=names
        )
        blocks.append(pages.Table(text, f"{names[value].capitalize()}."))
    held = {"methods": "attack_by", "columns_by": "radius", "names": names}
    blocks += shown.paired(long, "top_share", **held)
    return pages.Section("Contributions under attack", blocks)
