"""How works are contested: ours and PyTorch's, the same weights and images to both.

Results are compared before anything is timed.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import timing, torch_peers, works
from benchmarks.torch_peers import nn, torch
from protojax.mechanisms import lowering


class Contender(NamedTuple):
    """How to make what is timed, here or in a process of its own."""

    make: Callable[..., Any]
    args: tuple
    whole: Mapping[str, Any] = {}
    """What `make` is told besides where the memory of its process is measured."""


def ours(work: Callable, *args: Any) -> Contender:
    """A work of ours: a function of weights and one image, for a batch of them."""
    return Contender(program, (work, *args))


def program(fn: Callable, variables: Any, *args: Any) -> timing.Program:
    """Compile a function of one image for a batch of them."""
    return timing.compiled(lowering.canonical(works.batched(fn)), variables, *args)


def thunk(make: Callable, *args: Any) -> Callable[[], Any]:
    """What runs of ours, without what it took."""
    return make(*args).run


def layouts(
    work: str, variables: Any, *args: Any, label: str = ""
) -> dict[str, Contender]:
    """PyTorch in each of its layouts, by name."""
    params = jax.tree.map(np.asarray, variables["params"])
    args = tuple(np.asarray(a) if isinstance(a, jax.Array) else a for a in args)
    return {
        label + layout: Contender(peer, (work, layout, params, *args))
        for layout in torch_peers.FORMATS
    }


def peer(work: str, layout: str, params: Mapping, *args: Any) -> Callable:
    """Make a contender's thunk, in whatever process.

    Args:
      work: one of those named below.
      layout: one of `torch_peers.FORMATS`.
      params: our parameters.
      *args: images `[N, H, W, 3]`, classes `[N]`, and what the work takes besides.

    Returns:
      The thunk, whose result is laid out as ours.
    """
    torch.set_num_threads(timing.cores())
    nets = [
        torch_peers.SqueezeNet(params, act, works.MODEL.mean, works.MODEL.std)
        for act in (nn.ReLU, lambda: nn.Softplus(beta=works.BETA))
    ]
    x, y, *rest = args
    relu, twin = (n.to(memory_format=torch_peers.FORMATS[layout]) for n in nets)
    images, labels = torch_peers.images(x, layout), torch.tensor(y).long()
    ball = (works.RADIUS, works.STEP_SIZE)
    runs = {
        "convolution": lambda kernel: torch_peers.convolution(images, kernel, layout),
        "gradient": lambda: torch_peers.gradient(relu, images, labels),
        "product": lambda direction: torch_peers.hessian_vector_product(
            twin, images, labels, torch_peers.images(direction, layout)
        ),
        "captum_deep_lift": lambda: torch_peers.captum_deep_lift(relu, images, labels),
        "integrated": lambda steps: torch_peers.integrated_gradients(
            relu, images, labels, steps
        ),
        "captum_integrated": lambda steps: torch_peers.captum_integrated_gradients(
            relu, images, labels, steps
        ),
        "judged": lambda mask, path, steps: torch_peers.climbed(
            *(twin, images, labels, mask, path, steps, *ball), judge=relu
        ),
        "climbed": lambda mask, path, steps: torch_peers.climbed(
            twin, images, labels, mask, path, steps, *ball
        ),
    }
    return lambda: torch_peers.ours(runs[work](*rest))


def contest(
    work: str,
    ours: Contender,
    peers: Mapping[str, Contender],
    floor: Mapping[str, tuple[float, Callable]],
    *,
    setting: str,
    floors: Mapping[str, str] = works.FLOORS,
    **knobs: Any,
) -> Iterator[timing.Row]:
    """Race a work on a batch, the fourth argument of every peer; name batch and floor.

    What the floor of a work is `floors` says; the knobs are those of `race`.
    """
    (batch,) = {len(each.args[3]) for each in peers.values()}
    setting += f", batch {batch}" + (f"; floor: {floors[work]}" if floor else "")
    yield from race(work, ours, peers, floor, setting=setting, **knobs)


def race(
    work: str,
    ours: Contender,
    peers: Mapping[str, Contender],
    floor: Mapping[str, tuple[float, Callable]],
    *,
    setting: str,
    probe: bool,
    rounds: int,
    repeats: int = 1,
    agree: Callable[[str, Any, Any], None] = timing.assert_agree,
) -> Iterator[timing.Row]:
    """Time a work of ours in turns with peers and with the parts of its floor.

    Args:
      work: the name of the row.
      ours: what makes a `timing.Program`.
      peers: theirs, by name.
      floor: how often what is run, by name; of one of `repeats`, as the seconds are.
      setting: sizes, and what the floor is.
      probe: measure the peak memory of each, in a process of its own.
      rounds: how often each is timed.
      repeats: how many times the work is done in a run.
      agree: compares our result with a peer's, and raises.

    Yields:
      A row for each peer, without its time where `torch.compile` does not take it.
    """
    own = ours.make(*ours.args)
    thunks, refused = {}, []
    for name, each in peers.items():
        try:
            thunks[name] = each.make(*each.args)
        except torch_peers.NotTaken:
            refused.append(f"{name}: not taken")
            continue
        agree(f"{work}, {name}", own.run(), thunks[name]())
    parts = {f"floor: {name}": run for name, (_, run) in floor.items()}
    times = timing.interleave({"ours": own.run} | thunks | parts, rounds=rounds)
    floor_s = sum(n * times[f"floor: {part}"].median for part, (n, _) in floor.items())
    memory = (
        timing.peak_memory(thunk, ours.make, *ours.args) if probe else own.memory_mb
    )
    row = functools.partial(
        timing.row,
        work,
        times["ours"].median / repeats,
        floor_s=floor_s if floor else None,
        memory_mb=memory,
        compile_s=own.compile_s,
        setting=setting,
    )
    for name in thunks:
        make, args, whole = peers[name]
        held = timing.peak_memory(make, *args, **whole) if probe else None
        yield row(peer=name, peer_s=times[name].median / repeats, peer_memory_mb=held)
    for name in refused:
        yield row(peer=name)
