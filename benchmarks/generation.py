"""Prototypes: steps of one job and of many, against Lucent's algorithm in PyTorch.

python -m benchmarks.generation [--quick] [--json FILE]

A job is a class and a seed; jobs are mapped in one program. Each has transforms of its
own, where Lucent draws one for its batch. SqueezeNet 1.1 with random weights, the same
for all, 128 pixels. Without transforms, and from the same start, the images of all
contenders are compared before anything is timed. Seconds are those of a step of all
jobs: divide by their number.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import contests, timing, torch_generation, torch_peers, works
from benchmarks.torch_peers import nn, torch
from protojax.methods import generation, objectives

Array = jax.Array

WORKS = {"1 job": 1, "8 jobs": 8, "32 jobs": 32}
FLOOR = "a forward and a backward pass of the network for each job"


class Sizes(NamedTuple):
    """How much is done; `QUICK` only shows that it runs."""

    side: int = 128
    steps: int = 4  # in one program
    rounds: int = 7


QUICK = Sizes(32, 2, 1)


class Case(NamedTuple):
    """A network, and jobs."""

    variables: Any
    starts: Array  # [N, H, W, 3]
    classes: Array  # [N]
    seeds: Array  # [N]


def main() -> None:
    """Run from the command line."""
    timing.main(rows, __doc__)


def rows(quick: bool) -> Iterator[timing.Row]:
    """Yield the table.

    Args:
      quick: tiny sizes, and no peak memory, which takes a process for each contender.

    Yields:
      A row for each number of jobs and each contender.
    """
    torch.set_num_threads(timing.cores())
    sizes = QUICK if quick else Sizes()
    case = load(sizes, 2)
    for way in torch_generation.WAYS:
        for steps, least in ((1, 0.99), (2, 0.9)):
            assert_same(way, case, steps, least)
    for work, jobs in WORKS.items():
        yield from contest(work, min(jobs, 2) if quick else jobs, sizes, not quick)


def load(sizes: Sizes, jobs: int) -> Case:
    """Random weights, and jobs that start in gray noise."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0.4, 0.6, (jobs, sizes.side, sizes.side, 3))
    like = jax.ShapeDtypeStruct(starts.shape[1:], np.float32)
    return Case(
        works.drawn(rng, works.MODEL, like),
        jnp.asarray(starts, jnp.float32),
        jnp.arange(jobs) * 31 % works.MODEL.classes,
        jnp.arange(jobs),
    )


def contest(work: str, jobs: int, sizes: Sizes, probe: bool) -> Iterator[timing.Row]:
    """Time so many jobs."""
    case = load(sizes, jobs)
    step = functools.partial(prototype, steps=sizes.steps)
    peers = {
        f"{layout}, {how}": contests.Contender(
            peer, (how, layout, *_numpy(case), sizes.steps)
        )
        for layout in torch_peers.FORMATS
        for how in torch_generation.WAYS
    }
    floor = contests.program(passes, case.variables, case.starts, case.classes)
    yield from contests.race(
        work,
        contests.ours(step, *case),
        peers,
        {"passes": (1, floor.run)},
        setting=f"SqueezeNet 1.1, {sizes.side} pixels, seconds of a step of {jobs} at"
        f" once; floor: {FLOOR}",
        probe=probe,
        rounds=sizes.rounds,
        repeats=sizes.steps,
        agree=_both_are_images,
    )


def prototype(variables: Any, x: Array, y: Array, seed: Array, *, steps: int) -> Array:
    """Stage two of one job, as users call it."""
    score = objectives.logit(functools.partial(works.MODEL.apply, variables), y)
    key = jax.random.key(seed)
    return generation.prototype(score, x, key=key, steps=steps).x


def passes(variables: Any, x: Array, y: Array) -> Array:
    """The gradient of a logit."""
    return jax.grad(
        objectives.logit(functools.partial(works.MODEL.apply, variables), y)
    )(x)


def peer(
    how: str,
    layout: str,
    params: Any,
    starts: np.ndarray,
    classes: np.ndarray,
    seeds: np.ndarray,
    steps: int,
    *,
    transformed: bool = True,
) -> Callable[[], np.ndarray]:
    """Make a contender's thunk, in whatever process.

    Args:
      how: one of `torch_generation.WAYS`.
      layout: one of `torch_peers.FORMATS`.
      params: our parameters.
      starts: images `[N, H, W, 3]`.
      classes: `[N]`.
      seeds: not used: PyTorch's random numbers are others.
      steps: how many.
      transformed: whether there are transforms.

    Returns:
      The thunk, whose result is laid out as ours.
    """
    del seeds
    torch.set_num_threads(timing.cores())
    net = torch_peers.SqueezeNet(params, nn.ReLU, works.MODEL.mean, works.MODEL.std)
    net = net.to(memory_format=torch_peers.FORMATS[layout])
    given = (torch_peers.images(starts, layout),)
    if how == "Lucent's algorithm":
        given = tuple(torch_peers.images(part, layout) for part in _waves(starts))
    y, climb = torch.tensor(classes).long(), torch_generation.WAYS[how]
    return lambda: torch_peers.ours(
        climb(net, given, y, steps, transformed=transformed)
    )


def assert_same(how: str, case: Case, steps: int, least: float) -> None:
    """Steps without transforms lead ours and theirs to the same images.

    The first step of Adam is a sign, and of a gradient near zero rounding decides.
    After it many neighbors are equal but for rounding, which then decides the sign of
    their difference: so fewer pixels agree after the second.
    """

    def ours(variables: Any, x: Array, y: Array) -> Array:
        score = objectives.logit(functools.partial(works.MODEL.apply, variables), y)
        if how == "the same":
            return generation.prototype(score, x, transform=None, steps=steps).x
        params = generation.fourier_params(generation.from_rgb(x))
        canvas = generation.fourier(x.shape)._replace(start=lambda _: params)
        return generation.generate(score, canvas, steps=steps).x

    own = contests.program(ours, case.variables, case.starts, case.classes).run()
    layout = next(iter(torch_peers.FORMATS))
    theirs = peer(how, layout, *_numpy(case), steps, transformed=False)()
    same = np.mean(np.abs(np.asarray(own) - theirs) < 0.01)
    if same < least:
        raise AssertionError(f"{how}, {steps} steps: only {same:.1%} of pixels agree")


def _waves(starts: np.ndarray) -> list[np.ndarray]:
    find = jax.vmap(lambda x: generation.fourier_params(generation.from_rgb(x)))
    return [np.asarray(part) for part in jax.jit(find)(starts)]


def _numpy(case: Case) -> tuple[Any, ...]:
    """What can be sent to another process."""
    variables, *rest = jax.tree.map(np.asarray, case)
    return (variables["params"], *rest)


def _both_are_images(work: str, actual: Any, expected: Any) -> None:
    """Transforms are drawn by each on its own; `assert_same` has compared the rest."""
    for each in map(np.asarray, (actual, expected)):
        if each.shape != np.shape(expected) or not np.all((each >= 0) & (each <= 1)):
            raise AssertionError(f"{work}: {each.shape}, not images in [0, 1]")


if __name__ == "__main__":
    main()
