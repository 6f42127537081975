"""What is to be shown, against NumPy on a recorded layer; and dead ReLUs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from protojax import activations, ascent, generation, objectives

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 2, 4)) / 3, jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
X = jnp.asarray(RNG.uniform(size=(6, 5, 2)), jnp.float32)
NAMES = {"lhs": "NHWC", "rhs": "HWIO", "out": "NHWC"}


def fn(x):
    h = jax.lax.conv_general_dilated(
        x[None], KERNEL, (1, 1), "SAME", dimension_numbers=tuple(NAMES.values())
    )[0]
    h = checkpoint_name(h, "before")
    h = checkpoint_name(jax.nn.relu(h), "after")
    return checkpoint_name(jnp.mean(h, (0, 1)) @ HEAD, "logits")


H = np.asarray(activations.layer(fn, "before")(X), np.float64)
VECTOR = jnp.asarray(RNG.normal(size=4), jnp.float32)


def aligned(h, v, power):
    dot = h @ v
    cosine = dot / np.linalg.norm(h, axis=-1) / np.linalg.norm(v)
    return dot * np.maximum(0.1, cosine) ** power


def test_units_are_those_of_the_layer():
    v = np.asarray(VECTOR, np.float64)
    other = np.asarray(activations.layer(fn, "before")(1 - X), np.float64)
    wanted = {
        "channel": (generation.channel(fn, "before", 2), H[..., 2].mean()),
        "logits": (generation.channel(fn, "logits", 1), fn(X)[1]),
        "middle": (generation.neuron(fn, "before", 1), H[3, 2, 1]),
        "neuron": (generation.neuron(fn, "before", 1, position=(5, 0)), H[5, 0, 1]),
        "direction": (generation.direction(fn, "before", VECTOR), (H @ v).mean()),
        "cosine": (
            generation.direction(fn, "before", VECTOR, power=2.0),
            aligned(H, v, 2).mean(),
        ),
        "there": (
            generation.direction(fn, "before", VECTOR, power=4.0, position=(1, 2)),
            aligned(H[1, 2], v, 4),
        ),
        "deepdream": (generation.deepdream(fn, "before"), (H**2).mean()),
        "caricature": (
            generation.caricature(fn, "before", 1 - X, power=1.0),
            aligned(H.ravel(), other.ravel(), 1),
        ),
        "linear": (
            objectives.linear(activations.layer(fn, "before"), jnp.ones((6, 5, 4))),
            H.sum(),
        ),
        "probability": (objectives.probability(fn, 2), jax.nn.softmax(fn(X))[2]),
    }

    @jax.jit
    def both(x):
        at = lambda x: {name: objective(x) for name, (objective, _) in wanted.items()}
        return at(x), jax.jacrev(at)(x)

    values, slopes = both(X)
    for name, (_, expected) in wanted.items():
        assert float(values[name]) == pytest.approx(float(expected), rel=1e-4), name
        assert jnp.all(jnp.isfinite(slopes[name])) and jnp.any(slopes[name]), name


def test_oracle_7_6_dot_times_cosine():
    identity = lambda x: checkpoint_name(1.0 * x, "layer")
    v = np.float32([0.6, -0.3, 1.1])
    square = float(np.sum(v**2))
    along = generation.direction(identity, "layer", v, power=2.0)
    program = jax.jit(jax.value_and_grad(along))
    at = lambda h: program(h.reshape(1, 1, 3))
    assert at(v)[0] == pytest.approx(square, rel=1e-6)
    assert at(-v)[0] == pytest.approx(-0.01 * square, rel=1e-5)
    h = np.float32([0.2, 0.5, 0.4])
    assert at(3 * h)[0] == pytest.approx(3 * float(at(h)[0]), rel=1e-5)
    silent = at(0 * h)[1]  # where nothing is to be seen yet
    np.testing.assert_allclose(silent.ravel(), 0.01 * v, rtol=1e-5)


def test_oracle_7_6_the_middle_of_an_even_size_is_after_its_half():
    identity = lambda x: checkpoint_name(1.0 * x, "layer")
    x = jnp.arange(24.0).reshape(4, 6, 1)
    assert float(generation.neuron(identity, "layer", 0)(x)) == float(x[2, 3, 0])


def test_traced_units_are_one_program_and_bad_ones_are_nan():
    @jax.jit
    @jax.vmap
    def at(unit, row):
        return (
            generation.channel(fn, "before", unit)(X),
            generation.neuron(fn, "before", unit, position=(row, 0))(X),
        )

    units, rows = jnp.array([0, 3, 4, -1, 1]), jnp.array([0, 5, 0, 0, 6])
    channels, neurons = at(units, rows)
    np.testing.assert_allclose(channels[:2], H.mean((0, 1))[[0, 3]], rtol=1e-4)
    np.testing.assert_allclose(neurons[:2], [H[0, 0, 0], H[5, 0, 3]], rtol=1e-4)
    assert np.isnan(channels[2:4]).all() and np.isnan(neurons[2:]).all()


def test_layers_and_units_that_do_not_exist_are_named():
    refused = {
        "no layer is called 'nowhere': there is": generation.channel(fn, "nowhere", 0),
        "`unit` is 4 but there are 4 channels": generation.channel(fn, "before", 4),
        "`unit` is -1": generation.neuron(fn, "before", -1),
        "`position` is 6 but there are 6 places along this axis": generation.neuron(
            fn, "before", 0, position=(6, 0)
        ),
        "has 0 positional axes": generation.neuron(fn, "logits", 0, position=(0, 0)),
        "layer 'before' has 4 channels": generation.direction(
            fn, "before", jnp.ones(3)
        ),
        "`y` is 3 but there are 3 classes": objectives.probability(fn, 3),
    }
    for message, objective in refused.items():
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(objective, X)
    with pytest.raises(ValueError, match="no layer is called 'nowhere'"):
        generation.caricature(fn, "nowhere", X)


def test_oracle_7_6_redirected_relus():
    """Per example, and per ReLU: all of it is dead, or nothing is changed."""
    weights = jnp.asarray([1.0, -2.0, 3.0])
    score = lambda z: jnp.sum(weights * jax.nn.relu(z))
    redirected = activations.redirected(score)

    @jax.jit
    @jax.vmap
    def both(z):
        off = activations.redirected(score, enabled=False)
        slopes = [jax.grad(f)(z) for f in (score, redirected, off)]
        return redirected(z) - score(z), slopes

    examples = jnp.array([[-1.0, -1.0, -1.0], [2.0, -1.0, -1.0], [0.5, 0.5, 0.5]])
    gap, (usual, found, off) = both(examples)
    assert not gap.any()
    np.testing.assert_array_equal(found[0], [1, 0, 3])  # only what is raised
    np.testing.assert_array_equal(found[1:], usual[1:])
    np.testing.assert_array_equal(off, usual)
    clipped = activations.redirected(lambda z: jnp.sum(weights * jax.nn.relu6(z)))
    slope = jax.grad(clipped)(jnp.array([7.0, 8.0, -1.0]))
    np.testing.assert_array_equal(slope, [0, -2, 3])  # back from above six, too
    with pytest.raises(activations.NoReLU):
        activations.redirected(jnp.sum)(examples)


def test_a_dead_unit_is_climbed_by_a_redirected_gradient_and_else_reported():
    dead = lambda x: jax.nn.relu(jnp.sum(x) - 3.0)
    climbed = functools.partial(
        generation.generate, dead, generation.pixels(jnp.zeros((2, 2, 1)))
    )

    @jax.jit
    def redirected():
        return climbed(steps=40, redirect=30), climbed(steps=6, redirect=3)

    alive, given_up = redirected()
    assert float(alive.value) > 0.5
    np.testing.assert_array_equal(given_up.strength, 3)  # none after the third
    with pytest.raises(ascent.Stalled, match="had no gradient at any step"):
        climbed(steps=3)
