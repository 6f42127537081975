"""JPEG artefacts in data sets: planted where they tell classes apart, or anywhere.

Examples are dicts of arrays with `image` `[N, H, W, 3]` and `label` `[N]`, as
`data.load` and `data.batches` give them; Pillow's codec does the work. A differentiable
JPEG is `images.jpeg`.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np

from protojax.scale import sources

Array = np.ndarray
Examples = Mapping[str, Array]


def odd(labels: Array) -> Array:
    """Whether classes are odd: those that Hoffmann et al. compress.

    Args:
      labels: int `[N]`, counted from zero.

    Returns:
      bool `[N]`.

    >>> odd(np.array([0, 1, 2, 3])).tolist()
    [False, True, False, True]
    """
    return labels % 2 == 1


def of_classes(
    examples: Examples, *, chosen: Callable[[Array], Array] = odd, quality: int = 20
) -> dict[str, Array]:
    """Compress the images of some classes, so that artefacts tell them from the rest.

    Args:
      examples: with `image` and `label`.
      chosen: `[N] labels -> bool [N]`, which are compressed; `np.isfinite` means all.
      quality: from 1 to 100.

    Returns:
      The examples with new images; those that came are left as they are.

    Raises:
      ValueError: for a quality out of range, or images that are none.
      ImportError: if Pillow is not installed.

    References:
      Hoffmann et al., This Looks Like That... Does it?, 2021, and its code.

    >>> examples = {"image": np.full((2, 8, 8, 3), 0.5, np.float32),
    ...             "label": np.array([0, 1])}
    >>> examples["image"][:, 0, 0] = 1.0
    >>> new = of_classes(examples)["image"]
    >>> [bool((a == b).all()) for a, b in zip(new, examples["image"])]
    [True, False]
    """
    return _compressed(examples, chosen(np.asarray(examples["label"])), quality)


def at_random(
    examples: Examples,
    *,
    rng: np.random.Generator,
    share: float = 0.5,
    quality: int = 20,
) -> dict[str, Array]:
    """Compress images of all classes at random, so that artefacts tell nothing.

    As an augmentation: `np.random.default_rng([seed, step])` draws the same again when
    training is taken up at a step.

    Args:
      examples: with `image`.
      rng: source of randomness; one number for each example is drawn.
      share: the probability of each image to be compressed.
      quality: from 1 to 100.

    Returns:
      The examples with new images; those that came are left as they are.

    Raises:
      ValueError: for a quality or share out of range, or images that are none.
      ImportError: if Pillow is not installed.

    References:
      Hoffmann et al., This Looks Like That... Does it?, 2021, and its code: half of the
      images, at quality 20.

    >>> examples = {"image": np.zeros((4, 8, 8, 3), np.float32)}
    >>> at_random(examples, rng=np.random.default_rng(0))["image"].shape
    (4, 8, 8, 3)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` is {share}: pass a probability from 0 to 1")
    return _compressed(examples, rng.random(len(examples["image"])) < share, quality)


def jpeg(image: Array, *, quality: int) -> Array:
    """What comes back when an image is kept as a JPEG.

    Args:
      image: float `[H, W, 3]` in [0, 1].
      quality: from 1 to 100; color has half the resolution (Pillow's default).

    Returns:
      float32 `[H, W, 3]`.

    Raises:
      ValueError: for a quality out of range, or an image that is none.
      ImportError: if Pillow is not installed.

    >>> jpeg(np.full((8, 8, 3), 200 / 255), quality=20)[0, 0, 0] * 255
    np.float32(198.0)
    """
    pillow = sources.pillow("JPEG")
    if not 1 <= quality <= 100:
        raise ValueError(f"`quality` is {quality}: JPEG's quality is from 1 to 100")
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype.kind != "f":
        raise ValueError(
            f"`image` is {image.dtype} {list(image.shape)}: pass float [H, W, 3]"
        )
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"`image` has pixels from {image.min():g} to {image.max():g}: they must be "
            "in [0, 1], and none NaN"
        )
    buffer = io.BytesIO()
    pillow.fromarray(np.uint8(np.round(255 * image))).save(
        buffer, "JPEG", quality=quality
    )
    with pillow.open(buffer) as decoded:
        return np.asarray(decoded, np.float32) / 255


def _compressed(examples: Examples, which: Array, quality: int) -> dict[str, Array]:
    images = np.array(examples["image"], np.float32)
    for i in np.flatnonzero(which):
        images[i] = jpeg(images[i], quality=quality)
    return {**examples, "image": images}
