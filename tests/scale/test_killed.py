"""Sweeps and trainings that are killed at random moments, again and again.

Two kills each by default; `make test-kill` asks for fifty.
"""

import os
import pathlib
import random
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow.parquet as pq

from protojax.scale import checkpoints, report, sweeps, training

KILLS = int(os.environ.get("PROTOJAX_KILLS", "2"))
ROOT = pathlib.Path(__file__).parents[2]
PARTS = 60 * KILLS
SIZE = 100_000
LONGEST = 0.6
"""Seconds that a process lives at most after it has begun: it compiles for a third."""


def one(weights, x, key):
    del weights
    return {"x": x + jax.random.uniform(key), "image": jnp.full([64, 64], x)}


def sweep(folder):
    values = jnp.arange(float(PARTS))
    knobs = {"key": jax.random.key(0), "chunk": 1, "keep": range(PARTS)}
    sweeps.run(one, (), [{}], values, folder, **knobs)


def loss(params, extra, batch, key):
    noise = jax.random.normal(key, batch.shape)
    return jnp.mean((params["w"] - batch - noise) ** 2), (extra, {})


def train(folder, steps):
    """From the last checkpoint on; each step is saved, and one batch is one number."""
    optimizer = optax.adam(0.1)
    params = {"w": jnp.zeros(SIZE)}
    state = training.init(params, optimizer, key=jax.random.key(0))
    if checkpoints.steps(folder):
        state = checkpoints.restore(folder, state)
    batches = (jnp.full(SIZE, float(i)) for i in range(int(state.step), steps))
    taken = training.train(loss, state, batches, optimizer)
    with checkpoints.saving(folder) as save:
        for state, _ in taken:
            save(state, {"step": int(state.step)})
    return jax.device_get(state)


def killed(call, moment):
    """Kill a process that does something so many seconds after it has begun to."""
    # Compiled in haste as all tests are, so that nothing is rounded otherwise.
    script = f"""
import jax
jax.config.update("jax_disable_most_optimizations", True)
from tests.scale import test_killed
print("begun", flush=True)
test_killed.{call}
"""
    command = [sys.executable, "-c", script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(moment)
        process.kill()
    return process.returncode


def test_a_sweep_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path):
    moments, before = random.Random(1), {}
    for _ in range(KILLS):
        killed(f"sweep({str(tmp_path)!r})", moments.uniform(0, LONGEST))
        parts = tmp_path.glob("rows/*.parquet")
        after = {p: (p.stat().st_mtime_ns, pq.read_table(p)) for p in parts}
        assert all(after[part] == facts for part, facts in before.items())
        before = after
    assert len(before) < PARTS
    sweep(tmp_path)
    rows, kept = report.read(tmp_path), report.arrays(tmp_path)
    keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(PARTS)]
    noise = jax.vmap(jax.random.uniform)(jnp.stack(keys))
    assert [row["id"] for row in rows] == list(range(PARTS))
    np.testing.assert_allclose([r["x"] for r in rows], np.arange(PARTS) + noise, 1e-6)
    assert [k["image"][0, 0] for k in kept] == list(range(PARTS))
    for part, facts in before.items():
        assert (part.stat().st_mtime_ns, pq.read_table(part)) == facts
    assert not list(tmp_path.rglob(".*"))


def test_a_training_that_is_killed_again_and_again_ends_as_if_never(tmp_path):
    moments, reached, steps = random.Random(2), 0, 10 * KILLS
    for _ in range(KILLS):
        moment = moments.uniform(0, 2 * LONGEST)
        killed(f"train({str(tmp_path / 'killed')!r}, {steps})", moment)
        there = checkpoints.steps(tmp_path / "killed")
        assert max(there, default=0) >= reached
        reached = max(there, default=0)
    ours = train(tmp_path / "killed", steps)
    theirs = train(tmp_path / "never", steps)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert int(ours.step) == steps
    assert not list((tmp_path / "killed").glob("*tmp*"))
