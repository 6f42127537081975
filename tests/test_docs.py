"""What the pages say: their code runs, their links lead somewhere."""

import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import classifier, networks
from protojax import models

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
OTHER_PAGES += [ROOT / "experiments/README.md"]

BLOCK = re.compile(
    r"(?P<marked><!-- not run -->\n)?^```python\n(?P<code>.*?)^```$", re.M | re.S
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)


def blocks(page):
    """The line and the code of every block of a page that is meant to run."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        if not found["marked"]:
            yield text.count("\n", 0, found.start("code")), found["code"]


def run(page):
    """Run all blocks of a page as one program, with the page's line numbers."""
    names = {"__name__": page.stem}
    for line, code in blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), names)
    return names


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
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page):
    names = run(page)
    if page.name == "README.md":
        fn, weights = names["network"]()
        assert fn(weights, np.zeros((64, 64, 3), np.float32)).shape == (2,)


def test_the_network_of_the_readme_can_be_named_on_the_command_line(reader):
    (code,) = [code for _, code in blocks(ROOT / "README.md") if "my/module" in code]
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
