"""What other libraries' cases say of attributions (`peers`), besides their numbers.

The numbers are in `protojax.conformance`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from protojax import attributions
from tests.small import explain

relu = jax.nn.relu


integrated = attributions.integrated_gradients


def test_peers_a4_weights_sum_to_one():
    for name in ("left", "right", "midpoint", "trapezoid", "gauss_legendre"):
        np.testing.assert_allclose(sum(getattr(attributions, name)(7)[1]), 1)


def test_peers_a8_functional_and_reused_activations_add_up():
    act = functools.partial(jnp.maximum, 0.0)
    weights = jax.random.normal(jax.random.key(3), (5, 5))

    def f(x):
        return jnp.sum(act(weights @ act(weights @ x - 0.3) + 0.1))

    x = jax.random.normal(jax.random.key(4), (5,))
    found = explain(attributions.deep_lift, f, x)
    np.testing.assert_allclose(jnp.sum(found), f(x) - f(0 * x), atol=1e-5)


def multilayer(x):
    """Captum's `BasicModel_MultiLayer`, first output."""
    h = jnp.ones((4, 3)) @ x.ravel() + jnp.array([-10.0, 1, 1, 1])
    return jnp.ones(4) @ jax.nn.relu(h) - 1


def test_peers_a10_conductance_of_the_input_is_integrated_gradients():
    x = jnp.array([[[0.0, 100.0, 0.0]]])
    np.testing.assert_allclose(
        integrated(multilayer, x, steps=500).ravel(), [0, 390, 0], atol=0.1
    )
