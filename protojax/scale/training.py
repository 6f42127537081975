"""Training as a generator of steps: whoever asks for the next decides on the rest.

    state = training.init(params, optimizer, key=key)
    stream = data.batches("parts", "train", size=32, image_size=64, seed=0)
    with checkpoints.saving(folder) as save:            # in the background
        for state, log in training.train(loss, state, stream, optimizer):
            if state.step % 500 == 0:
                save(state, config)
            if state.step == 2000:
                break

No callbacks, no trainer class. Everything random in step n comes from the state's key
and n, so that training taken up from a checkpoint, with batches from
`data.batches(..., start=int(state.step))`, goes on to the bit as if never stopped.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from protojax import contracts
from protojax.mechanisms import lowering

Array = contracts.Array
PyTree = contracts.PyTree
Log = dict[str, Any]

BatchLoss = Callable[[PyTree, PyTree, PyTree, contracts.Key], tuple[Array, Any]]
"""What is minimized: `(params, extra, batch, key) -> (loss, (extra, log))`.

`loss` is a scalar, `extra` the new running statistics (give back what came where there
are none), `log` a dict of whatever is worth knowing. `key` is consumed.
"""


class State(NamedTuple):
    """All that training is, between two steps.

    Attributes:
      step: int32 `[]` how many were taken.
      params: what is learned.
      extra: what is carried along: batch statistics; `{}` for most networks.
      opt_state: the state of the optimizer.
      key_data: uint32, the data of the key that every step's key is made from.
    """

    step: Array
    params: PyTree
    extra: PyTree
    opt_state: PyTree
    key_data: Array


def init(
    params: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    key: contracts.Key,
    extra: PyTree | None = None,
) -> State:
    """Return the state before the first step.

    Args:
      params: parameters to start from.
      optimizer: an Optax optimizer, the one that `train` is given.
      key: source of all randomness in training; consumed.
      extra: running statistics to start from, None where there are none.

    Returns:
      the state of step 0.

    Raises:
      ValueError: if the key is not one of JAX's default kind.

    >>> import jax, optax
    >>> from protojax.scale import training
    >>> state = training.init({"w": 1.0}, optax.sgd(0.1), key=jax.random.key(0))
    >>> int(state.step)
    0
    """
    key_data = jax.random.key_data(key)
    kind = jax.random.key_impl(jax.random.key(0))
    if key.shape or jax.random.key_impl(key) != kind:
        raise ValueError(
            f"`key` must be one key of the default kind ({kind}), as jax.random.key "
            f"makes it, so that it can be stored as numbers; got {key.dtype} "
            f"{list(key.shape)}"
        )
    params = jax.tree.map(jnp.asarray, params)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        extra={} if extra is None else jax.tree.map(jnp.asarray, extra),
        opt_state=optimizer.init(params),
        key_data=key_data,
    )


def train(
    loss: BatchLoss,
    state: State,
    batches: Iterable[PyTree],
    optimizer: optax.GradientTransformation,
) -> Iterator[tuple[State, Log]]:
    """Take one training step for each batch.

    The step is compiled once for each shape of batch, and updates the state in place: a
    state that was yielded is good until the next one is asked for (copy what is to be
    kept). The `state` that is passed in stays as it is. Where batches lie on several
    devices (see `spread`), so does the work.

    Args:
      loss: what is minimized, `(params, extra, batch, key) -> (loss, (extra, log))`.
      state: where to start, from `init` or `checkpoints.restore`.
      batches: whatever `loss` takes; training ends when they do.
      optimizer: the Optax optimizer that made `state.opt_state`.

    Yields:
      the new state and the log of the step, with the loss under `loss`. Both are
      computed in the background: reading a number waits for it.

    Raises:
      ValueError: if `loss` returns something else than it should.

    >>> import jax, optax
    >>> from protojax.scale import training
    >>> def loss(params, extra, batch, key):
    ...     return (params["w"] - batch) ** 2, (extra, {})
    >>> optimizer = optax.sgd(0.25)
    >>> state = training.init({"w": 0.0}, optimizer, key=jax.random.key(0))
    >>> for state, log in training.train(loss, state, [1.0, 1.0], optimizer):
    ...     print(int(state.step), float(state.params["w"]), float(log["loss"]))
    1 0.5 1.0
    2 0.75 0.25
    """
    step = functools.partial(_step, _checked(loss), optimizer)
    compiled = jax.jit(lowering.canonical(step), donate_argnums=0)
    state = jax.tree.map(jnp.copy, state)
    for batch in batches:
        state, log = compiled(state, batch)
        yield state, log


def spread(
    state: State,
    batches: Iterable[PyTree],
    *,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[State, Iterator[PyTree]]:
    """Put training on all devices of all processes, each with its share of a batch.

    The state lies whole on every device. Where JAX runs as several processes, all pass
    the same state and the same batches, which `data.batches` of one seed makes so, and
    all train: they wait for each other at every step. On as many devices as before
    training goes on to the bit, on others sums are rounded otherwise.

    Args:
      state: from `init` or `checkpoints.restore`.
      batches: of arrays whose first axis is that of the examples.
      devices: which; all there are if not given.

    Returns:
      State and batches for `train`.

    Raises:
      ValueError: by the batches, where one cannot be divided among the devices.

    >>> import jax, optax
    >>> from protojax.scale import training
    >>> state = training.init({"w": 1.0}, optax.sgd(0.1), key=jax.random.key(0))
    >>> state, batches = training.spread(state, [jax.numpy.ones(8)])
    >>> next(batches).sharding.num_devices == jax.device_count()
    True
    """
    mesh = Mesh(np.asarray(jax.devices() if devices is None else devices), "data")

    def put(leaf: Any, spec: PartitionSpec) -> Array:
        values, sharding = np.asarray(leaf), NamedSharding(mesh, spec)
        # Not `device_put`, which would ask all processes whether the values are equal.
        return jax.make_array_from_callback(
            values.shape, sharding, lambda index: values[index]
        )

    def share(leaf: Any) -> Array:
        if np.shape(leaf)[0] % mesh.size:
            raise ValueError(
                f"a batch of {np.shape(leaf)[0]} cannot be divided among {mesh.size} "
                "devices: choose a multiple of them"
            )
        return put(leaf, PartitionSpec("data"))

    whole = jax.tree.map(lambda leaf: put(leaf, PartitionSpec()), state)
    return whole, (jax.tree.map(share, batch) for batch in batches)


def _step(
    loss: BatchLoss,
    optimizer: optax.GradientTransformation,
    state: State,
    batch: PyTree,
) -> tuple[State, Log]:
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.step)
    (value, (extra, log)), gradient = jax.value_and_grad(loss, has_aux=True)(
        state.params, state.extra, batch, key
    )
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    after = State(state.step + 1, params, extra, opt_state, state.key_data)
    return after, {"loss": value, **log}


def _checked(loss: BatchLoss) -> BatchLoss:
    """Say what is wrong with a loss in words, when it is traced."""

    def checked(
        params: PyTree, extra: PyTree, batch: PyTree, key: contracts.Key
    ) -> tuple[Array, Any]:
        out = loss(params, extra, batch, key)
        try:
            value, (after, log) = out
        except (TypeError, ValueError):
            raise ValueError(
                "`loss` must return (loss, (extra, log)), `extra` as it came where "
                f"nothing is carried along; got {jax.tree.structure(out)}"
            ) from None
        if jnp.shape(value):
            raise ValueError(
                f"`loss` must return a scalar, got shape {list(jnp.shape(value))}: "
                "take the mean over the batch"
            )
        if not isinstance(log, dict) or "loss" in log:
            raise ValueError("the log of `loss` must be a dict without the name 'loss'")
        if (new := jax.tree.map(jnp.shape, after)) != (
            old := jax.tree.map(jnp.shape, extra)
        ):
            raise ValueError(
                f"`loss` must return `extra` in the structure it came in, {old}; got "
                f"{new}"
            )
        return value, (after, log)

    return checked
