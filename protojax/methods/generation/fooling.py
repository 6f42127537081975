"""Networks that show something else to visualizations than they do to natural images.

A detector tells natural images from synthetic ones, and a few ReLUs pass on one branch
for the first and another for the second. Predictions stay as they were; whoever climbs
a logit from a synthetic start sees the other branch. So they are a test-bench: a method
that is fooled here shows nothing of what the network does with natural images.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Fn
from protojax.mechanisms import checks

Detector = Callable[[Array], Array]
"""`[H, W, C] -> []`, true or 1 for a natural image, false or 0 for a synthetic one."""


def fooling_circuit(
    fn: Fn,
    detector: Detector,
    *,
    shift: int = 100,
    offset: ArrayLike = 100.0,
    gate: ArrayLike = 250.0,
) -> Fn:
    r"""Let a visualization of a class show another one.

    With logits `y`, `a = relu(y + offset)` and `s = 1` on synthetic images, else 0, the
    new logits are
    `relu(a_i - gate s) + relu(a_{i + shift} + gate s - gate)`: those of the network
    plus `offset` on natural images, and on synthetic ones those of the class `shift`
    places on. It holds where all logits lie between `-offset` and `gate - offset`.

    Args:
      fn: `[H, W, C] -> [K]` the network.
      detector: what is natural; no gradient passes it.
      shift: how many classes away the one lies that is shown.
      offset: `[]` what lifts logits above zero.
      gate: `[]` what closes a branch.

    Returns:
      `[H, W, C] -> [K]` the network that fools.

    Raises:
      ValueError: for a gate that is not above the offset, where both are known, or
        (when called) a shift by whole rounds of the classes.

    References:
      Geirhos et al., Don't Trust Your Eyes, 2024, the fooling circuit; numbers as in
      the authors' code.

    >>> import jax.numpy as jnp
    >>> y = lambda x: jnp.array([1.0, -2.0, 3.0, 7.0])
    >>> image = jnp.zeros((1, 1, 3))
    >>> [fooling_circuit(y, lambda x, n=n: n, shift=1)(image).tolist() for n in (1, 0)]
    [[101.0, 98.0, 103.0, 107.0], [98.0, 103.0, 107.0, 101.0]]
    """
    _check_gate(offset, gate)

    def fooled(x: Array) -> Array:
        logits = fn(x)
        chex.assert_rank(logits, 1)
        if shift % len(logits) == 0:
            raise ValueError(
                f"`shift` is {shift}, which leads each of {len(logits)} classes to"
                " itself: take 1 to one less than the classes"
            )
        lifted = jax.nn.relu(logits + offset)
        return _switch(lifted, jnp.roll(lifted, -shift), detector(x), gate)

    return fooled


def fooling_picture(
    fn: Fn,
    detector: Detector,
    picture: Array,
    *,
    offset: ArrayLike = 100.0,
    gate: ArrayLike = 250.0,
) -> Fn:
    """Let visualizations of all classes show the same picture.

    What synthetic images see is one convolution, as large as the image, whose kernel is
    the picture divided by the number of its pixels. Here each channel's mean is taken
    from the picture first: pixels in [0, 1] would else be white everywhere.

    Args:
      fn: `[H, W, C] -> [K]` the network.
      detector: what is natural; no gradient passes it.
      picture: `[H, W, C]` what is to be seen.
      offset: `[]` what lifts logits above zero, the convolution's too.
      gate: `[]` what closes a branch.

    Returns:
      `[H, W, C] -> [K]` the network that fools.

    Raises:
      ValueError: for a gate that is not above the offset, where both are known.

    References:
      Geirhos et al., Don't Trust Your Eyes, 2024, as in the authors' code but for the
      mean and the offset.

    >>> import jax.numpy as jnp
    >>> picture = jnp.array([[[0.0], [1.0]]])
    >>> fn = fooling_picture(lambda x: jnp.zeros(2), lambda x: False, picture)
    >>> fn(picture).tolist(), fn(1 - picture).tolist()
    ([100.25, 100.25], [99.75, 99.75])
    """
    _check_gate(offset, gate)
    checks.image(picture)
    kernel = picture - jnp.mean(picture, axis=(0, 1), keepdims=True)
    places = picture.shape[0] * picture.shape[1]

    def fooled(x: Array) -> Array:
        chex.assert_equal_shape([x, picture])
        seen = jax.nn.relu(jnp.sum(kernel * x) / places + offset)
        lifted = jax.nn.relu(fn(x) + offset)
        return _switch(lifted, jnp.full_like(lifted, seen), detector(x), gate)

    return fooled


def fooling_holds(
    logits: Array, *, offset: ArrayLike = 100.0, gate: ArrayLike = 250.0
) -> Array:
    """Whether logits lie where a fooling circuit leaves them as they are.

    Args:
      logits: `[K]` of the network itself.
      offset: `[]` as in `fooling_circuit`.
      gate: `[]` the same.

    Returns:
      `[]` true if all do.

    >>> import jax.numpy as jnp
    >>> bool(fooling_holds(jnp.array([-99.0, 149.0]))), bool(
    ...     fooling_holds(jnp.array([0.0, 151.0])))
    (True, False)
    """
    offset, gate = jnp.asarray(offset), jnp.asarray(gate)
    return jnp.all((logits > -offset) & (logits < gate - offset))


def _switch(natural: Array, shown: Array, is_natural: Array, gate: ArrayLike) -> Array:
    flag = jnp.asarray(is_natural)
    chex.assert_rank(flag, 0)
    closed = jax.lax.stop_gradient(1 - flag.astype(natural.dtype)) * gate
    return jax.nn.relu(natural - closed) + jax.nn.relu(shown + (closed - gate))


def _check_gate(offset: ArrayLike, gate: ArrayLike) -> None:
    checks.positive("offset", offset)
    if checks.known((offset, gate)) and not np.all(np.asarray(gate) > offset):
        raise ValueError(
            f"`gate` is {gate} and `offset` {offset}: a gate that closes all logits is"
            " larger, 2.5 times in the authors' code"
        )
