"""Concepts in pictures: maps laid over images, and bars of what each concept adds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from protojax.scale import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FOR, _AGAINST = "#D55E00", "#0072B2"
_IMAGE, _CHART = 1.5, 2.2  # inches


def overlay(image: np.ndarray, a: np.ndarray, *, strength: float = 1.0) -> np.ndarray:
    """Lay a map over an image.

    The map is stretched to [0, 1] and enlarged smoothly; where it is high its color
    covers the image, where it is low the image is seen.

    Args:
      image: `[H, W, 3]` in [0, 1].
      a: `[h, w]` map, of any size.
      strength: from 0 to 1, how bright the result is: less than one for what counts
        for little, 0.3 at least.

    Returns:
      `[H, W, 3]` in [0, 1].

    Raises:
      ModuleNotFoundError: matplotlib or Pillow is not installed.

    References:
      Qi et al., Embedding Deep Networks into Visual Explanations, 2021, as in the
      authors' code, but for the colors.

    >>> image = np.full((8, 8, 3), 0.5)
    >>> bool(np.all(overlay(image, np.zeros((2, 2))) == image))
    True
    """
    large = _enlarged(_stretched(np.asarray(a, np.float64)), np.shape(image)[:2])
    cover = large[..., None] ** 0.8
    laid = (1 - cover) * image + cover * _colored(large)
    return np.clip(laid * (0.3 + 0.7 * min(max(strength, 0.0), 1.0)), 0, 1)


def breakdown(
    pictures: Sequence[Sequence[np.ndarray]],
    values: Sequence[np.ndarray],
    *,
    titles: Sequence[str],
    names: Sequence[str],
    notes: Sequence[Sequence[str]] | None = None,
) -> "Figure":
    """Pictures of each example, and a bar for what each concept adds to its score.

    Args:
      pictures: rows of `[H, W, 3]` images, the first one before the bars.
      values: `[F]` contributions, one for each row.
      titles: over the pictures.
      names: `[F]` of the concepts, beside the bars.
      notes: beneath each picture, if given.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: rows of different lengths.
      ModuleNotFoundError: matplotlib is not installed; says how to install it.

    >>> image = np.zeros((4, 4, 3))
    >>> figure = breakdown([[image, image]], [np.array([1.0, -0.5])],
    ...                    titles=["image", "first"], names=["first", "second"])
    >>> len(figure.axes)
    3
    """
    for number, (row, parts) in enumerate(zip(pictures, values, strict=True)):
        if len(row) != len(titles) or len(parts) != len(names):
            raise ValueError(
                f"row {number} has {len(row)} pictures for {len(titles)} titles and "
                f"{len(parts)} values for {len(names)} names: pass as many of each"
            )
    reach = max(float(np.max(np.abs(parts))) for parts in values) or 1.0
    width = _IMAGE * len(titles) + _CHART
    height = (_IMAGE + (0.4 if notes else 0.1)) * len(pictures) + 0.3
    with figures.sheet((width, height)) as figure:
        ratios = [_IMAGE, _CHART, *(_IMAGE for _ in titles[1:])]
        axes = figure.subplots(
            len(pictures), len(ratios), squeeze=False, width_ratios=ratios
        )
        for place, (row, parts) in enumerate(zip(pictures, values, strict=True)):
            shown = [axes[place][0], *axes[place][2:]]
            _bars(axes[place][1], parts, names, reach)
            for column, (axis, picture) in enumerate(zip(shown, row, strict=True)):
                figures.show(axis, picture)
                if notes:
                    axis.set_xlabel(notes[place][column], fontsize=8, labelpad=3)
        for axis, title in zip([axes[0][0], *axes[0][2:]], titles, strict=True):
            axis.set_title(title, fontsize=9)
        axes[0][1].set_title("contributions", fontsize=9)
    return figure


def _bars(axis: "Axes", values: np.ndarray, names: Sequence[str], reach: float) -> None:
    places = np.arange(len(values))[::-1]
    colors = [_FOR if value > 0 else _AGAINST for value in values]
    axis.barh(places, values, color=colors, height=0.62)
    axis.axvline(0, color="#6b7280", lw=0.8)
    axis.set_box_aspect(_IMAGE / _CHART)  # as high as an image
    axis.set_xlim(-1.35 * reach, 1.35 * reach)
    axis.set_yticks(places, names, fontsize=8)
    axis.set_xticks([])
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axis.tick_params(length=0)
    for place, value in zip(places, values, strict=True):
        side = "left" if value >= 0 else "right"
        shift = 3 if value >= 0 else -3
        axis.annotate(
            f"{value + 0.0:.3g}",
            (value, place),
            xytext=(shift, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=7.5,
        )


def _colored(a: np.ndarray) -> np.ndarray:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures need matplotlib: pip install 'protojax[experiments]'"
        ) from error
    return matplotlib.colormaps["turbo"](a)[..., :3]


def _stretched(a: np.ndarray) -> np.ndarray:
    low, high = float(np.min(a)), float(np.max(a))
    return (a - low) / (high - low) if high > low else np.zeros_like(a)


def _enlarged(a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if a.shape == tuple(shape):
        return a
    from protojax.scale import sources

    image = sources.pillow("laying maps over images").fromarray(np.float32(a), "F")
    return np.clip(image.resize(shape[::-1], 3), 0, 1)  # 3 is bicubic
