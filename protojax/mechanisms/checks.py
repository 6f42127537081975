"""Checks of shapes, and of values where they are known."""

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, PyTree


def known(tree: PyTree) -> bool:
    """Whether all values of a tree are known, that is, none of them is traced.

    Args:
      tree: any tree of arrays and numbers.

    Returns:
      True outside of `jit`, `vmap` and `grad`.

    >>> known(1.0)
    True
    """
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def count(name: str, value: int) -> None:
    """Refuse a count below one, or one that is no whole number.

    Args:
      name: how the argument is called.
      value: the count.

    Raises:
      ValueError: naming argument and value.

    >>> count("steps", 1)
    """
    if value < 1:
        raise ValueError(f"`{name}` is {value}: it must be at least 1")
    if not isinstance(value, (int, np.integer)):
        raise ValueError(f"`{name}` is {value}: pass a whole number")


def number(name: str, value: ArrayLike) -> None:
    """Refuse what is no number, and an array, over whose axes it would broadcast.

    Args:
      name: how the argument is called.
      value: `[]` the number; may be traced.

    Raises:
      ValueError: naming argument, value or shape, and remedy.

    >>> number("radius", 8 / 255)
    """
    if known(value) and np.asarray(value).dtype.kind in "OUS":
        raise ValueError(f"`{name}` is {value!r}: pass a number")
    if np.ndim(value):
        raise ValueError(
            f"`{name}` has shape {np.shape(value)}: pass one number, and use "
            "`jax.vmap` for several"
        )


def index(name: str, value: ArrayLike, count: int, of: str) -> None:
    """Refuse an index that is out of range, where indexing would clamp or wrap it.

    A boolean is none either: indexing would take it for a mask.

    Args:
      name: how the argument is called.
      value: `[]` the index; passes if it is traced.
      count: how many there are.
      of: of what.

    Raises:
      ValueError: naming argument, value and range.

    >>> index("y", 9, 10, "classes")
    """
    if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
        raise ValueError(f"`{name}` is {value}: pass a whole number")
    if known(value) and not 0 <= np.asarray(value) < count:
        raise ValueError(
            f"`{name}` is {value} but there are {count} {of}: choose 0 <= {name} < "
            f"{count}"
        )


def between(name: str, value: ArrayLike, low: float, high: float) -> None:
    """Refuse a number that is not between two others, where it is known.

    Args:
      name: how the argument is called.
      value: `[]` the number.
      low: the least that will do.
      high: the largest.

    Raises:
      ValueError: naming argument, value and range.

    >>> between("share", 0.5, 0, 1)
    """
    if not known(value):
        return
    given = np.asarray(value)
    if not np.all((low <= given) & (given <= high)):
        raise ValueError(f"`{name}` is {value}: choose from {low} to {high}")


def positive(name: str, value: ArrayLike, *, or_zero: bool = False) -> None:
    """Refuse a number that is not above zero, where it is known.

    Args:
      name: how the argument is called.
      value: `[]` the number.
      or_zero: whether zero will do.

    Raises:
      ValueError: naming argument and value.

    >>> positive("step_size", 0.1)
    """
    number(name, value)
    if not known(value):
        return
    if not (np.asarray(value) >= 0 if or_zero else np.asarray(value) > 0):
        least = "zero or more" if or_zero else "above zero"
        raise ValueError(f"`{name}` is {value}: it must be {least}")


def finite(name: str, tree: PyTree, remedy: str) -> None:
    """Refuse numbers that are not finite, where they are known.

    Args:
      name: how the argument is called.
      tree: a tree of arrays.
      remedy: what to do about it.

    Raises:
      ValueError: naming argument and remedy.

    >>> finite("b", {"a": np.ones(3)}, "look at the gradient that it is")
    """
    if not known(tree):
        return
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree)):
        raise ValueError(f"`{name}` has numbers that are not finite: {remedy}")


def size_of(name: str, examples: PyTree) -> int:
    """The number of examples in a tree of arrays.

    Args:
      name: how the argument is called.
      examples: a tree of arrays `[N, ...]`.

    Returns:
      N.

    Raises:
      ValueError: if it is zero, or not the same everywhere.

    >>> size_of("train", {"image": np.zeros((3, 8, 8, 1)), "label": np.zeros(3, int)})
    3
    """
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(examples)}
    if len(counts) != 1 or counts <= {(), (0,)}:
        raise ValueError(
            f"`{name}` has leading axes {sorted(counts)}: pass arrays with the same, "
            "non-zero number of examples along their first axis"
        )
    return next(iter(counts))[0]


def image(x: Array) -> None:
    """Raise unless this is one image of floating-point pixels.

    Args:
      x: `[H, W, C]` image.

    Raises:
      ValueError: it is a batch, holds integers, or is known to hold NaN.

    >>> import jax.numpy as jnp
    >>> image(jnp.ones((1, 1, 3)))
    """
    axes("x", x, "H", "W", "C")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`x` is {x.dtype}: pass float32 pixels in [0, 1]")
    if known(x) and np.isnan(x).any():
        raise ValueError("`x` has NaN pixels: repair or drop this image")


def axes(name: str, value: Array, *names: str) -> None:
    """Refuse a batch in the place of one example.

    Args:
      name: how the argument is called.
      value: of any shape.
      *names: of the axes that it must have.

    Raises:
      ValueError: naming argument, shape and remedy.

    >>> import jax.numpy as jnp
    >>> axes("a", jnp.ones((2, 3)), "H", "W")
    """
    if jnp.ndim(value) != len(names):
        raise ValueError(
            f"`{name}` has shape {jnp.shape(value)}: pass one example, "
            f"[{', '.join(names)}], and use `jax.vmap` for a batch"
        )
