"""Attacks on explanations of SqueezeNet 1.1, against PyTorch and Captum.

python -m benchmarks.fragility [--quick] [--json FILE]

The same weights and images are given to all; results are compared before they are
timed. PyTorch runs in its default layout and in channels_last, its fast one, and
differentiates twice by double backward. Weights and images are the real ones where
PROTOJAX_DATA holds them.

What the floor of a work is, stands beside it in `FLOORS`.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing, torch_peers
from benchmarks.torch_peers import nn, torch
from protojax.mechanisms import ascent, lowering
from protojax.methods import activations, attacks, attributions, metrics, objectives
from protojax.models import pretrained, squeezenet

Array = jax.Array

BETA = 30.0
RADIUS = 8 / 255
STEP_SIZE = 0.5 / 255

_PASSES = "two forward and two backward passes of the ReLU network"
FLOORS = {
    "gradient": "a forward pass",
    "Hessian-vector product": "one gradient of the same network",
    "top-k attack step": _PASSES,
    "top-k attack step, called alone": _PASSES,
    "top-k attack step on integrated gradients": "as many for each point of the path",
    "integrated gradients": "a forward and a backward pass for each step",
    "DeepLIFT": "two forward passes and a backward one (Captum's does not add up here: "
    "where windows of a pool overlap, all but one contribution are lost)",
    "whole attack, last iterate": "its steps",
    "whole attack, best iterate on the network": "its steps, and a forward and a "
    "backward pass of the ReLU network for each",
}


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
        variables = jax.jit(MODEL.init)(jax.random.key(0), like)
    if samples.is_file():
        x = np.load(samples)["images"][:count, : sizes.side, : sizes.side] / 255
    else:
        x = jax.random.uniform(jax.random.key(1), (count, sizes.side, sizes.side, 3))
    x = jnp.asarray(x, jnp.float32)
    y = jnp.argmax(_batched(MODEL.apply)(variables, x), -1)
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
        yield from _contest(
            f"convolution of fire2.{name}",
            Contender(program, (convolution, w, x)),
            _layouts("convolution", case.variables, x, np.zeros(1), np.asarray(w)),
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

    contest = functools.partial(_contest, setting=setting, probe=probe)
    plain = program(gradient, v, x, y)
    smooth = program(twin_gradient, v, x, y)
    forward = program(MODEL.apply, v, x)
    yield from contest(
        "gradient",
        Contender(program, (gradient, v, x, y)),
        _layouts("gradient", v, x, y),
        {"forward": (1, forward.run)},
        rounds=sizes.rounds,
    )
    yield from contest(
        "Hessian-vector product",
        Contender(program, (product, v, x, y, direction)),
        _layouts("product", v, x, y, direction),
        {"gradient": (1, smooth.run)},
        rounds=sizes.rounds,
    )
    yield from contest(
        "DeepLIFT",
        Contender(program, (deep_lift, v, x, y)),
        _layouts("captum_deep_lift", v, x, y, label="Captum, "),
        {"gradient": (1, plain.run), "forward": (1, forward.run)},
        rounds=sizes.rounds,
        agree=functools.partial(_assert_complete, v, x, y),
    )
    passes = program(gradient, v, many, classes)
    integrated = functools.partial(integrated_gradients, steps=sizes.path)
    peers = _layouts("integrated", v, many, classes, sizes.path)
    yield from contest(
        "integrated gradients",
        Contender(program, (integrated, v, many, classes)),
        peers
        | _layouts("captum_integrated", v, many, classes, sizes.path, label="Captum, "),
        {"gradient": (sizes.path, passes.run)},
        rounds=sizes.slow_rounds,
    )


def attack_steps(sizes: Sizes, case: Case, *, probe: bool) -> Iterator[timing.Row]:
    """Steps of the top-k attack, alone and in one program, and the whole attack."""
    v, x, y = case.variables, case.x[: sizes.batch], case.y[: sizes.batch]
    contest = functools.partial(_contest, setting=case.setting, probe=probe)
    plain = program(gradient, v, x, y)
    passes = {"gradient": (2, plain.run)}

    def climbing(explain, repeats):
        climb = functools.partial(climbed, explain=explain, k=sizes.k, steps=repeats)
        return Contender(program, (climb, v, x, y))

    mask = np.asarray(program(functools.partial(chosen, k=sizes.k), v, x, y).run())
    as_strong = functools.partial(_assert_as_strong, v, x, y, mask)
    yield from contest(
        "top-k attack step",
        climbing(twin_gradient, sizes.repeats),
        _layouts("climbed", v, x, y, mask, 0, sizes.repeats),
        passes,
        rounds=sizes.rounds,
        repeats=sizes.repeats,
        agree=as_strong,
    )
    yield from contest(
        "top-k attack step, called alone",
        climbing(twin_gradient, 1),
        _layouts("climbed", v, x, y, mask, 0, 1),
        passes,
        rounds=sizes.rounds,
        agree=_assert_same_step,
    )
    path = sizes.attack_path
    integrated = functools.partial(integrated_gradients, twin=True, steps=path)
    yield from contest(
        "top-k attack step on integrated gradients",
        climbing(integrated, 1),
        _layouts("climbed", v, x, y, mask, path, 1),
        {"gradient": (2 * path, plain.run)},
        rounds=sizes.slow_rounds,
        agree=_assert_same_step,
    )
    steps, k = sizes.steps, sizes.k
    bare = climbing(twin_gradient, steps)
    yield from contest(
        "whole attack, last iterate",
        Contender(program, (functools.partial(attack, k=k, steps=steps), v, x, y)),
        _layouts("climbed", v, x, y, mask, 0, steps),
        {"steps": (1, bare.make(*bare.args).run)},
        rounds=sizes.slow_rounds,
        agree=as_strong,
    )
    judged = functools.partial(judged_attack, k=k, steps=steps)
    yield from contest(
        "whole attack, best iterate on the network",
        Contender(program, (judged, v, x, y)),
        _layouts("judged", v, x, y, mask, 0, steps),
        {
            "steps": (1, bare.make(*bare.args).run),
            "gradient": (steps + 1, plain.run),
        },
        rounds=sizes.slow_rounds,
        agree=as_strong,
    )


MODEL = squeezenet.SqueezeNet()
SMOOTH = activations.softplus(BETA)


def convolution(kernel: Array, x: Array) -> Array:
    """One layer without its bias, of one image."""
    return jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def gradient(variables: Any, x: Array, y: Array) -> Array:
    """Of the logit of the ReLU network."""
    return attributions.gradient(_score(variables, y), x)


def twin_gradient(variables: Any, x: Array, y: Array) -> Array:
    """Of the logit of its smooth twin."""
    return attributions.gradient(_score(variables, y, twin=True), x)


def product(variables: Any, x: Array, y: Array, direction: Array) -> Array:
    """A Hessian-vector product of the twin's logit."""
    score = _score(variables, y, twin=True)
    return jax.jvp(jax.grad(score), (x,), (direction,))[1]


def integrated_gradients(
    variables: Any, x: Array, y: Array, *, steps: int, twin: bool = False
) -> Array:
    """With the right Riemann sum, which all contenders have."""
    return attributions.integrated_gradients(
        _score(variables, y, twin=twin), x, steps=steps, rule=attributions.right
    )


def deep_lift(variables: Any, x: Array, y: Array) -> Array:
    """From black."""
    return attributions.deep_lift(_score(variables, y), x)


def chosen(variables: Any, x: Array, y: Array, *, k: int) -> Array:
    """The pixels that the attack empties."""
    saliency = attributions.heatmap(gradient(variables, x, y))
    return metrics.top_k_mask(saliency, k=k)


def climbed(
    variables: Any, x: Array, y: Array, *, explain: Callable, k: int, steps: int
) -> Array:
    """Bare steps of the top-k attack: gradient, sign, projection."""
    objective = _objective(variables, x, y, explain, k)
    project = ascent.within(x, RADIUS)
    climb = lowering.canonical(jax.grad(objective))

    def step(z, _):
        return project(z + STEP_SIZE * jnp.sign(climb(z))), None

    return jax.lax.scan(step, x, None, length=steps)[0]


def attack(variables: Any, x: Array, y: Array, *, k: int, steps: int) -> Array:
    """The bare search, which selects by what it climbs."""
    objective = _objective(variables, x, y, twin_gradient, k)
    return attacks.pgd(objective, x, radius=RADIUS, step_size=STEP_SIZE, steps=steps).x


def judged_attack(variables: Any, x: Array, y: Array, *, k: int, steps: int) -> Array:
    """The attack as users call it: every iterate is explained by the network itself."""
    saliency = lambda explain: lambda z: attributions.heatmap(explain(variables, z, y))  # noqa: E731
    return attacks.top_k(
        functools.partial(MODEL.apply, variables),
        saliency(gradient),
        x,
        k=k,
        twin=saliency(twin_gradient),
        radius=RADIUS,
        step_size=STEP_SIZE,
        steps=steps,
    ).x


def _objective(variables, x, y, explain, k):
    before = attributions.heatmap(lowering.canonical(gradient)(variables, x, y))
    return objectives.top_k(
        lambda z: attributions.heatmap(explain(variables, z, y)), before, k=k
    )


def _score(variables, y, *, twin=False):
    fn = functools.partial(MODEL.apply, variables)
    fn = activations.replace(fn, SMOOTH) if twin else fn
    return lambda z: fn(z)[y]


def _batched(fn: Callable) -> Callable:
    def batched(variables, *args):
        return jax.vmap(functools.partial(fn, variables))(*args)

    return batched


class Contender(NamedTuple):
    """How to make what is timed, here or in a process of its own."""

    make: Callable[..., Any]
    args: tuple


def program(fn: Callable, variables: Any, *args: Any) -> timing.Program:
    """Compile a function of one image for a batch of them."""
    return timing.compiled(lowering.canonical(_batched(fn)), variables, *args)


def thunk(fn: Callable, *args: Any) -> Callable[[], Any]:
    """The same, without what it took."""
    return program(fn, *args).run


def _layouts(
    work: str, variables: Any, *args: Any, label: str = ""
) -> dict[str, Contender]:
    params = jax.tree.map(np.asarray, variables["params"])
    args = tuple(np.asarray(a) if isinstance(a, jax.Array) else a for a in args)
    return {
        label + layout: Contender(peer, (work, layout, params, *args))
        for layout in torch_peers.FORMATS
    }


def peer(work: str, layout: str, params: Mapping, *args: Any) -> Callable:
    """Make a contender's thunk, in whatever process.

    Args:
      work: one of `torch_peers.WORKS`.
      layout: one of `torch_peers.FORMATS`.
      params: our parameters.
      *args: images `[N, H, W, 3]`, classes `[N]`, and what the work takes besides.

    Returns:
      The thunk, whose result is laid out as ours.
    """
    torch.set_num_threads(timing.cores())
    nets = [
        torch_peers.SqueezeNet(params, act, MODEL.mean, MODEL.std)
        for act in (nn.ReLU, lambda: nn.Softplus(beta=BETA))
    ]
    x, y, *rest = args
    relu, twin = (n.to(memory_format=torch_peers.FORMATS[layout]) for n in nets)
    images, labels = torch_peers.images(x, layout), torch.tensor(y).long()
    works = {
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
            twin, images, labels, mask, path, steps, RADIUS, STEP_SIZE, judge=relu
        ),
        "climbed": lambda mask, path, steps: torch_peers.climbed(
            twin, images, labels, mask, path, steps, RADIUS, STEP_SIZE
        ),
    }
    return lambda: torch_peers.ours(works[work](*rest))


def _contest(
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
    """Time a work of ours against peers, and against how often parts of a floor.

    The floor is that of one of `repeats`; so are the seconds.
    """
    own = ours.make(*ours.args)
    thunks = {name: each.make(*each.args) for name, each in peers.items()}
    for name, run in thunks.items():
        agree(f"{work}, {name}", own.run(), run())
    parts = {f"floor: {name}": run for name, (_, run) in floor.items()}
    times = timing.interleave({"ours": own.run} | thunks | parts, rounds=rounds)
    floor_s = sum(n * times[f"floor: {part}"].median for part, (n, _) in floor.items())
    memory = timing.peak_memory(thunk, *ours.args) if probe else own.memory_mb
    for name, each in peers.items():
        yield timing.row(
            work,
            times["ours"].median / repeats,
            peer=name,
            peer_s=times[name].median / repeats,
            floor_s=floor_s if floor else None,
            memory_mb=memory,
            compile_s=own.compile_s,
            peer_memory_mb=timing.peak_memory(each.make, *each.args) if probe else None,
            setting=f"{setting}, batch {len(each.args[3])}"
            + (f"; floor: {FLOORS[work]}" if floor else ""),
        )


def _assert_same_step(work: str, actual: Any, expected: Any) -> None:
    """Signs amplify rounding where a gradient is zero: nearly all must agree."""
    same = np.mean(np.abs(np.asarray(actual) - expected) < STEP_SIZE / 10)
    if same < 0.97:
        raise AssertionError(f"{work}: only {same:.1%} of the pixels agree")


def _assert_as_strong(
    variables, x, y, mask, work: str, actual: Any, expected: Any
) -> None:
    """A few signed steps are chaotic: where they lead to must be as good."""

    def left(z):
        maps = _batched(lambda *a: attributions.heatmap(twin_gradient(*a)))
        return np.sum(mask * np.asarray(maps(variables, jnp.asarray(z), y)), (1, 2))

    start, ours, theirs = left(x), left(actual), left(expected)
    if not np.all((ours < start) & (theirs < start)):
        raise AssertionError(f"{work}: the saliency {start} became {ours}, {theirs}")
    if not 0.7 < np.sum(ours) / np.sum(theirs) < 1.4:
        raise AssertionError(f"{work}: {ours} is left of the saliency, or {theirs}")


def _assert_complete(variables, x, y, work: str, actual: Any, expected: Any) -> None:
    """Ours sums to the difference of scores; Captum's only resembles it."""
    logits = [_batched(MODEL.apply)(variables, z) for z in (x, jnp.zeros_like(x))]
    change = jnp.take_along_axis(logits[0] - logits[1], y[:, None], 1)[:, 0]
    timing.assert_agree(work, jnp.sum(actual, (1, 2, 3)), change)
    alike = np.corrcoef(np.ravel(actual), np.ravel(expected))[0, 1]
    if not alike > 0.3:
        raise AssertionError(f"{work}: the correlation is only {alike:.2f}")


if __name__ == "__main__":
    main()
