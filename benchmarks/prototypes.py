"""Prototype networks: head, training, push and attack, against PyTorch.

python -m benchmarks.prototypes [--quick] [--json FILE]

2000 prototypes of 200 classes, as for the birds of the paper. The head alone is timed
on latent maps; the rest on SqueezeNet 1.1, whose last map is 13 x 13. The same random
weights and images are given to all, and results are compared before they are timed.
PyTorch is written from the published formulas, in its default layout and in
channels_last, once as they stand in the authors' code and once as one would write them
for speed (benchmarks/torch_prototypes.py).
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import (
    contests,
    prototype_works,
    timing,
    torch_peers,
    torch_prototypes,
    works,
)
from benchmarks.torch_peers import torch
from protojax.methods import prototypes
from protojax.models import protopnet

Array = jax.Array


class Sizes(NamedTuple):
    """How much is done; `QUICK` only shows that it runs."""

    classes: int = 200
    per_class: int = 10
    depth: int = 128
    head_batch: int = 64
    side: int = 224
    train: int = 8
    push: int = 32
    attack: int = 4
    steps: int = 5  # of the attack, in one program
    rounds: int = 7


QUICK = Sizes(3, 2, 8, 2, 40, 2, 3, 2, 2, 1)


class Case(NamedTuple):
    """A network of prototypes, and images."""

    net: protopnet.PrototypeHead
    params: Any
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
    contest = functools.partial(
        contests.contest, probe=not quick, floors=prototype_works.FLOORS
    )
    for work in (head, training_step, push, attack_step):
        yield from work(sizes, contest)


def load(sizes: Sizes, count: int) -> Case:
    """Random weights and images of these sizes."""
    rng = np.random.default_rng(0)
    owners = prototypes.owners(sizes.classes * sizes.per_class, sizes.classes)
    net = protopnet.PrototypeHead(sizes.classes, owners, sizes.depth)
    x = rng.uniform(size=(count, sizes.side, sizes.side, 3)).astype(np.float32)
    like = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    backbone = works.drawn(rng, prototype_works.MODEL, like)
    features = jax.eval_shape(prototype_works.FEATURES, backbone, x[0])
    params = works.drawn(rng, net, features)["params"]
    params["last_layer"] = prototypes.connections(owners, sizes.classes)
    y = rng.integers(sizes.classes, size=count, dtype=np.int32)
    setting = (
        f"{len(owners)} prototypes of {sizes.classes} classes, {sizes.depth} deep, "
        f"SqueezeNet 1.1, {sizes.side} pixels"
    )
    both = {"backbone": backbone, "head": params}
    return Case(net, both, jnp.asarray(x), jnp.asarray(y), setting)


def head(sizes: Sizes, contest: Callable) -> Iterator[timing.Row]:
    """Distances, similarities and logits of latent maps."""
    case = load(sizes, 1)
    shape = (sizes.head_batch, 7, 7, sizes.depth)
    z = jax.random.uniform(jax.random.key(4), shape)
    params = {k: v for k, v in case.params["head"].items() if k != "add_on_layers"}
    work = functools.partial(prototype_works.head, case.net)
    yield from contest(
        "head",
        contests.ours(work, params, z),
        peers("head", torch_prototypes.DISTANCES, z, params),
        {},
        setting=f"{case.setting.partition(', S')[0]}, 7 x 7 places",
        rounds=3 * sizes.rounds,
    )


def training_step(sizes: Sizes, contest: Callable) -> Iterator[timing.Row]:
    """A step of joint training: all terms of the loss, their gradient, Adam."""
    case = load(sizes, sizes.train)
    state = jax.jit(prototype_works.joint().init)(case.params)
    step = functools.partial(prototype_works.trained, case.net)
    yield from contest(
        "training step",
        contests.Contender(
            prototype_works.whole, (step, case.params, state, case.x, case.y)
        ),
        peers("training step", torch_prototypes.DISTANCES, *_networks(case)),
        {},
        setting=case.setting,
        rounds=sizes.rounds,
        # Adam's first step is the sign of a gradient, which may be nearly zero.
        agree=lambda work, actual, expected: timing.assert_agree(
            work, actual[:2], expected, tolerance=0.1
        ),
    )


def push(sizes: Sizes, contest: Callable) -> Iterator[timing.Row]:
    """The nearest patch of its class for each prototype, in a batch of images."""
    case = load(sizes, sizes.push)
    found, latents = (
        functools.partial(work, case.net)
        for work in (prototype_works.pushed, prototype_works.latents)
    )
    forward = prototype_works.whole(latents, case.params, case.x)
    yield from contest(
        "push",
        contests.Contender(prototype_works.whole, (found, case.params, case.x, case.y)),
        peers("push", torch_prototypes.PUSHES, *_networks(case)),
        {"latent": (1, forward.run)},
        setting=case.setting,
        rounds=sizes.rounds,
    )


def attack_step(sizes: Sizes, contest: Callable) -> Iterator[timing.Row]:
    """Steps of the attack that moves a prototype, each image with its own."""
    case = load(sizes, sizes.attack)
    regions, steps = regions_of(case), sizes.steps
    climb = functools.partial(prototype_works.attacked, case.net, steps=steps)
    both = functools.partial(prototype_works.passes, case.net)
    floor = prototype_works.whole(both, case.params, case.x)
    yield from contest(
        "attack step",
        contests.ours(climb, case.params, case.x, regions),
        peers(
            *("attack step", torch_prototypes.ATTACKS),
            *(*_networks(case), _numpy(regions), steps),
        ),
        {"passes": (1, floor.run)},
        setting=case.setting,
        rounds=sizes.rounds,
        repeats=steps,
        agree=_assert_same_steps,
    )


def regions_of(case: Case) -> dict[str, Array]:
    """For each image another prototype, another target and another source."""
    count, size = len(case.x), case.x.shape[1:3]
    latent = functools.partial(prototype_works.latent, case.net)
    grid = jax.eval_shape(latent, case.params, case.x[0]).shape[:2]
    cells = [
        [
            prototypes.cell_region((top, top + 1, i % grid[1], grid[1]), grid)
            for top in (0, 1)
        ]
        for i in range(count)
    ]
    target, source = (jnp.asarray(each) for each in zip(*cells))
    return {
        "prototype": jnp.arange(count) * 3 % len(case.net.owners),
        "target": target,
        "source": source,
        "mask": jax.vmap(lambda a: prototypes.cell_pixels(a, size))(target),
    }


def peers(
    work: str, ways: Iterable[str], x: Array, *args: Any
) -> dict[str, contests.Contender]:
    """PyTorch in each of its layouts and ways, by name."""
    given = (_numpy(x), *map(_numpy, args))
    return {
        f"{layout}, {how}": contests.Contender(peer, (work, layout, how, *given))
        for layout in torch_peers.FORMATS
        for how in ways
    }


def peer(
    work: str, layout: str, how: str, x: np.ndarray, params: Any, *rest: Any
) -> Callable[[], Any]:
    """Make a contender's thunk, in whatever process.

    Args:
      work: the name of a row.
      layout: one of `torch_peers.FORMATS`.
      how: one of the ways that `torch_prototypes` knows for the work.
      x: images `[N, H, W, 3]`, or latent maps.
      params: our parameters.
      *rest: classes, owners, and what the work takes besides.

    Returns:
      The thunk, whose result is laid out as ours.
    """
    torch.set_num_threads(timing.cores())
    images = torch_peers.images(x, layout)
    if work == "head":
        p, votes = (torch.tensor(params[n]) for n in ("prototypes", "last_layer"))
        distances = torch_prototypes.DISTANCES[how]
        logits = torch.no_grad()(torch_prototypes.logits)
        return lambda: logits(images, p, votes, distances)[0].numpy()
    mean, std = prototype_works.MODEL.mean, prototype_works.MODEL.std
    model = torch_prototypes.Network(params, mean, std)
    model = model.to(memory_format=torch_peers.FORMATS[layout])
    y, owners, *rest = rest
    if work == "push":
        return lambda: torch_prototypes.PUSHES[how](model, images, y, owners)
    if work == "training step":
        labels, of = (torch.tensor(a).long() for a in (y, owners))
        adam = torch.optim.Adam(
            model.groups(prototype_works.RATES, prototype_works.DECAY)
        )
        distances = torch_prototypes.DISTANCES[how]
        return lambda: torch_prototypes.trained(
            model, images, labels, of, distances, adam
        )
    regions, steps = rest
    ball = prototype_works.RADIUS, prototype_works.STEP_SIZE
    climb = torch_prototypes.ATTACKS[how]
    model.requires_grad_(False)
    return lambda: torch_peers.ours(climb(model, images, regions, ball, steps))


def _networks(case: Case) -> tuple[Array, Any, Array, np.ndarray]:
    """What the peers are given."""
    params = case.params | {"backbone": case.params["backbone"]["params"]}
    return case.x, params, case.y, np.array(case.net.owners)


def _numpy(tree: Any) -> Any:
    """What can be sent to another process; counts stay as they are."""
    return jax.tree.map(
        lambda leaf: np.array(leaf) if isinstance(leaf, jax.Array) else leaf, tree
    )


def _assert_same_steps(work: str, actual: Any, expected: Any) -> None:
    """Signs amplify rounding where a gradient is zero: nearly all must agree."""
    small = prototype_works.STEP_SIZE / 10
    same = np.mean(np.abs(np.asarray(actual) - expected) < small)
    if same < 0.95:
        raise AssertionError(f"{work}: only {same:.1%} of the pixels agree")


if __name__ == "__main__":
    main()
