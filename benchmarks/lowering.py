"""What `lowering.canonical` gains: single operations, and loops against the host.

python -m benchmarks.lowering [--quick] [--json FILE]

Every row runs steps in a `scan`, rewritten. Its peers are the same steps in a `scan` as
JAX traces them, and driven from the host by calls of a compiled step, as traced or
rewritten. All seconds are those of one step.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
from jax import lax

from benchmarks import timing
from protojax.mechanisms import curvature, lowering
from protojax.methods import activations
from protojax.models import resnet

Step = Callable[..., Any]
"""`(carry, *constants) -> carry`."""

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def main() -> None:
    """Run from the command line."""
    timing.main(rows, __doc__)


def rows(quick: bool) -> Iterator[timing.Row]:
    """Yield all tables.

    Args:
      quick: tiny sizes.

    Yields:
      The rows, operations first.
    """
    rounds, steps = (1, 2) if quick else (7, 4)
    for work, (setting, step, args) in operations(quick).items():
        yield from compare(work, setting, step, args, steps=steps, rounds=rounds)
    yield from softplus_rows(quick, rounds)
    for work, (setting, step, args) in network_steps(quick).items():
        yield from compare(work, setting, step, args, steps=steps, rounds=rounds)
    yield from lanczos_rows(quick, 1 if quick else 5)


def compare(
    work: str, setting: str, step: Step, args: tuple, *, steps: int, rounds: int
) -> list[timing.Row]:
    """Time a step in a rewritten `scan` against the other ways to run it.

    Args:
      work: the name of the step.
      setting: its sizes.
      step: what is repeated.
      args: where it starts, and its constants.
      steps: how often it is repeated.
      rounds: how often that is timed.

    Returns:
      One row for each other way.
    """
    start, *constants = args

    def scanned(step, carry, *constants):
        body = lambda carry, _: (step(carry, *constants), None)  # noqa: E731
        return lax.scan(body, carry, None, length=steps)[0]

    def driven(step):
        program = jax.jit(step)

        def run():
            carry = start
            for _ in range(steps):
                carry = program(carry, *constants)
            return jax.block_until_ready(carry)

        return run

    rewritten = lowering.canonical(step)
    ours = timing.compiled(functools.partial(scanned, rewritten), *args)
    traced = timing.compiled(functools.partial(scanned, step), *args)
    peers = {
        "scan, as traced": traced.run,
        "host loop, as traced": driven(step),
        "host loop, canonical": driven(rewritten),
    }
    for name, run in peers.items():
        timing.assert_agree(f"{work}, {name}", ours.run(), run())
    times = timing.interleave({"ours": ours.run} | peers, rounds=rounds)
    return [
        timing.row(
            work,
            times["ours"].median / steps,
            peer=peer,
            peer_s=times[peer].median / steps,
            memory_mb=ours.memory_mb,
            compile_s=ours.compile_s,
            setting=setting,
        )
        for peer in peers
    ]


def operations(quick: bool) -> dict[str, tuple[str, Step, tuple]]:
    """Single operations as steps, with their settings and arguments, by name."""
    batch, side, width = (2, 8, 4) if quick else (8, 56, 32)
    shape = (batch, side, side, width)
    sizes = "x".join(map(str, shape))
    x = _normal(0, *shape)

    def on_input(op, *constants, setting=sizes):
        gradient = lambda x, *rest: jax.vjp(lambda x: op(x, *rest), x)[1]  # noqa: E731
        pulled = lambda x, *rest: gradient(x, *rest)(op(x, *rest))[0]  # noqa: E731
        return setting, _kept_alive(pulled), (x, *constants)

    def on_kernel(op, w):
        def pulled(x, w, cotangent):
            return jax.vjp(lambda w: op(x, w), w)[1](cotangent)[0]

        cotangent = _normal(1, *jax.eval_shape(op, x, w).shape)
        return sizes, _kept_alive(pulled), (x, w, cotangent)

    plain = functools.partial(_conv, strides=(1, 1), groups=1)
    depthwise = functools.partial(_conv, strides=(1, 1), groups=width)
    three = _normal(2, 3, 3, width, width) / width
    one = _normal(3, 1, 1, width, width) / width
    deep = _normal(4, 3, 3, 1, width)
    many = _normal(5, 4, 3, 3, width, width) / width
    members = lambda x, w: jnp.mean(jax.vmap(plain, (None, 0))(x, w), 0)  # noqa: E731
    pooled = (4, 16, 16, 4) if quick else (8, 112, 112, 64)
    pool = lambda x: jnp.sum(nn.max_pool(x, (3, 3), (2, 2), "SAME") ** 2)  # noqa: E731
    pool_setting = "x".join(map(str, pooled))
    y = _normal(6, *pooled)
    return {
        "convolution 3x3": (sizes, _kept_alive(plain), (x, three)),
        "convolution 3x3, value and input gradient": on_input(plain, three),
        "convolution 3x3, kernel gradient": on_kernel(plain, three),
        "transposed convolution, value and input gradient": on_input(_upsample, three),
        "convolution 1x1": (sizes, _kept_alive(plain), (x, one)),
        "convolution 1x1, value and input gradient": on_input(plain, one),
        "depthwise 3x3": (sizes, _kept_alive(depthwise), (x, deep)),
        "depthwise 3x3, value and input gradient": on_input(depthwise, deep),
        "depthwise 3x3, kernel gradient": on_kernel(depthwise, deep),
        "four kernels under vmap": (sizes, _kept_alive(members), (x, many)),
        "max pool 3x3, value and gradient": (
            pool_setting,
            _kept_alive(jax.grad(pool)),
            (y,),
        ),
        "max pool 3x3, second order": (
            pool_setting,
            _kept_alive(lambda y: _product(pool, y, jnp.cos(y))),
            (y,),
        ),
    }


def softplus_rows(quick: bool, rounds: int) -> list[timing.Row]:
    """The second derivative of our softplus, against JAX's."""
    x = _normal(0, 10 if quick else 10**6)
    beta = 30.0

    def second(act):
        return lambda x: _product(lambda z: jnp.sum(act(z)), x, x)

    ours = timing.compiled(second(activations.softplus(beta)), x)
    theirs = timing.compiled(second(lambda z: jax.nn.softplus(beta * z) / beta), x)
    timing.assert_agree("softplus", ours.run(), theirs.run())
    times = timing.interleave({"ours": ours.run, "jax": theirs.run}, rounds=rounds)
    return [
        timing.row(
            "softplus, second derivative",
            times["ours"].median,
            peer="jax.nn.softplus",
            peer_s=times["jax"].median,
            memory_mb=ours.memory_mb,
            compile_s=ours.compile_s,
            setting=f"{x.size} numbers",
        )
    ]


def network_steps(quick: bool) -> dict[str, tuple[str, Step, tuple]]:
    """Steps on a small residual network, with their settings and arguments, by name."""
    setting, loss, params, x = _network(quick)
    direction = jax.tree.map(jnp.ones_like, params)

    def climb(x, params):
        return x + 0.01 * jnp.sign(jax.grad(loss, 1)(params, x))

    def train(params, x):
        gradient = jax.grad(loss)(params, x)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)

    def input_product(v, x, params):
        return _unit(_product(lambda x: loss(params, x), x, v))

    def parameter_product(v, x, params):
        return _unit(_product(lambda params: loss(params, x), params, v))

    return {
        "input gradient step": (setting, climb, (x, params)),
        "parameter gradient step": (setting, train, (params, x)),
        "input Hessian-vector product": (setting, input_product, (x, x, params)),
        "parameter Hessian-vector product": (
            setting,
            parameter_product,
            (direction, x, params),
        ),
    }


def lanczos_rows(quick: bool, rounds: int) -> list[timing.Row]:
    """Lanczos on the parameters' Hessian, against its products driven from the host."""
    setting, loss, params, x = _network(quick)
    steps = 3 if quick else 20

    def eigenpairs(params, x):
        def matvec(v):
            return curvature.hvp(lambda params: loss(params, x), params, v)

        return curvature.top_eigenpairs(
            matvec, params, key=jax.random.key(0), steps=steps
        )

    def product(v, params, x):
        return _product(lambda params: loss(params, x), params, v)

    def driven(step):
        program = jax.jit(step)

        def run():
            v = params
            for _ in range(steps + 1):  # one finds the scale
                v = program(v, params, x)
            return jax.block_until_ready(v)

        return run

    ours = timing.compiled(eigenpairs, params, x)
    peers = {
        "host loop, as traced": driven(product),
        "host loop, canonical": driven(lowering.canonical(product)),
    }
    times = timing.interleave({"ours": ours.run} | peers, rounds=rounds)
    return [
        timing.row(
            f"Lanczos, {steps} products",
            times["ours"].median,
            peer=f"{peer}: its products alone",
            peer_s=times[peer].median,
            memory_mb=ours.memory_mb,
            compile_s=ours.compile_s,
            setting=setting,
        )
        for peer in peers
    ]


def _network(quick: bool) -> tuple[str, Callable, Any, jax.Array]:
    batch, side = (2, 8) if quick else (8, 64)
    model = resnet.CifarResNet(8)
    x = jax.random.uniform(jax.random.key(0), (batch, side, side, 3))
    variables = model.init(jax.random.key(1), x[0])
    rest = {name: each for name, each in variables.items() if name != "params"}

    def loss(params, x):
        logits = jax.vmap(lambda z: model.apply({"params": params, **rest}, z))(x)
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    setting = f"ResNet of 8 layers, batch {batch}, {side} pixels"
    return setting, loss, variables["params"], x


def _product(f: Callable, x: Any, v: Any) -> Any:
    return jax.jvp(jax.grad(f), (x,), (v,))[1]


def _unit(tree: Any) -> Any:
    flat, unravel = jax.flatten_util.ravel_pytree(tree)
    return unravel(flat / (jnp.linalg.norm(flat) + 1e-6))


def _kept_alive(op: Callable) -> Step:
    """Make the next input depend on all of the output, and hardly differ."""
    return lambda x, *constants: x + 1e-6 * jnp.mean(op(x, *constants))


def _conv(x: jax.Array, w: jax.Array, *, strides: tuple, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        w,
        strides,
        "SAME",
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )


def _upsample(x: jax.Array, w: jax.Array) -> jax.Array:
    return lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=DIMENSIONS)


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


if __name__ == "__main__":
    main()
