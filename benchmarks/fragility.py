"""Attacks on explanations of SqueezeNet 1.1, against PyTorch and Captum.

python -m benchmarks.fragility [--quick] [--json FILE]

The same weights and images are given to all; results are compared before they are
timed. PyTorch runs in its default layout and in channels_last, its fast one, and
differentiates twice by double backward. Weights and images are the real ones where
PROTOJAX_DATA holds them.

What is timed, and what its floor is, is in benchmarks/works.py.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import contests, timing, works
from benchmarks.torch_peers import torch
from protojax.methods import attributions
from protojax.models import pretrained

Array = jax.Array


class Sizes(NamedTuple):
    """How much is done; `QUICK` only shows that it runs."""

    side: int = 224
    batch: int = 4
    path_batch: int = 16  # for integrated gradients
    path: int = 16  # its steps
    attack_path: int = 10  # its steps inside of the attack
    repeats: int = 5  # attack steps in one program
    steps: int = 20  # of the whole attack
    k: int = 1000
    rounds: int = 7
    slow_rounds: int = 3


QUICK = Sizes(40, 2, 2, 2, 2, 2, 3, 20, 1, 1)


class Case(NamedTuple):
    """The network, the images and their classes."""

    variables: Any
    x: Array
    y: Array
    setting: str


def main() -> None:
    """Run from the command line."""
    timing.main(rows, __doc__)


def rows(quick: bool) -> Iterator[timing.Row]:
    """Yield the table.

    Args:
      quick: tiny sizes, and no peak memory, which takes a process for each contender.

    Yields:
      The rows.
    """
    torch.set_num_threads(timing.cores())
    sizes = QUICK if quick else Sizes()
    case = load(sizes)
    yield from convolutions(sizes, case)
    yield from first_order(sizes, case, probe=not quick)
    yield from attack_steps(sizes, case, probe=not quick)
    yield from whole_attacks(sizes, case, probe=not quick)


def load(sizes: Sizes) -> Case:
    """The real weights and images, or random ones of the same shapes."""
    count = max(sizes.batch, sizes.path_batch)
    folder = pathlib.Path(os.environ.get("PROTOJAX_DATA", "none"))
    weights = folder / "imagenet_squeezenet1_1.npz"
    samples = folder / "imagenet_samples_224.npz"
    if weights.is_file():
        _, variables = pretrained.squeezenet1_1(weights)
    else:
        like = jnp.zeros((sizes.side, sizes.side, 3))
        variables = jax.jit(works.MODEL.init)(jax.random.key(0), like)
    if samples.is_file():
        x = np.load(samples)["images"][:count, : sizes.side, : sizes.side] / 255
    else:
        x = jax.random.uniform(jax.random.key(1), (count, sizes.side, sizes.side, 3))
    x = jnp.asarray(x, jnp.float32)
    y = jnp.argmax(works.batched(works.MODEL.apply)(variables, x), -1)
    setting = (
        f"SqueezeNet 1.1, {sizes.side} pixels, "
        f"{'torchvision' if weights.is_file() else 'random'} weights"
    )
    return Case(variables, x, y, setting)


def convolutions(sizes: Sizes, case: Case) -> Iterator[timing.Row]:
    """What both are made of: one convolution, as the second layers see it."""
    side, names = sizes.side // 4, ("expand3x3, forward", "expand3x3, input gradient")
    kernel = case.variables["params"]["fire2"]["expand3x3"]["kernel"]
    for name, w in zip(names, (kernel, kernel.swapaxes(2, 3)), strict=True):
        x = jax.random.normal(jax.random.key(2), (sizes.batch, side, side, w.shape[2]))
        yield from contests.contest(
            f"convolution of fire2.{name}",
            contests.ours(works.convolution, w, x),
            contests.layouts(
                "convolution", case.variables, x, np.zeros(1), np.asarray(w)
            ),
            {},
            setting=f"3x3, {w.shape[2]} to {w.shape[3]} channels, {side} pixels",
            probe=False,
            rounds=3 * sizes.rounds,
        )


def first_order(sizes: Sizes, case: Case, *, probe: bool) -> Iterator[timing.Row]:
    """Gradients, products, integrated gradients and DeepLIFT."""
    v, setting = case.variables, case.setting
    x, y = case.x[: sizes.batch], case.y[: sizes.batch]
    many, classes = case.x[: sizes.path_batch], case.y[: sizes.path_batch]
    direction = jnp.cos(100 * x)

    contest = functools.partial(contests.contest, setting=setting, probe=probe)
    plain = contests.program(works.gradient, v, x, y)
    smooth = contests.program(works.twin_gradient, v, x, y)
    forward = contests.program(works.MODEL.apply, v, x)
    yield from contest(
        "gradient",
        contests.ours(works.gradient, v, x, y),
        contests.layouts("gradient", v, x, y),
        {"forward": (1, forward.run)},
        rounds=sizes.rounds,
    )
    yield from contest(
        "Hessian-vector product",
        contests.ours(works.product, v, x, y, direction),
        contests.layouts("product", v, x, y, direction),
        {"gradient": (1, smooth.run)},
        rounds=sizes.rounds,
    )
    yield from contest(
        "DeepLIFT",
        contests.ours(works.deep_lift, v, x, y),
        contests.layouts("captum_deep_lift", v, x, y, label="Captum, "),
        {"gradient": (1, plain.run), "forward": (1, forward.run)},
        rounds=sizes.rounds,
        agree=functools.partial(_assert_complete, v, x, y),
    )
    passes = contests.program(works.gradient, v, many, classes)
    integrated = functools.partial(works.integrated_gradients, steps=sizes.path)
    peers = contests.layouts("integrated", v, many, classes, sizes.path)
    yield from contest(
        "integrated gradients",
        contests.ours(integrated, v, many, classes),
        peers
        | contests.layouts(
            "captum_integrated", v, many, classes, sizes.path, label="Captum, "
        ),
        {"gradient": (sizes.path, passes.run)},
        rounds=sizes.slow_rounds,
    )


def attack_steps(sizes: Sizes, case: Case, *, probe: bool) -> Iterator[timing.Row]:
    """Steps of the top-k attack, alone and in one program."""
    v, x, y = case.variables, case.x[: sizes.batch], case.y[: sizes.batch]
    contest = functools.partial(contests.contest, setting=case.setting, probe=probe)
    plain = contests.program(works.gradient, v, x, y)
    passes = {"gradient": (2, plain.run)}
    mask = _chosen(sizes, v, x, y)
    yield from contest(
        "top-k attack step",
        _climbing(sizes.repeats, sizes, v, x, y),
        contests.layouts("climbed", v, x, y, mask, 0, sizes.repeats),
        passes,
        rounds=sizes.rounds,
        repeats=sizes.repeats,
        agree=functools.partial(_assert_as_strong, v, x, y, mask),
    )
    yield from contest(
        "top-k attack step, called alone",
        _climbing(1, sizes, v, x, y),
        contests.layouts("climbed", v, x, y, mask, 0, 1),
        passes,
        rounds=sizes.rounds,
        agree=_assert_same_step,
    )
    path = sizes.attack_path
    integrated = functools.partial(works.integrated_gradients, twin=True, steps=path)
    yield from contest(
        "top-k attack step on integrated gradients",
        _climbing(1, sizes, v, x, y, explain=integrated),
        contests.layouts("climbed", v, x, y, mask, path, 1),
        {"gradient": (2 * path, plain.run)},
        rounds=sizes.slow_rounds,
        agree=_assert_same_step,
    )


def whole_attacks(sizes: Sizes, case: Case, *, probe: bool) -> Iterator[timing.Row]:
    """The attack from its start to its best iterate."""
    v, x, y = case.variables, case.x[: sizes.batch], case.y[: sizes.batch]
    steps = sizes.steps
    mask = _chosen(sizes, v, x, y)
    contest = functools.partial(
        contests.contest,
        setting=case.setting,
        probe=probe,
        rounds=sizes.slow_rounds,
        agree=functools.partial(_assert_as_strong, v, x, y, mask),
    )
    plain = contests.program(works.gradient, v, x, y)
    bare = _climbing(steps, sizes, v, x, y)
    floor = {"steps": (1, bare.make(*bare.args).run)}
    attack, judged = (
        contests.ours(functools.partial(work, k=sizes.k, steps=steps), v, x, y)
        for work in (works.attack, works.judged_attack)
    )
    yield from contest(
        "whole attack, last iterate",
        attack,
        contests.layouts("climbed", v, x, y, mask, 0, steps),
        floor,
    )
    yield from contest(
        "whole attack, best iterate on the network",
        judged,
        contests.layouts("judged", v, x, y, mask, 0, steps),
        floor | {"gradient": (steps + 1, plain.run)},
    )


def _climbing(
    steps: int,
    sizes: Sizes,
    *args: Any,
    explain: Callable[..., Array] = works.twin_gradient,
) -> contests.Contender:
    """Bare steps of ours, in one program."""
    climb = functools.partial(works.climbed, explain=explain, k=sizes.k, steps=steps)
    return contests.ours(climb, *args)


def _chosen(sizes: Sizes, *args: Any) -> np.ndarray:
    """The pixels that every contender empties."""
    choose = functools.partial(works.chosen, k=sizes.k)
    return np.asarray(contests.program(choose, *args).run())


def _assert_same_step(work: str, actual: Any, expected: Any) -> None:
    """Signs amplify rounding where a gradient is zero: nearly all must agree."""
    same = np.mean(np.abs(np.asarray(actual) - expected) < works.STEP_SIZE / 10)
    if same < 0.97:
        raise AssertionError(f"{work}: only {same:.1%} of the pixels agree")


def _assert_as_strong(
    variables, x, y, mask, work: str, actual: Any, expected: Any
) -> None:
    """A few signed steps are chaotic: where they lead to must be as good."""

    def left(z):
        maps = works.batched(lambda *a: attributions.heatmap(works.twin_gradient(*a)))
        return np.sum(mask * np.asarray(maps(variables, jnp.asarray(z), y)), (1, 2))

    start, ours, theirs = left(x), left(actual), left(expected)
    if not np.all((ours < start) & (theirs < start)):
        raise AssertionError(f"{work}: the saliency {start} became {ours}, {theirs}")
    if not 0.7 < np.sum(ours) / np.sum(theirs) < 1.4:
        raise AssertionError(f"{work}: {ours} is left of the saliency, or {theirs}")


def _assert_complete(variables, x, y, work: str, actual: Any, expected: Any) -> None:
    """Ours sums to the difference of scores; Captum's only resembles it."""
    logits = [
        works.batched(works.MODEL.apply)(variables, z) for z in (x, jnp.zeros_like(x))
    ]
    change = jnp.take_along_axis(logits[0] - logits[1], y[:, None], 1)[:, 0]
    timing.assert_agree(work, jnp.sum(actual, (1, 2, 3)), change)
    alike = np.corrcoef(np.ravel(actual), np.ravel(expected))[0, 1]
    if not alike > 0.3:
        raise AssertionError(f"{work}: the correlation is only {alike:.2f}")


if __name__ == "__main__":
    main()
