"""Sets of labeled images on disk or drawn, read one at a time and in any order."""

import csv
import importlib.util
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from protojax.scale import parts

Array = np.ndarray

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
_LABEL_COLUMNS = ("label", "class_id", "index", "class_name")
PARTS_SEEDS = {"train": 0, "test": 1, "validation": 2}
"""Which `seed` of `parts.draw` the drawn birds of each split come from."""
_PARTS_COUNT = 4000  # birds in each split, where no number is given
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr")


class Source(NamedTuple):
    """A set of labeled images."""

    num: int
    classes: tuple[str, ...]  # names of the labels 0, 1, ...; empty where unknown
    name: Callable[[int], str]  # of an example: its file, or its place
    read: Callable[[int], tuple[Array, int]]  # [H, W, 3] uint8, or float in [0, 1]


def find(name: str, split: str, *, image_size: int) -> Source:
    """Open a source of images without decoding them.

    Args:
      name: where the images come from, as `protojax.scale.data` describes.
      split: `train`, `test` or whatever the source has; `all` for files without splits;
        every second one is `all[::2]`, the others are `all[1::2]`.
      image_size: size at which birds are drawn, and boxes are cut out; the others come
        as they are stored.

    Returns:
      what is known of it, and how one image is read.

    Raises:
      ValueError: if the name has no known scheme, or the source is empty, unlabeled
        or holds something else than images.
      FileNotFoundError: if there is no such file or folder.

    >>> from protojax.scale import sources
    >>> birds = sources.find("parts:100", "train", image_size=64)
    >>> birds.num, len(birds.classes)
    (100, 8)
    """
    scheme, _, rest = name.partition(":")
    if scheme == "tfds" and rest:
        return _tfds(rest, split, image_size)
    if "[" in split:
        whole, _, part = split.partition("[")
        return _sliced(find(name, whole, image_size=image_size), part, split)
    if scheme == "parts":
        return _parts(name, rest, split, image_size)
    openers = {"folder": _folder, "npz": _npz}
    if scheme not in openers or not rest:
        raise ValueError(
            f"images are {name!r}: it must be tfds:NAME, folder:PATH, npz:PATH or parts"
        )
    return openers[scheme](rest, split)


def usual_split(name: str) -> str:
    """The split that is meant where none is named: the test images, if they are apart.

    Args:
      name: where the images come from, as `protojax.scale.data` describes.

    Returns:
      `test`, or `all` for files without a split of that name.

    >>> from protojax.scale import sources
    >>> sources.usual_split("parts:100")
    'test'
    """
    scheme, _, rest = name.partition(":")
    path = pathlib.Path(rest)
    apart = True
    if scheme == "npz" and zipfile.is_zipfile(path):
        with np.load(path, allow_pickle=False) as arrays:
            apart = "images" not in arrays or "x_test" in arrays
    elif scheme == "folder":
        table = _table(path)
        splits = (
            {row.get("split") for row in _rows(table)} if table.is_file() else set()
        )
        apart = "test" in splits or not splits and (path / "test").is_dir()
    return "test" if apart else "all"


def pillow(need: str) -> Any:
    """Import Pillow's image module.

    Args:
      need: what it is for.

    Returns:
      the module `PIL.Image`.

    Raises:
      ImportError: if Pillow is not installed.

    >>> from protojax.scale import sources
    >>> sources.pillow("this example").new("L", (2, 1)).size
    (2, 1)
    """
    if importlib.util.find_spec("PIL") is None:
        raise ImportError(f"{need} needs Pillow: pip install 'protojax[experiments]'")
    import PIL.Image

    return PIL.Image


def _parts(name: str, count: str, split: str, size: int) -> Source:
    count, _, kinds = count.partition("#")
    if kinds not in parts.KINDS or (count and not (count.isdigit() and int(count))):
        raise ValueError(f"`name` must be parts or parts:COUNT(#apart); got {name!r}")
    if split not in PARTS_SEEDS:
        raise ValueError(
            f"`split` of parts must be one of {tuple(PARTS_SEEDS)}; got {split!r}"
        )
    number, variants = int(count or _PARTS_COUNT), parts.KINDS[kinds]
    # Every bird is drawn once, when it is first asked for, and kept as bytes.
    drawn: dict[int, Array] = {}

    def read(i: int) -> tuple[Array, int]:
        if i not in drawn:
            seed = PARTS_SEEDS[split]
            bird = parts.draw([i], image_size=size, seed=seed, classes=variants)
            drawn[i] = np.round(bird.image[0] * 255).astype(np.uint8)
        return drawn[i], i % len(variants)

    classes = tuple(f"bird {i}" for i in range(len(variants)))
    return Source(number, classes, lambda i: f"{split} {i}", read)


def _npz(path: str, split: str) -> Source:
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such npz file: {file}")
    keys = ("images", "labels") if split == "all" else (f"x_{split}", f"y_{split}")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is not an npz file, or it is cut short")
    with np.load(file, allow_pickle=False) as arrays:
        if missing := [key for key in keys if key not in arrays]:
            raise ValueError(
                f"{file} has no array {' or '.join(missing)} (split={split!r}); it has "
                f"{', '.join(arrays.files)}. Images are x_SPLIT and labels y_SPLIT, "
                "or images and labels for split='all'"
            )
        try:
            images, labels = arrays[keys[0]], arrays[keys[1]]
            names = arrays.get("class_names", [])
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
    images = _checked_images(images, f"{file} {keys[0]}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{file} {keys[1]} must be integers [{len(images)}], one for each image; "
            f"got {labels.dtype} {list(labels.shape)}"
        )

    def read(i: int) -> tuple[Array, int]:
        return images[i], int(labels[i])

    classes = tuple(str(n) for n in names)
    return Source(len(images), classes, lambda i: f"{keys[0]}[{i}]", read)


def _checked_images(images: Array, where: str) -> Array:
    """uint8 or float [N, H, W, 3]; gray images are repeated."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"{where} must be images [N, H, W, 3], [N, H, W, 1] or [N, H, W] with at "
            f"least one of them; got shape {list(images.shape)}"
        )
    if images.dtype == np.uint8:
        return np.broadcast_to(images, (*images.shape[:3], 3))
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"{where} must be uint8 (0 to 255) or float (0 to 1), got {images.dtype}"
        )
    if not np.isfinite(images).all():
        raise ValueError(f"{where} has NaN or infinite pixels: clean them first")
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"{where} is float and must lie in [0, 1], got [{low:.4g}, {high:.4g}]: "
            "divide by 255, or store uint8"
        )
    images = images.astype(np.float32)
    return np.broadcast_to(images, (*images.shape[:3], 3))


def _sliced(whole: Source, part: str, split: str) -> Source:
    """Some of the images, as `all[::2]` and `all[1::2]` name them."""
    numbers = part.removesuffix("]").split(":")
    signless = [number.removeprefix("-") for number in numbers]
    right = part.endswith("]") and 2 <= len(numbers) <= 3
    if (
        not right
        or not all(n.isdigit() or not n for n in signless)
        or "0" in numbers[2:]
    ):
        raise ValueError(
            f"`split` is {split!r}: write a slice as NAME[FIRST:LAST] or "
            "NAME[FIRST:LAST:STEP], numbers or nothing"
        )
    places = range(whole.num)[slice(*(int(n) if n else None for n in numbers))]
    if not places:
        raise ValueError(f"`split` {split!r} has none of the {whole.num} images")
    return Source(
        len(places),
        whole.classes,
        lambda i: whole.name(places[i]),
        lambda i: whole.read(places[i]),
    )


def _tfds(name: str, split: str, size: int) -> Source:
    import tensorflow_datasets as tfds

    name, _, box = name.partition("#")
    records = tfds.data_source(name, split=split)
    features = records.dataset_info.features
    for need in ("image", "label", *([box] if box else [])):
        if need not in features:
            raise ValueError(
                f"tfds:{name} has no feature {need!r}; it has {sorted(features)}"
            )
    if not len(records):
        raise ValueError(f"tfds:{name} split {split!r} is empty")

    def read(i: int) -> tuple[Array, int]:
        record = records[i]
        image = _checked_images(record["image"][None], f"tfds:{name} {split} {i}")[0]
        if box:
            image = _cut_out(image, record[box], size)
        return image, int(record["label"])

    classes = tuple(getattr(features["label"], "names", None) or ())
    return Source(len(records), classes, lambda i: f"{name} {split} {i}", read)


def _cut_out(image: Array, box: Array, size: int) -> Array:
    """What lies in a box, resized to a square: sides change by different factors."""
    pixels = np.asarray(box, float) * np.tile(image.shape[:2], 2)
    top, left, bottom, right = (pixels + 1e-3).astype(int)  # 59.9999 was 60 once
    rows, columns = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
    module = pillow("cutting out boxes")
    cut = module.fromarray(np.ascontiguousarray(image[rows, columns]))
    return np.asarray(cut.resize((size, size), module.Resampling.BILINEAR))


def _folder(path: str, split: str) -> Source:
    root = pathlib.Path(path)
    if not root.exists():
        raise FileNotFoundError(f"no such folder: {root}")
    if root.is_file() and root.suffix != ".csv":
        raise ValueError(f"{root} is a file: name a folder of images, or a .csv")
    pillow("reading a folder of images")
    table = _table(root)
    if table.is_file():
        files, labels, classes = _from_table(table, split)
    else:
        files, labels, classes = _from_folders(root, split)

    def read(i: int) -> tuple[Array, int]:
        return _decoded(files[i]), labels[i]

    def name(i: int) -> str:
        inside = files[i].is_relative_to(table.parent)
        return (files[i].relative_to(table.parent) if inside else files[i]).as_posix()

    return Source(len(files), classes, name, read)


def _table(root: pathlib.Path) -> pathlib.Path:
    return root if root.suffix == ".csv" else root / "labels.csv"


def _rows(table: pathlib.Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as lines:
        try:
            return list(csv.DictReader(lines))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{table} is no table in UTF-8: {error}") from error


def _from_table(
    table: pathlib.Path, split: str
) -> tuple[list[pathlib.Path], list[int], tuple[str, ...]]:
    rows = _rows(table)
    columns = list(rows[0]) if rows else []
    column = next((c for c in _LABEL_COLUMNS if c in columns), None)
    if "file" not in columns or column is None:
        raise ValueError(
            f"{table} must have a column `file`, one of {_LABEL_COLUMNS} and at least "
            f"one row; it has the columns {columns}"
        )
    # A class that one split lacks must not shift the numbers of the others.
    known = {row[column] for row in rows if row[column]}
    if split != "all":
        splits = sorted({row.get("split") or "" for row in rows})
        rows = [row for row in rows if row.get("split") == split]
        if not rows:
            raise ValueError(
                f"{table} has no rows of split {split!r} (its column `split` has "
                f"{splits}): pass split='all' for every row"
            )
    files = [table.parent / (row["file"] or "") for row in rows]
    if absent := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{table} names {len(absent)} files that do not exist, first {absent[0]}"
        )
    texts = [row[column] for row in rows]
    if not all(texts):
        raise ValueError(
            f"{table} has rows with an empty {column!r}: label every image"
        )
    return files, *_numbered(texts, known)


def _numbered(texts: list[str], known: set[str]) -> tuple[list[int], tuple[str, ...]]:
    """Numbers are labels as they stand; words are numbered in alphabetical order."""
    if all(text.isdecimal() for text in known):
        return [int(text) for text in texts], ()
    classes = tuple(sorted(known))
    return [classes.index(text) for text in texts], classes


def _from_folders(
    root: pathlib.Path, split: str
) -> tuple[list[pathlib.Path], list[int], tuple[str, ...]]:
    tops = [root] if split == "all" else [root / split]
    if not tops[0].is_dir():
        inside = sorted(p.name for p in root.iterdir() if p.is_dir())
        raise ValueError(
            f"{root} has no split {split!r}: its sub-folders are {inside}. Pass "
            "split='all' where they are the classes"
        )
    if loose := sorted(p for p in tops[0].iterdir() if _is_image(p)):
        raise ValueError(
            f"{tops[0]} holds unlabeled images, first {loose[0].name}: put them into "
            "one sub-folder for each class, or add a labels.csv with the columns file "
            "and label"
        )
    # A class that one split lacks must not shift the numbers of the others.
    siblings = tops if split == "all" else [p for p in root.iterdir() if p.is_dir()]
    classes = tuple(
        sorted({c.name for s in siblings for c in s.iterdir() if c.is_dir()})
    )
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(p for p in (tops[0] / name).rglob("*") if _is_image(p))
        files += found
        labels += [label] * len(found)
    if not files:
        raise ValueError(f"{tops[0]} holds no images (endings {', '.join(_ENDINGS)})")
    return files, labels, classes


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in _ENDINGS and path.is_file()


def _decoded(file: pathlib.Path) -> Array:
    """One image file as uint8 [H, W, 3]."""
    module = pillow("reading images")
    from PIL import ImageOps

    try:
        with module.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{file} is not an image that can be decoded: {error}"
        ) from error
    if image.mode not in _MODES:
        raise ValueError(
            f"{file} has pixels of mode {image.mode!r}: store 8 bits in each channel"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = module.new("RGBA", image.size, "white")
        image = module.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))
