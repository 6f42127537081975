"""What is known of images besides their class: the object, its parts, its head.

The drawn birds know all of their parts. Of images in a folder the columns of its
`labels.csv` tell: `trimap` names a segmentation (1 is the object), `head_xmin` to
`head_ymax` are a box. Whatever an image was resized to and cut down to, so is this.
"""

import csv
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments import networks
from protojax import parts
from protojax.scale import sources

Truth = dict[str, np.ndarray]

HEAD = ("head_ymin", "head_ymax", "head_xmin", "head_xmax")
"""The columns of a head box, rows before columns; the last ones belong to the head."""


def known(
    source: str,
    split: str,
    ids: Sequence[int],
    *,
    image_size: int,
    resize: int | None = None,
) -> Truth:
    """What is known of some images.

    Args:
      source: where they come from, as for `data.load`.
      split: which part of it.
      ids: their places in it, N of them.
      image_size: pixels, S.
      resize: short side before the center is cut out.

    Returns:
      Of `object` and `head` bool `[N, S, S]` (nothing where a cell is empty), `points`
      `[N, K, 2]` and `visible` bool `[N, K]` those that are known.

    Raises:
      ValueError: for a box that lacks columns or is no numbers, and for a segmentation
        in color.
      FileNotFoundError: for a segmentation that is not there.
    """
    source = networks.expand(source)
    if source.partition(":")[0] == "parts":
        drawn = birds(source, split, ids, image_size=image_size)
        return {
            "object": drawn.segmentation,
            "points": drawn.points,
            "visible": drawn.visible,
        }
    table = _table(source)
    if table is None:
        return {}
    found = sources.find(source, split, image_size=image_size)
    names = [found.name(int(i)) for i in ids]
    with table.open(newline="", encoding="utf-8") as lines:
        named = {pathlib.Path(row["file"]): row for row in csv.DictReader(lines)}
    rows = {path.as_posix(): row for path, row in named.items()}
    chosen = [rows[name] for name in names]
    short = resize or image_size
    truth: Truth = {}
    if "trimap" in chosen[0]:
        masks = [_segmentation(table.parent, row) for row in chosen]
        truth["object"] = np.stack([fit(m, image_size, short) for m in masks])
    if "head_xmin" in chosen[0]:
        if lacking := [c for c in (*HEAD, "height", "width") if c not in chosen[0]]:
            raise ValueError(
                f"{table} has a column head_xmin and none called "
                f"{', '.join(lacking)}: a box is {', '.join(HEAD)}, in pixels of an "
                "image of that height and width; add the columns, or take it out"
            )
        masks = [_box(table, row) for row in chosen]
        truth["head"] = np.stack([fit(m, image_size, short) for m in masks])
    return truth


def birds(
    source: str, split: str, ids: Sequence[int], *, image_size: int
) -> parts.Birds:
    """Embedded birds with all that is known of them; arguments as for `known`."""
    found = sources.find(source, split, image_size=image_size)
    return parts.draw(
        [int(found.name(int(i)).split()[-1]) for i in ids],
        image_size=image_size,
        seed=sources.PARTS_SEEDS[split.partition("[")[0]],
        classes=parts.KINDS[source.partition("#")[2]],
    )


def fit(mask: np.ndarray, size: int, short: int) -> np.ndarray:
    """Do to a mask what `data.load` does to its image, without mixing pixels.

    Args:
      mask: bool `[H, W]`.
      size: what is cut out of the center.
      short: what the short side is resized to before.

    Returns:
      bool `[size, size]`.
    """
    height, width = mask.shape
    scale = short / min(height, width)
    rows, columns = max(short, round(height * scale)), max(short, round(width * scale))
    image = sources.pillow("resizing masks").fromarray(mask.astype(np.uint8))
    resized = np.asarray(image.resize((columns, rows), 0)).astype(bool)
    top, left = (rows - size) // 2, (columns - size) // 2
    return resized[top : top + size, left : left + size]


def _table(source: str) -> pathlib.Path | None:
    scheme, _, path = source.partition(":")
    if scheme != "folder":
        return None
    table = pathlib.Path(path)
    table = table if table.suffix == ".csv" else table / "labels.csv"
    return table if table.is_file() else None


def _segmentation(folder: pathlib.Path, row: dict[str, str]) -> np.ndarray:
    if not row["trimap"]:
        return np.zeros((1, 1), bool)
    path, pillow = folder / row["trimap"], sources.pillow("reading segmentations")
    with pillow.open(path) as trimap, pillow.open(folder / row["file"]) as image:
        found, (width, height) = np.asarray(trimap), image.size
    if found.ndim != 2:
        raise ValueError(
            f"{path} is in color: a trimap is a gray image, or one of a palette, and "
            "is 1 where the object is; save it as one"
        )
    rows, columns = found.shape
    if abs(rows * width - columns * height) > max(*found.shape, width, height):
        raise ValueError(
            f"{path} has {columns} x {rows} pixels, and its image {row['file']} "
            f"{width} x {height}: a trimap has the shape of its image; save it so"
        )
    return found == 1


def _box(table: pathlib.Path, row: dict[str, str]) -> np.ndarray:
    if not row["head_xmin"]:
        return np.zeros((1, 1), bool)
    try:
        numbers = [int(float(row[name])) for name in (*HEAD, "height", "width")]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{table}: the head box of {row['file']} is no box ({error}); give "
            f"{', '.join(HEAD)}, height and width, or leave them empty"
        ) from error
    top, bottom, left, right, height, width = numbers
    mask = np.zeros((height, width), bool)
    mask[max(0, top) : bottom + 1, max(0, left) : right + 1] = True
    return mask
