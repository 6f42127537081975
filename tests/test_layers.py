"""Imports go one way: mechanisms, methods, scale; only models import Flax."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "protojax"

MAY_IMPORT = {
    "contracts": {"contracts"},
    "conformance": {"conformance"},  # of what a case asks, nothing here may know
    "mechanisms": {"contracts", "mechanisms"},
    "methods": {"contracts", "mechanisms", "methods"},
    "models": {"contracts", "mechanisms", "methods", "models"},
    "scale": {"contracts", "mechanisms", "scale"},
    "__init__": {
        "contracts",
        "conformance",
        "mechanisms",
        "methods",
        "models",
        "scale",
    },
}
ONLY_IN = {"flax": "models", "orbax": "scale/checkpoints.py"}


def imports(path):
    """Every module that a file imports, dotted, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_layer_may(path):
    inside = path.relative_to(PACKAGE)
    layer = inside.parts[0].removesuffix(".py")
    for name in imports(path):
        top, *rest = name.split(".")
        assert top not in ("experiments", "tests", "benchmarks"), name
        if top == "protojax" and rest:
            assert rest[0] in MAY_IMPORT[layer] | {"__version__"}, name
        if top in ONLY_IN:
            assert str(inside).startswith(ONLY_IN[top]), name
        if name.startswith("jax._src"):
            assert inside.name == "tracing.py", name


def test_no_file_has_outgrown_one_reading():
    others = (PACKAGE.parent / name for name in ("experiments", "benchmarks", "tests"))
    files = [*FILES, *(path for folder in others for path in folder.rglob("*.py"))]
    long = {p.name: n for p in files if (n := len(p.read_text().splitlines())) > 400}
    assert not long
