"""A script for several processes: a sweep of attacks on a small network, or training.

    JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 JAX_COORDINATOR_ADDRESS=127.0.0.1:4000 \
        python -m tests.scale.cluster --distributed --out FOLDER
"""

import dataclasses
import itertools
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import cli, cluster
from protojax import attributions, checkpoints, metrics, sweeps, training
from protojax.scale import rows
from protojax.scale.sweeps import sharing

KEY = jax.random.key


@dataclasses.dataclass(frozen=True)
class Config:
    """What is done."""

    images: int = 16
    """How many."""
    each: int = 2
    """Images of a part for each device."""
    radii: tuple[float, ...] = (0.1, 0.2)
    """That are swept."""
    lost: int | None = None
    """The process that is killed after its first part."""
    train: int = 0
    """Steps of training instead of a sweep."""


def network(weights, x):
    """Two layers; convolutions would take longer to compile than all else here."""
    return jax.nn.softplus(x.ravel() @ weights["first"]) @ weights["head"]


def attacked(weights, example, key, *, radius, steps):
    """A map before and after so many signed steps of an attack."""
    x = example["image"]
    explain = jax.grad(lambda z: network(weights, z)[0])
    climb = jax.grad(lambda z: jnp.sum(jnp.abs(explain(z))[:4]))
    noise = 0.1 * jax.random.normal(key, x.shape)

    def step(z, _):
        return z + radius * jnp.sign(climb(z)), None

    z, _ = jax.lax.scan(step, x + noise, None, length=steps, unroll=steps == 1)
    a, b = (attributions.heatmap(explain(z)) for z in (x, z))
    return {"center": metrics.center_shift(a, b), "largest": jnp.max(b), "map": b}


def given(count):
    """Weights and images."""
    draw = np.random.default_rng(0)
    weights = {
        "first": draw.normal(size=(192, 8)).astype(np.float32) / 8,
        "head": draw.normal(size=(8, 2)).astype(np.float32),
    }
    return weights, draw.uniform(size=(count, 8, 8, 3)).astype(np.float32)


def main(config, folder):
    """Sweep or train."""
    if config.train:
        train(config, folder)
        return
    if jax.process_index() == config.lost:
        rows.write = _killed_after(rows.write)
    if config.lost is not None:  # a minute is long for a test
        sharing._LEAST = cluster._PATIENCE = 40.0
    each = config.each * jax.local_device_count()
    sweep(folder, range(config.images), chunk=each, radii=config.radii)


def sweep(folder, ids, *, chunk, radii=(0.1, 0.2), steps=1, devices=None):
    """An attack of a step, or more, on each image."""
    weights, x = given(len(ids))
    ids = np.asarray(ids)
    sweeps.run(
        attacked,
        weights,
        sweeps.grid(radius=radii, steps=[steps]),
        {"image": x[ids], "id": ids},
        folder,
        key=KEY(3),
        chunk=chunk,
        keep=ids.tolist(),
        devices=devices,
    )


def _killed_after(write):
    def written(*args, **kwargs):
        write(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return written


OPTIMIZER = optax.adam(0.01)


def loss(params, extra, batch, key):
    """Of the network, on images and noise."""
    noise = 0.1 * jax.random.normal(key, batch.shape)
    return jnp.mean(jax.vmap(network, (None, 0))(params, batch + noise)[:, 0]), (
        extra,
        {},
    )


def batches(start):
    """Endless, made from their number alone."""
    for number in itertools.count(start):
        draw = np.random.default_rng(number)
        yield draw.uniform(size=(8, 8, 8, 3)).astype(np.float32)


def train(config, folder):
    """Train over all devices of all processes, from the last checkpoint on."""
    state = training.init(given(1)[0], OPTIMIZER, key=KEY(0))
    state, _ = training.spread(state, [])
    if checkpoints.steps(folder / "checkpoints"):
        state = checkpoints.restore(folder / "checkpoints", state)
    state, stream = training.spread(state, batches(int(state.step)))
    few = itertools.islice(stream, config.train - int(state.step))
    steps = training.train(loss, state, few, OPTIMIZER)
    with checkpoints.saving(folder / "checkpoints", keep=2) as save:
        for state, _ in steps:
            save(state, {"devices": jax.device_count()})


def start(folder, *args, processes, devices):
    """Start this script as so many processes with so many devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.scale.cluster", "--out", folder]
    if processes > 1:
        command.append("--distributed")
    return [
        subprocess.Popen(
            [*map(str, command), *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=pathlib.Path(__file__).parents[2],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(number),
            },
        )
        for number in range(processes)
    ]


def finish(started):
    """Wait for processes: what each returned, and printed."""
    texts = [process.communicate(timeout=300)[0] for process in started]
    return [process.returncode for process in started], texts


if __name__ == "__main__":
    cli.run({"default": Config()}, main, __doc__)
