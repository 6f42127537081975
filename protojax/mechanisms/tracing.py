"""Walk the traced form of any function and give it back, changed where rules say so.

This is the one module that touches JAX internals. It knows nothing of what the rules
are for: `activations` puts rules on it that change what a function means for an
explanation, `lowering` puts rules on it that change only how fast it runs.

Two views of a function are offered. `retrace` re-emits it equation by equation, through
`jit`, `remat`, custom derivatives and control flow. `straight_line` unrolls its calls
into one list of equations, for those who walk it backwards.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax._src import source_info_util
from jax.extend import core

from protojax.contracts import Fn, PyTree

CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call"})
"""Calls that have derivatives of their own."""

CALLS = CUSTOM | frozenset(
    ("jit", "pjit", "closed_call", "core_call", "remat2", "remat", "checkpoint")
)
"""Primitives that run one body once: they can be opened."""

LOOPS = frozenset({"scan", "while", "cond", "shard_map"})
"""Primitives that run a body many times, perhaps, or elsewhere."""


class Equation(NamedTuple):
    """One step of a traced function, as a rule sees it.

    Attributes:
      name: of the primitive, say `"conv_general_dilated"`.
      label: of a call the name of the function called, say `"relu"`; else empty.
      params: of the primitive.
      bind: `(*inputs) -> outputs`, the step as it stands.
      source: the line of the user's code that made it.
    """

    name: str
    label: str
    params: Mapping[str, Any]
    bind: Callable[..., list]
    source: str


Rule = Callable[..., Any]
"""`(equation, *inputs) -> outputs` (a sequence), or `NotImplemented` to pass."""


class Step(NamedTuple):
    """An equation of a `Program` with the places that it reads and writes.

    Attributes:
      equation: what is done.
      inputs: numbers of places, or constants.
      outputs: numbers of places.
    """

    equation: Equation
    inputs: tuple["int | Constant", ...]
    outputs: tuple[int, ...]


class Constant(NamedTuple):
    """A value that the traced function holds, of its own or closed over.

    Attributes:
      value: an array, or a number.
    """

    value: Any


class Program(NamedTuple):
    """A function as one straight line of equations over numbered places.

    Attributes:
      inputs: the places of the arguments' leaves.
      steps: in the order in which they are taken.
      outputs: the places of the results' leaves, or constants.
      out_tree: how results are put together.
    """

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple["int | Constant", ...]
    out_tree: Any

    def run(self, *args: PyTree) -> dict[int, Any]:
        """Evaluate every step.

        Args:
          *args: what the function was traced with, or values of the same shapes.

        Returns:
          The value at every place.
        """
        places = dict(zip(self.inputs, jax.tree.leaves(args), strict=True))
        for step in self.steps:
            values = [read(places, place) for place in step.inputs]
            places.update(zip(step.outputs, step.equation.bind(*values), strict=True))
        return places


def read(places: Mapping[int, Any], place: "int | Constant") -> Any:
    """Return what stands at a place of a `Program`, or the constant itself.

    Args:
      places: from `Program.run`.
      place: a number, or a constant.

    Returns:
      The value.

    >>> read({0: "here"}, 0), read({}, Constant(2.0))
    ('here', 2.0)
    """
    return place.value if isinstance(place, Constant) else places[place]


def retrace(fn: Fn, rules: Mapping[str, Rule], *, equivalent: bool = False) -> Fn:
    """Return `fn` with some of its equations replaced by what their rules say.

    A rule is found by the name of the equation's primitive (`"max"`) or, for a call,
    by `"call:"` and the name of the function called (`"call:relu"`), which comes first.
    A rule may decline by returning `NotImplemented`; where all do the equation is
    re-emitted, and a call is searched. What no rule concerns is left as it is.

    Args:
      fn: any traceable function of arrays, in any structure.
      rules: what replaces what.
      equivalent: the rules change neither values nor derivatives, and close over no
        traced value. Calls and custom derivatives are then kept around their rewritten
        bodies. Otherwise calls in which a rule applied are opened, so that derivatives
        are those of what the rules put there.

    Returns:
      A function like `fn`. It traces `fn` anew at each call, so that `jit` belongs
      outside.

    Raises:
      ValueError: (when called) a rule closed over a traced value, and applies inside a
        loop.

    >>> import jax.numpy as jnp
    >>> double = retrace(jnp.sin, {"sin": lambda eqn, x: [2 * x]})
    >>> float(double(3.0))
    6.0
    """

    def retraced(*args, **kwargs):
        traced, shape = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        leaves = jax.tree.leaves((args, kwargs))
        outputs = _evaluate(traced, leaves, rules, equivalent)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return retraced


def straight_line(
    fn: Fn, *args: PyTree, whole: Callable[[Equation], bool] = lambda _: False
) -> Program:
    """Trace a function and open all its calls.

    Args:
      fn: any traceable function of arrays.
      *args: arguments, or shapes of arguments, to trace it at.
      whole: which calls stay one step. Loops always do.

    Returns:
      The steps, in order of evaluation.

    >>> import jax
    >>> program = straight_line(lambda x: 2 * jax.nn.relu(x), 1.0,
    ...                         whole=lambda call: call.label == "relu")
    >>> [step.equation.label or step.equation.name for step in program.steps]
    ['relu', 'mul']
    """
    traced, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    return _program(traced, whole, "", jax.tree.structure(shape))


def inside(call: Equation) -> Program:
    """Open a call.

    Args:
      call: an equation whose primitive is one of `CALLS`.

    Returns:
      The steps of the function called.

    >>> import jax
    >>> relu = straight_line(jax.nn.relu, 1.0, whole=lambda call: True).steps[0]
    >>> [step.equation.name for step in inside(relu.equation).steps]
    ['max']
    """
    body = _body(call)
    outputs = jax.tree.structure([0] * len(_open(body)[0].outvars))
    return _program(body, lambda _: False, call.source, outputs)


def _program(body, whole, caller, out_tree) -> Program:
    steps: list[Step] = []
    fresh = iter(range(1 << 62))
    inputs = tuple(next(fresh) for _ in _open(body)[0].invars)
    outputs = _lay_out(body, inputs, whole, steps, fresh, caller)
    return Program(inputs, tuple(steps), outputs, out_tree)


def _lay_out(body, inputs, whole, steps, fresh, caller) -> tuple:
    jaxpr, constants = _open(body)
    places = dict(zip(jaxpr.constvars, map(Constant, constants), strict=True))
    places.update(zip(jaxpr.invars, inputs, strict=True))

    def place(atom):
        return Constant(atom.val) if isinstance(atom, core.Literal) else places[atom]

    for eqn in jaxpr.eqns:
        reads = tuple(map(place, eqn.invars))
        met = _describe(eqn, caller)
        if met.name in CALLS and not whole(met):
            writes = _lay_out(_body(eqn), reads, whole, steps, fresh, met.source)
        else:
            writes = tuple(next(fresh) for _ in eqn.outvars)
            steps.append(Step(met, reads, writes))
        places.update(zip(eqn.outvars, writes, strict=True))
    return tuple(map(place, jaxpr.outvars))


def _evaluate(body, args, rules, equivalent) -> list:
    jaxpr, constants = _open(body)
    values = dict(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def value(atom):
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = list(map(value, eqn.invars))
        with _context(eqn):
            outputs = _apply(eqn, inputs, rules, equivalent)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return list(map(value, jaxpr.outvars))


def _apply(eqn, inputs, rules, equivalent) -> Sequence:
    for name in (f"call:{_label(eqn)}", eqn.primitive.name):
        if name in rules:
            outputs = rules[name](_describe(eqn), *inputs)
            if outputs is not NotImplemented:
                return outputs
    if not _concerned(eqn, rules):
        return _bind(eqn, inputs, eqn.params)
    if eqn.primitive.name == "shard_map":
        return _shard(eqn, inputs, rules, equivalent)
    if eqn.primitive.name in CALLS and not equivalent:
        return _open_call(eqn, inputs, rules)
    return _bind(eqn, inputs, _rewritten(eqn, rules, equivalent))


def _open_call(eqn, inputs, rules) -> list:
    def run(*args):
        return _evaluate(_body(eqn), args, rules, equivalent=False)

    if eqn.primitive.name in ("remat2", "remat", "checkpoint"):
        keep = {k: eqn.params[k] for k in ("prevent_cse", "policy")}
        return jax.checkpoint(run, **keep)(*inputs)
    return run(*inputs)


def _shard(eqn, inputs, rules, equivalent) -> Sequence:
    def run(*args):
        return tuple(_evaluate(_body(eqn), args, rules, equivalent))

    p = eqn.params
    return jax.shard_map(
        run,
        mesh=p["mesh"],
        in_specs=p["in_specs"],
        out_specs=p["out_specs"],
        axis_names=set(p["newly_manual_axes"]),
        check_vma=p["check_vma"],
    )(*inputs)


def _rewritten(eqn, rules, equivalent) -> dict:
    """The same parameters, every body among them rewritten at the same avals.

    No other parameter is looked at, since those of the loops differ between versions
    of JAX.
    """

    def rewrite(body):
        avals = [v.aval for v in _open(body)[0].invars]
        new = jax.make_jaxpr(lambda *args: _evaluate(body, args, rules, equivalent))(
            *avals
        )
        if any(isinstance(c, jax.core.Tracer) for c in new.consts):
            raise ValueError(
                f"a rule holds a traced value inside `{eqn.primitive.name}` at "
                f"{_source(eqn)}: pass that value (a softplus's `beta`, say) as a "
                "Python number"
            )
        return new if type(new) is type(body) else new.jaxpr

    params = dict(eqn.params)
    for name, param in params.items():
        if _is_body(param):
            params[name] = rewrite(param)
        elif isinstance(param, tuple) and param and all(map(_is_body, param)):
            params[name] = tuple(map(rewrite, param))
    return params


def _concerned(eqn, rules) -> bool:
    """Whether a rule could apply to something inside this call or loop."""
    return eqn.primitive.name in CALLS | LOOPS and any(
        inner.primitive.name in rules
        or f"call:{_label(inner)}" in rules
        or _concerned(inner, rules)
        for body in _bodies(eqn)
        for inner in _open(body)[0].eqns
    )


def _bodies(eqn) -> list:
    params = eqn.params.values()
    groups = (p if isinstance(p, tuple) else (p,) for p in params)
    return [body for group in groups for body in group if _is_body(body)]


def _body(eqn):
    (body,) = _bodies(eqn)
    return body


def _is_body(param) -> bool:
    return isinstance(param, (core.Jaxpr, core.ClosedJaxpr))


def _open(body) -> tuple[core.Jaxpr, Sequence]:
    """A body and its constants, however this version of JAX keeps them together."""
    return getattr(body, "jaxpr", body), getattr(body, "consts", ())


def _label(eqn) -> str:
    if eqn.primitive.name in CUSTOM:
        return _open(_body(eqn))[0].debug_info.func_src_info.split(" ")[0]
    return eqn.params.get("name", "") if eqn.primitive.name in CALLS else ""


def _describe(eqn, caller="") -> Equation:
    """With the line of the call around it, where JAX made it for itself."""
    return Equation(
        eqn.primitive.name,
        _label(eqn),
        eqn.params,
        lambda *inputs: _bind(eqn, inputs, eqn.params),
        _source(eqn) or caller,
    )


def _bind(eqn, inputs, params) -> list:
    outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(params))
    return outputs if eqn.primitive.multiple_results else [outputs]


def _source(eqn) -> str:
    return source_info_util.summarize(eqn.source_info)


@contextlib.contextmanager
def _context(eqn):
    """Trace as if from the line, and under the name, that the equation came from."""
    names = source_info_util.current_name_stack() + eqn.source_info.name_stack
    line = source_info_util.user_context(eqn.source_info.traceback, name_stack=names)
    with line, eqn.ctx.manager:
        yield
