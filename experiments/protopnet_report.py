"""What `experiments.protopnet` shows at its end, made from the rows that it wrote."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import backbones, protopnet_pictures, protopnet_studies
from experiments.protopnet_analysis import Near
from experiments.protopnet_training import Trained
from protojax import prototypes
from protojax.scale import pages, report

if TYPE_CHECKING:
    from experiments.protopnet import Config
    from experiments.protopnet_setup import Setup

Number = dict[str, Any]
Rows = Sequence[report.Row]

TOLD = {
    "correct": "accuracy",
    "plain_correct": "accuracy of a plain classifier",
    "together_correct": "accuracy together with the other networks",
    "confidence": "confidence",
    "top_own": "most similar prototype is of the class told",
    "similarity": "its similarity",
    "size": "prototypes that an explanation consists of",
}
PROTOTYPES = {
    "distance": "squared distance from the patch that it is",
    "duplicate": "is there twice",
    "neighbors": "of the 6 nearest training images, those of its class",
    "purity": "purity, over 10 training images",
    "consistent": "is consistent",
    "stability": "stability, in percent",
    "nowhere": "test images of its class in which it is on no part",
}
LOCATED = {
    "pointing": "highest pixel inside",
    "energy": "energy inside",
    "precision": "activation precision",
    "oirr": "outside over inside (OIRR)",
    "ior": "inside less outside (IOR)",
}
ELSEWHERE = {
    "plc": "location change (PLC), in percent",
    "pac": "activation change (PAC), in percent",
    "prc": "rank change (PRC)",
    "ac": "accuracy change (AC), in points",
}
STAGES = {
    "train_cross_entropy": "cross-entropy",
    "train_cluster": "cluster",
    "train_separation": "separation",
    "train_accuracy": "training accuracy",
}


def write(
    config: "Config",
    folder: pathlib.Path,
    setup: "Setup",
    trained: Trained,
    near: Near,
) -> None:
    """Write the report of a folder of rows."""
    images, rows = report.read(folder), report.read(folder / "prototypes")
    attacked = report.read(folder / "elsewhere") if config.attacked else []
    told, about = _means(images, TOLD), _means(rows, PROTOTYPES)
    located = {
        name: _means(images, {f"{name}_{k}": v for k, v in LOCATED.items()})
        for name in ("object", "head")
    }
    moved = _means(attacked, ELSEWHERE)
    sources = ["", "prototypes", *(["elsewhere"] if attacked else [])]
    album = protopnet_pictures.album(
        config, trained, rows, setup.classes, setup.examples.test["image"]
    )
    pages.write(
        folder,
        title=f"This looks like that: {config.backbone}",
        sections=[
            _protocol(config, setup, trained, told, len(rows)),
            _stages(trained.history),
            _looks(folder, album, trained),
            _truth(about, located, moved),
            _others(album, near),
        ],
        numbers=[*told, *about, *located["object"], *located["head"], *moved],
        provenance=report.provenance(*(folder / name for name in sources)),
    )


def _means(rows: Rows, names: Mapping[str, str]) -> list[Number]:
    """Means with intervals of those columns that there are."""
    return [
        {"value": value, "name": name, **report.estimate(rows, value)._asdict()}
        for value, name in names.items()
        if rows and value in rows[0]
    ]


def _table(numbers: Sequence[Number], caption: str) -> pages.Table:
    lines = ["| measure | mean | 95 % interval | n |", "|---|---|---|---|"]
    for number in numbers:
        mean, low, high = (
            report.number(number[end], ".3g") for end in ("mean", "low", "high")
        )
        lines.append(f"| {number['name']} | {mean} | {low} to {high} | {number['n']} |")
    return pages.Table("\n".join(lines), caption)


def _protocol(
    config: "Config",
    setup: "Setup",
    trained: Trained,
    told: Sequence[Number],
    count: int,
) -> pages.Section:
    found = {number["value"]: number for number in told}
    accuracy = found["correct"]
    low, high = (report.number(accuracy[end], ".1%") for end in ("low", "high"))
    text = (
        f"**{accuracy['mean']:.1%}** of {accuracy['n']} test images are told right"
        f" (95 % interval {low} to {high}), by {count} prototypes of"
        f" {len(setup.classes)} classes on the layer `{trained.network.backbone.layer}`"
        f" of `{config.backbone}`, which has"
        f" {' x '.join(map(str, trained.network.backbone.shape[:2]))} places;"
        f" {_field(trained)}"
    )
    if "plain_correct" in found:
        plain = found["plain_correct"]["mean"]
        text += f" A plain classifier on the same backbone tells **{plain:.1%}**"
        text += f": {accuracy['mean'] / plain:.1%} of that is kept." if plain else "."
    drift = ""
    if config.batch_norm == "live":
        drift = (
            " Batch norms were live and moved on after the last push, so that what was"
            " a patch is one no more: see the distances below."
        )
    patches = (
        "A push puts every prototype onto the nearest patch of a training image of its"
        f" class.{drift}"
    )
    table = _table(told, "What the network says of the test images.")
    return pages.Section("What was done", [text, patches, table])


def _field(trained: Trained) -> str:
    """What a place can see of the image."""
    backbone, (params, stats) = trained.network.backbone, trained.weights
    size = backbone.image_size
    x = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    weights = backbones.merged(params["backbone"], stats)
    field = prototypes.receptive_field(backbone.features, weights, x)
    rows, columns = (min(pixels, size) for pixels in field.size)
    return (
        f"the windows of one reach over {rows} x {columns} pixels of {size} x {size}"
        " (what a normalization over the whole image tells it comes on top)."
    )


def _stages(history: Sequence[Mapping[str, Any]]) -> pages.Section:
    columns = ["stage", "steps", *STAGES.values(), "moved or kept", "test accuracy"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for stage in history:
        values = [f"{stage[name]:.3f}" if name in stage else "" for name in STAGES]
        note = ""
        if "moved" in stage:
            note = f"by {stage['moved']:.3f}, at most {stage['moved_most']:.3f}"
        if "kept" in stage:
            note = f"{stage['kept']} of {stage['of']} kept"
        cells = [stage["stage"], str(stage["steps"]), *values, note]
        lines.append(f"| {' | '.join([*cells, format(stage['accuracy'], '.1%')])} |")
    text = (
        "Warm stages train the add-on layers and the prototypes, joint ones the"
        " backbone too; last stages train the votes of the prototypes alone."
    )
    caption = "Means over the last epoch of each stage."
    return pages.Section("Training", [text, pages.Table("\n".join(lines), caption)])


def _looks(
    folder: pathlib.Path, album: protopnet_pictures.Album, trained: Trained
) -> pages.Section:
    votes = np.asarray(trained.weights[0]["head"]["last_layer"])
    blocks = [
        pages.Picture(
            protopnet_pictures.gallery(album),
            "Prototypes, each in the training image that it is a patch of. The box is"
            " around what is most similar to it, where the map is enlarged.",
            "Training images with a box around each prototype.",
        )
    ]
    for one in report.arrays(folder):
        told = album.classes[int(np.argmax(one["logits"]))]
        blocks.append(
            pages.Picture(
                protopnet_pictures.explained(album, one, votes),
                f"Why test image {one['id']} is told to be {told}: the prototypes that"
                " count most for it, and what of the image looks like them. Heat maps"
                " go from their least to their largest value.",
                "A test image, parts of it, and the prototypes that they look like.",
            )
        )
    return pages.Section("This looks like that", blocks)


def _truth(
    about: Sequence[Number],
    located: Mapping[str, Sequence[Number]],
    moved: Sequence[Number],
) -> pages.Section:
    text = (
        "That a prototype is shown as a patch does not say that it means what one sees"
        " there. What is known of the images besides their class says more."
    )
    caption = "The prototypes."
    if any(number["value"] == "consistent" for number in about):
        caption += (
            " Pure: found on the part that it is found on most, of training images."
            " Consistent: found on the same part in four of five test images of its"
            " class in which the part is seen. Stable: noise does not change the parts"
            " that it is found on; to be on none, and remain so, counts as stable."
        )
    blocks: list[Any] = [text, _table(about, caption)]
    blocks += [
        _table(
            numbers,
            f"Where the most similar prototype of each test image looks: its map,"
            f" enlarged to the image, against the mask of the {name}.",
        )
        for name, numbers in located.items()
        if numbers
    ]
    if moved:
        blocks.append(
            _table(
                moved,
                f"An attack of {protopnet_studies.STEPS} steps within"
                f" {protopnet_studies.RADIUS * 255:.0f}/255 everywhere but where the"
                " most similar prototype looks, and a margin, lowers its similarity."
                " What is local does not notice: zeros.",
            )
        )
    return pages.Section("Is it what it claims to be?", blocks)


def _others(album: protopnet_pictures.Album, near: Near) -> pages.Section:
    picture = pages.Picture(
        protopnet_pictures.neighbors(album, near.train, near.test),
        "Some prototypes, and the images nearest to each, of any class. The first is"
        " where it is from, unless another one is equally near.",
        "Images with a box around what looks like a prototype.",
    )
    return pages.Section("What else looks like it", [picture])
