"""Pictures of prototypes: patches in boxes, heat maps, what looks like what.

Boxes are the rectangles around what is highest in an enlarged similarity map; heat maps
show that map from its least to its largest value, so the value stands beneath.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import networks
from experiments.protopnet_network import Network, Weights
from experiments.protopnet_training import Trained
from protojax import data, parts, prototypes
from protojax.contracts import Array
from protojax.scale import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.protopnet import Config

YELLOW = (1.0, 0.85, 0.0)
Row = Mapping[str, Any]


def boxed(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """An image with a yellow rectangle along the inside of a box."""
    width = max(1, image.shape[0] // 100)
    top, bottom, left, right = (int(end) for end in box)
    out = image.copy()
    out[top:bottom, left:right] = YELLOW
    inner = slice(top + width, bottom - width), slice(left + width, right - width)
    out[inner] = image[inner]
    return out


def overlaid(
    image: np.ndarray, a: np.ndarray, *, ends: tuple[float, float] | None = None
) -> np.ndarray:
    """An image under a heat map `[H, W]`: blue, green and red as it rises.

    It rises from its own least value to its largest, or from and to what is given.
    """
    low, high = ends or (float(a.min()), float(a.max()))
    rising = (a - low) / (high - low) if high > low else np.zeros_like(a)
    steps = 4 * rising[..., None] - np.array([3.0, 2.0, 1.0])
    heat = np.clip(1.5 - np.abs(steps), 0, 1)
    return np.clip(0.5 * image + 0.4 * heat, 0, 1).astype(np.float32)


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """What lies in a box."""
    top, bottom, left, right = (int(end) for end in box)
    return image[top:bottom, left:right]


class Look(NamedTuple):
    """An image as a prototype sees it.

    Attributes:
      image: `[H, W, 3]`.
      large: the enlarged similarity map, `[H, W]`.
      box: the rectangle around what is highest in it.
      similarity: its largest value before it was enlarged.
    """

    image: np.ndarray
    large: np.ndarray
    box: np.ndarray
    similarity: float


class Album(NamedTuple):
    """What pictures are made of.

    Attributes:
      rows: of `protopnet_studies.of_prototypes`, by prototype.
      classes: what they are called.
      look: `(image, prototype) -> Look`.
      training: `ids -> ` training images by their ids.
      test: `[N, H, W, 3]` test images.
    """

    rows: Sequence[Row]
    classes: Sequence[str]
    look: Callable[[np.ndarray, int], Look]
    training: Callable[[Sequence[int]], Mapping[int, np.ndarray]]
    test: np.ndarray

    def named(self, place: int) -> str:
        """What is written beneath a prototype."""
        row = self.rows[place]
        text = f"no. {place}, {self.of_class(row['class'])}"
        if row.get("purity"):
            text += f"\n{parts.PARTS[row['part']]} ({row['purity']:.0%} pure)"
        return text + ("\nthere twice" if row["duplicate"] else "")

    def of_class(self, label: int) -> str:
        """The name of a class, shortened."""
        name = self.classes[label]
        return name if len(name) <= 22 else f"{name[:21]}…"


def album(
    config: "Config",
    trained: Trained,
    rows: Sequence[Row],
    classes: Sequence[str],
    test: np.ndarray,
) -> Album:
    """What the pictures of a trained network are made of."""
    seen = _seen(trained.network)

    def look(image: np.ndarray, prototype: int) -> Look:
        large, box, peak = seen(trained.weights, image, prototype)
        return Look(image, np.asarray(large), np.asarray(box), float(peak))

    def training(ids: Sequence[int]) -> dict[int, np.ndarray]:
        wanted = sorted({int(i) for i in ids if i >= 0})
        found = data.pick(
            networks.expand(config.train),
            config.train_split,
            wanted,
            image_size=trained.network.backbone.image_size,
            resize=config.resize,
        )
        return dict(zip(wanted, found["image"], strict=True))

    return Album(rows, classes, look, training, test)


def _seen(network: Network) -> Callable[..., tuple[Array, Array, Array]]:
    similarities = network.apply("similarities")

    def seen(
        weights: Weights, x: Array, prototype: Array
    ) -> tuple[Array, Array, Array]:
        a = jnp.take(similarities(weights, x), prototype, axis=2)
        large = prototypes.enlarge(a, x.shape[:2])
        return large, prototypes.high_crop(large), jnp.max(a)

    return jax.jit(seen)


def gallery(album: Album, *, rows: int = 4, columns: int = 4) -> "Figure":
    """Prototypes of some classes: each in the training image that it is a patch of.

    Classes with the most prototypes come first, each row as long as the shortest.
    """
    of_class: dict[int, list[int]] = {}
    for place, row in enumerate(album.rows):
        of_class.setdefault(row["class"], []).append(place)
    largest = sorted(of_class, key=lambda c: (-len(of_class[c]), c))[:rows]
    columns = min(columns, *(len(of_class[c]) for c in largest), len(album.rows))
    chosen = [of_class[c][:columns] for c in sorted(largest)]
    images = album.training([album.rows[j]["image"] for line in chosen for j in line])
    looks = [
        [album.look(images[album.rows[j]["image"]], j) for j in line] for line in chosen
    ]
    return figures.panels(
        [[boxed(seen.image, seen.box) for seen in line] for line in looks],
        titles=[""] * columns,
        notes=[[album.named(j) for j in line] for line in chosen],
    )


def explained(
    album: Album, one: Mapping[str, Any], votes: np.ndarray, *, count: int = 3
) -> "Figure":
    """Why an image is told to be of its class: what of it looks like what."""
    y = int(np.argmax(one["logits"]))
    similar = one["maps"].max(axis=(0, 1))
    counts = similar * votes[:, y]
    places = [j for j in np.argsort(-counts)[:count].tolist() if counts[j] > 0]
    places = places or [int(np.argmax(counts))]
    sources = album.training([album.rows[j]["image"] for j in places])
    pictures, notes = [], []
    for j in places:
        here = album.look(one["image"], j)
        there = album.look(sources[album.rows[j]["image"]], j)
        pictures.append(
            [
                boxed(here.image, here.box),
                cut(here.image, here.box),
                cut(there.image, there.box),
                boxed(there.image, there.box),
                overlaid(here.image, here.large),
            ]
        )
        notes.append(
            [
                f"told to be {album.of_class(y)}",
                "looks like",
                album.named(j),
                f"training image {album.rows[j]['image']}",
                f"{similar[j]:.2f} similar × {votes[j, y]:.2f} = {counts[j]:.2f}",
            ]
        )
    titles = ["this", "", "that", "where it is from", "where it is seen"]
    return figures.panels(pictures, titles=titles, notes=notes)


def neighbors(
    album: Album,
    train: prototypes.Nearest,
    test: prototypes.Nearest,
    *,
    count: int = 4,
) -> "Figure":
    """What else looks like some prototypes, of training and of test images."""
    step = max(1, len(album.rows) // count)
    chosen = list(range(len(album.rows)))[::step][:count]
    images = album.training(np.asarray(train.image)[chosen, :4].ravel())
    sets = (("training", train, images, 4), ("test", test, album.test, 2))
    pictures, notes = [], []
    for j in chosen:
        line = [
            (kind, album.look(known[int(image)], j), album.of_class(int(label)))
            for kind, near, known, count in sets
            for image, label in zip(near.image[j, :count], near.label[j, :count])
            if image >= 0
        ]
        pictures.append([boxed(look.image, look.box) for _, look, _ in line])
        notes.append(
            [
                f"{kind}: {label}\n{look.similarity:.2f} similar to no. {j}"
                for kind, look, label in line
            ]
        )
    return figures.panels(pictures, titles=[""] * len(pictures[0]), notes=notes)
