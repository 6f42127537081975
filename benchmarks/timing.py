"""What the benchmarks share: fair timing, rows, a table and the command line.

Contenders are run in turns, so that a slow moment of the machine meets all of them.
Compilation is timed apart, and nothing is timed that has not been run before.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np

Row = dict[str, Any]
WIDTHS = {"work": 44, "peer": 51}
"""Of the columns of text in a table; numbers are as wide as their names."""

KEYS = (
    "work",
    "ours_s",
    "peer",
    "peer_s",
    "floor_s",
    "ratio_to_peer",
    "ratio_to_floor",
    "memory_mb",
    "peer_memory_mb",
    "compile_s",
    "setting",
)


class Program(NamedTuple):
    """A compiled function with its arguments.

    Attributes:
      run: waits for the result and returns it.
      compile_s: seconds that tracing and compiling took.
      memory_mb: what it holds at most: arguments, results and temporaries.
    """

    run: Callable[[], Any]
    compile_s: float
    memory_mb: float


class Times(NamedTuple):
    """Seconds of one contender: the median, and the least, of its runs."""

    median: float
    least: float


def compiled(fn: Callable, *args: Any) -> Program:
    """Compile a function for these arguments.

    Args:
      fn: any function of arrays; the weights belong among its arguments.
      *args: what it is run on.

    Returns:
      The program, not yet run.

    >>> compiled(lambda x: 2 * x, 3.0).run().item()
    6.0
    """
    start = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    seconds = time.perf_counter() - start
    size = program.memory_analysis()
    held = (
        size.argument_size_in_bytes
        + size.output_size_in_bytes
        + size.temp_size_in_bytes
    )
    return Program(lambda: jax.block_until_ready(program(*args)), seconds, held / 1e6)


def interleave(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1
) -> dict[str, Times]:
    """Time contenders in turns.

    Args:
      contenders: functions that return when their work is done, by name.
      rounds: how often each is timed.
      warm_up: how often each is run before.

    Returns:
      The times of each, by name.

    >>> sorted(interleave({"a": lambda: None, "b": lambda: None}, rounds=1))
    ['a', 'b']
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for count in range(warm_up + rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if count >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {
        name: Times(statistics.median(each), min(each))
        for name, each in seconds.items()
    }


def row(
    work: str,
    ours_s: float,
    *,
    peer: str | None = None,
    peer_s: float | None = None,
    floor_s: float | None = None,
    memory_mb: float | None = None,
    compile_s: float | None = None,
    peer_memory_mb: float | None = None,
    setting: str = "",
) -> Row:
    """One line of a table; what does not apply is None.

    Args:
      work: what was done, in plain words.
      ours_s: our seconds.
      peer: who else did it.
      peer_s: their seconds.
      floor_s: the seconds of what cannot be done without.
      memory_mb: the peak of ours where theirs is measured, else what the compiled
        program says it needs.
      compile_s: seconds that tracing and compiling ours took.
      peer_memory_mb: the peak of theirs.
      setting: sizes, weights, and what the floor is.

    Returns:
      The row, with `KEYS`.

    >>> row("sorting", 2.0, peer="them", peer_s=3.0)["ratio_to_peer"]
    1.5
    """
    values = (
        work,
        ours_s,
        peer,
        peer_s,
        floor_s,
        None if peer_s is None else peer_s / ours_s,
        None if floor_s is None else ours_s / floor_s,
        memory_mb,
        peer_memory_mb,
        compile_s,
        setting,
    )
    return dict(zip(KEYS, values, strict=True))


def assert_agree(
    work: str, actual: Any, expected: Any, *, tolerance: float = 1e-2
) -> None:
    """Check two contenders' results before they are timed.

    Args:
      work: what they did, for the error.
      actual: a tree of arrays.
      expected: a tree like it.
      tolerance: largest norm of a difference, relative to the norm. A ReLU at rounding
        distance from zero may go either way, and takes a few entries with it.

    Raises:
      AssertionError: if they differ by more.

    >>> assert_agree("counting", {"a": 1.0}, {"a": 1.0})
    """

    def check(a: Any, b: Any) -> None:
        a, b = np.asarray(a), np.asarray(b)
        error = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)
        if a.shape != b.shape or not error <= tolerance:
            raise AssertionError(f"{work}: results differ by {error:.1e}, relatively")

    jax.tree.map(check, actual, expected)


def peak_memory(fn: Callable, *args: Any, **knobs: Any) -> float:
    """Megabytes by which a function raises the peak of a fresh process.

    Args:
      fn: a function of a module, `(*args, **knobs) -> thunk`; making the thunk is not
        counted.
      *args: what can be sent to another process.
      **knobs: the same.

    Returns:
      The peak while the thunk runs, above what the process held before.
    """
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_probe, args=(answers, fn, args, knobs))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{fn.__name__} failed in its own process: see above")
    return answers.get()


def _probe(answers: Any, fn: Callable, args: Sequence, knobs: Mapping) -> None:
    thunk = fn(*args, **knobs)
    ctypes.CDLL(None).malloc_trim(0)  # or it would lie in what was freed before
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak
    before = _peak_kilobytes()
    thunk()
    answers.put((_peak_kilobytes() - before) / 1e3)


def _peak_kilobytes() -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def cores() -> int:
    """Return how many cores this process may use; everyone gets as many threads."""
    return len(os.sched_getaffinity(0))


def command() -> str:
    """Return what was typed to run this benchmark, but for variables."""
    script = pathlib.Path(sys.argv[0]).stem
    module = "benchmarks" if script == "__main__" else f"benchmarks.{script}"
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def environment() -> str:
    """Return the machine and the versions, in one line."""
    packages = ("jax", "jaxlib", "flax", "matfree", "torch", "captum")
    found = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
    versions = ", ".join(f"{p} {found[p]}" for p in packages if p in found)
    return (
        f"{cores()} cores, as many threads for each; {jax.default_backend()}; float32; "
        f"Python {platform.python_version()}, {versions}"
    )


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Rows as lines of aligned text, each as soon as it is there.

    Args:
      rows: as made by `row`.

    Yields:
      The names of the columns, then one line for each row, and one where the setting
      changes.
    """
    names = [key for key in KEYS if key != "setting"]
    yield _line(names, names)
    setting = None
    for each in rows:
        if each["setting"] != setting:
            setting = each["setting"]
            yield f"-- {setting}"
        yield _line(names, [_text(each[name]) for name in names])


def _line(names: Sequence[str], cells: Sequence[str]) -> str:
    padded = [
        cell.ljust(WIDTHS[name]) if name in WIDTHS else cell.rjust(len(name))
        for name, cell in zip(names, cells, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(rows: Callable[[bool], Iterable[Row]], description: str | None) -> None:
    """Run a benchmark from the command line.

    Each row is printed, and written with those before it, as soon as it is measured;
    beside them the file has the command, the machine and the versions.

    Args:
      rows: `quick -> rows`.
      description: what `--help` says.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke run")
    parser.add_argument(
        "--json", metavar="FILE", type=pathlib.Path, help="a file for the rows, too"
    )
    args = parser.parse_args()
    print(environment(), flush=True)
    found = rows(args.quick)
    for line in table(found if args.json is None else _written(found, args.json)):
        print(line, flush=True)


def _written(rows: Iterable[Row], file: pathlib.Path) -> Iterator[Row]:
    found: list[Row] = []
    record = {"command": command(), "environment": environment(), "rows": found}
    for each in rows:
        found.append(each)
        write(file, json.dumps(record, indent=1))
        yield each


def write(file: pathlib.Path, text: str) -> None:
    """Write a file so that readers see all of it or what was there before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(file.name + ".part")
    unfinished.write_text(text + "\n")
    unfinished.replace(file)
