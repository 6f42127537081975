import csv
import io
import re

from protojax import attributions
from protojax.scale import exports, figures, pages, report
from protojax.scale.report import references

TABLE = "| a\\|b & c | `k` | $ |\n|---|---|---|\n| **50%** | [x](y.md), z | 1_0 |"


def test_csv_has_the_cells_without_their_marks():
    rows = list(csv.reader(io.StringIO(exports.as_csv(TABLE))))
    assert rows == [["a|b & c", "k", "$"], ["50%", "x, z", "1_0"]]


def test_latex_escapes_what_it_would_take_for_its_own():
    text = exports.as_latex(TABLE, "100 % of {x}.")
    assert r"a|b \& c & k & \$ \\" in text
    assert r"50\% & x, z & 1\_0 \\" in text
    assert r"\caption{100 \% of \{x\}.}" in text
    assert text.count("{tabular}") == 2 and "{lll}" in text


def test_a_page_leaves_tables_figures_and_references(tmp_path):
    rows = [{"id": i, "attack": "top_k", "radius": r, "x": i * r} for i in range(3)
            for r in (0.1, 0.2)]  # fmt: skip
    text = report.table(rows, rows_by="attack", columns_by="radius", value="x")
    figure = figures.curves(rows, x="radius", lines="attack", values=["x"])
    blocks = [pages.Table(text, "All."), pages.Picture(figure, "Drawn.", "Curves.")]
    made = {"command": ["python -m experiments.fragility"], "config": [{"k": "lrp"}]}
    pages.write(
        tmp_path,
        title="A",
        sections=[pages.Section("Moved", blocks)],
        numbers=[],
        provenance=made,
    )
    assert (tmp_path / "tables/1-1-moved.tex").read_text().startswith("\\begin{table}")
    assert "0.100 [0.000, 0.200] n=3" in (tmp_path / "tables/1-1-moved.csv").read_text()
    assert (tmp_path / "figures/1-2-moved.pdf").read_bytes().startswith(b"%PDF")
    keys = re.findall(r"@\w+{(\w+),", (tmp_path / "references.bib").read_text())
    assert keys == ["bach2015", "ghorbani2019"]


def test_p_values_stand_below_their_difference_on_the_page():
    table = "| x | a |\n|---|---|\n| b - c | 0.10 [0.05, 0.15] p=0.012 n=9 |"
    page = pages.render("A", [pages.Section("B", [pages.Table(table, "")])])
    assert "<b>0.10</b><small>[0.05, 0.15] <br>p = 0.012, n = 9</small>" in page


def test_every_method_has_its_paper_and_every_paper_a_method():
    rules = {"left", "right", "midpoint", "trapezoid", "gauss_legendre", "Quadrature"}
    helpers = {"heatmap", "mask_penalty"}
    scripts = {"fragility", "strength", "hessian", "influence", "protopnet", "jpeg"}
    scripts |= {"prototype_attacks", "xnn", "cladec"}
    named = {*attributions.__all__} - rules - helpers | scripts
    assert named <= set(references.METHODS)
    used = {key for keys in references.METHODS.values() for key in keys.split()}
    assert used == set(references.PAPERS)
    assert report.bibliography({}) == ""
