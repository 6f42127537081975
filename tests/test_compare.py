import csv
import json

import jax
import jax.numpy as jnp
import pytest

from experiments import compare
from protojax.scale import sweeps


def one(weights, x, key, *, attack, radius):
    noise = 0.01 * jax.random.uniform(key)
    return {"overlap": weights * x * radius + noise + (0.5 if attack == "b" else 0.0)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two of the same images, and one of others."""
    home = tmp_path_factory.mktemp("runs")
    settings = sweeps.grid(attack=["a", "b"], radius=[0.1, 0.2])
    images = jnp.arange(8.0)
    for name, weights, x in (
        ("same-1", 1.0, images),
        ("same-2", 2.0, images),
        ("other", 1.0, images + 1),
    ):
        sweeps.run(one, weights, settings, x, home / name, key=jax.random.key(0))
    return home


def test_attacks_of_several_runs_are_compared_on_one_page(runs, tmp_path, capsys):
    out = tmp_path / "page"
    compare.command([f"{runs}/*", "--out", str(out)])
    assert f"report: {out}/report.html" in capsys.readouterr().out
    text = (out / "report.md").read_text()
    assert "| a - b | -0.500 [" in text and "n=16" in text  # of two sets of images
    (numbers,) = [json.loads((out / "summary.json").read_text())["numbers"]]
    assert [n["attack"] for n in numbers] == ["a", "a", "b", "b"]
    table = csv.reader((out / "tables/1-1-overlap.csv").read_text().splitlines())
    assert next(table) == ["overlap", "radius 0.1", "radius 0.2"]
    assert (out / "figures/1-3-overlap.pdf").exists()


def test_runs_themselves_are_compared_if_their_images_are_the_same(runs, tmp_path):
    knobs = ["--methods", "run", "--where", "attack=a", "--out", str(tmp_path)]
    compare.command([f"{runs}/same-*", *knobs])
    assert "| same-1 - same-2 |" in (tmp_path / "report.md").read_text()
    with pytest.raises(SystemExit, match="of different images, and cannot be paired"):
        compare.command([f"{runs}/*", *knobs])


def test_what_is_not_there_is_named(runs, tmp_path):
    out = ["--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="compare: no folder .*nowhere"):
        compare.command([f"{runs}/nowhere", *out])
    with pytest.raises(SystemExit, match="no row has attack=c"):
        compare.command([f"{runs}/other", "--where", "attack=c", *out])
    with pytest.raises(SystemExit, match="no row has `rank`: choose from"):
        compare.command([f"{runs}/other", "--values", "rank", *out])
    with pytest.raises(SystemExit, match="compare: no row has `atack`: choose from"):
        compare.command([f"{runs}/other", "--methods", "atack", *out])
    with pytest.raises(SystemExit, match="compare: no row has `radus`: choose from"):
        compare.command([f"{runs}/other", "--by", "radus", *out])
    with pytest.raises(SystemExit, match="compare: no folder is named"):
        compare.command(out)
