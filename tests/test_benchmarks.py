"""Every benchmark runs, and its table has what it promises."""

import functools
import importlib
import json
import operator
import pathlib
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import pytest

from benchmarks import timing

ROOT = pathlib.Path(__file__).parents[1]

PROMISED = {
    "work",
    "ours_s",
    "peer",
    "peer_s",
    "floor_s",
    "ratio_to_peer",
    "ratio_to_floor",
    "memory_mb",
    "compile_s",
}


PEERS = {
    "lowering": (),
    "fragility": ("torch", "captum"),
    "curvature": ("torch", "captum", "curvlinops", "pyhessian"),
    "reconstruction": ("torch",),
    "prototypes": ("torch", "captum"),
    "generation": ("torch", "captum"),
    "sweep": ("torch", "captum"),
}


def test_a_row_has_what_is_promised_and_null_for_what_does_not_apply():
    row = timing.row("sorting", 2.0, peer="them", peer_s=3.0, floor_s=1.0)
    assert row.keys() >= PROMISED
    assert row["ratio_to_peer"] == 1.5 and row["ratio_to_floor"] == 2.0
    alone = timing.row("sorting", 2.0)
    assert alone["peer_s"] is None and alone["ratio_to_peer"] is None
    assert "sorting" in "".join(timing.table([row, alone]))


def read(file):
    return json.loads(file.read_text())


def test_rows_are_on_disk_before_the_next_is_measured(tmp_path, monkeypatch, capsys):
    file = tmp_path / "new" / "rows.json"

    def rows(_):
        yield timing.row("sorting", 2.0)
        assert [row["work"] for row in read(file)["rows"]] == ["sorting"]
        assert "sorting" in capsys.readouterr().out
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["benchmarks/sort.py", "--json", str(file)])
    with pytest.raises(KeyboardInterrupt):
        timing.main(rows, None)
    assert len(read(file)["rows"]) == 1
    assert read(file)["command"] == f"python -m benchmarks.sort --json {file}"
    assert read(file)["environment"] == timing.environment()


def test_results_of_record_say_how_and_where_they_were_made():
    for file in (ROOT / "benchmarks/results").glob("*.json"):
        command, found = f"python -m benchmarks.{file.stem} ", read(file)
        assert found["command"].startswith(command) and "jax" in found["environment"]


def test_contenders_take_turns_after_a_warm_up():
    seen = []
    contenders = {name: lambda name=name: seen.append(name) for name in "ab"}
    times = timing.interleave(contenders, rounds=2)
    assert seen == ["a", "b"] * 3
    assert 0 <= times["a"].least <= times["a"].median


def test_a_program_knows_its_compile_time_and_memory():
    program = timing.compiled(lambda x: x @ x.T, jnp.ones((500, 2)))
    assert program.run().shape == (500, 500)
    assert program.compile_s > 0 and program.memory_mb > 1


def test_results_that_differ_are_not_timed():
    timing.assert_agree("work", [1.0, 2.0], [1.0, 2.0001])
    with pytest.raises(AssertionError, match="adding: results differ by 5.0e-01"):
        timing.assert_agree("adding", 3.0, 2.0)


@pytest.mark.parametrize("missing", ["torch", "captum"])
@pytest.mark.parametrize("module", ["torch_peers", "fragility"])
def test_without_pytorch_the_extra_is_named(module, missing, monkeypatch):
    for name in ("torch", "captum"):
        fake = types.ModuleType(name)
        fake.attr = fake.nn = fake
        monkeypatch.setitem(sys.modules, name, None if name == missing else fake)
    for name in ("torch_peers", "contests", "fragility"):
        monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"'{missing}'.*\[bench\]"):
        importlib.import_module(f"benchmarks.{module}")


def test_memory_is_measured_in_a_process_of_its_own():
    grown = timing.peak_memory(functools.partial, operator.mul, b"x", 10**8)
    assert 90 < grown < 110


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_quick_run_writes_its_table(name, tmp_path):
    for peer in PEERS[name]:
        pytest.importorskip(peer)
    file = tmp_path / "rows.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", file]
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    rows = read(file)["rows"]
    assert rows
    for row in rows:
        assert row.keys() >= PROMISED
        assert isinstance(row["work"], str) and 0 < row["ours_s"] < seconds
        if row["peer"] is not None and row["peer"].endswith(": not taken"):
            assert row["peer_s"] is None and row["ratio_to_peer"] is None
        elif row["peer"] is not None:
            assert row["ratio_to_peer"] == pytest.approx(row["peer_s"] / row["ours_s"])
