import html.parser
import json
import sys

import numpy as np
import pytest

from protojax.scale import figures, pages

CHANCE = {"overlap": 0.02}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return [
        {
            "id": ident,
            "attack": attack,
            "radius": radius / 255,
            "overlap": float(rng.uniform()),
            "rank": None if ident == 3 else float(rng.uniform()),
        }
        for attack in ("random_sign", "top_k")
        for radius in (1, 2, 8)
        for ident in range(4)
    ]


@pytest.fixture(scope="module")
def curves(rows):
    values = ["overlap", "rank"]
    return figures.curves(
        rows, x="radius", lines="attack", values=values, chance=CHANCE
    )


def test_curves_draw_means_name_lines_and_show_chance(curves, rows):
    overlap, rank = curves.axes
    line = overlap.lines[1]
    chosen = [r["overlap"] for r in rows if r["attack"] == "top_k"]
    means = np.asarray(chosen).reshape(3, 4).mean(axis=1)
    np.testing.assert_allclose(line.get_ydata(), means)
    np.testing.assert_allclose(line.get_xdata(), np.asarray([1, 2, 8]) / 255)
    assert {t.get_text() for t in overlap.texts} == {"random sign", "top k", "chance"}
    assert {t.get_text() for t in rank.texts} == {"random sign", "top k"}
    assert [t.get_text() for t in overlap.get_xticklabels()] == ["1", "2", "8"]
    assert overlap.get_xlabel() == "radius (/255)"


def test_names_at_the_ends_never_cover_each_other():
    same = [
        {"id": 0, "attack": f"attack {n}", "radius": r, "x": 0.5}
        for n in range(6)
        for r in (0.1, 0.2)
    ]
    figure = figures.curves(same, x="radius", lines="attack", values=["x"])
    axis = figure.axes[0]
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in axis.texts]
    heights = sorted((box.y0, box.y1) for box in boxes)
    assert len(heights) == 6
    assert all(a[1] <= b[0] + 1 for a, b in zip(heights, heights[1:], strict=False))


def test_long_names_leave_room_to_draw():
    name = "an attack that somebody has given a very long and winding name"
    long = [{"id": 0, "attack": name, "radius": r, "a": r, "b": r} for r in (1, 2)]
    figure = figures.curves(long, x="radius", lines="attack", values=["a", "b"])
    figure.canvas.draw()  # a layout that fails warns, and a warning is an error
    for axis in figure.axes:
        assert axis.get_window_extent().width / figure.dpi > 1.2


def test_rows_without_a_place_are_not_drawn():
    rows = [{"id": 0, "attack": "x", "radius": r, "v": 1.0} for r in (None, 0.1, 0.2)]
    figure = figures.curves(rows, x="radius", lines="attack", values=["v"])
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0.1, 0.2]


def test_lines_that_a_panel_does_not_have_take_no_room():
    rows = [
        {"id": i, "attack": value, "radius": r, value: float(i)}
        for value in ("one", "other")
        for r in (1.0, 8.0)
        for i in (0, 1)
    ]
    figure = figures.curves(rows, x="radius", lines="attack", values=["one", "other"])
    figure.canvas.draw()  # a layout that fails warns, and warnings are errors
    for axis, value in zip(figure.axes, ("one", "other"), strict=True):
        assert [t.get_text() for t in axis.texts] == [value]
        assert axis.get_position().width > 0.3


def test_names_stand_at_the_ends_of_logarithmic_lines():
    rows = [
        {"id": 0, "attack": name, "radius": r, "x": r**power}
        for name, power in (("linear", 1), ("steep", 3))
        for r in (0.01, 0.1, 1.0, 10.0)
    ]
    figure = figures.curves(
        rows, x="radius", lines="attack", values=["x"], logarithmic="xy"
    )
    (axis,) = figure.axes
    figure.canvas.draw()
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    for text, end in zip(axis.texts, (10.0, 1000.0), strict=True):
        box = text.get_window_extent()
        height = axis.transData.transform((1, end))[1]
        assert box.y0 < height < box.y1
    assert [t.get_text() for t in axis.get_xticklabels()] == ["0.01", "0.1", "1", "10"]


def test_what_a_logarithm_cannot_show_is_not_drawn():
    rows = [{"id": 0, "attack": "a", "radius": r, "x": r - 1.0} for r in (1.0, 2.0)]
    figure = figures.curves(
        rows, x="radius", lines="attack", values=["x"], logarithmic="y"
    )
    figure.canvas.draw()
    assert figure.axes[0].lines[0].get_xdata().tolist() == [2.0]
    assert len(figure.axes[0].get_xticks()) == 2


def test_many_places_on_an_axis_are_not_all_named():
    rows = [{"id": 0, "place": i, "similarity": 1.0, "of": "a"} for i in range(1, 76)]
    figure = figures.curves(rows, x="place", lines="of", values=["similarity"])
    assert figure.axes[0].get_xticks().tolist() == [*range(1, 76, 7)]


def test_histograms_draw_shares_that_count_by_weight():
    rows = [{"of": "b", "x": x, "share": w} for x, w in ((0.1, 3), (0.9, 1), (5, 4))]
    rows += [{"of": "a", "x": x, "share": 1} for x in (0.2, 0.3, None)]
    bins = [0.0, 0.5, 1.0]
    figure = figures.histograms(rows, value="x", lines="of", bins=bins, weight="share")
    axis = figure.axes[0]
    outlines = [patch.get_data().values for patch in axis.patches]
    assert [t.get_text() for t in axis.texts] == ["b", "a"]
    # Of eight, four lie beyond the bins; the outline of the first is filled.
    np.testing.assert_allclose(outlines[0], [3 / 8, 1 / 8])
    np.testing.assert_allclose(outlines[1], outlines[0])
    np.testing.assert_allclose(outlines[2], [1.0, 0.0])
    plain = figures.histograms(rows, value="x", lines="of", bins=bins).axes[0]
    np.testing.assert_allclose(plain.patches[0].get_data().values, [1 / 3, 1 / 3])


def test_a_spectrum_shows_one_eigenvalue_of_many_and_its_band():
    grid = np.linspace(-1, 10, 300)
    bulk = np.exp(-(grid**2) / 0.08) + 1e-5 * np.exp(-((grid - 8) ** 2) / 0.08)
    figure = figures.spectrum(
        grid, bulk, low=bulk / 2 - 1e-9, high=2 * bulk, outliers=np.array([8.0])
    )
    axis = figure.axes[0]
    assert axis.get_yscale() == "log"
    least, top = axis.get_ylim()
    assert least == pytest.approx(1e-7 * bulk.max()) and top > 2 * bulk.max()
    line, marks = axis.lines
    np.testing.assert_allclose(line.get_ydata(), np.maximum(bulk, least))
    assert marks.get_xdata() == [8.0]
    assert float(marks.get_ydata()[0]) == pytest.approx(1e-5, rel=0.05)
    (band,) = (c for c in axis.collections if len(c.get_paths()[0].vertices) > 300)
    assert band.get_paths()[0].vertices[:, 1].min() >= least * 0.999
    assert [t.get_text() for t in axis.texts] == ["density", "1 known one by one"]
    bare = figures.spectrum(grid, bulk).axes[0]
    assert len(bare.lines) == 1 and [t.get_text() for t in bare.texts] == ["density"]
    with pytest.raises(ValueError, match="peak of 0 .*pass one density above zero"):
        figures.spectrum(grid, 0 * bulk)
    with pytest.raises(ValueError, match="the shapes .*one density above zero for"):
        figures.spectrum(grid[1:], bulk)


def test_panels_show_images_as_they_are_and_maps_from_zero():
    image, heat = np.full((4, 4, 3), 0.5), np.eye(4)
    figure = figures.panels(
        [[image, heat]], titles=["image", "map"], notes=[["", "overlap 0.1"]]
    )
    shown, drawn = (axis.images[0] for axis in figure.axes)
    np.testing.assert_array_equal(shown.get_array(), image)
    assert drawn.get_clim() == (0.0, 1.0)
    assert figure.axes[1].get_xlabel() == "overlap 0.1"
    with pytest.raises(ValueError, match="row 0 has 1 pictures.*for 2 titles"):
        figures.panels([[image]], titles=["image", "map"])


def test_figures_without_matplotlib_name_the_extra(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'protojax\[experim"):
        figures.curves(rows, x="radius", lines="attack", values=["overlap"])


class Checker(html.parser.HTMLParser):
    """Collects tags, and holds that all that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_a_page_is_one_file_with_tables_pictures_and_provenance(curves, tmp_path):
    table = "| overlap | radius 1/255 |\n|---|---|\n| top k | 0.1 [0.0, 0.2] n=4 |"
    panel = figures.panels([[np.eye(3)]], titles=["map"])
    sections = [
        pages.Section("In <short>", ["It is **so**, see `a|b`.\n\n- one\n- two"]),
        pages.Section(
            "How far",
            [
                pages.Table(table, "Means over images."),
                pages.Picture(curves, "Against the radius.", "Overlap falls."),
                pages.Picture(panel, "A map.", 'The "map".'),
            ],
        ),
    ]
    numbers = [{"attack": "top_k", "value": "overlap", "mean": 0.1, "n": 4}]
    facts = {
        "command": ["python -m x --a 'b|c'"],
        "config": [{"steps": 3}],
        "packages": [{"jax": "1.0"}],
        "run_seconds": 200.0,
    }
    path = pages.write(
        *(tmp_path,),
        title="A & B",
        sections=sections,
        numbers=numbers,
        provenance=facts,
    )
    text = path.read_text()
    page = Checker(text)
    sources = [image["src"].split(",")[0] for image in page.all("img")]
    assert sources == ["data:image/svg+xml;base64", "data:image/png;base64"]
    assert [i["alt"] for i in page.all("img")] == ["Overlap falls.", 'The "map".']
    assert not page.all("link") and not page.all("script")
    assert "<title>A &amp; B</title>" in text and "In &lt;short&gt;" in text
    assert "<b>0.1</b><small>[0.0, 0.2] <br>n = 4</small>" in text
    assert "<code>a|b</code>" in text and "<li>two</li>" in text
    assert "python -m x --a &#x27;b|c&#x27;" in text
    assert "<code>steps=3</code>" in text and "3 min" in text
    text = (tmp_path / "summary.json").read_text()
    assert (
        '\n    {"attack": "top_k", "value": "overlap", "mean": 0.1, "n": 4}\n' in text
    )
    summary = json.loads(text)
    assert summary["numbers"] == numbers and summary["provenance"] == facts
    markdown = (tmp_path / "report.md").read_text()
    assert table in markdown and "# A & B" in markdown
    for name in ("figures/2-2-how-far.png", "figures/2-3-how-far.png"):
        assert f"]({name})" in markdown and (tmp_path / name).stat().st_size > 1000


def test_text_is_never_taken_for_html():
    page = pages.render("t", [pages.Section("s", ["<script>x</script> [a](j:b)"])])
    assert "<script>" not in page and "<a" not in page


def test_fenced_code_and_links_and_tables_within_text_are_shown():
    text = "See [this](https://x.org/a).\n\n```sh\na\n\n- b\n```\n\n| a |\n|---|\n| 1 |"
    page = pages.render("t", [pages.Section("s", [text])])
    assert '<a href="https://x.org/a">this</a>' in page
    assert "<pre>a\n\n- b</pre>" in page
    assert '<th scope="row">1</th>' in page
