"""Figures: how far explanations moved, and what that looks like.

The numbers come from `report`; `drawing` has what all of them are drawn with.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from protojax.scale import report
from protojax.scale.drawing import COLORS as COLORS
from protojax.scale.drawing import FAINT, QUIET
from protojax.scale.drawing import draw_line as draw_line
from protojax.scale.drawing import name_ends as name_ends
from protojax.scale.drawing import sheet as sheet
from protojax.scale.drawing import show as show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TICKS = 12  # on an axis; of more, every second or third is left
_CHARACTER = 0.068  # inches, of the names of lines


def curves(
    rows: Sequence[report.Row],
    *,
    x: str,
    lines: str,
    values: Sequence[str],
    chance: Mapping[str, float] | None = None,
    names: Mapping[Any, str] | None = None,
    logarithmic: Literal["", "x", "y", "xy"] = "",
) -> "Figure":
    """One panel for each value, against a number, with one line per method.

    Intervals are shaded (see `report.estimate`), the chance level is a dashed line.
    The figure is as wide as the names of the lines need.

    Args:
      rows: from `report.read`.
      x: the column along the horizontal axis, a number such as the radius; rows that
        have none there are left out.
      lines: the column whose values get a line each.
      values: the columns to draw, a panel each.
      chance: what chance would give, by column.
      names: how columns and values are written, where not as they are.
      logarithmic: which axes are; what is not above zero is then not drawn.

    Returns:
      A matplotlib figure.

    Raises:
      ModuleNotFoundError: matplotlib is not installed; says how to install it.

    >>> rows = [{"id": i, "attack": "top_k", "radius": r, "overlap": 1 - r}
    ...         for i in range(3) for r in (0.1, 0.2)]
    >>> figure = curves(rows, x="radius", lines="attack", values=["overlap"])
    >>> len(figure.axes)
    1
    """
    names, chance = names or {}, chance or {}
    placed = [row for row in rows if row.get(x) is not None]
    numbers = report.summary(placed, by=[lines, x], values=values)
    keys = report.sort(number[lines] for number in numbers)
    longest = max(len(report.label(key, names)) for key in [*keys, "chance"])
    with sheet(((2.4 + _CHARACTER * longest) * len(values), 3.1)) as figure:
        axes = figure.subplots(1, len(values), squeeze=False)[0]
        for axis, value in zip(axes, values, strict=True):
            chosen = [n for n in numbers if n["value"] == value]
            known = [n for n in chosen if n["mean"] is not None]
            drawn = [n for n in known if n["mean"] > 0 or "y" not in logarithmic]
            ends = []
            for place, key in enumerate(keys):
                color = COLORS[place % len(COLORS)]
                line = [n for n in drawn if n[lines] == key]
                if line:  # one without points would take room, at no place
                    end = draw_line(axis, line, x=x, color=color)
                    ends.append((end, report.label(key, names), color))
            if value in chance:
                axis.axhline(chance[value], color=QUIET, lw=1, ls=(0, (4, 3)))
                ends.append((chance[value], "chance", QUIET))
            ticks = sorted({n[x] for n in chosen})
            few = ticks[:: 1 + len(ticks) // _TICKS]
            _frame(axis, few, report.label(x, names), logarithmic)
            axis.set_title(report.label(value, names), loc="left", fontsize=10.5)
            name_ends(axis, ends)
    return figure


def panels(
    pictures: Sequence[Sequence[np.ndarray]],
    *,
    titles: Sequence[str],
    notes: Sequence[Sequence[str]] | None = None,
    side: float = 2.0,
) -> "Figure":
    """Images and maps side by side, one line for each example, text beneath.

    Args:
      pictures: rows of arrays; `[H, W, 3]` and `[H, W, 1]` are images in [0, 1],
        `[H, W]` are maps, drawn from zero to their 99.5th percentile.
      titles: over the columns.
      notes: beneath each picture, if given.
      side: width of a picture in inches: less where there are many columns, so that
        text is not small beside them.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: rows of different lengths.
      ModuleNotFoundError: matplotlib is not installed; says how to install it.

    >>> image, a = np.zeros([4, 4, 3]), np.ones([4, 4])
    >>> len(panels([[image, a]], titles=["image", "map"]).axes)
    2
    """
    for number, row in enumerate(pictures):
        texts = notes[number] if notes else row
        if not len(row) == len(titles) == len(texts):
            raise ValueError(
                f"row {number} has {len(row)} pictures and {len(texts)} notes for "
                f"{len(titles)} titles: pass as many of each"
            )
    beneath = max((n.count("\n") + 1 for row in notes or () for n in row), default=0)
    height = 0.95 * side + 0.17 * beneath
    with sheet((side * len(titles), height * len(pictures) + 0.3)) as figure:
        axes = figure.subplots(len(pictures), len(titles), squeeze=False)
        for place, row in enumerate(pictures):
            for axis, picture in zip(axes[place], row, strict=True):
                show(axis, np.asarray(picture))
            if notes:
                for axis, note in zip(axes[place], notes[place], strict=True):
                    axis.set_xlabel(note, fontsize=8, labelpad=4)
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title, fontsize=9.5)
    return figure


def histograms(
    rows: Sequence[report.Row],
    *,
    value: str,
    lines: str,
    bins: Sequence[float],
    weight: str | None = None,
    names: Mapping[Any, str] | None = None,
) -> "Figure":
    """The distribution of a column, with one outline for each group of rows.

    Heights are shares of a group. What lies beyond the bins is not drawn, and counts.

    Args:
      rows: from `report.read`.
      value: the column that is distributed.
      lines: the column whose values get an outline each; the first one is filled.
      bins: `[B + 1]` edges, in order.
      weight: a column that says how much a row counts; all rows alike by default.
      names: how columns and values are written, where not as they are.

    Returns:
      A matplotlib figure.

    Raises:
      ModuleNotFoundError: matplotlib is not installed; says how to install it.

    >>> rows = [{"angle": 10.0 * i, "of": "images"} for i in range(9)]
    >>> figure = histograms(rows, value="angle", lines="of", bins=[0, 45, 90])
    >>> figure.axes[0].patches[0].get_data().values.round(2).tolist()
    [0.56, 0.44]
    """
    names = names or {}
    with sheet((6.2, 3.3)) as figure:
        axis = figure.subplots()
        _open(axis)
        for place, key in enumerate(report.sort(row[lines] for row in rows)):
            color = COLORS[place % len(COLORS)]
            chosen = [r for r in rows if r[lines] == key and r[value] is not None]
            counted = np.array([r[weight] if weight else 1.0 for r in chosen])
            found, _ = np.histogram([r[value] for r in chosen], bins, weights=counted)
            shares = found / max(counted.sum(), np.finfo(float).tiny)
            axis.stairs(shares, bins, color=color, lw=1.8, zorder=3)
            if not place:
                axis.stairs(shares, bins, color=color, alpha=0.16, fill=True)
            axis.annotate(
                *(report.label(key, names), (1, 1)),
                xycoords="axes fraction",
                xytext=(6, -6 - 14 * place),
                textcoords="offset points",
                color=color,
                va="center",
                fontsize=8.5,
                annotation_clip=False,
            )
        axis.set_xlim(bins[0], bins[-1])
        axis.set_xlabel(report.label(value, names))
        axis.set_ylabel("share")
    return figure


def spectrum(
    grid: np.ndarray,
    density: np.ndarray,
    *,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    outliers: Sequence[float] = (),
    floor: float = 1e-7,
    name: str = "eigenvalue",
) -> "Figure":
    """The density of eigenvalues on a logarithmic axis, where few stand out of many.

    Args:
      grid: `[G]` values, in order.
      density: `[G]` the share of eigenvalues per unit there.
      low: `[G]` lower end of its interval, shaded if both ends are given.
      high: `[G]` upper end.
      outliers: eigenvalues that are known one by one, each marked.
      floor: what is drawn at least, relative to the peak; one of N eigenvalues alone
        rises to about 1 / N.
      name: of the horizontal axis.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: for arrays of different lengths, or a density that is zero everywhere.
      ModuleNotFoundError: matplotlib is not installed; says how to install it.

    >>> grid = np.linspace(-1, 5, 50)
    >>> figure = spectrum(grid, np.exp(-(grid**2)), outliers=[4.0])
    >>> figure.axes[0].get_yscale()
    'log'
    """
    ends = [np.asarray(end) for end in (low, high) if end is not None]
    shapes = {np.shape(each) for each in (grid, density, *ends)}
    peak = float(np.max(density, initial=0.0))
    if len(shapes) > 1 or not peak > 0:
        raise ValueError(
            f"`density` has a peak of {peak:g} and the arrays the shapes "
            f"{sorted(shapes)}: pass one density above zero for each value of `grid`"
        )
    least = floor * peak
    with sheet((6.2, 3.3)) as figure:
        axis = figure.subplots()
        _open(axis)
        axis.set_yscale("log")
        drawn = np.maximum(density, least)
        if len(ends) == 2:
            band = [np.maximum(end, least) for end in ends]
            axis.fill_between(grid, *band, color=COLORS[0], alpha=0.2, lw=0)
        axis.plot(grid, drawn, color=COLORS[0], lw=1.6, zorder=3)
        if len(outliers):
            tops = np.interp(outliers, grid, drawn)
            color = COLORS[1]
            axis.vlines(outliers, least, tops, lw=0.9, color=color, zorder=4)
            axis.plot(outliers, tops, "v", ms=4.5, color=color, zorder=4)
        axis.set_ylim(least, 3 * max(peak, *(float(np.max(end)) for end in ends), 0.0))
        axis.set_xlim(grid[0], grid[-1])
        axis.set_xlabel(name)
        axis.set_ylabel("density")
        texts = ["density", f"{len(outliers)} known one by one"][
            : 1 + (len(outliers) > 0)
        ]
        for place, text in enumerate(texts):
            axis.annotate(
                *(text, (1, 1)),
                xycoords="axes fraction",
                xytext=(-4, -6 - 14 * place),
                textcoords="offset points",
                color=COLORS[place],
                ha="right",
                va="center",
                fontsize=8.5,
            )
    return figure


def _open(axis: "Axes") -> None:
    """Without a frame above and at the right, and with faint lines behind."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
    axis.grid(axis="y", color=FAINT, lw=0.6)


def _frame(axis: "Axes", ticks: list[float], name: str, logarithmic: str) -> None:
    _open(axis)
    labels = [report.label(tick, {}) for tick in ticks]
    if all(text.endswith("/255") for text in labels):
        name, labels = f"{name} (/255)", [text[:-4] for text in labels]
    if "x" in logarithmic:
        axis.set_xscale("log")
    if "x" not in logarithmic or ticks[-1] < 1e4 * ticks[0]:
        axis.set_xticks(ticks, labels)  # over more decades their powers of ten are
    axis.xaxis.minorticks_off()
    axis.set_xlabel(name)
    if "y" in logarithmic:
        axis.set_yscale("log")
        return
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.0), high)
