"""Projected gradients in the cases of other libraries' own tests.

Those that are one function of one input are in `protojax.conformance`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protojax.mechanisms import ascent
from protojax.methods import attacks

# The inputs of these are not images: they are moved into [0, 1], and the radius with
# them, which changes neither signs nor balls.
LOW, SPAN = -10.0, 20.0


def outside(x):
    return LOW + SPAN * x


def in_box(values):
    return (np.float32(values).reshape(1, -1, 1) - LOW) / SPAN


def neuron_loss(target, sign):
    """Captum's BasicModel, 1 - relu(1 - x), under the loss -log: its sign counts."""

    def loss(x):
        f = 1 - jax.nn.relu(1 - outside(x).ravel()[target])
        return -sign * jnp.log(jnp.abs(f))

    return loss


def test_peers_b4_two_inputs_in_a_ball_each():
    a = jnp.array([[4.0, -1.0], [3.0, 10.0]])
    b = jnp.array([[2.0, -5.0], [-2.0, 1.0]])

    def loss(pair):
        f = jax.nn.relu(jax.nn.relu(pair[0]) - 1 - jax.nn.relu(pair[1]))
        return -jnp.log(f[0])

    def attack(a, b):
        wide = functools.partial(ascent.within, norm="l2", bounds=(-50.0, 50.0))
        balls = wide(a, 0.25), wide(b, 0.25)
        return ascent.ascend(
            loss,
            (a, b),
            optimizer=optax.sign_sgd(0.1),
            steps=3,
            project=lambda z: (balls[0](z[0]), balls[1](z[1])),
        ).x

    moved_a, moved_b = jax.jit(jax.vmap(attack))(a, b)
    np.testing.assert_allclose(moved_a, [[3.75, -1], [2.75, 10]], atol=0.01)
    np.testing.assert_allclose(moved_b, [[2.25, -5], [-2, 1]], atol=0.01)


def multi_layer(x):
    hidden = jnp.sum(x) + jnp.array([-10.0, 1.0, 1.0, 1.0])
    return jnp.sum(jax.nn.relu(hidden)) + jnp.array([-1.0, 1.0])


def test_peers_b5_one_step_along_every_pixel():
    def step(loss, x, radius):
        attack = functools.partial(
            attacks.pgd,
            loss,
            radius=radius / SPAN,
            step_size=radius / SPAN,
            steps=1,
            select=lambda z: jnp.sum(jnp.abs(z - in_box(x))),
        )
        return jax.jit(attack)(in_box(x))

    shift = jnp.array([-1.0, 2.0, 2.0])

    def loss(x):
        return -jnp.log(multi_layer(outside(x).ravel() + shift)[0])

    # The peer's loss falls along every pixel; its answer is x - radius for all three.
    out = step(loss, (1, 6, -3), 0.2)
    np.testing.assert_allclose(outside(out.x).ravel(), [0.8, 5.8, -3.2], atol=0.01)


@pytest.mark.parametrize("steps", [1, 2])
def test_peers_b5_a_mask_that_hides_the_gradient_is_stalled(steps):
    x = in_box((2, -9, 9, 1, -3))
    mask = jnp.array([[1, 1, 0, 0, 0]])
    with pytest.raises(ascent.Stalled, match="a mask that hides"):
        attacks.pgd(
            neuron_loss(4, 1), x, radius=0.01, step_size=0.01, steps=steps, mask=mask
        )
