"""Products that TF32 and bfloat16 would spoil say what precision they need.

Read off the traced programs, under a default that drops it: on a CPU no result would
show it. Those of curvature are tested beside it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import cladec, curvature, influence, prototypes, srae
from tests import small

KEY = jax.random.key(0)
DRAW = np.random.default_rng(0)
HEAD = {"kernel": jnp.asarray(DRAW.normal(size=(3, 2)), jnp.float32)}
PHI = jnp.asarray(DRAW.normal(size=(5, 3)), jnp.float32)
TRAIN = {"features": PHI, "label": jnp.arange(5) % 2}
TEST = {"features": PHI[0], "label": 0}
LOSS = influence.softmax_loss
MATRIX = PHI.T @ PHI


def inverse(head):
    matvec = curvature.mean_hessian(LOSS, head, TRAIN)
    return functools.partial(curvature.solve, matvec, damping=0.1)


def lissa(head):
    matvec = curvature.mean_hessian(LOSS, head, TRAIN)
    sampled = influence.sampled_hessian(LOSS, head, TRAIN, size=2)
    return influence.lissa(
        matvec, sampled, key=KEY, scale=9.0, damping=0.1, steps=2, tol=9.0
    )


def projected(head):
    matrix = influence.softmax_hessian(head, PHI)
    return influence.projected(influence.all_eigenpairs(matrix, head), damping=0.1)


def chosen(head):
    return influence.direction(LOSS, head, TRAIN, jnp.arange(2), inverse(head)).x


PRODUCTS = {
    "influences": lambda h: influence.of_training(LOSS, h, TRAIN, TEST, inverse(h)),
    "influences, LiSSA": lambda h: influence.of_training(
        LOSS, h, TRAIN, TEST, lissa(h)
    ),
    "influences, eigenpairs": lambda h: influence.of_training(
        LOSS, h, TRAIN, TEST, projected(h)
    ),
    "direction": chosen,
    "slope": lambda h: influence.slope(LOSS, h, TEST, HEAD),
    "attacked influence": lambda h: jax.grad(
        lambda phi: influence.slope(LOSS, h, {**TEST, "features": phi}, HEAD)
    )(PHI[0]),
    "squared distances": lambda h: prototypes.squared_distances(
        PHI[None], h["kernel"].T
    ),
    "cosine distances": lambda h: prototypes.cosine_distances(PHI[None], h["kernel"].T),
    "attacked distances": lambda h: jax.grad(
        lambda z: jnp.sum(prototypes.squared_distances(z, h["kernel"].T))
    )(PHI[None]),
    "pull-away": lambda h: srae.pull_away(PHI * h["kernel"][:, :1].T),
    "least squares": lambda h: srae.least_squares(PHI, PHI[:, :2] * h["kernel"][:1]),
    "linear error": lambda h: cladec.linear_error(MATRIX, h["kernel"].T),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_default_of_low_precision_is_overruled(name):
    with jax.default_matmul_precision("bfloat16"):
        found = small.precisions(PRODUCTS[name], HEAD)
    assert found and set(found) == {"(Precision.HIGHEST,"}


def test_a_product_that_asks_for_nothing_is_seen():
    with jax.default_matmul_precision("bfloat16"):
        found = small.precisions(lambda x: x @ x, MATRIX)
        with_conv = small.precisions(
            lambda x: jax.lax.conv(x[None, None], x[None, None], (1, 1), "SAME"), MATRIX
        )
    assert set(found) != {"(Precision.HIGHEST,"} != set(with_conv)
    assert len(found) == len(with_conv) == 1
