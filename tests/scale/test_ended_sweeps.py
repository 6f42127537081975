"""What a sweep leaves behind where its process is ended."""

import errno
import itertools
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from protojax.scale import report, rows, storage, sweeps


def read(folder):
    table = pq.read_table(folder / "rows")
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def test_sigterm_ends_a_process_with_whole_parts_only(tmp_path):
    script = f"""
        import os, signal, sys
        import jax, jax.numpy as jnp
        from protojax.scale import rows, sweeps
        def one(weights, x, key):
            return {{"x": x}}
        usual = rows.write
        def write(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            usual(*args, **kwargs)
        rows.write = write
        sweeps.run(one, (), [{{}}], jnp.arange(4.0), {str(tmp_path)!r},
                   key=jax.random.key(0), chunk=2)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode != 0
    assert "finishing the part in flight" in done.stderr
    assert "left after SIGTERM" in done.stderr
    assert [row["x"] for row in read(tmp_path)] == [0.0, 1.0]
    assert not list((tmp_path / "rows").glob(".*"))


def plain(folder, **knobs):
    """A sweep of four numbers in two parts."""
    one = lambda weights, x, key: {"x": x}  # noqa: ARG005
    knobs = {"key": jax.random.key(0), "chunk": 2} | knobs
    sweeps.run(one, (), [{}], jnp.arange(4.0), folder, **knobs)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EROFS, OSError), (errno.EACCES, PermissionError), (errno.EDQUOT, OSError)],
)
def test_a_folder_that_cannot_be_written_to_is_named(
    tmp_path, monkeypatch, number, kind
):
    def refuse(path, _):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(storage, "open", refuse, raising=False)
    with pytest.raises(
        kind, match=rf"config.json cannot be written \({os.strerror(number)}\)"
    ):
        plain(tmp_path)
    monkeypatch.undo()
    plain(tmp_path)
    assert len(read(tmp_path)) == 4


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="config.json cannot be written .*run the same"):
        plain(tmp_path / "file")


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch):
    now = itertools.count(2e9, -3600)
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, lambda: int(next(now)))
    plain(tmp_path)
    before = read(tmp_path)
    first, second = sorted((tmp_path / "rows").iterdir())
    second.unlink()
    os.utime(first, (4e9, 4e9))  # of next century
    plain(tmp_path)
    assert first.stat().st_mtime == 4e9
    assert [r["x"] for r in read(tmp_path)] == [r["x"] for r in before] == [0, 1, 2, 3]
    assert all(0 < row["seconds"] < 60 for row in read(tmp_path))


@pytest.mark.slow
@pytest.mark.optimized
def test_a_million_rows_take_seconds_and_memory_does_not_grow(tmp_path, monkeypatch):
    """As much at its end as after a tenth of it, since when 39 MB were written."""
    held, usual = [], rows.write

    def write(*args, **kwargs):
        usual(*args, **kwargs)
        status = pathlib.Path("/proc/self/status").read_text()
        held.append(int(status.split("VmRSS:")[1].split()[0]) / 1e3)

    monkeypatch.setattr(rows, "write", write)

    def one(weights, x, key):
        noise = jax.random.normal(key, (9,))
        rest = {f"noise_{place}": value for place, value in enumerate(noise[1:])}
        return {"y": weights @ x + noise[0], **rest}

    x = np.ones((1_000_000, 4), np.float32)
    # Of the processor, as others may be at work: the whole is bounded, so is what is
    # beyond the function.
    begin = time.process_time()
    sweeps.run(one, jnp.ones(4), [{}], x, tmp_path, key=jax.random.key(0))
    swept = time.process_time() - begin
    assert len(held) <= 257 and held[-1] - held[len(held) // 10] < 20  # MB
    begin = time.process_time()
    found = report.estimate(report.read(tmp_path), "y")
    reading = time.process_time() - begin
    assert found.n == 1_000_000 and found.low < 4 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / 1000, rel=0.01)
    assert swept < 10 and reading < 10
