"""The contracts that hold protojax together, as documented aliases.

Everything that computes is a plain function of one example: an image `x` of shape
`[H, W, C]`, float32, in [0, 1]. Batches exist only outside, by `jax.vmap`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax

Array = jax.Array
"""An array; docstrings give its shape, `[]` being that of a number."""

ArrayLike = jax.typing.ArrayLike
"""What JAX takes for an array: a number of Python's, or NumPy's, too."""

PyTree = Any
"""Arrays in tuples, lists, dicts, or classes that JAX knows."""

Key = jax.Array
"""A typed PRNG key, as `jax.random.key` makes it."""

Fn = Callable[..., Any]
"""A model or any other traceable function: `[H, W, C] -> [K]` where it is a model."""

Score = Callable[[Array], Array]
"""What is explained: `[H, W, C] -> []`, say a logit."""

Explain = Callable[[Array], Array]
"""How it is explained: `[H, W, C] -> [H, W]`, a non-negative map that sums to one."""

Objective = Callable[[PyTree], Array]
"""What is climbed: `x -> []`. Objectives are maximized, always."""

Metric = Callable[[Array, Array], Array]
"""What moved: `([H, W], [H, W]) -> []`."""

MatVec = Callable[[PyTree], PyTree]
"""A linear operator on any pytree, given by its product with a vector."""


class Transform(Protocol):
    """A random change of the iterate before the objective sees it."""

    def __call__(self, x: PyTree, *, key: Key) -> PyTree:
        """Return what the objective sees in the place of `x`; `key` is consumed."""
