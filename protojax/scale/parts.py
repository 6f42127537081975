"""Birds whose parts are known: a procedural data set with the truth of an explanation.

Each class is a bird whose head, beak, breast, belly, wing, tail and feet each come in
one of three variants of shape and color (the eye is the same in all). No variant
belongs to one class alone and colors recur across parts, so that a network has to
look at several parts, and `differing_parts` tells which ones set two classes apart.
Pose, light and background vary freely and say nothing about the class. Every image
comes with part masks, key points and a segmentation.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from protojax.scale import anatomy, canvas, scenery

Array = np.ndarray

PARTS = anatomy.PARTS
"""Names of the parts, in the order of every axis P."""

VARIANTS = {
    "head": ("gray", "red with a crest", "white with a black cap"),
    "beak": ("short and black", "long and orange", "hooked and yellow"),
    "eye": ("black",),
    "breast": ("cream with brown spots", "orange", "yellow"),
    "belly": ("white with black bars", "cream", "rust"),
    "wing": ("brown", "blue with white bars", "olive with black tips"),
    "tail": ("short and brown", "long and blue", "forked and red"),
    "feet": ("short and orange", "long and black", "long and red"),
}
"""What the variants of each part look like."""

CLASSES = np.array(
    [
        [1, 1, 0, 0, 1, 0, 1, 1],
        [1, 1, 0, 0, 1, 1, 2, 1],
        [1, 0, 0, 1, 1, 0, 1, 1],
        [2, 0, 0, 1, 1, 0, 2, 1],
        [2, 1, 0, 1, 1, 0, 2, 0],
        [1, 1, 0, 0, 1, 0, 2, 0],
        [1, 0, 0, 1, 0, 0, 2, 1],
        [1, 1, 0, 1, 0, 1, 2, 1],
    ]
)
"""The eight default classes: int [K, P], the variant of each part."""


APART = np.outer(range(3), [part != "eye" for part in PARTS]).astype(int)
"""Three classes that share no variant, so that any part but the eye tells them apart:
int [3, P]."""

KINDS = {"": CLASSES, "apart": APART}
"""Classes by what stands behind `#` in the name of a source: `parts:100#apart`."""


class Birds(NamedTuple):
    """Images of birds and all that is known of them.

    Attributes:
      image: float32 `[N, S, S, 3]` in [0, 1].
      label: int32 `[N]`.
      masks: bool `[N, P, S, S]` what is seen of each part; they do not overlap.
      points: float32 `[N, P, 2]` row and column of a key point, in pixels.
      visible: bool `[N, P]` whether the part is seen at its key point.
      segmentation: bool `[N, S, S]` the bird.
      cue: bool `[N, S, S]` the planted patch.
    """

    image: Array
    label: Array
    masks: Array
    points: Array
    visible: Array
    segmentation: Array
    cue: Array


def draw(
    indices: Iterable[int],
    *,
    image_size: int = 64,
    seed: int = 0,
    classes: Array = CLASSES,
    cue_class: int | None = None,
) -> Birds:
    """Draw birds; a given index is the same bird whatever else is drawn, at any size.

    Labels go round: example `i` is of class `i % K`, so any run of indices is balanced.

    Args:
      indices: which examples to draw, each 0 or more; N of them.
      image_size: height and width S in pixels.
      seed: another seed is another data set of the same classes.
      classes: int `[K, P]`, the variant of each part in each class, as in `VARIANTS`.
      cue_class: class whose images carry a planted cue, a magenta disk in a corner of
        the background; nothing else in the image changes. None plants nothing.

    Returns:
      images, labels and the truth about them.

    Raises:
      ValueError: if the classes name a variant that does not exist, or a size or an
        index is out of range.

    >>> from protojax.scale import parts
    >>> birds = parts.draw(range(8), image_size=64)
    >>> birds.image.shape, birds.masks.shape
    ((8, 64, 64, 3), (8, 8, 64, 64))
    """
    classes = _checked(classes)
    indices = np.asarray(list(indices), dtype=np.int64)
    _check_draw(indices, image_size, seed, cue_class, len(classes))
    labels = (indices % len(classes)).astype(np.int32)
    images, owners, points, cues = [], [], [], []
    for index, label in zip(indices, labels, strict=True):
        board, where, cue = _example(
            [seed, int(index)], image_size, classes[label], label == cue_class
        )
        cues.append(cue)
        images.append(board.image)
        owners.append(board.owner)
        points.append(where)
    owner = np.stack(owners)
    masks = owner[:, None] == np.arange(len(PARTS))[:, None, None]
    point = np.stack(points) * image_size - 0.5
    return Birds(
        image=np.stack(images),
        label=labels,
        masks=masks,
        points=point.astype(np.float32),
        visible=_visible(masks, point),
        segmentation=owner >= 0,
        cue=np.stack(cues),
    )


def differing_parts(classes: Array = CLASSES) -> Array:
    """Return which parts set each pair of classes apart: the truth of an explanation.

    Args:
      classes: int `[K, P]`, the variant of each part in each class.

    Returns:
      bool `[K, K, P]`, true where the two classes have another variant.

    >>> from protojax.scale import parts
    >>> [parts.PARTS[p] for p in parts.differing_parts()[0, 1].nonzero()[0]]
    ['wing', 'tail']
    """
    classes = _checked(classes)
    return classes[:, None] != classes[None, :]


def describe(row: Array) -> str:
    """Return a class in words.

    Args:
      row: int `[P]`, the variant of each part.

    Returns:
      one phrase, part by part (the eye is left out, being the same in all).

    >>> from protojax.scale import parts
    >>> parts.describe(parts.CLASSES[3])[:47]
    'head white with a black cap, beak short and bla'
    """
    variants = _checked(np.asarray(row)[None])[0]
    named = zip(PARTS, variants, strict=True)
    return ", ".join(f"{p} {VARIANTS[p][i]}" for p, i in named if p != "eye")


def _example(
    seeds: list[int], size: int, variants: Array, cued: bool
) -> tuple[canvas.Canvas, Array, Array]:
    """Paint one image from far to near; key points [P, 2] are fractions of it."""
    rng = np.random.default_rng(seeds)
    pose = anatomy.pose(rng, long_legs=bool(variants[anatomy.FEET]))
    u, v = canvas.grid(size)
    board = canvas.blank(size)
    scenery.backdrop(board, rng, u, v, ground=pose.ground)
    cue = np.zeros((size, size), bool)
    if cued:
        cue = scenery.cue(board, np.random.default_rng([*seeds, 1]), u, v)
    points = anatomy.bird(board, rng, u, v, pose, variants)
    scenery.foreground(board, rng, u, v, ground=pose.ground)
    tint = rng.uniform(0.88, 1.12, 3) * rng.uniform(0.8, 1.15)
    lit = np.clip(board.image * tint.astype(np.float32), 0, 1)
    board.image[:] = np.round(lit * 255) / np.float32(255)  # as a camera would keep it
    return board, points, cue & (board.owner < 0)


def _checked(classes: Array) -> Array:
    classes = np.asarray(classes)
    if classes.ndim != 2 or classes.shape[1] != len(PARTS) or not len(classes):
        raise ValueError(
            f"`classes` must be int [K, {len(PARTS)}], one variant for each of "
            f"{PARTS}; got shape {classes.shape}"
        )
    most = np.array([len(VARIANTS[p]) for p in PARTS])
    if (
        not np.issubdtype(classes.dtype, np.integer)
        or not ((classes >= 0) & (classes < most)).all()
    ):
        raise ValueError(
            f"`classes` names a variant that does not exist: entries must be integers "
            f"from 0 and below {most.tolist()} (see `parts.VARIANTS`)"
        )
    return classes


def _check_draw(
    indices: Array, size: int, seed: int, cue_class: int | None, num: int
) -> None:
    if not len(indices) or indices.min() < 0:
        raise ValueError(
            "`indices` must name at least one example, each 0 or more: "
            "pass range(n) for the first n"
        )
    if size < 8:
        raise ValueError(f"`image_size` must be 8 or more, got {size}")
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more, got {seed}")
    if cue_class is not None and not 0 <= cue_class < num:
        raise ValueError(f"`cue_class` must be 0 to {num - 1} or None, got {cue_class}")


def _visible(masks: Array, points: Array) -> Array:
    """Whether a part owns a pixel beside its key point: bool [N, P]."""
    size = masks.shape[-1]
    n, p = np.indices(points.shape[:2])
    seen = np.zeros(points.shape[:2], bool)
    inside = ((points > -0.5) & (points < size - 0.5)).all(-1)
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = np.moveaxis(np.floor(points).astype(int) + shift, -1, 0)
        seen |= masks[n, p, row.clip(0, size - 1), column.clip(0, size - 1)]
    return seen & inside
