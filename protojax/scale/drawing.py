"""What figures are drawn with: a sheet, lines, their names, pictures.

Drawn with matplotlib's objects, never its global state, so that nothing depends on
what else is drawn. Colors are told apart by everybody and lines are named where they
end.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart by the color-blind too; yellow is left out."""

_INK, QUIET, FAINT = "#1f2328", "#6b7280", "#d8dbe0"
_STYLE: Any = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": _INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "svg.hashsalt": "protojax",
}


@contextlib.contextmanager
def sheet(size: tuple[float, float]) -> Iterator["Figure"]:
    """An empty figure in the style of all of them, for drawings of one's own.

    Args:
      size: width and height, in inches.

    Yields:
      A matplotlib figure; text that is set inside has the style.

    Raises:
      ModuleNotFoundError: matplotlib is not installed; says how to install it.

    >>> with sheet((2, 1)) as figure:
    ...     figure.subplots().set_title("one").get_text()
    'one'
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures need matplotlib: pip install 'protojax[experiments]'"
        ) from error
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def draw_line(
    axis: "Axes", numbers: Sequence[Mapping[str, Any]], *, x: str, color: str
) -> float:
    """Draw one line with its interval shaded, where it is wanted.

    Args:
      axis: of a figure from `sheet`.
      numbers: from `report.summary`, of one value and one line, in order.
      x: the column along the horizontal axis.
      color: of both.

    Returns:
      The height of the line's end, for `name_ends`.

    >>> numbers = [{"at": i, "mean": 2.0 * i, "low": 0, "high": 3} for i in (0, 1)]
    >>> with sheet((2, 1)) as figure:
    ...     draw_line(figure.subplots(), numbers, x="at", color="black")
    2.0
    """
    at, mean = [n[x] for n in numbers], [n["mean"] for n in numbers]
    axis.plot(at, mean, color=color, lw=1.8, marker="o", ms=4, clip_on=False, zorder=3)
    sure = [n for n in numbers if n["low"] is not None]
    low, high = ([n[end] for n in sure] for end in ("low", "high"))
    axis.fill_between([n[x] for n in sure], low, high, color=color, alpha=0.16, lw=0)
    return float(mean[-1])


def name_ends(axis: "Axes", ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names right of the lines' ends, pushed apart until none covers another.

    Args:
      axis: whose limits and scales are those that it will have.
      ends: height, name and color of each.

    >>> with sheet((2, 1)) as figure:
    ...     axis = figure.subplots()
    ...     name_ends(axis, [(0.5, "one", "black"), (0.5, "other", "black")])
    >>> low, high = (text.xy[1] for text in axis.texts)
    >>> round(float(high - low), 3)
    0.075
    """
    upright = axis.transData + axis.transAxes.inverted()  # heights from 0 to 1
    ends = sorted((upright.transform((1, end))[1], *rest) for end, *rest in ends)
    apart = 0.075
    heights: list[float] = []
    for height, _, _ in ends:
        heights.append(max(height, heights[-1] + apart) if heights else height)
    over = heights[-1] - 1 if heights else 0.0
    for place in range(len(heights) - 1, -1, -1):  # back below the upper edge
        if over > 0:
            above = heights[place + 1] if place + 1 < len(heights) else 1 + apart
            heights[place] = min(heights[place], above - apart)
    for height, (_, name, color) in zip(heights, ends, strict=True):
        axis.annotate(
            *(name, (1, height)),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=8.5,
            annotation_clip=False,
        )


def show(axis: "Axes", picture: np.ndarray) -> None:
    """Put one picture where it is wanted, without a frame.

    Args:
      axis: of a figure from `sheet`.
      picture: as for `panels`.

    >>> with sheet((2, 1)) as figure:
    ...     show(figure.subplots(), np.zeros([4, 4, 3]))
    """
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    if picture.ndim == 3:
        gray = picture.shape[-1] == 1
        shown = picture[..., 0] if gray else picture
        axis.imshow(np.clip(shown, 0, 1), cmap="gray", vmin=0, vmax=1)
        return
    top = float(np.quantile(picture, 0.995)) or 1.0
    axis.imshow(picture, cmap="magma", vmin=0, vmax=top)
