"""The input Hessian of a network's smooth twin: what lets an explanation turn."""

import functools
import pathlib

import jax
import jax.numpy as jnp

from experiments import explained
from protojax import curvature
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.scale import pages, report


def curved(
    fn: Fn, weights: PyTree, example: dict, key: Key, *, beta: Array
) -> dict[str, Array]:
    """Look at the input Hessian of the twin's logit: how steeply the gradient turns."""
    x = example["image"]
    model = functools.partial(fn, weights)
    y = jnp.argmax(model(x))
    smooth = explained.smooth_twin(model, beta, x)
    score = lambda z: smooth(z)[y]  # noqa: E731
    product = functools.partial(curvature.hvp, score, x)
    start, draw = jax.random.split(key)
    values, vectors, rest = curvature.top_eigenpairs(product, x, key=start, steps=24)
    g = jax.grad(score)(x)
    random = jax.random.normal(draw, x.shape)
    random /= jnp.linalg.norm(random)
    length = jnp.linalg.norm(g)
    return {
        "stalled": values[0] == 0,
        "eigenvalue": jnp.abs(values[0]),
        "random_curvature": jnp.linalg.norm(product(random)),
        "gradient_norm": length,
        "angle": jnp.degrees(jnp.arccos(jnp.abs(jnp.sum(g * vectors[0])) / length)),
        "residual": rest[0] / jnp.abs(values[0]),
    }


def section(folder: pathlib.Path, pixels: int) -> tuple[pages.Section, list[dict]]:
    """A report's section on the rows of `curved`, and its numbers."""
    rows = report.read(folder)
    values = [
        "eigenvalue",
        "random_curvature",
        "gradient_norm",
        "angle",
        "residual",
    ]
    names = {
        "eigenvalue": "largest |eigenvalue|",
        "random_curvature": "|Hv| for a random direction v",
        "gradient_norm": "gradient norm",
        "angle": "angle between gradient and eigenvector (degrees)",
        "residual": "residual of the eigenpair, relative",
    }
    numbers = report.summary(rows, by=["beta"], values=values)
    lines = ["| quantity | mean |", "|---|---|"]
    for number in numbers:
        low, high = number["low"], number["high"]
        interval = "" if low is None else f" [{_short(low)}, {_short(high)}]"
        cell = f"{_short(number['mean'])}{interval} n={number['n']}"
        lines.append(f"| {names[number['value']]} | {cell} |")
    null = 90 - 57.3 * (2 / (3.14159 * 3 * pixels)) ** 0.5
    found = pages.Section(
        "The curvature behind it",
        [
            "The gradient turns fastest along the leading eigenvector of the input"
            " Hessian of the score (of the softplus twin, since the network itself is"
            " piecewise linear and has none). Where that direction is far from the"
            " gradient, the explanation can turn while the score stays. Two random"
            f" directions of this many dimensions meet at {null:.1f} degrees, so an"
            " angle near 90 alone is weak evidence; the eigenvalue against a random"
            " direction's curvature is the stronger one.",
            pages.Table("\n".join(lines), "Means over images, 95 % intervals."),
        ],
    )
    return found, numbers


def _short(value: float) -> str:
    return f"{value:.3g}"
