"""The sweeps of a script: run one after the other, or planned."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from protojax import sweeps
from protojax.contracts import PyTree
from protojax.scale import storage


class Study(NamedTuple):
    """A sweep, by the arguments of `sweeps.run`."""

    one: Callable[..., dict]
    settings: Sequence[dict[str, Any]]
    examples: dict[str, np.ndarray]
    weights: PyTree = ()
    keep: Sequence[int] = ()
    chunk: int | None = None  # that of the configuration


def run(studies: Mapping[str, Study], config: Any, folder: pathlib.Path) -> None:
    """Run all of them, each in the folder of its name, which says the command, too."""
    made, there = dataclasses.asdict(config), storage.config(folder)
    notes = {"command": there["command"]} if "command" in there else {}
    for name, study in studies.items():
        storage.claim(folder / name, "config", made, **notes)
        sweeps.run(
            *(study.one, study.weights, study.settings, study.examples, folder / name),
            key=jax.random.key(config.seed),
            chunk=study.chunk or config.chunk,
            keep=study.keep,
        )


def plan(studies: Mapping[str, Study], config: Any) -> str:
    """What it would cost to run them."""
    planned = []
    for study in studies.values():
        planned += sweeps.plan(
            *(study.one, study.weights, study.settings, study.examples),
            chunk=study.chunk or config.chunk,
            keep=study.keep,
        )
    return sweeps.outline(planned)
