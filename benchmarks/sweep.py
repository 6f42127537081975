"""Whole sweeps against the compiled calls that they are made of.

python -m benchmarks.sweep [--quick] [--json FILE]

A sweep is timed from its first line to its last, without the compilation of its
programs, which is stated apart. Its floor is the time inside of those programs, as its
parts say. Eight devices are those that JAX makes of one CPU: they share its cores, so
that they can only be as fast as one. A million rows are of a function that costs next
to nothing.

On an accelerator there are two more sweeps, of the attack on SqueezeNet and ResNet-50,
with the number of images times steps in a second, and what share that is of the
device's peak.
"""

import functools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import fragility, timing, works
from protojax import models
from protojax.mechanisms import lowering
from protojax.methods import activations, attacks, attributions, metrics, objectives
from protojax.scale import report, sweeps

Array = jax.Array

PEAKS = {
    "NVIDIA A100": 156e12,
    "NVIDIA H100": 495e12,
    "NVIDIA H200": 495e12,
}
"""Multiplications and additions in a second, dense, in TF32, which is what products of
float32 become on these devices: the vendor's, by the beginning of the device's name."""


class Sizes(NamedTuple):
    """How much is done; `QUICK` only shows that it runs."""

    side: int = 224
    images: int = 16
    chunk: int = 4
    steps: int = 20
    k: int = 1000
    radii: tuple[float, ...] = (2 / 255, 8 / 255)
    each: int = 2  # images on each of the eight devices
    rows: int = 1_000_000
    many: int = 256  # images on an accelerator, and of a chunk
    many_steps: int = 100


QUICK = Sizes(16, 4, 2, 2, 20, (8 / 255,), 1, 20_000, 4, 2)
TINY = models.ConvNet(classes=4, widths=(4,), groups=None)


def main() -> None:
    """Run from the command line."""
    timing.main(rows, __doc__)


def rows(quick: bool) -> Iterator[timing.Row]:
    """Yield the table.

    Args:
      quick: tiny sizes.

    Yields:
      The rows.
    """
    sizes = QUICK if quick else Sizes()
    yield whole_sweep(sizes)
    yield eight_devices(sizes)
    yield from million_rows(sizes)
    if quick:
        yield accelerated(sizes, TINY)
    elif jax.default_backend() != "cpu":
        for model in (works.MODEL, models.ResNet(50)):
            yield accelerated(sizes, model)


class Case(NamedTuple):
    """A network, its weights and images."""

    model: Any
    weights: Any
    x: np.ndarray
    setting: str


def load(sizes: Sizes, count: int) -> Case:
    """SqueezeNet, or what compiles in moments where sizes are tiny."""
    if sizes == QUICK:
        x = np.random.default_rng(0).uniform(size=(count, sizes.side, sizes.side, 3))
        x = x.astype(np.float32)
        return Case(TINY, TINY.init(jax.random.key(0), x[0]), x, "a tiny network")
    case = fragility.load(fragility.Sizes(side=sizes.side, batch=count, path_batch=1))
    return Case(works.MODEL, case.variables, np.asarray(case.x[:count]), case.setting)


def attacked(
    model: Any, k: int, steps: int, weights: Any, x: Array, key: Array, *, radius: Array
) -> dict[str, Array]:
    """The attack on the gradient's top pixels of one image, as users call it."""
    del key
    fn = functools.partial(model.apply, weights)
    y = jnp.argmax(fn(x))
    smooth = activations.replace(fn, works.SMOOTH)
    found = attacks.top_k(
        fn,
        functools.partial(_explain, fn, y),
        x,
        k=k,
        twin=functools.partial(_explain, smooth, y),
        radius=radius,
        step_size=works.STEP_SIZE,
        steps=steps,
    )
    a, b = _explain(fn, y, x), _explain(fn, y, found.x)
    return {
        "overlap": metrics.top_k_intersection(a, b, k=k),
        "rank": metrics.rank_correlation(a, b),
        "center": metrics.center_shift(a, b),
        "stalled": found.stalled,
    }


def _explain(fn: Callable, y: Any, x: Array) -> Array:
    return attributions.heatmap(attributions.gradient(objectives.logit(fn, y), x))


class Swept(NamedTuple):
    """Seconds of a sweep: all, in its programs, and before, of compilation."""

    whole: float
    calls: float
    compilation: float


def swept(one: Callable, *args: Any, **knobs: Any) -> Swept:
    """Time a sweep into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        sweeps.run(one, *args, folder, key=jax.random.key(0), **knobs)
        whole = time.perf_counter() - begin
        made = report.provenance(folder)
    compilation = made["compile_seconds"]
    return Swept(whole - compilation, made["run_seconds"], compilation)


def whole_sweep(sizes: Sizes) -> timing.Row:
    """The fragility sweep on SqueezeNet."""
    case = load(sizes, sizes.images)
    found = swept(
        functools.partial(attacked, case.model, sizes.k, sizes.steps),
        case.weights,
        sweeps.grid(radius=sizes.radii),
        case.x,
        chunk=sizes.chunk,
    )
    return timing.row(
        "whole sweep",
        found.whole,
        floor_s=found.calls,
        compile_s=found.compilation,
        setting=f"{case.setting}, {sizes.images} images, {len(sizes.radii)} radii, "
        f"{sizes.steps} steps, {sizes.chunk} at once; floor: its compiled calls",
    )


def eight_devices(sizes: Sizes) -> timing.Row:
    """The same work by eight devices of one CPU, and by one."""
    many, one, setting = _elsewhere(_on_devices, sizes)
    return timing.row(
        "8 devices",
        many,
        peer="one device",
        peer_s=one,
        setting=f"{setting}, {8 * sizes.each} images, {sizes.steps} steps, "
        f"{sizes.each} at once on each device; a CPU as eight",
    )


def _on_devices(sizes: Sizes) -> tuple[float, float, str]:
    count = 8 * sizes.each
    case = load(sizes, count)
    run = functools.partial(
        swept,
        functools.partial(attacked, case.model, sizes.k, sizes.steps),
        case.weights,
        sweeps.grid(radius=sizes.radii[:1]),
        case.x,
    )
    many = run(chunk=count).whole
    one = run(chunk=sizes.each, devices=jax.devices()[:1]).whole
    return many, one, case.setting


def _elsewhere(fn: Callable, *args: Any) -> Any:
    """What a function returns in a process that takes its CPU for eight devices."""
    before = os.environ.get("JAX_NUM_CPU_DEVICES")
    os.environ["JAX_NUM_CPU_DEVICES"] = "8"
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_answer, args=(answers, fn, args))
    try:
        process.start()
    finally:
        del os.environ["JAX_NUM_CPU_DEVICES"]
        if before is not None:
            os.environ["JAX_NUM_CPU_DEVICES"] = before
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{fn.__name__} failed in its own process: see above")
    return answers.get()


def _answer(answers: Any, fn: Callable, args: tuple) -> None:
    jax.config.update("jax_platforms", "cpu")
    answers.put(fn(*args))


def cheap(weights: Array, x: Array, key: Array) -> dict[str, Array]:
    """A function that costs next to nothing."""
    noise = jax.random.normal(key)
    return {"score": weights @ x + noise, "noise": noise}


def million_rows(sizes: Sizes) -> Iterator[timing.Row]:
    """A sweep whose function is nothing beside its rows; reading what it left."""
    weights, x = jnp.ones(4), _numbers(sizes.rows)
    setting = f"{sizes.rows:,} rows of a dot product and a random number"
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        sweeps.run(cheap, weights, [{}], x, folder, key=jax.random.key(0))
        whole = time.perf_counter() - begin
        made = report.provenance(folder)
        begin = time.perf_counter()
        found = report.summary(report.read(folder), by=[], values=["score", "noise"])
        reading = time.perf_counter() - begin
    if [number["n"] for number in found] != [sizes.rows] * 2:
        raise AssertionError(f"{found} is not of {sizes.rows} rows")
    yield timing.row(
        "million rows",
        whole - made["compile_seconds"],
        floor_s=_bare(weights, x, made["rows"] // made["parts"]),
        memory_mb=timing.peak_memory(_swept_cheaply, sizes.rows),
        compile_s=made["compile_seconds"],
        setting=f"{setting}, in {made['parts']} parts; floor: the compiled function on "
        "as many at once",
    )
    yield timing.row(
        "million rows, read and summarized",
        reading,
        setting=f"{setting}: two means with intervals",
    )


def _numbers(count: int) -> np.ndarray:
    return np.arange(4 * count, dtype=np.float32).reshape(count, 4) / count


def _bare(weights: Array, x: np.ndarray, chunk: int) -> float:
    """Seconds of the compiled function on all examples, whole chunks at once."""

    def many(weights: Array, key: Array, x: Array, ids: Array) -> dict[str, Array]:
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(ids)
        return jax.vmap(cheap, (None, 0, 0))(weights, x, keys)

    key, ids = jax.random.key(0), np.arange(len(x), dtype=np.uint32)
    run = jax.jit(many).lower(weights, key, x[:chunk], ids[:chunk]).compile()
    begin = time.perf_counter()
    for first in range(0, len(x) - chunk + 1, chunk):
        part = slice(first, first + chunk)
        jax.block_until_ready(run(weights, key, x[part], ids[part]))
    return time.perf_counter() - begin


def _swept_cheaply(count: int) -> Callable[[], Swept]:
    return functools.partial(swept, cheap, jnp.ones(4), [{}], _numbers(count))


def accelerated(sizes: Sizes, model: Any) -> timing.Row:
    """The fragility sweep on an accelerator, as fast as it goes."""
    shape = (sizes.many, sizes.side, sizes.side, 3)
    x = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    weights = jax.jit(model.init)(jax.random.key(0), x[0])
    one = functools.partial(attacked, model, sizes.k, sizes.many_steps)
    found = swept(one, weights, sweeps.grid(radius=sizes.radii), x)
    count = sizes.many * len(sizes.radii) * sizes.many_steps
    rate = count / found.whole
    share = peak_share(rate * operations(model, weights, x[0], sizes.k))
    name = type(model).__name__ + str(getattr(model, "depth", ""))
    return timing.row(
        f"fragility sweep of {name}",
        found.whole,
        floor_s=found.calls,
        compile_s=found.compilation,
        setting=f"{jax.devices()[0].device_kind}, random weights, {sizes.side} pixels, "
        f"{sizes.many} images, {len(sizes.radii)} radii, {sizes.many_steps} steps: "
        f"{rate:.0f} images x steps per second, {share}; floor: its compiled calls",
    )


def operations(model: Any, weights: Any, x: Array, k: int) -> float:
    """Multiplications and additions of one step on one image, as XLA counts them.

    A step climbs the map of the twin, and looks at the map of the network. Operations
    inside of loops are not counted by XLA, so that it is counted outside of one.
    """
    fn = functools.partial(model.apply, weights)
    smooth = activations.replace(fn, works.SMOOTH)

    def step(z: Array) -> tuple[Array, Array]:
        mask = metrics.top_k_mask(_explain(fn, 0, z), k=k)
        return jax.grad(lambda z: jnp.sum(mask * _explain(smooth, 0, z)))(z), fn(z)

    cost = jax.jit(lowering.canonical(step)).lower(x).compile().cost_analysis()
    return float(cost["flops"])


def peak_share(rate: float) -> str:
    """What share of its peak the device reaches, in words."""
    kind = jax.devices()[0].device_kind
    for name, peak in PEAKS.items():
        if kind.startswith(name):
            return f"{rate / peak:.1%} of its peak in TF32"
    return f"{rate / 1e12:.2f} TFLOP/s"


if __name__ == "__main__":
    main()
