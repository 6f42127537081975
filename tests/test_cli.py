import dataclasses
import importlib
import json
import logging
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import pyarrow.parquet as pq
import pytest

from experiments import cli, compare
from protojax.scale import report, sweeps


@dataclasses.dataclass(frozen=True)
class Config:
    """Knobs of a toy."""

    steps: int = 3
    """How many steps are taken."""
    radii: tuple[float, ...] = (0.1, 0.2)
    """Radii that are swept."""
    attack: str = "center"
    """Which attack."""
    center: bool = True
    """Whether to center."""


CONFIGS = {"default": Config(), "smoke": Config(steps=1), "long": Config(steps=9)}


def one(weights, x, key, *, radius, steps):
    del key
    return {"loss": weights * x * radius * steps}


def settings(config):
    return sweeps.grid(radius=config.radii, steps=[config.steps])


def main(config, folder):
    key = jax.random.key(0)
    sweeps.run(one, 2.0, settings(config), jnp.arange(4.0), folder, key=key)


def plan(config):
    return sweeps.outline(sweeps.plan(one, 2.0, settings(config), jnp.arange(4.0)))


@pytest.fixture(autouse=True)
def settings_of_the_process(tmp_path, monkeypatch):
    """The script runs elsewhere, and what it sets in this process is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    level = logging.getLogger("protojax").level
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    logging.getLogger("protojax").setLevel(level)


def test_the_first_configuration_is_the_default_and_results_lie_in_its_folder(capsys):
    cli.run(CONFIGS, main, "A toy.", args=[])
    folder = pathlib.Path("runs/test_cli-default")
    assert len(report.read(folder)) == 8
    written = json.loads((folder / "config.json").read_text())
    assert written["config"] == {
        "steps": 3,
        "radii": [0.1, 0.2],
        "attack": "center",
        "center": True,
    }
    assert written["command"] == "python -m experiments.test_cli"
    assert (written["script"], written["name"]) == ("test_cli", "default")
    assert written["packages"]["jax"] == jax.__version__
    assert "results: runs/test_cli-default" in capsys.readouterr().out


def test_a_named_configuration_is_overridden_by_options():
    cli.run(CONFIGS, main, args=["long", "--radii", "0.5", "--out", "runs/a b"])
    table = pq.read_table("runs/a b/rows")
    assert set(table["steps"].to_pylist()) == {9}
    assert set(table["radius"].to_pylist()) == {0.5}
    (made,) = report.provenance("runs/a b")["command"]
    assert made == "python -m experiments.test_cli long --radii 0.5 --out 'runs/a b'"


def test_the_report_is_named_at_the_end(capsys):
    def with_report(config, folder):
        del config
        (folder / "report.html").write_text("<html>")

    cli.run(CONFIGS, with_report, args=["--out", "here"])
    assert f"report: {pathlib.Path('here/report.html').resolve()}" in (
        capsys.readouterr().out
    )


def test_the_same_command_resumes_and_another_configuration_is_refused():
    cli.run(CONFIGS, main, args=["--out", "here"])
    before = {p: p.stat().st_mtime_ns for p in pathlib.Path("here/rows").iterdir()}
    cli.run(CONFIGS, main, args=["--out", "here"])
    assert before == {p: p.stat().st_mtime_ns for p in before}
    message = r"`steps` \(3 there, 1 here\).*Choose another folder.*`--out`"
    with pytest.raises(SystemExit, match=message):
        cli.run(CONFIGS, main, args=["smoke", "--out", "here"])


def test_help_shows_every_knob_with_its_text_and_the_configurations(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(CONFIGS, main, "A toy.", plan=plan, args=["smoke", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(Config):
        assert f"--{field.name}" in text
    for words in ("How many steps", "Radii that", "A toy.", "default, smoke, long"):
        assert words in text
    assert "--plan" in text and "runs/test_cli-smoke" in text
    assert "default: 1" in text  # the named configuration's value


def test_unknown_names_and_knobs_end_with_a_hint(capsys):
    with pytest.raises(SystemExit, match="no configuration 'smok': choose from defau"):
        cli.run(CONFIGS, main, args=["smok"])
    with pytest.raises(SystemExit, match="Did you mean 'smoke'"):
        cli.run(CONFIGS, main, args=["smok"])
    with pytest.raises(SystemExit) as stop:
        cli.run(CONFIGS, main, args=["--step", "3"])
    assert stop.value.code == 2
    assert "--steps" in capsys.readouterr().err
    assert not pathlib.Path("runs").exists()


def test_commands_keep_their_line_breaks_in_help(capsys):
    with pytest.raises(SystemExit):
        compare.command(["--help"])
    assert "overlap rank \\\n        --methods attack" in capsys.readouterr().out


def test_the_scripts_are_listed_with_a_line_each():
    text = importlib.import_module("experiments.__main__").listing()
    table = pathlib.Path(cli.__file__).with_name("README.md").read_text()
    listed = {line.split()[0] for line in text.splitlines() if line.startswith("  ")}
    named = set(re.findall(r"python -m experiments\.([a-z_]+)", table))
    assert named <= listed and not listed & {"cli", "networks", "__main__"}
    assert (
        "  fragility             Interpretation of neural networks is fragile" in text
    )


def test_a_plan_runs_and_writes_nothing(capsys):
    cli.run(CONFIGS, main, plan=plan, args=["--plan"])
    assert "1 program, 8 rows" in capsys.readouterr().out
    assert not pathlib.Path("runs").exists()


def test_without_a_planner_there_is_no_plan_option(capsys):
    with pytest.raises(SystemExit):
        cli.run(CONFIGS, main, args=["--plan"])
    assert "--plan" in capsys.readouterr().err


def test_ctrl_c_leaves_with_the_command_that_goes_on(capsys):
    def interrupted(config, folder):
        del config, folder
        raise KeyboardInterrupt("left after SIGINT: what is finished is there")

    with pytest.raises(SystemExit) as stop:
        cli.run(CONFIGS, interrupted, args=["smoke"])
    assert stop.value.code == 130
    text = capsys.readouterr().err
    assert "left after SIGINT" in text
    assert "to go on: python -m experiments.test_cli smoke" in text


def test_what_is_refused_is_said_in_a_line_and_what_breaks_keeps_its_traceback():
    def refused(config, folder):
        sweeps.grid(radius="1/255")
        main(config, folder)

    with pytest.raises(SystemExit, match="test_cli: .*`radius`"):
        cli.run(CONFIGS, refused, args=["--out", "here"])
    with pytest.raises(SystemExit, match="test_cli: .*`radius`"):
        cli.run(
            CONFIGS, main, plan=lambda _: sweeps.grid(radius="1/255"), args=["--plan"]
        )
    cli.run(CONFIGS, main, args=["smoke", "--out", "here"])  # nothing is left behind

    def broken(config, folder):
        del config, folder
        jnp.zeros(3).reshape(2, 2)

    with pytest.raises(TypeError):
        cli.run(CONFIGS, broken, args=[])

    def broken_too(config, folder):
        del config, folder
        raise ValueError("of the user's own")

    with pytest.raises(ValueError, match="own"):
        cli.run(CONFIGS, broken_too, args=[])


def test_the_compilation_cache_is_the_users_unless_one_is_set(tmp_path):
    jax.config.update("jax_compilation_cache_dir", None)
    cli.run(CONFIGS, lambda config, folder: None, args=[])  # noqa: ARG005
    expected = tmp_path / "cache" / "protojax" / "jax"
    assert jax.config.jax_compilation_cache_dir == str(expected)
    jax.config.update("jax_compilation_cache_dir", "mine")
    cli.run(CONFIGS, lambda config, folder: None, args=[])  # noqa: ARG005
    assert jax.config.jax_compilation_cache_dir == "mine"


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'protojax\[experim"):
        cli.run(CONFIGS, main, args=[])
