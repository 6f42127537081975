"""What is handed out: its contents, a plain install, and how long it takes to load."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BUILD = "from setuptools import build_meta as b; b.build_{0}({1!r})"

pytestmark = pytest.mark.slow


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What is under version control, and nothing that was built here."""
    pytest.importorskip("setuptools", "77")
    folder = tmp_path_factory.mktemp("clone")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("protojax", "experiments", "benchmarks", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def wheel(source):
    """The wheel that is made from the source distribution, as installers do it."""
    run(sys.executable, "-c", BUILD.format("sdist", "dist"), cwd=source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(source / "unpacked", filter="data")
    (unpacked,) = (source / "unpacked").iterdir()
    run(sys.executable, "-c", BUILD.format("wheel", str(source / "dist")), cwd=unpacked)
    (found,) = (source / "dist").glob("*.whl")
    return found


def test_a_wheel_holds_the_package_alone(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"protojax"}
    sources = (ROOT / "protojax").rglob("*.py")
    wanted = {str(path.relative_to(ROOT)) for path in sources}
    inside = {name for name in names if name.startswith("protojax/")}
    assert inside == wanted | {"protojax/py.typed"}


PLAIN = """
import json, pathlib, sys, tempfile
import jax, numpy as np
import protojax
from protojax import attributions, objectives, parts

fn = lambda x: jax.nn.relu(x.mean((0, 1)) - 0.1)
x = jax.numpy.asarray(parts.draw([3], image_size=16).image[0])
a = attributions.heatmap(attributions.deep_lift(objectives.logit(fn, 0), x))
assert abs(a.sum() - 1) < 1e-5
for name in protojax._MODULES:
    getattr(protojax, name)

from protojax import figures
from protojax.models import pretrained

said = []
for missing in (
    lambda: figures.panels([[np.zeros((2, 2))]], titles=["a"]),
    lambda: pretrained.read("hf:a/b/c.npz"),
):
    try:
        missing()
    except ImportError as error:
        said.append(str(error))
print(json.dumps({"file": protojax.__file__, "said": said}))
"""


def test_a_plain_install_works_and_names_the_extra_that_is_missing(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "empty")
    python = tmp_path / "empty/bin/python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
    script = tmp_path / "plain.py"
    script.write_text(PLAIN)
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    found = run(python, script, cwd=tmp_path, env=clean)
    assert str(tmp_path) in found  # the one installed, not the clone
    assert found.count("protojax[experiments]") == 2


TIMED = "import time; a = time.perf_counter(); {}; print(time.perf_counter() - a)"
MODULES = "from protojax import attributions, attacks, curvature, metrics, objectives"


def test_loading_takes_little_longer_than_loading_jax():
    """In turns, as a machine is faster at one time than at another.

    Modules are loaded when they are asked for. What all mathematics asks for are chex,
    Optax and jax.extend, too: 1.2 to 1.4 times what JAX takes by itself.
    """
    took = {code: [] for code in ("import jax, jax.numpy", "import protojax", MODULES)}
    compiled = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for code in 8 * list(took):
        command = [sys.executable, "-c", TIMED.format(code)]
        took[code].append(float(run(*command, cwd=ROOT, env=compiled)))
    jax, package, modules = (min(times) for times in took.values())
    assert package < 0.1 * jax
    assert modules < 1.6 * jax
