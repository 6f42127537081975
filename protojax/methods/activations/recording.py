"""Look at the layers inside a function, and set them, by name.

A layer has the name that `jax.ad_checkpoint.checkpoint_name` gave it. A network that
names none offers its ReLUs, convolutions and dense products by position: `relu:3`,
`conv:5`, `dense:1`, counted from zero; the last two with their bias.
"""

import collections
import difflib
from collections.abc import Callable, Iterable, Sequence

import chex
import jax

from protojax.contracts import Array, Fn, PyTree
from protojax.mechanisms import tracing
from protojax.methods.activations import gathering


def layers(fn: Fn, x: Array) -> dict[str, jax.ShapeDtypeStruct]:
    """What can be recorded in a function, in order of evaluation.

    A name that was given several times is numbered: `block:0`, `block:1`. Layers inside
    loops cannot be recorded.

    Args:
      fn: any traceable function of `x`.
      x: `[H, W, C]` image, or its shape.

    Returns:
      The shape and type of each layer, by name.

    >>> import jax, jax.numpy as jnp
    >>> layers(lambda x: jax.nn.relu(2 * jax.nn.relu(x)), jnp.ones((1, 1, 3)))["relu:1"]
    ShapeDtypeStruct(shape=(1, 1, 3), dtype=float32)
    """
    program = _program(fn, x)
    found = _find(program, x)
    places = jax.eval_shape(program.run, x)
    return {
        name: jax.ShapeDtypeStruct(places[place].shape, places[place].dtype)
        for name, place in found.items()
    }


def record(
    fn: Fn, names: Sequence[str] | None = None
) -> Callable[..., tuple[PyTree, dict[str, Array]]]:
    """Return a function that gives the layers of `fn` beside its output.

    Args:
      fn: any traceable function.
      names: of the layers wanted, see `layers`; all by default.

    Returns:
      A function like `fn`, with outputs `(output, {name: value})`.

    Raises:
      ValueError: (when called) `fn` has no layer of such a name.

    >>> import jax, jax.numpy as jnp
    >>> run = record(lambda x: jax.nn.relu(x).sum())
    >>> output, values = run(jnp.array([-1.0, 2.0]))
    >>> values["relu:0"].tolist()
    [0.0, 2.0]
    """

    def recorded(*args):
        program = _program(fn, *args)
        found = _find(program, *args)
        wanted = {name: _pick(found, name) for name in found if names is None}
        wanted |= {name: _pick(found, name) for name in names or ()}
        places = program.run(*args)
        return _output(program, places), {n: places[p] for n, p in wanted.items()}

    return recorded


def layer(fn: Fn, name: str) -> Callable[[Array], Array]:
    """Return the part of `fn` up to one of its layers.

    `objectives.linear(layer(fn, name), weights)` is a channel, a neuron or a direction
    at a place, as its weights say: mixed jobs on one layer are one program.

    Args:
      fn: any traceable function of one array.
      name: of the layer, see `layers`.

    Returns:
      `x -> value` of the layer, in its shape.

    Raises:
      ValueError: (when called) `fn` has no layer of that name.

    >>> import jax, jax.numpy as jnp
    >>> layer(lambda x: 3 * jax.nn.relu(x), "relu:0")(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return lambda x: record(fn, [name])(x)[1][name]


def intervene(fn: Fn, name: str) -> Callable[[Array, Array], PyTree]:
    """Return `fn` with one of its layers set from outside.

    Args:
      fn: any traceable function of one array.
      name: of the layer, see `layers`.

    Returns:
      `(x, value) -> output`, where `value` has the shape of the layer.

    Raises:
      ValueError: (when called) `fn` has no layer of that name.

    >>> import jax, jax.numpy as jnp
    >>> run = intervene(lambda x: 3 * jax.nn.relu(x), "relu:0")
    >>> float(run(jnp.array(-1.0), jnp.array(5.0)))
    15.0
    """

    def intervened(x, value):
        program = _program(fn, x)
        target = _pick(_find(program, x), name)
        places = dict(zip(program.inputs, jax.tree.leaves(x), strict=True))
        for step in program.steps:
            values = [tracing.read(places, place) for place in step.inputs]
            outputs = step.equation.bind(*values)
            places.update(zip(step.outputs, outputs, strict=True))
            if target in step.outputs:
                chex.assert_equal_shape([places[target], value])
                places[target] = value
        return _output(program, places)

    return intervened


def _program(fn, *args) -> tracing.Program:
    # what has derivatives of its own keeps them
    return tracing.straight_line(
        fn, *args, whole=lambda call: call.name in tracing.CUSTOM
    )


def _output(program, places) -> PyTree:
    leaves = [tracing.read(places, place) for place in program.outputs]
    return jax.tree.unflatten(program.out_tree, leaves)


def _find(program, *args) -> dict[str, int]:
    """The place of each layer, by name."""
    named = [
        (step.equation.params["name"], step.outputs[0])
        for step in program.steps
        if step.equation.name == "name"
    ]
    times = collections.Counter(name for name, _ in named)
    if named:
        repeated = {name for name, count in times.items() if count > 1}
        return dict(_numbered(named, repeated))
    after = _Followers(program, args)
    found = [
        (kind, step.outputs[0] if kind == "relu" else after.whole_layer(step))
        for step in program.steps
        if (kind := _KINDS.get(step.equation.label or step.equation.name))
    ]
    return dict(_numbered(found, {kind for kind, _ in found}))


_KINDS = {
    "relu": "relu",
    "relu6": "relu",
    "conv_general_dilated": "conv",
    "dot_general": "dense",
}


def _numbered(found, repeated) -> Iterable[tuple[str, int]]:
    counts: collections.Counter = collections.Counter()
    for name, place in found:
        yield (f"{name}:{counts[name]}" if name in repeated else name), place
        counts[name] += 1


class _Followers:
    """Which steps read a place, and what depends on the inputs."""

    def __init__(self, program, args):
        self.shapes = jax.eval_shape(program.run, *args)
        self.readers = collections.defaultdict(list)
        self.outputs = set(gathering.places_of(program.outputs))
        self.active = gathering.reached(program)
        for step in program.steps:
            for place in gathering.places_of(step.inputs):
                self.readers[place].append(step)

    def whole_layer(self, step) -> int:
        """Where a linear step's output stands with its bias, less an added axis."""
        place, allowed = step.outputs[0], {"add", "axis"}
        while len(self.readers[place]) == 1 and place not in self.outputs:
            (reader,) = self.readers[place]
            kind = {"reshape": "axis", "squeeze": "axis"}.get(
                reader.equation.name, reader.equation.name
            )
            out = reader.outputs[0]
            terms = [p for p in gathering.places_of(reader.inputs) if p in self.active]
            if kind not in allowed or len(terms) != 1:
                break
            if self.long(place) != self.long(out):
                break
            allowed.remove(kind)
            place = out
        return place

    def long(self, place) -> list[int]:
        """The lengths of the axes longer than one."""
        return [n for n in self.shapes[place].shape if n > 1]


def _pick(found, name) -> int:
    if name in found:
        return found[name]
    if not found:
        raise ValueError(
            f"`name` is {name!r}, and the function has no layers: name them with "
            "`jax.ad_checkpoint.checkpoint_name`"
        )
    close = difflib.get_close_matches(name, found, n=len(found), cutoff=0.0)
    raise ValueError(f"no layer is called {name!r}: there is {', '.join(close)}")
