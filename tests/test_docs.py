"""What the pages say: their code runs, their links lead somewhere."""

import codeop
import importlib.util
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

import protojax
from benchmarks import page as tables
from experiments import classifier, networks
from protojax import models

ROOT = pathlib.Path(__file__).parents[1]
LONG = {
    "howto.md",
    "influence.md",
    "prototype_generation.md",
    "protopnet.md",
    "this_looks_like_that.md",
    "xnn.md",
}
"""Pages whose programs take longest: `make test-slow` runs them."""

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
OTHER_PAGES += [ROOT / "experiments/README.md"]

BLOCK = re.compile(
    r"(?:<!-- (?P<mark>not run|needs [\w ]+) -->\n)?^```python\n(?P<code>.*?)^```$",
    re.M | re.S,
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)


def blocks(page):
    """The line and the code of every block that is meant to run, and what it needs."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        mark = found["mark"] or ""
        if mark != "not run":
            needed = mark.removeprefix("needs ").split()
            yield text.count("\n", 0, found.start("code")), found["code"], needed


def run(page):
    """Run all blocks of a page as one program, with the page's line numbers."""
    names, missing = {"__name__": page.stem}, set()
    for line, code, needed in blocks(page):
        absent = {name for name in needed if not importlib.util.find_spec(name)}
        missing |= absent
        if not absent:
            exec(compile("\n" * line + code, str(page), "exec"), names)
    return names, missing


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """A reader's folder: a few images, weights, and a network that is not trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "my/images" / name
        folder.mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    first = rng.normal(size=(64 * 64 * 3, 4)).astype(np.float32) / 100
    last = rng.normal(size=(4, 2)).astype(np.float32)
    np.savez(tmp_path / "my/weights.npz", w1=first, w2=last)

    def untrained():
        model = models.ConvNet(classes=8, widths=(8, 16))
        shape = jax.numpy.zeros((64, 64, 3))
        return model, jax.jit(model.init)(jax.random.key(0), shape)

    monkeypatch.setattr(classifier, "trained", untrained)
    return tmp_path


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[pytest.mark.slow] * (p.name in LONG), id=p.name)
        for p in PAGES
    ],
)
def test_the_code_of_a_page_runs(page):
    names, missing = run(page)
    if page.name == "README.md":
        fn, weights = names["network"]()
        assert fn(weights, np.zeros((64, 64, 3), np.float32)).shape == (2,)
    if missing:
        pytest.skip(f"blocks were left out that need {', '.join(sorted(missing))}")


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_code_for_a_beginner_may_be_typed_line_by_line(page):
    """An empty line ends a function where Python is asked to read line by line."""
    for start, code, _ in blocks(ROOT / page):
        if "# my/module.py" in code:
            continue
        pending = []
        for number, line in enumerate([*code.splitlines(), ""], start):
            pending.append(line)
            if codeop.compile_command("\n".join(pending), f"{page}, {number}"):
                pending.clear()
        assert not pending, (page, start)


def test_the_network_of_the_readme_can_be_named_on_the_command_line(reader):
    (code,) = [code for _, code, _ in blocks(ROOT / "README.md") if "my/module" in code]
    (reader / "my/module.py").write_text(code)
    network = networks.load("my.module:network", image_size=64)
    found = networks.correct(network, "folder:my/images", "all", count=4)
    assert 1 <= len(found["label"]) <= 4


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / "notebooks").glob("*.ipynb")], ids=lambda page: page.name
)
def test_no_page_scores_by_an_index_that_jax_would_clamp(page):
    assert not re.findall(r"lambda (\w+): \w+\(\1\)\[", page.read_text())


def anchors(page):
    """Where links into a page may lead: its headings, as GitHub spells them there."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(text))
    return {title.replace(" ", "-") for title in words}


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_headings(page):
    for path, anchor in LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_an_anchor_is_a_heading_and_no_comment_in_code(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n## What's in `it`, and not\n```python\n# code\n```\n")
    assert anchors(page) == {"a-page", "whats-in-it-and-not"}
    assert LINK.findall("[a](b.md#c) [d](#e) [f](g.md) [h](https://i#j)") == [
        *(("b.md", "c"), ("", "e"), ("g.md", ""))
    ]


def listed(nav):
    """The pages that a navigation leads to."""
    for entry in nav:
        (target,) = entry.values()
        yield from [target] if isinstance(target, str) else listed(target)


def test_every_page_is_in_the_navigation_of_the_site():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    notebooks = (
        page.with_suffix(".md") for page in (ROOT / "notebooks").glob("*.ipynb")
    )
    pages = [*PAGES, *OTHER_PAGES, *notebooks]
    assert sorted(listed(nav)) == sorted(str(page.relative_to(ROOT)) for page in pages)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    for name in ("mkdocs", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(name, reason="the site needs pip install 'protojax[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    explained = {
        "attributions": "protojax.methods.attributions.deep_lift",
        "contracts": "protojax.contracts.Score",  # a documented alias
        "models": "protojax.models.protopnet.attach",  # of a module in the module
    }
    for name, path in explained.items():
        page = (tmp_path / f"docs/reference/{name}/index.html").read_text()
        assert f'<h2 id="{path}"' in page
    papers = (tmp_path / "docs/papers/index.html").read_text()
    assert (
        f'<a href="../reference/attributions/#{explained["attributions"]}">' in papers
    )
    folded = (tmp_path / "docs/fragility/index.html").read_text()
    assert "<details>" in folded and "|---" not in folded  # all tables are tables
    evidence = (tmp_path / "docs/evidence/index.html").read_text()
    for record in (ROOT / "experiments/records").glob("*/config.json"):
        assert f"records/{record.parent.name}/summary.json" in evidence


def test_the_functions_beside_the_equations_exist():
    text = (ROOT / "docs/papers.md").read_text()
    names = re.findall(r"`(?!jax)(\w+)\.(\w+)`", text)
    assert len(names) > 80
    for module, name in names:
        if module == "experiments":
            assert (ROOT / f"experiments/{name}.py").exists(), name
        else:
            assert hasattr(getattr(protojax, module), name), f"{module}.{name}"


def test_the_design_lists_the_modules_that_there_are():
    text = (ROOT / "docs/design.md").read_text()
    for folder, first in {
        "mechanisms": "`mechanisms/`",
        "methods": "`methods/`",
        "scale": "`scale/`",
        "": "–",
    }.items():
        line = text[text.index("| modules that users import |") :]
        (named,) = re.findall(rf"^\| {first} \| (.*) \|$", line, re.M)
        found = {name for name, place in protojax._MODULES.items() if place == folder}
        assert set(re.findall(r"`(\w+)`", named)) == found - {"models"}


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_tables_of_benchmarks_are_those_of_the_results_of_record(page):
    text = page.read_text()
    assert text == tables.filled(text), "run python -m benchmarks.page"
