"""What a sweep leaves behind where its process is ended."""

import os
import subprocess
import sys
import textwrap
import time

import pyarrow.parquet as pq


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


def test_a_killed_process_loses_and_doubles_nothing(tmp_path):
    script = textwrap.dedent(f"""
        import jax, jax.numpy as jnp
        from protojax.scale import sweeps
        def one(weights, x, key):
            return {{"x": x + jax.random.uniform(key), "image": jnp.full([64, 64], x)}}
        sweeps.run(one, (), [{{}}], jnp.arange(50.0), {str(tmp_path)!r},
                   key=jax.random.key(0), chunk=1, keep=range(50))
    """)
    command = [sys.executable, "-c", script]
    rows_there = tmp_path / "rows"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while len(list(rows_there.glob("*.parquet"))) < 3:
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    finished = set(rows_there.glob("*.parquet"))
    assert 3 <= len(finished) < 50
    before = read(tmp_path)
    exec(script, {})  # here there are four devices, there was one
    after = read(tmp_path)
    assert [row["id"] for row in after] == list(range(50))
    assert [row for row in after if row in before] == before
    assert len(list((tmp_path / "arrays").glob("*.npz"))) == 50
    assert not [p for p in tmp_path.rglob(".*")]
