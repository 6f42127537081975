"""Where images come from, said in one way: `tfds:`, `folder:`, `npz:` and `parts`.

    tfds:cifar10              a TensorFlow Datasets set (needs no TensorFlow)
    tfds:cars196#bbox         the same, what lies in the box `bbox` of each image
    folder:PATH               images in one sub-folder for each class, or named in a
                              `labels.csv` (`folder:PATH/other.csv` names the table)
    npz:PATH                  arrays `x_SPLIT`, `y_SPLIT`, or `images`, `labels`
    parts, parts:COUNT        the drawn birds, COUNT of them in each split
    parts:COUNT#apart         three kinds of them that share no variant of any part

Whatever the source, images come as float32 `[S, S, 3]` in [0, 1]: the short side is
resized (with antialiasing), the center is cut out, gray images are repeated to three
channels, and transparent ones are laid on white. What is cut out of a box is resized to
a square, whatever its sides. A split may be sliced: `all[::2]` and `all[1::2]` are the
two halves of files that come without splits.
"""

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import numpy as np

from protojax.scale import progress, sources

Array = np.ndarray

_THREADS = 4  # that read and decode
_LONG = 200  # images to read before a progress bar is worth it
_AHEAD = 2  # batches that are being read while one is worked on


def batches(
    name: str,
    split: str,
    *,
    size: int,
    image_size: int,
    seed: int,
    start: int = 0,
    resize: int | None = None,
) -> Iterator[dict[str, Array]]:
    """Yield shuffled batches without end; `start` takes them up where they were left.

    Every epoch is a new permutation, made from `seed` and the number of the epoch
    alone. What is left at the end of an epoch and fills no batch is dropped.

    Args:
      name: where the images come from, see the module.
      split: `train`, `test` or whatever the source has; `all` for files without splits.
      size: images in a batch, B.
      image_size: height and width S in pixels.
      seed: of the shuffling.
      start: number of the first batch that is wanted; `batches(start=n)` gives what
        `batches()` gives after n batches, without reading those.
      resize: length of the short side before the center is cut out; None is
        `image_size`, so that nothing but the longer side is cut.

    Yields:
      `image` float32 `[B, S, S, 3]` in [0, 1], `label` int32 `[B]`, and `id` int32
      `[B]`, the place in the split.

    Raises:
      ValueError: if a number is out of range or the source is not what it should be.
      FileNotFoundError: if there is no such file or folder.

    >>> from protojax.scale import data
    >>> stream = data.batches("parts:20", "train", size=4, image_size=32, seed=0)
    >>> next(stream)["image"].shape
    (4, 32, 32, 3)
    """
    _check_sizes(image_size, resize)
    found = sources.find(name, split, image_size=resize or image_size)
    if not 1 <= size <= found.num:
        raise ValueError(
            f"`size` must be 1 to {found.num}, the number of images in {name!r} "
            f"{split!r}; got {size}"
        )
    if start < 0 or seed < 0:
        raise ValueError(f"`start` and `seed` must be 0 or more, got {start}, {seed}")
    order = _order(found.num, size, seed, start)
    return _stream(_reader(found, image_size, resize), order)


def in_order(
    name: str,
    split: str,
    *,
    size: int,
    image_size: int,
    resize: int | None = None,
) -> Iterator[dict[str, Array]]:
    """Yield every image once, batch by batch, in the order of the source.

    Args:
      name: where the images come from, see the module.
      split: `train`, `test` or whatever the source has; `all` for files without splits.
      size: images in a batch, B; the last batch may have fewer.
      image_size: height and width S in pixels.
      resize: length of the short side before the center is cut out, as in `batches`.

    Yields:
      `image` float32 `[B, S, S, 3]` in [0, 1], `label` int32 `[B]`, and `id` int32
      `[B]`, the place in the split.

    Raises:
      ValueError: if a number is out of range or the source is not what it should be.
      FileNotFoundError: if there is no such file or folder.

    >>> from protojax.scale import data
    >>> [batch["id"].tolist() for batch in
    ...  data.in_order("parts:5", "train", size=3, image_size=32)]
    [[0, 1, 2], [3, 4]]
    """
    _check_sizes(image_size, resize)
    found = sources.find(name, split, image_size=resize or image_size)
    if size < 1:
        raise ValueError(f"`size` must be 1 or more, got {size}")
    chosen = np.arange(found.num)
    order = (chosen[first : first + size] for first in range(0, found.num, size))
    return _stream(_reader(found, image_size, resize), order)


def load(
    name: str,
    split: str,
    *,
    image_size: int,
    resize: int | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> dict[str, Array]:
    """Read images for evaluation, in their own order, as whole arrays.

    Args:
      name: where the images come from, see the module.
      split: `train`, `test` or whatever the source has; `all` for files without splits.
      image_size: height and width S in pixels.
      resize: length of the short side before the center is cut out; None is
        `image_size`. ImageNet's usual protocol is `image_size=224, resize=256`.
      limit: read so many at most; None is all.
      seed: where it is given, the `limit` images are drawn at random (their order is
        kept) instead of being the first ones.

    Returns:
      `image` float32 `[N, S, S, 3]` in [0, 1], `label` int32 `[N]`, and `id` int32
      `[N]`, the place in the split.

    Raises:
      ValueError: if a number is out of range or the source is not what it should be.
      FileNotFoundError: if there is no such file or folder.

    >>> from protojax.scale import data
    >>> birds = data.load("parts", "test", image_size=32, limit=3)
    >>> birds["label"].tolist()
    [0, 1, 2]
    """
    _check_sizes(image_size, resize)
    found = sources.find(name, split, image_size=resize or image_size)
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be 1 or more, or None for all; got {limit}")
    chosen = np.arange(found.num)
    if limit is not None and limit < found.num:
        if seed is not None:
            chosen = np.random.default_rng(seed).permutation(chosen)
        chosen = np.sort(chosen[:limit])
    return _picked(found, chosen, image_size, resize)


def pick(
    name: str,
    split: str,
    ids: Sequence[int] | Array,
    *,
    image_size: int,
    resize: int | None = None,
) -> dict[str, Array]:
    """Read some images by their place in the source.

    Args:
      name: where the images come from, see the module.
      split: `train`, `test` or whatever the source has; `all` for files without splits.
      ids: which ones, N of them.
      image_size: height and width S in pixels.
      resize: length of the short side before the center is cut out, as in `load`.

    Returns:
      `image` float32 `[N, S, S, 3]` in [0, 1], `label` int32 `[N]`, and `id` int32
      `[N]`, as given.

    Raises:
      ValueError: if a number is out of range or the source is not what it should be.
      FileNotFoundError: if there is no such file or folder.

    >>> from protojax.scale import data
    >>> data.pick("parts", "test", [9, 2], image_size=32)["label"].tolist()
    [1, 2]
    """
    _check_sizes(image_size, resize)
    found = sources.find(name, split, image_size=resize or image_size)
    chosen = np.asarray(ids, int)
    if not chosen.size or chosen.min() < 0 or chosen.max() >= found.num:
        raise ValueError(
            f"`ids` must be places from 0 to {found.num - 1}, one or more; got "
            f"{chosen.tolist()[:8]}"
        )
    return _picked(found, chosen, image_size, resize)


def _picked(
    found: sources.Source, chosen: Array, image_size: int, resize: int | None
) -> dict[str, Array]:
    read = _reader(found, image_size, resize)
    with (
        futures.ThreadPoolExecutor(_THREADS) as pool,
        _shown(len(chosen)) as step,
    ):
        examples = []
        for example in pool.map(read, chosen):
            examples.append(example)
            step(1)
    return _collated(chosen, examples)


def _shown(total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    """A progress bar where there is something to wait for."""
    if total < _LONG:
        return contextlib.nullcontext(lambda _: None)
    return progress.bar(total, 0, unit="image")


def _check_sizes(image_size: int, resize: int | None) -> None:
    if image_size < 1:
        raise ValueError(f"`image_size` must be 1 or more, got {image_size}")
    if resize is not None and resize < image_size:
        raise ValueError(
            f"`resize` must be at least `image_size` ({image_size}), as the center is "
            f"cut out of it; got {resize}"
        )


def _order(count: int, size: int, seed: int, start: int) -> Iterator[Array]:
    """Indices of batch `start`, `start + 1`, ..."""
    epoch, first = divmod(start, count // size)
    while True:
        shuffled = np.random.default_rng([seed, epoch]).permutation(count)
        for batch in range(first, count // size):
            yield shuffled[batch * size : (batch + 1) * size]
        epoch, first = epoch + 1, 0


def _stream(
    read: Callable[[int], tuple[Array, int]], order: Iterator[Array]
) -> Iterator[dict[str, Array]]:
    """Read ahead in threads; results do not depend on how they run."""
    pool = futures.ThreadPoolExecutor(_THREADS)
    waiting: collections.deque = collections.deque()
    try:
        for chosen in order:
            waiting.append((chosen, [pool.submit(read, i) for i in chosen]))
            if len(waiting) > _AHEAD:
                yield _awaited(*waiting.popleft())
        while waiting:
            yield _awaited(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _awaited(ids: Array, tasks: list[futures.Future]) -> dict[str, Array]:
    return _collated(ids, [task.result() for task in tasks])


def _collated(ids: Array, examples: list[tuple[Array, int]]) -> dict[str, Array]:
    images, labels = zip(*examples, strict=True)
    if min(labels) < 0:
        place = int(np.argmin(labels))
        raise ValueError(
            f"image {ids[place]} has the label {labels[place]}, and labels count from"
            " 0: of a set without labels take another split"
        )
    return {
        "image": np.stack(images),
        "label": np.array(labels, np.int32),
        "id": np.asarray(ids, np.int32),
    }


def _reader(
    found: sources.Source, image_size: int, resize: int | None
) -> Callable[[int], tuple[Array, int]]:
    def read(i: int) -> tuple[Array, int]:
        image, label = found.read(int(i))
        return _fit(image, image_size, resize or image_size), label

    return read


def _fit(image: Array, size: int, short: int) -> Array:
    """Resize the short side, cut out the center: float32 [size, size, 3]."""
    height, width = image.shape[:2]
    scale = short / min(height, width)
    rows, columns = max(short, round(height * scale)), max(short, round(width * scale))
    if (rows, columns) != (height, width):
        image = _resized(image, rows, columns)
    top, left = (rows - size) // 2, (columns - size) // 2
    image = image[top : top + size, left : left + size]
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    return np.clip(image, 0, 1).astype(np.float32)


def _resized(image: Array, rows: int, columns: int) -> Array:
    pillow = sources.pillow("resizing images")
    how = {"size": (columns, rows), "resample": pillow.Resampling.BILINEAR}
    if image.dtype == np.uint8:
        return np.asarray(pillow.fromarray(image).resize(**how))
    channels = [pillow.fromarray(image[..., c]).resize(**how) for c in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)
