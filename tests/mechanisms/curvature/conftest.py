"""What the tests of curvature share: double precision, and matrices from products."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def dense():
    def dense(matvec, like):
        """The matrix of an operator on trees, column by column."""
        flat, unravel = jax.flatten_util.ravel_pytree(like)
        column = lambda v: jax.flatten_util.ravel_pytree(matvec(unravel(v)))[0]
        return jax.lax.map(column, jnp.eye(flat.size, dtype=flat.dtype)).T

    return dense


@pytest.fixture(scope="session")
def symmetric():
    def symmetric(values, seed=0):
        """A symmetric matrix of these eigenvalues."""
        values = np.asarray(values)
        noise = np.random.default_rng(seed).normal(size=2 * values.shape)
        basis = np.linalg.qr(noise)[0]
        return jnp.asarray((basis * values) @ basis.T, jnp.result_type(float))

    return symmetric
