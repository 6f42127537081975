"""The x-features as concepts: their best images, and a kit to name them with.

    python -m experiments.xnn_study SHEET.csv OTHER.csv

says how far two filled answer sheets agree.
"""

import csv
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, xnn_judged, xnn_methods, xnn_setup
from protojax import srae
from protojax.contracts import Array, PyTree
from protojax.scale import figures, overlays, storage

SHOWN = 8
"""Images of each x-feature."""

FEWEST = 3
"""Panels of fewer images are not shown: nothing is common to one or two."""


class Concepts(NamedTuple):
    """What is shown of the x-features of each class, of one network each.

    Attributes:
      parts: `[K, N, F]` contributions on the test images, in units of the logit.
      top: int `[K, F, T]` the images on which each feature is largest.
      maps: `[K, F, T, h, w]` where the feature looks on these.
      typical: int `[K]` the image of the class with the largest sum of contributions.
      typical_maps: `[K, F, h, w]` where each feature looks on that.
    """

    parts: np.ndarray
    top: np.ndarray
    maps: np.ndarray
    typical: np.ndarray
    typical_maps: np.ndarray


def concepts(
    setup: xnn_setup.Setup,
    reader: xnn_methods.Reader,
    networks: dict[str, PyTree],
    features: int,
) -> Concepts:
    """Find the best images of each x-feature, and where it looks on them."""
    shown = min(SHOWN, len(setup.test["label"]))

    @jax.jit
    def of_class(params: PyTree, column: Array) -> tuple[Array, Array]:
        values = reader.features(params, setup.judges["z"])
        readout = jnp.take(params["readout"]["kernel"], column, axis=1)
        parts = srae.contributions(values, readout) / setup.judges["scale"]
        return parts, jnp.argsort(-values, axis=0)[:shown].T

    @jax.jit
    def looked_at(weights: PyTree, params: PyTree, images: Array) -> Array:
        one = functools.partial(xnn_judged.maps, setup.layer, reader, weights, params)
        return jax.lax.map(one, images)

    found = []
    for place in range(len(setup.classes)):
        params = jax.tree.map(lambda leaf, k=place: leaf[k], networks["members"])
        parts, top = map(np.asarray, of_class(params, networks["columns"][place]))
        inside = setup.test["label"] == setup.classes[place]
        typical = int(np.argmax(np.where(inside, parts.sum(axis=1), -np.inf)))
        images = jnp.asarray(setup.test["image"][[*top.ravel(), typical]])
        every = np.asarray(looked_at(setup.network.weights, params, images))
        best = every[:-1].reshape(features, shown, *every.shape[1:])
        own = np.stack([best[f, :, f] for f in range(features)])
        found.append((parts, top, own, np.asarray(typical), every[-1]))
    return Concepts(*(np.stack(each) for each in zip(*found, strict=True)))


def kinds(
    setup: xnn_setup.Setup,
    reader: xnn_methods.Reader,
    networks: dict[str, PyTree],
    found: Concepts,
    count: int = 3,
) -> list[dict[str, np.ndarray]]:
    """The strongest x-feature of some classes on its best image, looked at in turn."""
    one = jax.jit(functools.partial(xnn_judged.kinds, setup.layer, reader))
    shown = []
    for place in range(min(count, len(setup.classes))):
        own = setup.test["label"] == setup.classes[place]
        f = int(np.argmax(np.mean(found.parts[place, own], axis=0)))
        image = setup.test["image"][found.top[place, f, 0]]
        params = jax.tree.map(lambda leaf, k=place: leaf[k], networks["members"])
        maps = one(setup.network.weights, params, jnp.asarray(image), jnp.int32(f))
        shown.append({"image": image} | {k: np.asarray(v) for k, v in maps.items()})
    return shown


def panel(
    setup: xnn_setup.Setup, found: Concepts, place: int, feature: int
) -> list[np.ndarray]:
    """The best images of an x-feature, where it is active, its maps laid over."""
    images = []
    for index, a in zip(
        found.top[place, feature], found.maps[place, feature], strict=True
    ):
        if found.parts[place, index, feature] != 0 and np.all(np.isfinite(a)):
            images.append(overlays.overlay(setup.test["image"][index], a))
    return images


def write(
    folder: pathlib.Path, setup: xnn_setup.Setup, found: Concepts, *, seed: int
) -> None:
    """Write panels, an answer sheet, the key to it, and contributions.

    Panels are numbered at random and do not say what they are of.
    """
    panels = [
        (place, feature)
        for place in range(len(setup.classes))
        for feature in range(found.parts.shape[2])
        if len(panel(setup, found, place, feature)) >= FEWEST
    ]
    order = np.random.default_rng(seed).permutation(len(panels))
    key, sheet = [], []
    for number, which in enumerate(order, 1):
        place, feature = panels[which]
        name = f"panel-{number:03d}"
        _draw(folder / f"{name}.png", setup, found, place, feature)
        own = setup.test["label"] == setup.classes[place]
        mean = float(np.mean(found.parts[place, own, feature]))
        key.append([name, setup.classes[place], feature + 1, f"{mean:.4g}"])
        sheet.append([name, "", "", ""])
    _table(folder / "key.csv", ["panel", "class", "x-feature", "contribution"], key)
    _table(folder / "answers.csv", ["panel", "name", "sure (1-5)", "remarks"], sheet)
    _table(folder / "contributions.csv", *_contributions(setup, found))
    storage.write_bytes(folder / "README.md", _INSTRUCTIONS.encode())


def _draw(
    path: pathlib.Path,
    setup: xnn_setup.Setup,
    found: Concepts,
    place: int,
    feature: int,
) -> None:
    images = panel(setup, found, place, feature)
    count = (len(images) // 4) * 4 or len(images)
    width = min(4, count)
    rows = [images[i : i + width] for i in range(0, count, width)]
    figure = figures.panels(rows, titles=[""] * width)
    storage.write(path, lambda out: figure.savefig(out, format="png", dpi=110))


def _contributions(
    setup: xnn_setup.Setup, found: Concepts
) -> tuple[list[str], list[list]]:
    features = range(found.parts.shape[2])
    rows = []
    for place, c in enumerate(setup.classes):
        needed = np.asarray(jax.vmap(srae.significant)(jnp.asarray(found.parts[place])))
        for index in np.flatnonzero(setup.test["label"] == c):
            values = [f"{v:.5g}" for v in found.parts[place, index]]
            marks = [int(m) for m in needed[index]]
            rows.append([c, int(setup.test["id"][index]), *values, *marks])
    names = [f"x-feature {f + 1}" for f in features]
    return ["class", "image", *names, *(f"{n} is significant" for n in names)], rows


def _table(path: pathlib.Path, head: list[str], rows: list[list]) -> None:
    lines = [",".join(map(str, line)) for line in (head, *rows)]
    storage.write_bytes(path, ("\n".join(lines) + "\n").encode())


_INSTRUCTIONS = """# Name what the panels have in common

Each panel shows images on which one unit of a network is most active; what the unit
looks at is colored. For each line of `answers.csv`, look at the panel of that name and
write

- **name**: what the colored places have in common, in a few words (a part, a color, a
  texture). Leave it empty if you find nothing: that is an answer, too;
- **sure**: from 1 (a guess) to 5 (no doubt);
- **remarks**: whatever else you notice.

Do not look into `key.csv` before you are done: it says which class and which x-feature
a panel is of, and whether it speaks for the class or against it. Several people fill
copies of the sheet, each alone;

    python -m experiments.xnn_study ANSWERS.csv OTHER.csv

then says how many panels each could name, and how far they agree.
"""


class Agreement(NamedTuple):
    """What two answer sheets have in common.

    Attributes:
      named: share of the panels that each has named.
      jaccard: panels that both have named, over those that either has.
      same: of those that both have named, the share with the same name.
    """

    named: tuple[float, float]
    jaccard: float
    same: float


def agreement(first: dict[str, str], second: dict[str, str]) -> Agreement:
    """How far two people agree on what can be named, and on the names.

    Names are compared without regard to case, order of words, and doubled words.

    >>> agreement({"a": "red tail", "b": ""}, {"a": "Tail red", "b": "beak"})
    Agreement(named=(0.5, 1.0), jaccard=0.5, same=1.0)
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise ValueError(
            f"the sheets are of different panels ({', '.join(odd[:5])}): pass copies "
            "of one answers.csv"
        )
    words = [
        {p: frozenset(n.lower().split()) for p, n in sheet.items()}
        for sheet in (first, second)
    ]
    named = [{p for p, name in sheet.items() if name} for sheet in words]
    both, either = named[0] & named[1], named[0] | named[1]
    same = sum(words[0][p] == words[1][p] for p in both)
    total = max(len(first), 1)
    return Agreement(
        (len(named[0]) / total, len(named[1]) / total),
        len(both) / len(either) if either else float("nan"),
        same / len(both) if both else float("nan"),
    )


def read(path: str | pathlib.Path) -> dict[str, str]:
    """The names on an answer sheet, by panel."""
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}: pass two filled answers.csv")
    with open(path, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"panel", "name"} <= rows[0].keys():
        raise ValueError(
            f"{path} has no columns `panel` and `name`: pass an answers.csv"
        )
    return {row["panel"]: (row["name"] or "").strip() for row in rows}


def main(arguments: Sequence[str]) -> None:
    """Compare two sheets."""
    if {"-h", "--help"} & {*map(str, arguments)}:
        print(__doc__)
        return
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    with cli.one_line("xnn_study"):
        found = agreement(*map(read, arguments))
    print(f"named: {found.named[0]:.0%} and {found.named[1]:.0%} of the panels")
    print(f"named by both, of those named by either: {found.jaccard:.2f}")
    print(f"the same name, of those named by both: {found.same:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
