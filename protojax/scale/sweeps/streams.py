"""What is swept, checked: a function, its weights, examples with ids, and a key."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from protojax.contracts import Key, PyTree
from protojax.scale import fitting, identity, programs


def source(
    one: programs.One,
    weights: PyTree,
    examples: PyTree,
    key: Key,
    chunk: int | None,
    keep: Sequence[int],
    devices: Sequence[jax.Device] | None,
) -> programs.Source:
    """Check what all programs of a sweep share, and put it together.

    Args:
      one: as in `sweeps.run`.
      weights: as in `sweeps.run`.
      examples: as in `sweeps.run`.
      key: as in `sweeps.run`.
      chunk: as in `sweeps.run`; the usual one if None.
      keep: as in `sweeps.run`.
      devices: as in `sweeps.run`.

    Returns:
      The source.

    Raises:
      ValueError: a bad key, chunk, id or device; says which, and what to do.
    """
    if not identity.is_key(key):
        raise ValueError(f"`key` is {key!r}: pass a typed key, jax.random.key(0)")
    if chunk is not None and chunk < 1:
        raise ValueError(f"`chunk` is {chunk}: pass at least 1")
    mesh, ids = programs.mesh(devices), _ids(examples)
    missing = sorted({int(i) for i in keep} - set(ids.tolist())) if keep else []
    if missing:
        raise ValueError(f"`keep` names {missing}: pass ids of the examples")
    kept = frozenset(int(i) for i in keep)
    chunk = chunk or fitting.usual_chunk(mesh, len(ids))
    return programs.Source(one, weights, examples, ids, key, chunk, kept, mesh)


def _ids(examples: PyTree) -> np.ndarray:
    """`[N]` the examples' ids, checked to be usable as keys."""
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(examples)}
    if len(counts) != 1 or () in counts or (0,) in counts:
        raise ValueError(
            f"`examples` has leading axes {sorted(counts)}: pass arrays with the same, "
            "non-zero number of examples along their first axis"
        )
    named = isinstance(examples, dict) and "id" in examples
    ids = np.asarray(examples["id"]) if named else np.arange(next(iter(counts))[0])
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"`id` is {ids.dtype}{list(ids.shape)}: pass [N] integers")
    if ids.min() < 0 or ids.max() >= 2**32:
        raise ValueError(f"`id` spans {ids.min()} to {ids.max()}: pass 0 to 2**32 - 1")
    if len(np.unique(ids)) < len(ids):
        values, counted = np.unique(ids, return_counts=True)
        raise ValueError(f"`id` {values[counted > 1][0]} comes twice: make ids unique")
    return ids.astype(np.int64)


def chunks(source: programs.Source) -> int:
    """How many chunks the examples make.

    Args:
      source: ids and chunk count.

    Returns:
      The number.
    """
    return math.ceil(len(source.ids) / source.chunk)


def chunk_ids(source: programs.Source, index: int) -> np.ndarray:
    """The ids of one chunk.

    Args:
      source: ids and chunk count.
      index: which, from 0.

    Returns:
      `[n]` ids; the last chunk may have fewer.
    """
    return source.ids[index * source.chunk : (index + 1) * source.chunk]


def identified(source: programs.Source) -> dict[str, Any]:
    """What all rows of a folder have in common, as far as it can be known.

    Args:
      source: of the sweep.

    Returns:
      Names and digests, for `config.json`.
    """
    return {
        "function": identity.name(source.one),
        "weights": identity.digest(source.weights),
        "examples": identity.digest(source.examples),
        "key": identity.digest(source.key),
        "chunk": source.chunk,
        "keep": sorted(source.keep),
    }
