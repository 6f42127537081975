"""Every public function says what it means, in shapes and with an example that runs."""

import ast
import doctest
import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

import protojax

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "protojax").rglob("*.py")
    if path.name != "__init__.py"
)

INNER = {"fitting", "identity", "programs", "progress", "rows", "sources", "storage"}
INNER |= {"sharing", "streams"}
"""What `sweeps` and `data` are made of: documented, but no names for users."""


DATA = {"protojax.conformance.networks"}
"""Functions that cases explain: what they take is said once, by `Operations`."""


def public_functions():
    for name in MODULES:
        if name in DATA:
            continue
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
    code = "import sys, protojax; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    loaded = done.stdout.decode().split()
    assert [name for name in loaded if name.startswith("protojax")] == ["protojax"]
    assert "jax" not in loaded and "numpy" not in loaded


def test_type_checkers_see_the_modules_that_there_are():
    tree = ast.parse((ROOT / "protojax/__init__.py").read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(checked.test) == "TYPE_CHECKING"
    found = {
        alias.name: node.module.removeprefix("protojax").removeprefix(".")
        for node in checked.body
        for alias in node.names
        if alias.asname == alias.name  # which makes it a name of the package
    }
    assert found == protojax._MODULES
    names = {name for name in dir(protojax) if not name.startswith("__")}
    assert names == {*protojax._MODULES}


@pytest.mark.slow
def test_the_types_of_the_package_reach_its_users(tmp_path):
    code = "import protojax\nfrom protojax import attacks\n"
    code += "reveal_type(attacks.pgd)\nreveal_type(protojax.metrics.linf)\n"
    code += "protojax.metrics.nonsense\n"
    (tmp_path / "user.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "setup.cfg"]
    command += ["--cache-dir", tmp_path, tmp_path / "user.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    text = done.stdout.decode()
    assert "def (objective: def (Any) -> jax._src.basearray.Array" in text
    assert "def (a: jax._src.basearray.Array, b: jax._src" in text
    assert 'Module has no attribute "nonsense"' in text
