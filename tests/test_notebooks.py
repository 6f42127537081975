import importlib
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments import classifier
from protojax import models

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
needed = "notebooks are run by nbclient: pip install 'protojax[notebooks]'"


@pytest.fixture
def untrained(monkeypatch):
    """The networks of experiments are small, and have learned nothing."""

    def trained(config):
        model = models.ConvNet(classes=8, widths=(8,), groups=None)
        like = jnp.zeros((config.image_size, config.image_size, 3))
        return model, jax.jit(model.init)(jax.random.key(0), like)

    monkeypatch.setattr(classifier, "trained", trained)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.usefixtures("untrained")
def test_the_cells_of_the_quickstart_are_a_program(capsys):
    path = NOTEBOOKS[0]
    names = {"__name__": path.stem}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            code = "\n".join("" if line.startswith("%") else line for line in lines)
            exec(compile(code, f"{path.name}, {cell['id']}", "exec"), names)
    fn, x, found = names["fn"], names["x"], names["found"]
    assert jnp.argmax(fn(found.x)) == jnp.argmax(fn(x))
    assert 0 < jnp.max(jnp.abs(found.x - x)) <= 4.0001 / 255
    assert capsys.readouterr().out.count("stay after the attack") == 3


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package, reason=needed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.syspath_prepend(path.parents[1] / "docs/building")
    notebook = importlib.import_module("executed").run(path)
    drawn = [
        output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    assert any("image/png" in data for data in drawn)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_it_ran(path):
    cells = json.loads(path.read_text())["cells"]
    ran = [cell for cell in cells if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in ran]
    assert counts == list(range(1, len(ran) + 1))
    outputs = [output for cell in ran for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output["output_type"] != "error" for output in outputs)
    texts = [output.get("text", "") for output in outputs]
    assert not any(word in str(texts) for word in ("/home", "/root", "/tmp", "Users"))
