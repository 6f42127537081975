"""Every public function says what it means, in shapes and with an example that runs."""

import ast
import doctest
import importlib
import inspect
import pathlib

import pytest

import protojax

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "protojax").rglob("*.py")
    if path.name != "__init__.py"
)

INNER = {"identity", "programs", "progress", "rows", "sources", "storage"}
"""What `sweeps` and `data` are made of: documented, but no names for users."""


def public_functions():
    for name in MODULES:
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            own = getattr(value, "__module__", None) == name
            if inspect.isfunction(value) and own and not key.startswith("_"):
                yield pytest.param(value, id=f"{name.removeprefix('protojax.')}.{key}")


@pytest.mark.parametrize("function", public_functions())
def test_a_public_function_is_documented_and_typed(function):
    doc = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    assert doc and doc.splitlines()[0].endswith((".", ":", "?"))
    if signature.parameters:
        assert "Args:" in doc
        for name in signature.parameters:
            assert f"{name}:" in doc or f"{name}," in doc, f"{name} is not documented"
    if signature.return_annotation not in (None, "None"):
        assert any(word in doc for word in ("Returns:", "Yields:", "Return"))
    if function.__module__.split(".")[-1] not in INNER:
        assert ">>>" in doc, "no example"
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(
        module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0


def test_the_package_is_a_map_of_its_modules():
    for name in protojax._MODULES:
        assert getattr(protojax, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = protojax.nonsense


def test_importing_the_package_loads_nothing_heavy():
    tree = ast.parse((ROOT / "protojax/__init__.py").read_text())
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for node in imported for a in node.names}
    assert names == {"importlib", "Any"}
