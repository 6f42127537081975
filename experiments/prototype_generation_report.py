"""What `experiments.prototype_generation` shows at its end."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments import (
    prototype_generation_fooling,
    prototype_generation_isolated,
    prototype_generation_paths,
    prototype_generation_pictures,
    prototype_generation_setup,
    shown,
)
from protojax.scale import pages, report

if TYPE_CHECKING:
    from experiments.prototype_generation import Config

NAMES: Mapping[Any, str] = {
    "kind": "picture",
    "value": "picture",
    "natural": "natural images of the class",
    "other class": "natural images of other classes",
    "prototype": "prototype",
    "distill": "distill (Olah et al.)",
    "maco": "MaCo (Fel et al.)",
    "mean image": "mean image of the class",
    "blurred mean": "mean image, blurred",
    "gray": "gray",
    "noise": "noise",
    "baseline": "baseline (stage one)",
    "adversarial": "adversarial images",
    "beats_l1": "closer in L1",
    "beats_rank": "closer in Spearman",
    "beats_centered": "closer in Spearman, levels taken out",
    "normal_l1": "L1, normalized",
    "normal_rank": "Spearman, normalized",
    "rank": "Spearman",
    "centered": "levels taken out",
    "shuffled": "places shuffled",
    "scaled_l1": "L1, over that of natural images",
    "probability": "probability",
    "sure": "at least 0.99",
    "moved": "probability under random maps",
    "logit": "logit",
    "margin": "margin",
    "roughness": "high-frequency loss",
}
BEATEN = ("beats_l1", "beats_rank", "beats_centered")
SCORED = ("normal_l1", "normal_rank")
PLACES = ("rank", "centered", "shuffled")
SEEN = ("probability", "sure", "moved", "logit", "margin", "roughness")


def write(
    config: "Config",
    folder: pathlib.Path,
    setup: prototype_generation_setup.Setup,
    made: Mapping[str, Any],
    cues: Sequence[Mapping[str, Any]],
) -> None:
    """Write the report of a folder of rows."""
    places = [folder / n for n in ("prototypes", "others") if (folder / n).exists()]
    jobs, kept = report.read(*places), report.arrays(*places)
    judged = prototype_generation_paths.judged(report.read(folder / "paths"), setup)
    judged.sort(key=lambda row: prototype_generation_paths.KINDS.index(row["kind"]))
    kept, judged = lasting(jobs, kept, judged)
    baseline = report.read(folder / "baseline")[0]
    by_class = [{**row, "id": row["label"]} for row in jobs]
    scored = prototype_generation_paths.scored(judged)
    numbers = report.summary(judged, by=["kind"], values=[*BEATEN, *PLACES])
    numbers += report.summary(scored, by=["kind"], values=SCORED)
    numbers += report.summary(
        judged, by=["kind", "layer"], values=["beats_l1", "beats_rank", "rank", "l1"]
    )
    numbers += report.summary(by_class, by=["method"], values=SEEN)
    sections = [
        _protocol(config, setup, jobs, baseline),
        _criterion(config, judged, scored),
        prototype_generation_pictures.grid(config, setup, made, jobs, NAMES),
        prototype_generation_pictures.by_layer(setup, judged, NAMES),
        _places(judged),
        _final(by_class),
        prototype_generation_pictures.entangled(setup, kept, config.methods, NAMES),
    ]
    isolated, found = prototype_generation_isolated.section(folder / "isolated")
    sections.append(isolated)
    numbers += found
    places.append(folder / "isolated")
    if config.fooling:
        section, found = _fooled(folder)
        sections.append(section)
        numbers += found
        places += [folder / "fooling", folder / "detectors"]
    if cues:
        names = [f"cue/{each['cue']}" for each in cues]
        section, found = _cued(folder, names, cues)
        sections.append(section)
        numbers += found
        places += [folder / name for name in names]
    pages.write(
        folder,
        title=f"Prototypes and the paths of natural images: {config.model}",
        sections=sections,
        numbers=numbers,
        provenance=report.provenance(folder / "baseline", folder / "paths", *places),
    )


def lasting(
    jobs: shown.Rows, kept: Sequence[dict[str, Any]], judged: shown.Rows
) -> tuple[list[dict[str, Any]], list[report.Row]]:
    """What is kept and said of pictures that are not stalled, and of natural images."""
    room = prototype_generation_setup.ROOM
    gone = {(row["method"], row["id"]) for row in jobs if row["stalled"]}
    return (
        [each for each in kept if (each["method"], each["id"]) not in gone],
        [r for r in judged if (r["kind"], room * r["id"] + r["source"]) not in gone],
    )


def _protocol(
    config: "Config",
    setup: prototype_generation_setup.Setup,
    jobs: shown.Rows,
    baseline: report.Row,
) -> pages.Section:
    classes, count = setup.natural.shape[:2]
    stalled = sum(bool(row["stalled"]) for row in jobs)
    uneven = report.number(baseline["uneven"], ".2g")
    text = [
        f"**{classes} classes** of `{config.model}`, {count} natural images of each"
        f" that it classifies correctly ({setup.accuracy:.0%} of those of these classes"
        f" that were looked at), {config.seeds} pictures of each class by every method."
        f" Compared are {len(setup.layers)} layers: {', '.join(setup.layers)}.",
        "- **Criterion.** A picture beats a natural image in a layer if its activations"
        " are closer to the mean of the class than those of that image are to the mean"
        " of *the others*. Closeness is L1 distance (mean over units), or Spearman's"
        " correlation with average ranks.\n"
        "- **Controls.** The mean image and its blur know the natural images; gray,"
        " noise and the baseline know nothing of the class; adversarial images are of"
        f" other classes, changed by at most {config.radius:g}/255 to be seen as this"
        " one.\n"
        f"- **Baseline**: after {config.baseline_steps} steps no class is further from"
        f" 1/K than {uneven} times that.\n"
        f"- {stalled} of {len(jobs)} pictures are **stalled** (the class had no"
        " gradient): they are left out of all tables.",
        "Intervals are 95 % bootstrap intervals over classes (n); seeds, images and"
        " layers of one are averaged first. Step counts, weights and ranges of the"
        " transforms are ours, where the paper's are not known.",
    ]
    if config.labels is not None:
        text.append(
            "The natural images are smaller than what the network was made for, and"
            f" were enlarged to {setup.network.image_size} pixels."
        )
    return pages.Section("What was done", text)


def _criterion(
    config: "Config", judged: shown.Rows, scored: shown.Rows
) -> pages.Section:
    table = shown.measures(judged, BEATEN, names=NAMES, rows_by="kind")
    scores = shown.measures(scored, SCORED, names=NAMES, rows_by="kind")
    held = {"methods": "kind", "names": NAMES, "against": "prototype"}
    text = [
        "Shares of all pairs of a layer and a natural image in which a picture is"
        " closer. Natural images among themselves have one half or so. A picture that"
        " fulfills the paper's definition has 1 in the first two columns, and means"
        " something by it only if the controls have less.",
        pages.Table(table, "The criterion of a prototype, and every control."),
        *shown.paired_measures(judged, BEATEN, **held),
        "What is left out has no rank correlation: layers without places, once their"
        " levels are taken out, and layers of which a picture moves no unit.",
        pages.Table(
            scores,
            "The same as a score: L1 (over that of natural images) and Spearman, means"
            " over layers; 0 for natural images of other classes, 1 for those of the"
            " class.",
        ),
    ]
    if config.places is not None:
        text.append(
            f"Of each layer {config.places} places at most were compared, all channels."
        )
    return pages.Section("Are they closer to the mean than natural images?", text)


def _places(judged: shown.Rows) -> pages.Section:
    table = shown.measures(judged, PLACES, names=NAMES, rows_by="kind")
    return pages.Section(
        "Levels and places",
        [
            "Channels have levels that images of all kinds have in common, and the"
            " middle of an image differs from its border. So a rank correlation may be"
            " high for little. Beside it: with each channel's mean taken out, which"
            " leaves where something is; and with places shuffled, which leaves how"
            " much of it there is.",
            pages.Table(table, "Spearman's correlation with the natural mean."),
        ],
    )


def _final(jobs: shown.Rows) -> pages.Section:
    table = shown.measures(jobs, SEEN, names=NAMES, rows_by="method")
    return pages.Section(
        "What the network says of them",
        [
            "The network as it is, without a random transform, and the mean probability"
            " under random maps.",
            pages.Table(table, "Of the class that a picture stands for."),
            *shown.paired_measures(jobs, SEEN, methods="method", names=NAMES),
        ],
    )


def _fooled(folder: pathlib.Path) -> tuple[pages.Section, list[dict[str, Any]]]:
    names: Mapping[Any, str] = {
        **NAMES,
        0.0: "that has seen distill",
        1.0: "that has seen all methods",
        "detector": "a detector",
        "fooled": "shows the other class",
        "own": "shows its class",
        "ahead": "nearer its class than the other",
        "label_kept": "label as before",
    }
    rows = [{**r, "id": r["label"]} for r in report.read(folder / "fooling")]
    kinds = prototype_generation_paths.KINDS
    seen = [
        {**row, "kind": kinds[row["kind"]], "called": row["natural"]}
        for row in report.read(folder / "detectors")
    ]
    values = ("fooled", "own", "ahead", "natural")
    tables = []
    for number, what in enumerate(prototype_generation_fooling.DETECTORS):
        chosen = [row for row in rows if row["detector"] == number]
        text = shown.measures(
            *(chosen, values),
            names={**names, "natural": "on the natural branch"},
            rows_by="method",
        )
        on = "distill alone" if what == "distill" else "all methods"
        caption = f"A circuit whose detector has seen the pictures of {on}."
        tables.append(pages.Table(text, caption))
    for value, caption in (
        ("called", "Share of pictures of the plain network that are called natural."),
        ("label_kept", "Share whose label the circuit leaves as it was."),
    ):
        text = report.table(
            seen,
            rows_by="kind",
            columns_by="detector",
            value=value,
            names={**names, "natural": "natural images", "called": "called natural"},
            estimator=report.proportion,
        )
        tables.append(pages.Table(text, caption))
    broken = sum(not row["holds"] for row in rows)
    section = pages.Section(
        "Who is fooled",
        [
            "The circuit of Geirhos et al.: a detector tells natural images from"
            " synthetic ones, and the network shows its logits to the first, those of"
            " another class to the second. Whoever climbs a class of it from a"
            " synthetic start is shown the other one. Nothing in a method prevents"
            " this; the question is how often its pictures pass for natural.",
            *tables,
            f"In {broken} of {len(rows)} rows a logit left the range in which the"
            " circuit does what it says.",
        ],
    )
    numbers = report.summary(rows, by=["detector", "method"], values=values)
    numbers += report.summary(
        seen, by=["detector", "kind"], values=["called", "label_kept"]
    )
    return section, numbers


def _cued(
    folder: pathlib.Path,
    names: Sequence[str],
    facts: Sequence[Mapping[str, Any]],
) -> tuple[pages.Section, list[dict[str, Any]]]:
    rows = report.read(*(folder / name for name in names))
    # A picture is what is sampled: class and seed, with the cue or without.
    rows = [{**row, "network": "cue" if row["planted"] else "none"} for row in rows]
    labels: Mapping[Any, str] = {
        **NAMES,
        "cue": "cue in the class",
        "none": "no cue",
        "shown": "the cue is shown",
        "score": "magenta",
        "network": "network",
        "accuracy": "accuracy",
        "own_with": "the class, with the cue",
        "own_without": "the class, without",
        "other_with": "another class, with the cue",
        "other_without": "another class, without",
    }
    shares = report.table(
        rows,
        rows_by="method",
        columns_by="network",
        value="shown",
        names=labels,
        estimator=report.proportion,
    )
    scores = report.table(
        rows, rows_by="method", columns_by="network", value="score", names=labels
    )
    columns = (
        "accuracy",
        *("own_with", "own_without", "other_with", "other_without"),
    )
    known = "\n".join(
        [
            "| " + " | ".join(["network", *(labels[c] for c in columns)]) + " |",
            "|" + "---|" * (1 + len(columns)),
            *(
                "| "
                + " | ".join(
                    [
                        each["cue"],
                        *(report.number(each.get(c), ".0%") for c in columns),
                    ]
                )
                + " |"
                for each in facts
            ),
        ]
    )
    section = pages.Section(
        "Is a planted cue found?",
        [
            "Networks were trained on birds of which those of one class had a magenta"
            " disk in a corner. Does a picture of that class show the disk's color? It"
            " does if somewhere there is more of it than half way between any bird"
            " without the disk and any bird with it. The control is a network that has"
            " never seen the disk. Intervals are over pictures: a class and a seed.",
            pages.Table(shares, "Share of pictures that show the cue."),
            pages.Table(scores, "How much magenta there is at the most, from 0 to 1."),
            pages.Table(
                known,
                "How far each network leans on the cue: how often it calls the class"
                " what is of the class, or of another, with the disk and without.",
            ),
            prototype_generation_pictures.cued(folder, names, labels),
        ],
    )
    numbers = report.summary(rows, by=["network", "method"], values=["shown", "score"])
    return section, numbers
