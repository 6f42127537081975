import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protojax.scale import checkpoints, data, training


def stream(count=None, start=0):
    """Endless batches of a regression problem, made from their number alone."""
    numbers = itertools.count(start) if count is None else range(start, start + count)
    for i in numbers:
        rng = np.random.default_rng(i)
        x = rng.normal(size=(8, 3)).astype(np.float32)
        yield {"x": x, "y": x @ np.array([1.0, -2.0, 0.5], np.float32)}


def squared(params, extra, batch, key):
    noise = 0.01 * jax.random.normal(key, batch["y"].shape)
    error = batch["x"] @ params["w"] - batch["y"] + noise
    return jnp.mean(error**2), (extra, {"worst": jnp.max(jnp.abs(error))})


def start(optimizer, seed=0):
    params = {"w": jnp.zeros(3)}
    return training.init(params, optimizer, key=jax.random.key(seed))


def last(steps):
    *_, (state, log) = steps
    return state, log


def test_a_linear_problem_is_solved():
    optimizer = optax.adam(0.1)
    state, log = last(training.train(squared, start(optimizer), stream(200), optimizer))
    np.testing.assert_allclose(state.params["w"], [1, -2, 0.5], atol=0.02)
    assert int(state.step) == 200
    assert set(log) == {"loss", "worst"}


def test_steps_are_what_optax_gives_by_hand():
    optimizer = optax.adamw(0.1)
    state = start(optimizer)
    params, opt_state = state.params, state.opt_state
    gradient = jax.jit(jax.grad(lambda *args: squared(args[0], {}, *args[1:])[0]))
    update = jax.jit(optimizer.update)
    for i, batch in enumerate(stream(3)):
        key = jax.random.fold_in(jax.random.key(0), i)
        slope = gradient(params, batch, key)
        updates, opt_state = update(slope, opt_state, params)
        params = optax.apply_updates(params, updates)
    state, _ = last(training.train(squared, state, stream(3), optimizer))
    np.testing.assert_allclose(state.params["w"], params["w"], rtol=1e-5)


@pytest.mark.optimized
def test_stopping_and_going_on_is_equal_to_the_bit():
    optimizer = optax.adam(0.1)
    states = [
        jax.device_get(state)
        for state, _ in training.train(squared, start(optimizer), stream(9), optimizer)
    ]
    whole, half = states[-1], states[3]
    rest, _ = last(training.train(squared, half, stream(5, start=4), optimizer))
    jax.tree.map(np.testing.assert_array_equal, whole, rest)


def test_the_state_that_is_passed_in_stays_usable():
    optimizer = optax.sgd(0.1)
    state = start(optimizer)
    last(training.train(squared, state, stream(3), optimizer))
    np.testing.assert_array_equal(state.params["w"], np.zeros(3))


def test_the_step_is_traced_once_for_each_shape_of_batch():
    optimizer = optax.sgd(0.1)
    counted = chex.assert_max_traces(squared, n=1)
    last(training.train(counted, start(optimizer), stream(4), optimizer))


def test_live_batch_norm_carries_its_statistics():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.BatchNorm(use_running_average=False)(x))

    net, optimizer = Net(), optax.sgd(0.05)
    shifted = [{"x": b["x"] + 3, "y": b["y"]} for b in stream(300)]
    variables = net.init(jax.random.key(0), shifted[0]["x"])

    def loss(params, extra, batch, key):
        del key
        out, extra = net.apply(
            {"params": params, "batch_stats": extra}, batch["x"], mutable="batch_stats"
        )
        return jnp.mean((out[:, 0] - batch["y"]) ** 2), (extra["batch_stats"], {})

    state = training.init(
        variables["params"],
        optimizer,
        key=jax.random.key(0),
        extra=variables["batch_stats"],
    )
    state, _ = last(training.train(loss, state, shifted, optimizer))
    mean = state.extra["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 3 * np.ones(3), atol=0.3)


def test_batches_on_several_devices_train_the_same_network(tmp_path):
    """Up to rounding; on as many devices as before, from a checkpoint, to the bit."""
    optimizer = optax.adam(0.1)
    one, _ = last(training.train(squared, start(optimizer), stream(5), optimizer))
    state, batches = training.spread(start(optimizer), stream(3))
    (batch,) = training.spread(state, stream(1))[1]
    assert {s.data.shape for s in batch["x"].addressable_shards} == {(2, 3)}
    half, _ = last(training.train(squared, state, batches, optimizer))
    checkpoints.save(tmp_path, half, {})
    whole, _ = last(
        training.train(
            squared, half, training.spread(half, stream(2, start=3))[1], optimizer
        )
    )
    like, rest = training.spread(start(optimizer), stream(2, start=3))
    read = checkpoints.restore(tmp_path, like)
    assert read.params["w"].sharding == like.params["w"].sharding
    again, _ = last(training.train(squared, read, rest, optimizer))
    np.testing.assert_allclose(whole.params["w"], one.params["w"], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_a_batch_that_cannot_be_divided_is_told():
    devices = jax.devices()[:3]
    _, batches = training.spread(start(optax.sgd(0.1)), stream(), devices=devices)
    with pytest.raises(ValueError, match="a batch of 8 cannot be divided among 3 dev"):
        next(batches)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x, r"`loss` must return \(loss, \(extra, log\)\)"),
        (lambda x: (x, {}), r"must return \(loss, \(extra, log\)\)"),
        (lambda x: (jnp.ones(2) * x, ({}, {})), r"a scalar, got shape \[2\]"),
        (lambda x: (x, ({}, x)), "must be a dict without the name 'loss'"),
        (lambda x: (x, ({}, {"loss": x})), "must be a dict without the name 'loss'"),
        (lambda x: (x, ({"mean": x}, {})), "`extra` in the structure it came in"),
    ],
)
def test_a_loss_that_returns_something_else_is_told(returned, message):
    optimizer = optax.sgd(0.1)

    def loss(params, extra, batch, key):
        del extra, key
        return returned(jnp.sum(params["w"] * batch["x"][0]))

    with pytest.raises(ValueError, match=message):
        last(training.train(loss, start(optimizer), stream(1), optimizer))


def test_a_key_that_cannot_be_stored_as_numbers_is_refused():
    for key in (jax.random.key(0, impl="rbg"), jax.random.split(jax.random.key(0))):
        with pytest.raises(ValueError, match="`key` must be one key of the default"):
            training.init({}, optax.sgd(0.1), key=key)


@pytest.mark.slow
@pytest.mark.optimized
def test_a_small_convnet_tells_the_birds_apart():
    from protojax.models import convnet

    net = convnet.ConvNet(classes=8, widths=(16, 32, 64, 96))
    apply = jax.vmap(net.apply, in_axes=(None, 0))

    def loss(params, extra, batch, key):
        del key
        logits = apply(params, batch["image"])
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.mean(each), (extra, {})

    steps = 700
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, 4e-3))
    params = net.init(jax.random.key(0), jnp.zeros((64, 64, 3)))
    state = training.init(params, optimizer, key=jax.random.key(0))
    batches = data.batches("parts:2500", "train", size=32, image_size=64, seed=0)
    few = itertools.islice(batches, steps)
    state, _ = last(training.train(loss, state, few, optimizer))
    test = data.load("parts:800", "test", image_size=64)
    logits = jax.lax.map(
        lambda x: net.apply(state.params, x), test["image"], batch_size=100
    )
    assert np.mean(np.argmax(logits, -1) == test["label"]) > 0.9
