"""Products with Hessians and what is made of them, against curvlinops and PyHessian.

python -m benchmarks.curvature [--quick] [--json FILE]

At the input: the logit of SqueezeNet 1.1's smooth twin, one image, against PyTorch by
double backward and by `torch.func`, both also by `torch.compile`, where a row says so
if it does not take them. At the parameters: the cross-entropy of the ResNet of 20
layers for CIFAR, against curvlinops and PyHessian. All get the same weights, images and
directions; results are compared before they are timed. Real weights and images are
taken where PROTOJAX_DATA holds them.

The floor is one gradient for each product, and for the Lanczos steps the same number of
our own products, called alone. PyHessian's products do not count the gradient whose
graph it keeps; its memory does.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import (
    contests,
    fragility,
    timing,
    torch_curvature,
    torch_peers,
    works,
)
from benchmarks.torch_peers import torch
from protojax.mechanisms import curvature, lowering
from protojax.methods import activations
from protojax.models import pretrained, resnet

Array = jax.Array


class Sizes(NamedTuple):
    """How much is done; `QUICK` only shows that it runs."""

    side: int = 224
    batch: int = 32  # images of CIFAR
    depth: int = 20
    steps: int = 20  # of Lanczos, and products for the trace
    rounds: int = 7
    slow_rounds: int = 3
    forms: tuple = torch_curvature.FORMS  # of PyTorch's product at the input


# PyTorch compiles `torch.func` for a minute or more, whatever the sizes.
QUICK = Sizes(40, 2, 8, 4, 1, 1, torch_curvature.FORMS[:3])


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
    yield from convolutions(sizes)
    yield from at_the_input(sizes, probe=not quick)
    yield from at_the_parameters(sizes, probe=not quick)


def convolutions(sizes: Sizes) -> Iterator[timing.Row]:
    """What products at the parameters are made of: layers and gradients of kernels.

    A gradient has two like the first and one of the second; a product twice as many.
    """
    for side, width in ((32, 16), (16, 32), (8, 64)):
        shape = (sizes.batch, side, side, width)
        x, y = (jax.random.normal(jax.random.key(n), shape) for n in range(2))
        kernel = jax.random.normal(jax.random.key(2), (3, 3, width, width))
        pulled = contests.Contender(program, (kernel_gradient, x, y))
        kinds = {
            "forward": (contests.ours(works.convolution, kernel, x), kernel),
            "kernel gradient": (pulled, y),
        }
        for kind, (ours, rhs) in kinds.items():
            yield from contests.race(
                f"convolution, {kind}",
                ours,
                {
                    layout: contests.Contender(
                        torch_curvature.convolution,
                        (kind, layout, np.asarray(x), np.asarray(rhs)),
                    )
                    for layout in torch_peers.FORMATS
                },
                {},
                setting=f"3x3, {width} to {width} channels, {side} pixels, batch "
                f"{sizes.batch}",
                probe=False,
                rounds=3 * sizes.rounds,
            )


def at_the_input(sizes: Sizes, *, probe: bool) -> Iterator[timing.Row]:
    """One product, and Lanczos, at an image."""
    found = fragility.load(fragility.Sizes(side=sizes.side, batch=1, path_batch=1))
    params = found.variables["params"]
    x, y = found.x[0], found.y[0]
    v = jnp.cos(100 * x)
    setting = f"{found.setting}, one image"
    arrays = jax.tree.map(np.asarray, (params, (works.MODEL.mean, works.MODEL.std)))
    tail = [np.asarray(each)[None] for each in (x, y, v)]

    def peers(count: int, forms: Sequence[str]) -> dict[str, contests.Contender]:
        return {
            f"{layout.removeprefix('PyTorch ')}, {form}": contests.Contender(
                torch_curvature.input_product,
                (form, layout, *arrays, works.BETA, *tail, count),
            )
            for form in forms
            for layout in torch_peers.FORMATS
        }

    gradient = timing.compiled(input_gradient, params, x, y)
    yield from contests.race(
        "input product",
        contests.Contender(program, (input_product, params, x, y, v)),
        peers(1, sizes.forms),
        {"gradient": (1, gradient.run)},
        setting=f"{setting}; floor: one gradient",
        rounds=sizes.rounds,
        probe=probe,
        agree=lambda work, a, b: timing.assert_agree(work, a, b[0]),
    )
    one = timing.compiled(input_product, params, x, y, v)
    yield from contests.race(
        f"input Lanczos {sizes.steps}",
        contests.Contender(program, (input_lanczos, params, x, y, sizes.steps)),
        {
            f"{name}: products alone": each
            for name, each in peers(
                sizes.steps, ("double backward", "torch.func")
            ).items()
        },
        {"product": (sizes.steps, one.run)},
        setting=f"{setting}; floor: {sizes.steps} products called alone",
        rounds=sizes.slow_rounds,
        probe=probe,
        agree=lambda work, _, b: timing.assert_agree(work, one.run(), b[0]),
    )


def at_the_parameters(sizes: Sizes, *, probe: bool) -> Iterator[timing.Row]:
    """One product, Lanczos and the trace, over all parameters."""
    model, variables, x, y, setting = load(sizes)
    network = {"depth": model.depth, "mean": model.mean, "std": model.std}
    params = variables["params"]
    v = jax.tree.map(
        lambda p: jnp.cos(100 * jnp.arange(p.size)).reshape(p.shape), params
    )
    v = jax.tree.map(lambda p: p.astype(jnp.float32), v)
    shared = jax.tree.map(np.asarray, (variables, (model.mean, model.std), x, y))

    def peers(work: str, *args: Any) -> dict[str, contests.Contender]:
        return {
            f"{name}, {layout.removeprefix('PyTorch ')}": contests.Contender(
                torch_curvature.parameters,
                (name, work, layout, *shared, *args),
                {"whole": True},
            )
            for name in torch_curvature.PEERS
            for layout in torch_peers.FORMATS
        }

    gradient = timing.compiled(
        functools.partial(parameter_gradient, network), variables, x, y
    )
    alone = functools.partial(parameter_product, network)
    one = timing.compiled(alone, variables, x, y, v)
    yield from contests.race(
        "parameter product",
        contests.Contender(program, (alone, variables, x, y, v)),
        peers("product", torch_curvature.flat(v)),
        {"gradient": (1, gradient.run)},
        setting=f"{setting}; floor: one gradient",
        rounds=sizes.rounds,
        probe=probe,
        agree=lambda work, a, b: assert_vectors(work, torch_curvature.flat(a), b),
    )
    lanczos = functools.partial(parameter_lanczos, network, steps=sizes.steps)
    yield from contests.race(
        f"Lanczos {sizes.steps}",
        contests.Contender(program, (lanczos, variables, x, y)),
        peers("eigenvalue", sizes.steps),
        {"product": (sizes.steps, one.run)},
        setting=f"{setting}; floor: {sizes.steps} products called alone",
        rounds=sizes.slow_rounds,
        probe=probe,
        agree=assert_eigenvalue if sizes.steps >= 20 else assert_finite,
    )
    whole = functools.partial(parameter_trace, network, products=sizes.steps)
    spread = timing.compiled(
        functools.partial(plain_trace, network, probes=sizes.steps), variables, x, y
    ).run()
    yield from contests.race(
        "trace",
        contests.Contender(program, (whole, variables, x, y)),
        peers("trace", sizes.steps),
        {"gradient": (sizes.steps, gradient.run)},
        setting=f"{setting}, {sizes.steps} products; floor: as many gradients",
        rounds=sizes.slow_rounds,
        probe=probe,
        agree=functools.partial(assert_trace, float(spread.error)),
    )


def load(sizes: Sizes) -> tuple[resnet.CifarResNet, Any, Array, Array, str]:
    """The real weights and images, or random ones of the same shapes."""
    folder = pathlib.Path(os.environ.get("PROTOJAX_DATA", "none"))
    weights = folder / f"cifar10_resnet{sizes.depth}.npz"
    images = folder / "cifar10.npz"
    if weights.is_file():
        model, variables = pretrained.cifar10_resnet(weights, depth=sizes.depth)
    else:
        model = resnet.CifarResNet(sizes.depth)
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((32, 32, 3)))
    if images.is_file():
        found = np.load(images)
        x, y = found["x_test"][: sizes.batch] / 255, found["y_test"][: sizes.batch]
    else:
        x = jax.random.uniform(jax.random.key(1), (sizes.batch, 32, 32, 3))
        y = np.arange(sizes.batch) % 10
    setting = (
        f"ResNet of {sizes.depth} layers for CIFAR, "
        f"{'trained' if weights.is_file() else 'random'} weights, batch {sizes.batch}"
    )
    return model, variables, jnp.float32(x), jnp.int32(y), setting


def kernel_gradient(x: Array, y: Array) -> Array:
    """Of a layer's 3x3 kernel, where the gradient of what it returns is `y`."""
    kernel = jnp.zeros((3, 3, x.shape[-1], y.shape[-1]), x.dtype)

    def pulled(x: Array, y: Array) -> Array:
        layer = works.batched(works.convolution)
        return jax.vjp(lambda kernel: layer(kernel, x), kernel)[1](y)[0]

    return lowering.canonical(pulled)(x, y)


def input_gradient(params: Any, x: Array, y: Array) -> Array:
    """Of the twin's logit."""
    return lowering.canonical(jax.grad(_score(params, y)))(x)


def input_product(params: Any, x: Array, y: Array, v: Array) -> Array:
    """With the Hessian of the twin's logit."""
    score = _score(params, y)
    return lowering.canonical(lambda x, v: curvature.hvp(score, x, v))(x, v)


def input_lanczos(params: Any, x: Array, y: Array, steps: int) -> Any:
    """The leading eigenvalue of the twin's logit."""
    hessian = curvature.hessian(_score(params, y), x)
    pairs = curvature.top_eigenpairs(hessian, x, key=jax.random.key(0), steps=steps)
    return pairs.values[0]


def parameter_gradient(network: Any, variables: Any, x: Array, y: Array) -> Any:
    """Of the cross-entropy."""
    loss = _loss(network, variables, x, y)
    return lowering.canonical(jax.grad(loss))(variables["params"])


def parameter_product(network: Any, variables: Any, x: Array, y: Array, v: Any) -> Any:
    """With the Hessian of the cross-entropy."""
    loss = _loss(network, variables, x, y)
    product = lambda params, v: curvature.hvp(loss, params, v)  # noqa: E731
    return lowering.canonical(product)(variables["params"], v)


def parameter_lanczos(
    network: Any, variables: Any, x: Array, y: Array, *, steps: int
) -> Array:
    """The leading eigenvalue of the cross-entropy's Hessian."""
    params = variables["params"]
    hessian = curvature.hessian(_loss(network, variables, x, y), params)
    key = jax.random.key(0)
    return curvature.top_eigenpairs(hessian, params, key=key, steps=steps).values[0]


def parameter_trace(
    network: Any, variables: Any, x: Array, y: Array, *, products: int
) -> curvature.Estimate:
    """Half of the products for a space, half for what is left; one finds the scale."""
    params = variables["params"]
    hessian = curvature.hessian(_loss(network, variables, x, y), params)
    rank = (products - 1) // 2
    return curvature.trace(
        hessian, params, key=jax.random.key(0), rank=rank, probes=products - 1 - rank
    )


def plain_trace(
    network: Any, variables: Any, x: Array, y: Array, *, probes: int
) -> curvature.Estimate:
    """As the peers do it, which says how far they may be off."""
    params = variables["params"]
    hessian = curvature.hessian(_loss(network, variables, x, y), params)
    return curvature.trace(
        hessian, params, key=jax.random.key(1), rank=0, probes=probes
    )


def _score(params: Any, y: Array) -> Callable[[Array], Array]:
    fn = functools.partial(works.MODEL.apply, {"params": params})
    twin = activations.replace(fn, works.SMOOTH)
    return lambda x: twin(x)[y]


def _loss(network: Any, variables: Any, x: Array, y: Array) -> Callable[[Any], Array]:
    def loss(params):
        model = resnet.CifarResNet(**network)
        apply = functools.partial(model.apply, {**variables, "params": params})
        chances = jax.nn.log_softmax(jax.vmap(apply)(x))
        return -jnp.mean(jnp.take_along_axis(chances, y[:, None], 1))

    return loss


def program(fn: Callable, *args: Any) -> timing.Program:
    """Compile ours; counts are static."""
    counts = [arg for arg in args if isinstance(arg, int)]
    arrays = [arg for arg in args if not isinstance(arg, int)]
    return timing.compiled(lambda *arrays: fn(*arrays, *counts), *arrays)


def assert_vectors(work: str, actual: Mapping, expected: Mapping) -> None:
    """All of a product agrees, as one vector: some of its parts are hardly there."""
    if actual.keys() != expected.keys():
        raise AssertionError(f"{work}: {actual.keys() ^ expected.keys()} differ")
    pairs = [(np.ravel(actual[name]), np.ravel(expected[name])) for name in actual]
    ours, theirs = (np.concatenate(side) for side in zip(*pairs))
    timing.assert_agree(work, ours, theirs)


def assert_eigenvalue(work: str, actual: Any, expected: Any) -> None:
    """Twenty steps find a leading eigenvalue that stands out, by either method."""
    assert_finite(work, actual, expected)
    if not abs(float(actual) - float(expected)) <= 0.02 * abs(float(actual)):
        raise AssertionError(f"{work}: the eigenvalues are {actual} and {expected}")


def assert_finite(work: str, actual: Any, expected: Any) -> None:
    """For so few steps that an eigenvalue is not found."""
    if not np.isfinite([float(actual), float(expected)]).all():
        raise AssertionError(f"{work}: the eigenvalues are {actual} and {expected}")


def assert_trace(spread: float, work: str, actual: Any, expected: float) -> None:
    """Theirs is within five of its own standard errors, and of ours."""
    apart = abs(float(actual.value) - expected)
    if not apart <= 5 * np.hypot(spread, float(actual.error)):
        raise AssertionError(
            f"{work}: {actual.value} +- {actual.error} against {expected} +- {spread}"
        )


if __name__ == "__main__":
    main()
