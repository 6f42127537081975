"""One sweep, or one training, on several devices and by several processes."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from protojax.scale import checkpoints, report, training
from tests.scale import cluster

pytestmark = pytest.mark.optimized

ROOT = pathlib.Path(__file__).parents[2]


def results(folder):
    """All rows and arrays, ordered by setting and id."""
    order = lambda row: (row["radius"], row["id"])
    rows = sorted(report.read(folder), key=order)
    arrays = sorted(report.arrays(folder), key=order)
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows], arrays


def assert_identical(a, b):
    (rows, arrays), (other_rows, other_arrays) = a, b
    assert rows == other_rows
    for one, other in zip(arrays, other_arrays, strict=True):
        assert one["id"] == other["id"]
        np.testing.assert_array_equal(one["map"], other["map"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep in this process, on one device."""
    jax.config.update("jax_disable_most_optimizations", False)
    folder = tmp_path_factory.mktemp("alone")
    cluster.sweep(folder, range(16), chunk=2, devices=jax.devices()[:1])
    return results(folder)


def test_more_devices_and_other_chunks_first_give_the_same_to_the_bit(alone, tmp_path):
    order = np.arange(16).reshape(4, 4)[::-1].ravel()  # those of a chunk stay together
    some = jax.devices()[:2]
    cluster.sweep(tmp_path, order, chunk=4, devices=some, radii=(0.2, 0.1))
    assert_identical(results(tmp_path), alone)


def test_another_chunk_and_order_give_the_same_up_to_rounding(alone, tmp_path):
    """A batch of another size, or another place in it, may be summed in another order:
    a sum of 64 pixels is then off by 64 units in the last place at most."""
    order = np.random.default_rng(0).permutation(16)
    cluster.sweep(tmp_path, order, chunk=5, devices=jax.devices()[:1])
    for one, other in zip(results(tmp_path)[1], alone[1], strict=True):
        np.testing.assert_allclose(one["map"], other["map"], atol=64 * 6e-8)


def test_two_processes_with_two_devices_share_a_sweep_to_the_bit(alone, tmp_path):
    codes, texts = cluster.finish(cluster.start(tmp_path, processes=2, devices=2))
    assert codes == [0, 0], texts
    assert_identical(results(tmp_path), alone)
    assert ["process 0 of 2" in text for text in texts] == [True, False]
    assert ["results:" in text for text in texts] == [True, False]
    assert "taking over" not in "".join(texts)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (4, 1), (2, 8)])
def test_processes_and_devices_change_no_bit(alone, tmp_path, processes, devices):
    knobs = {"processes": processes, "devices": devices}
    codes, texts = cluster.finish(cluster.start(tmp_path, **knobs))
    assert codes == [0] * processes, texts
    assert_identical(results(tmp_path), alone)


@pytest.mark.slow
def test_one_of_four_that_is_killed_stops_nobody(alone, tmp_path):
    started = cluster.start(tmp_path, "--lost", 2, processes=4, devices=1)
    codes, texts = cluster.finish(started)
    assert codes == [0, 0, -9, 0], texts
    assert "taking over" in "".join(texts)
    assert_identical(results(tmp_path), alone)


@pytest.mark.slow
def test_the_first_that_is_killed_ends_all_and_fewer_go_on(alone, tmp_path):
    started = cluster.start(tmp_path, "--lost", 0, processes=3, devices=1)
    codes, _ = cluster.finish(started)
    assert codes[0] == -9 and all(codes)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "rows").iterdir()}
    assert 0 < len(before) < 16
    cluster.sweep(tmp_path, range(16), chunk=2, devices=jax.devices()[:1])
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert_identical(results(tmp_path), alone)


@pytest.mark.slow
def test_training_by_two_processes_resumes_to_the_bit(tmp_path):
    def trained(folder, steps):
        folder.mkdir(exist_ok=True)
        started = cluster.start(folder, "--train", steps, processes=2, devices=2)
        codes, texts = cluster.finish(started)
        assert codes == [0, 0], texts
        like = training.init(cluster.given(1)[0], cluster.OPTIMIZER, key=cluster.KEY(0))
        return checkpoints.restore(folder / "checkpoints", like)

    whole = trained(tmp_path / "whole", 6)
    trained(tmp_path / "halves", 3)
    (tmp_path / "halves/config.json").unlink()
    rest = trained(tmp_path / "halves", 6)
    jax.tree.map(np.testing.assert_array_equal, whole, rest)
    assert checkpoints.config(tmp_path / "whole/checkpoints") == {"devices": 4}


@pytest.mark.slow
def test_long_sign_attacks_are_equal_in_their_means_alone(tmp_path):
    """A last bit of another batch turns the sign of a step here and there, which no
    longer averages out: rows differ, and intervals are the same."""
    few, many = tmp_path / "few", tmp_path / "many"
    for folder, chunk in ((few, 3), (many, 16)):
        cluster.sweep(folder, range(16), chunk=chunk, steps=100, radii=(0.1,))
    a, b = (report.estimate(report.read(f), "center") for f in (few, many))
    assert a.mean == pytest.approx(b.mean, abs=(a.high - a.low) / 2)


def test_no_script_looks_for_devices_before_it_knows_the_others():
    scripts = [p.stem for p in ROOT.glob("experiments/*.py") if p.stem[0] != "_"]
    code = (
        "import importlib\n"
        f"for name in {sorted(scripts)}:\n"
        "    importlib.import_module(f'experiments.{name}')\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
