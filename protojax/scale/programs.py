"""The edge between pure functions of one example and compiled programs on devices.

One program serves all settings that differ in floats only. It takes the weights as an
argument and a chunk of examples spread over the devices, each of which works on its
share alone: no device ever waits for another, and results do not depend on how many
there are.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from protojax.contracts import Array, Key, PyTree
from protojax.mechanisms import lowering

One = Callable[..., dict[str, Array]]
"""What is swept: `one(weights, example, key, **setting) -> {name: value}`, pure."""

Setting = Mapping[str, Any]

RESERVED = ("id", "seconds", "setting", "file")
"""Names that a result may not have: columns of their own, and entries of `.npz`."""


class Source(NamedTuple):
    """What all programs of a sweep share.

    Attributes:
      one: the function of one example.
      weights: its first argument, on all devices.
      examples: arrays `[N, ...]`, its second.
      ids: `[N]` of the examples.
      key: folded with the ids, its third.
      chunk: examples per call.
      keep: ids whose arrays are wanted; if there are none, no array leaves a program.
      mesh: the devices, in one row.
    """

    one: One
    weights: PyTree
    examples: PyTree
    ids: np.ndarray
    key: Key
    chunk: int
    keep: frozenset[int]
    mesh: Mesh


class Batch(NamedTuple):
    """Examples on the devices: a chunk, or a part of one.

    Attributes:
      examples: arrays `[lanes, ...]`; the last lanes repeat the last example.
      lanes: `[lanes]` ids on the devices.
      ids: `[n]` ids of the examples, without the repetitions.
    """

    examples: PyTree
    lanes: Array
    ids: np.ndarray


class Program(NamedTuple):
    """A compiled function of `(weights, key, floats, examples, ids)`.

    Attributes:
      call: the compiled function.
      lanes: how many examples it takes.
      seconds: how long its compilation took.
    """

    call: Any
    lanes: int
    seconds: float


def checked(settings: Iterable[Setting]) -> list[dict[str, Any]]:
    """Settings with plain Python values.

    Args:
      settings: as users give them; NumPy and JAX numbers are numbers.

    Returns:
      The settings.

    Raises:
      ValueError: none, one twice, one that is not finite or named like a column.
    """
    plain = [{name: _plain(v) for name, v in s.items()} for s in settings]
    if not plain:
        raise ValueError("`settings` is empty: pass [{}] for a function without any")
    for setting in plain:
        for name, value in setting.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"setting `{name}` is {value}: pass a finite number")
            if name in RESERVED:
                raise ValueError(f"a setting is named `{name}`, as a column: rename it")
        if plain.count(setting) > 1:
            raise ValueError(f"the setting {setting} is given twice: pass it once")
    return plain


def _plain(value: Any) -> Any:
    scalar = isinstance(value, np.generic | np.ndarray | jax.Array) and value.ndim == 0
    return value.item() if scalar else value


def groups(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Settings that share a program, together; in the order of their first.

    Args:
      settings: from `checked`.

    Returns:
      Lists of settings that differ in floats only.

    >>> groups([{"k": 1, "r": 0.1}, {"k": 2, "r": 0.1}, {"k": 1, "r": 0.2}])[0]
    [{'k': 1, 'r': 0.1}, {'k': 1, 'r': 0.2}]
    """
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        floats = sorted(k for k, v in setting.items() if isinstance(v, float))
        signature = repr((sorted(static(setting).items()), floats))
        found.setdefault(signature, []).append(setting)
    return list(found.values())


def static(setting: Setting) -> dict[str, Any]:
    """The settings that a program is compiled for: all but the floats.

    Args:
      setting: a setting.

    Returns:
      Its static part.
    """
    return {k: v for k, v in setting.items() if not isinstance(v, float)}


def mesh(devices: Sequence[jax.Device] | None) -> Mesh:
    """The devices as one row.

    Args:
      devices: which; all local ones if None.

    Returns:
      A mesh with the axis `"data"`.

    Raises:
      ValueError: there are none.
    """
    if devices is not None and not len(devices):
        raise ValueError("`devices` is empty: pass at least one, or None for all")
    return Mesh(np.asarray(jax.local_devices() if devices is None else devices), "data")


def place(source: Source) -> Source:
    """The same source, its weights and key put on all its devices.

    Args:
      source: with weights and key anywhere.

    Returns:
      With both on every device.
    """
    everywhere = NamedSharding(source.mesh, PartitionSpec())
    weights = jax.tree.map(_at_hand, source.weights)
    put = jax.device_put((weights, source.key), everywhere)
    return source._replace(weights=put[0], key=put[1])


def _at_hand(leaf: Any) -> Any:
    """What was trained on the devices of all processes lies whole on each of them."""
    far = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    return np.asarray(leaf) if far else leaf


def lanes(source: Source) -> int:
    """How many examples a whole chunk is, filled up to equal shares.

    Args:
      source: chunk, number of examples and devices count.

    Returns:
      The number.
    """
    share = -(-min(source.chunk, len(source.ids)) // source.mesh.size)
    return share * source.mesh.size


def batches(source: Source, index: int, lanes: int) -> list[Batch]:
    """Put one chunk on the devices.

    Args:
      source: examples and devices.
      index: which chunk, from 0.
      lanes: how many examples a program takes.

    Returns:
      The chunk in so many parts as it needs, filled up with repetitions of its last
      example.
    """
    begin, end = index * source.chunk, (index + 1) * source.chunk
    ends = range(begin, min(end, len(source.ids)), lanes)
    return [_batch(source, slice(at, min(at + lanes, end)), lanes) for at in ends]


def _batch(source: Source, part: slice, lanes: int) -> Batch:
    ids = source.ids[part]

    def fill(leaf: Any) -> np.ndarray:
        values = np.asarray(leaf[part])
        return np.concatenate(
            [values, np.repeat(values[-1:], lanes - len(ids), axis=0)]
        )

    shares = NamedSharding(source.mesh, PartitionSpec("data"))
    filled = jax.tree.map(fill, source.examples), fill(source.ids.astype(np.uint32))
    examples, numbers = jax.device_put(filled, shares)
    return Batch(examples, numbers, ids)


def compiled(source: Source, setting: Setting, lanes: int) -> Program:
    """Compile for a setting and all that differ from it in floats only.

    Args:
      source: the function and its weights.
      setting: any of the settings.
      lanes: how many examples it shall take.

    Returns:
      The program.
    """
    fixed = static(setting)

    def single(
        weights: PyTree, key: Key, floats: PyTree, x: PyTree, number: Array
    ) -> tuple[PyTree, PyTree]:
        key = jax.random.fold_in(key, number)
        result = source.one(weights, x, key, **fixed, **floats)
        return _split(result, setting, bool(source.keep))

    begin = time.perf_counter()
    all_, shares = PartitionSpec(), PartitionSpec("data")
    spread = jax.shard_map(
        lowering.canonical(jax.vmap(single, in_axes=(None, None, None, 0, 0))),
        mesh=source.mesh,
        in_specs=(all_, all_, all_, shares, shares),
        out_specs=shares,
        check_vma=False,  # no device speaks to another, there is nothing to check
    )
    first = _batch(source, slice(0, lanes), lanes)
    lowered = jax.jit(spread).lower(*_arguments(source, setting, first))
    return Program(lowered.compile(), lanes, time.perf_counter() - begin)


def _split(
    result: Any, setting: Setting, arrays: bool
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Scalars, which become columns, and arrays, which are kept for some examples."""
    if not isinstance(result, dict):
        raise ValueError(
            f"the function swept returns a {type(result).__name__}: return a dict of "
            "scalars and arrays"
        )
    taken = sorted(set(result) & {*setting, *RESERVED})
    if taken:
        raise ValueError(
            f"the function swept returns `{taken[0]}`, which is a setting's name or "
            f"one of {', '.join(RESERVED)}: choose another name"
        )
    values = {name: jnp.asarray(value) for name, value in result.items()}
    for name, value in values.items():
        if jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise ValueError(
                f"the function swept returns `{name}`, which is complex: return its "
                "real and imaginary part under two names"
            )
    scalars = {name: value for name, value in values.items() if value.ndim == 0}
    rest = {name: values[name] for name in values if name not in scalars}
    return scalars, rest if arrays else {}


def _arguments(source: Source, setting: Setting, on: Batch) -> tuple:
    floats = {k: jnp.asarray(v, float) for k, v in setting.items() if type(v) is float}
    floats = jax.device_put(floats, NamedSharding(source.mesh, PartitionSpec()))
    return source.weights, source.key, floats, on.examples, on.lanes


class Evaluation(NamedTuple):
    """What one call gave.

    Attributes:
      ids: `[n]` the examples.
      scalars: `[n]` each.
      kept: the ids of `arrays`.
      arrays: `[len(kept), ...]` each.
      seconds: wall time of the call.
    """

    ids: np.ndarray
    scalars: dict[str, np.ndarray]
    kept: np.ndarray
    arrays: dict[str, np.ndarray]
    seconds: float


def evaluate(
    source: Source, program: Program, setting: Setting, chunk: Sequence[Batch]
) -> Evaluation:
    """Call a program for one setting and one chunk.

    Args:
      source: the function's weights and key.
      program: from `compiled`, for these static settings.
      setting: the setting.
      chunk: from `batches`.

    Returns:
      Its results on the host, without the repetitions.
    """
    parts = [_called(source, program, setting, on) for on in chunk]
    kept = [part for part in parts if part.kept.size] or parts[:1]
    return Evaluation(
        ids=np.concatenate([part.ids for part in parts]),
        scalars=_joined([part.scalars for part in parts]),
        kept=np.concatenate([part.kept for part in kept]),
        arrays=_joined([part.arrays for part in kept]),
        seconds=sum(part.seconds for part in parts),
    )


def _called(
    source: Source, program: Program, setting: Setting, on: Batch
) -> Evaluation:
    begin = time.perf_counter()
    arguments = _arguments(source, setting, on)
    scalars, arrays = jax.block_until_ready(program.call(*arguments))
    seconds = time.perf_counter() - begin
    count = len(on.ids)
    chosen = np.flatnonzero(np.isin(on.ids, list(source.keep)))
    kept = {k: np.asarray(v)[chosen] for k, v in arrays.items()} if chosen.size else {}
    columns = {name: np.asarray(values)[:count] for name, values in scalars.items()}
    return Evaluation(on.ids, columns, on.ids[chosen], kept, seconds)


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def memory(program: Program) -> int:
    """What a program needs on each device: arguments, results and temporaries.

    Args:
      program: from `compiled`.

    Returns:
      Bytes.
    """
    facts = program.call.memory_analysis()
    return int(
        facts.argument_size_in_bytes
        + facts.output_size_in_bytes
        + facts.temp_size_in_bytes
        - facts.alias_size_in_bytes
    )
