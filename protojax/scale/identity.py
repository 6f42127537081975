"""Names and digests that stay the same from one process to the next.

By them a folder of results knows whether what is to be added was made alike.
"""

import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import PyTree


def name(value: Any) -> Any:
    """A name for a function or a knob that the next process gives too.

    Args:
      value: a function, a partial of one with its knobs, a number, text, ...

    Returns:
      Something for JSON, free of addresses. What is inside a closure is not seen.

    >>> import functools
    >>> name(functools.partial(max, default=0))
    ['max', [], {'default': 0}]
    """
    if isinstance(value, functools.partial):
        knobs = {k: name(v) for k, v in value.keywords.items()}
        return [name(value.func), [name(v) for v in value.args], knobs]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [name(v) for v in value]
    return getattr(value, "__qualname__", type(value).__qualname__)


def digest(tree: PyTree) -> str:
    """A short digest of all arrays of a pytree, their names and types.

    Args:
      tree: any pytree of arrays, numbers and typed keys.

    Returns:
      16 hexadecimal digits.

    >>> digest({"w": [1.0, 2.0]}) == digest({"w": [1.0, 2.5]})
    False
    """
    found = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        label = f"{jax.tree_util.keystr(path)}{values.dtype}{values.shape}"
        found.update(label.encode())
        found.update(np.ravel(values).view(np.uint8).data)
    return found.hexdigest()


def is_key(value: Any) -> bool:
    """Whether a value is a typed key.

    Args:
      value: anything.

    Returns:
      True for what `jax.random.key` makes.
    """
    return isinstance(value, jax.Array) and jnp.issubdtype(
        value.dtype, jax.dtypes.prng_key
    )
