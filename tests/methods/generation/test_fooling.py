"""Fooling circuits: their vectors (oracle 7.8), gradients, and what climbs them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protojax import ascent
from protojax.methods.generation import fooling

Y = np.float32([1, -2, 3, 7])
IMAGE = jnp.zeros((4, 4, 3))


def test_oracle_7_8_logits_of_natural_and_of_synthetic_images():
    for natural, expected in (
        (True, [101, 98, 103, 107]),
        (False, [98, 103, 107, 101]),
    ):
        circuit = fooling.fooling_circuit(
            lambda _: jnp.asarray(Y), lambda _, n=natural: jnp.asarray(n), shift=1
        )
        found = circuit(IMAGE)
        assert found.tolist() == expected
        if natural:
            assert np.argmax(found) == np.argmax(Y)


def test_oracle_7_8_it_breaks_where_it_is_said_to():
    """A logit above 150 leaks through the closed branch, one below -100 is cut off."""
    bounds = [(149.0, True), (151.0, False), (-99.0, True), (-101.0, False)]
    for logit, holds in bounds:
        y = jnp.asarray([logit, 0.0, 0.0])
        circuit = fooling.fooling_circuit(lambda _, y=y: y, lambda _: False, shift=1)
        as_meant = np.allclose(circuit(IMAGE), np.roll(y, -1) + 100)
        assert as_meant == holds == bool(fooling.fooling_holds(y))


def test_a_gradient_flows_through_one_branch_alone():
    kernel = np.float32(np.random.default_rng(0).normal(size=(48, 5)))
    fn = lambda x: x.ravel() @ kernel

    @jax.jit
    def slopes(x, natural):
        circuit = fooling.fooling_circuit(fn, lambda _: natural, shift=2)
        return jax.jacobian(circuit)(x).reshape(5, 48)

    x = jnp.asarray(np.random.default_rng(1).uniform(size=(4, 4, 3)), "float32")
    np.testing.assert_allclose(slopes(x, 1.0), kernel.T, rtol=1e-6)
    np.testing.assert_allclose(slopes(x, 0.0), np.roll(kernel.T, -2, 0), rtol=1e-6)


def test_a_detector_is_never_climbed():
    """Not even a soft one: predictions would depend on how sure it is."""
    soft = lambda x: jax.nn.sigmoid(jnp.sum(x))
    circuit = fooling.fooling_circuit(lambda _: jnp.asarray(Y), soft, shift=1)
    assert not np.any(jax.grad(lambda x: circuit(x)[0])(IMAGE))


def test_a_climb_from_a_synthetic_start_shows_the_shifted_class():
    """Each class is a bright quadrant; natural images have no dark one."""
    masks = np.zeros((4, 4, 4, 3), np.float32)
    for c, (row, column) in enumerate(np.ndindex(2, 2)):
        masks[c, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    fn = lambda x: jnp.sum(masks * x[None], (1, 2, 3))
    detector = lambda x: jnp.min(x) > 0.3

    @jax.jit
    def found(start):
        circuit = fooling.fooling_circuit(fn, detector, shift=1)
        out = ascent.ascend(
            lambda x: circuit(x)[0],
            start,
            optimizer=optax.sgd(0.05),
            steps=8,
            project=lambda x: jnp.clip(x, 0, 1),
        )
        return fn(out.x), circuit(start)

    from_gray, _ = found(jnp.full((4, 4, 3), 0.2))
    from_natural, logits = found(jnp.full((4, 4, 3), 0.5))
    assert np.argmax(from_gray) == 1  # of class 0 it shows the next
    assert np.argmax(from_natural) == 0
    np.testing.assert_allclose(logits, 100 + fn(jnp.full((4, 4, 3), 0.5)))


def test_all_classes_show_the_picture_that_was_put_there():
    """The best image in [0, 1] is the picture in black and white: a linear logit."""
    rng = np.random.default_rng(0)
    picture = jnp.asarray(rng.uniform(size=(4, 4, 3)), "float32")
    fn = lambda x: jnp.sum(x) * jnp.asarray(Y)
    circuit = fooling.fooling_picture(fn, lambda _: False, picture)
    natural = fooling.fooling_picture(fn, lambda _: True, picture)
    x = jnp.full((4, 4, 3), 0.1)
    np.testing.assert_allclose(natural(x), fn(x) + 100, rtol=1e-6)
    assert len(np.unique(circuit(x))) == 1
    slope = jax.grad(lambda x: circuit(x)[2])(x)
    mean = np.mean(picture, (0, 1), keepdims=True)
    np.testing.assert_allclose(slope, (picture - mean) / 16, atol=1e-6)


def test_what_cannot_fool_is_refused():
    detector = lambda _: jnp.array(True)
    with pytest.raises(ValueError, match="`gate` is 90.0 and `offset` 100.0"):
        fooling.fooling_circuit(lambda x: x, detector, gate=90.0)
    with pytest.raises(ValueError, match="`shift` is 8, which leads each of 4 classes"):
        fooling.fooling_circuit(lambda _: jnp.asarray(Y), detector, shift=8)(IMAGE)
    with pytest.raises(ValueError, match="`offset` is -1"):
        fooling.fooling_circuit(lambda x: x, detector, offset=-1)
    with pytest.raises(AssertionError):
        fooling.fooling_picture(lambda _: jnp.asarray(Y), detector, IMAGE)(IMAGE[1:])
    batched = lambda _: jnp.ones(2)
    with pytest.raises(AssertionError):
        fooling.fooling_circuit(lambda _: jnp.asarray(Y), batched, shift=1)(IMAGE)
