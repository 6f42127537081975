"""Other non-linearities in the place of a network's ReLUs.

A ReLU network is piecewise linear: the gradient of its gradient is zero almost
everywhere, and an attack on its explanations stands still. Its smooth twin has the same
weights and softplus in the place of every ReLU.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from protojax.contracts import Array, ArrayLike, Fn
from protojax.mechanisms import checks, tracing
from protojax.methods.activations import rectifiers


class NoReLU(ValueError):
    """There is no ReLU to replace in this function."""


def softplus(beta: ArrayLike) -> Callable[[Array], Array]:
    r"""Make the smooth ReLU $\log(1 + e^{\beta z}) / \beta$ of sharpness `beta`.

    It lies above the ReLU, by $\log 2 / \beta$ at most. Its derivative is the sigmoid
    of $\beta z$, as a rule of its own, which makes the second derivative cheap.

    Args:
      beta: `[]` sharpness; may be traced, and differentiated.

    Returns:
      The function, of an array of any shape.

    Raises:
      ValueError: for a sharpness that is known not to be above zero.

    References:
      Dombrowski et al., Explanations can be manipulated and geometry is to blame, 2019.

    >>> import jax.numpy as jnp
    >>> print(f"{softplus(2.0)(jnp.array(0.0)):.4f}")  # log(2) / 2
    0.3466
    """
    checks.positive("beta", beta)
    return lambda z: _softplus(z, jnp.asarray(beta, jnp.result_type(z)))


@jax.custom_jvp
def _softplus(z, beta):
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(beta * z))) / beta


@functools.partial(_softplus.defjvp, symbolic_zeros=True)
def _softplus_jvp(primals, tangents):
    (z, beta), (dz, dbeta) = primals, tangents
    value, slope = _softplus(z, beta), jax.nn.sigmoid(beta * z)
    change = jnp.zeros_like(value)
    if not isinstance(dz, jax.custom_derivatives.SymbolicZero):
        change = slope * dz
    if not isinstance(dbeta, jax.custom_derivatives.SymbolicZero):
        change += (z * slope - value) / beta * dbeta
    return value, change


def replace(fn: Fn, act: Callable[[Array], Array]) -> Fn:
    """Return `fn` with `act` in the place of every ReLU.

    A ReLU is a call of `jax.nn.relu`, a maximum of something and zero, or a choice by
    its sign, `where(z > 0, z, 0)` or `z * (z > 0)`. ReLU6, however it is written,
    becomes `act(z) - act(z - 6)`, and likewise any clipping from zero to a positive
    constant. The maximum of zero and a variance, with which normalization layers guard
    against rounding, is no ReLU. Other non-linearities stay, and so does what has
    derivatives of its own (`jax.custom_jvp`, `jax.custom_vjp`).

    Args:
      fn: any traceable function, be it plain, of a Flax or Equinox module, or a
        `Partial`. ReLUs inside its loops and calls are found too.
      act: what to put there, say `softplus(30.0)`.

    Returns:
      A function like `fn`. `jit` belongs outside.

    Raises:
      ValueError: `act` is no function.
      NoReLU: (when called) `fn` holds no ReLU.

    >>> import jax, jax.numpy as jnp
    >>> twin = replace(lambda z: 2 * jax.nn.relu(z), softplus(100.0))
    >>> print(f"{jax.grad(twin)(0.0):.1f}")
    1.0
    """
    if not callable(act):
        raise ValueError(
            f"`act` is {act!r}: pass a function, say `activations.softplus(30.0)`"
        )
    return swap(fn, act, lambda z, top: act(z) - act(z - top))


def sharpness(fn: Fn, x: Array, *, c: ArrayLike = 30.0) -> Array:
    r"""Sharpness for `softplus` at which the twin of `fn` is close to `fn` near `x`.

    $\beta = c / \operatorname{median}|z|$, over all that enters a ReLU at `x`. The
    error of one unit, $\log 2/\beta$ at most, is then small beside what the units hold,
    whether pixels are in [0, 1] or in 0..255. ReLUs inside loops are not looked at, nor
    are units at exactly zero.

    Args:
      fn: any traceable function with ReLUs.
      x: `[H, W, C]` image.
      c: `[]` how many times sharper than the typical unit's scale.

    Returns:
      `[]` the sharpness, constant to derivatives; NaN where all units are at zero.

    Raises:
      NoReLU: `fn` holds no ReLU outside loops.

    >>> import jax, jax.numpy as jnp
    >>> float(sharpness(lambda z: jax.nn.relu(4 * z), jnp.ones((2, 2, 1)), c=10.0))
    2.5
    """
    program = tracing.straight_line(
        fn, x, whole=lambda call: call.name in tracing.CUSTOM
    )
    units: list[Array] = []

    def note(z, top=jnp.inf):
        units.append(jnp.abs(z))
        return jnp.clip(z, 0, top)

    swap(lambda x: program.run(x)[program.inputs[0]], note, note, _WHOLE_LOOPS)(x)
    return jax.lax.stop_gradient(jnp.asarray(c) / _median(units))


def _median(units) -> Array:
    """The lower median of what is not zero, by bisection: sorting is far slower."""
    # non-negative floats are ordered as their bits are
    bits = [jax.lax.bitcast_convert_type(u.astype("float32"), "int32") for u in units]

    def count(top):
        return sum(jnp.sum((b > 0) & (b <= top)) for b in bits)

    half = (count(jnp.int32(2**31 - 1)) + 1) // 2

    def narrow(bounds, _):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = count(middle) >= half
        return (jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)), ()

    bounds = jnp.int32(1), jnp.int32(2**31 - 1)
    (median, _), _ = jax.lax.scan(narrow, bounds, length=31)
    median = jax.lax.bitcast_convert_type(median, "float32")
    return jnp.where(half == 0, jnp.nan, median)


def agreement(fn: Fn, twin: Fn, x: Array) -> Array:
    """Whether two networks see the same class in an image.

    Args:
      fn: `[H, W, C] -> [K]` network.
      twin: another, say its smooth twin.
      x: `[H, W, C]` image.

    Returns:
      `[]` boolean.

    >>> import jax.numpy as jnp
    >>> model = lambda x: x.mean((0, 1))
    >>> bool(agreement(model, lambda x: -model(x), jnp.array([[[1.0, 2.0]]])))
    False
    """
    a, b = fn(x), twin(x)
    chex.assert_rank([a, b], 1)
    return a.argmax() == b.argmax()


def _as_it_stands(eqn, *inputs):
    return eqn.bind(*inputs)


_WHOLE_LOOPS = dict.fromkeys(tracing.LOOPS, _as_it_stands)


def swap(
    fn: Fn,
    act: Callable[[Array], Array],
    clipped: Callable[[Array, float], Array],
    rules: Mapping[str, tracing.Rule] | None = None,
) -> Fn:
    """Return `fn` with one function for each ReLU and another for each clipped one.

    Args:
      fn: any traceable function.
      act: `z -> value`, for a ReLU.
      clipped: `(z, top) -> value`, for a ReLU6 and its like.
      rules: further rules for the walk.

    Returns:
      A function like `fn`.

    Raises:
      NoReLU: (when called) `fn` holds no ReLU.

    >>> import jax
    >>> leaky = swap(jax.nn.relu, lambda z: 0.5 * z, lambda z, top: z)
    >>> float(leaky(-2.0))
    -1.0
    """

    def swapped(*args, **kwargs):
        found = _Found(act, clipped)
        out = tracing.retrace(fn, found.rules() | dict(rules or {}))(*args, **kwargs)
        if not found.count:
            raise NoReLU(
                "found no ReLU to replace (neither `jax.nn.relu` nor a maximum with "
                "zero nor a choice by sign): a network that is smooth already needs no "
                "twin, and other kinks must be changed where the network is defined"
            )
        return out

    return swapped


class _Found:
    """What is known of the values met so far, while one function is walked."""

    def __init__(self, act, clipped):
        self.act, self.clipped, self.count = act, clipped, 0
        # by identity; the value is kept, so that no identity is given twice
        self.facts: dict[int, tuple[Any, str, Any]] = {}

    def rules(self) -> dict[str, tracing.Rule]:
        return {
            "call:relu": self.called,
            "call:relu6": self.called,
            "max": self.maximum,
            "min": self.minimum,
            "clamp": self.clamp,
            "square": self.square,
            "integer_pow": self.square,
            "mul": self.product,
            "sub": self.difference,
            "gt": self.sign,
            "ge": self.sign,
            "lt": self.sign,
            "le": self.sign,
            "select_n": self.choice,
            "broadcast_in_dim": self.constant,
            "convert_element_type": self.constant,
            # what has derivatives of its own is one thing, and no ReLU
            **dict.fromkeys(tracing.CUSTOM, _as_it_stands),
        }

    def called(self, eqn, *inputs):
        top = rectifiers.top(eqn)
        return NotImplemented if top is None else [self.put(*inputs, top=top)]

    def maximum(self, _, a, b):
        for z, bottom in ((a, b), (b, a)):
            if self.number(bottom) == 0 and _is_float(z) and not self.fact(z, "spread"):
                below = self.fact(z, "below")
                return [self.put(*below)] if below else [self.put(z)]
        return NotImplemented

    def minimum(self, eqn, a, b):
        for z, bound in ((a, b), (b, a)):
            top = self.number(bound)
            if top is None or top <= 0 or not _is_float(z):
                continue
            relu = self.fact(z, "relu")
            if relu:
                return [self.put(*relu, top=top)]
            return self.note(eqn.bind(a, b), "below", (z, top))
        return NotImplemented

    def clamp(self, _, low, z, high):
        top = self.number(high)
        if self.number(low) != 0 or top is None or top <= 0 or not _is_float(z):
            return NotImplemented
        return [self.put(z, top=top)]

    def square(self, eqn, *inputs):
        squared = {
            "square": True,
            "integer_pow": eqn.params.get("y") == 2,
            "mul": inputs[0] is inputs[-1],
        }[eqn.name]
        out = eqn.bind(*inputs)
        return self.note(out, "square", True) if squared else out

    def product(self, eqn, a, b):
        for z, positive in ((a, b), (b, a)):
            known = self.fact(positive, "sign")
            if known and known[0] is z and known[1]:
                return [self.put(z)]
        return self.square(eqn, a, b)

    def sign(self, eqn, a, b):
        """Note a comparison with zero: `(z, whether it holds where z is positive)`."""
        out, greater = eqn.bind(a, b), eqn.name in ("gt", "ge")
        for z, bound, positive in ((a, b, greater), (b, a, not greater)):
            if self.number(bound) == 0 and _is_float(z):
                return self.note(out, "sign", (z, positive))
        return out

    def choice(self, _, which, *cases):
        known = self.fact(which, "sign")
        if known is None or self.fact(known[0], "spread"):
            return NotImplemented
        z, positive = known
        above, below = (cases[1], cases[0]) if positive else cases
        if above is not z or self.number(below) != 0:
            return NotImplemented
        return [self.put(z)]

    def difference(self, eqn, a, b):
        out = eqn.bind(a, b)
        return self.note(out, "spread", True) if self.fact(b, "square") else out

    def constant(self, eqn, *inputs):
        value = self.number(inputs[0]) if np.size(inputs[0]) == 1 else None
        out, sign = eqn.bind(*inputs), self.fact(inputs[0], "sign")
        if sign and eqn.name == "convert_element_type":
            return self.note(out, "sign", sign)  # true is one
        return out if value is None else self.note(out, "number", (value,))

    def put(self, z, top=np.inf):
        self.count += 1
        if top < np.inf:
            return self.clipped(z, top)
        out = self.act(z)
        self.note([out], "relu", (z,))
        return out

    def note(self, outputs, kind, fact):
        self.facts[id(outputs[0])] = (outputs[0], kind, fact)
        return outputs

    def fact(self, value, kind):
        _, found, fact = self.facts.get(id(value), (None, None, None))
        return fact if found == kind else None

    def number(self, value) -> float | None:
        """The number that this is, or that fills it, if the trace says so."""
        known = self.fact(value, "number")
        if known:
            return known[0]
        if isinstance(value, jax.core.Tracer):
            return None
        value = np.asarray(value).ravel()
        return float(value[0]) if value.size and (value == value[0]).all() else None


def _is_float(z) -> bool:
    return jnp.issubdtype(jnp.result_type(z), jnp.floating)
