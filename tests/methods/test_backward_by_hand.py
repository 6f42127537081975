"""Backward passes against loops written by hand, and what they refuse."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attributions

KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (12, 12, 3))


def test_a_loop_on_the_way_is_named():
    def score(x):
        return jnp.sum(jax.lax.scan(lambda c, _: (c * c, None), x, None, length=2)[0])

    for method in (attributions.deep_lift, attributions.lrp):
        with pytest.raises(
            ValueError, match="no backward rule for `scan` at .*test_backward"
        ):
            method(score, X)


def test_a_choice_that_depends_on_the_image_is_refused_between_two_points():
    def score(x):
        logits = x.sum((0, 1))
        return logits[logits.argmax()]

    with pytest.raises(ValueError, match="chooses by the image"):
        attributions.deep_lift(score, X)


def test_winner_take_all_is_the_plain_route_of_max_pooling():
    def score(x):
        return jnp.sum(nn.max_pool(x, (3, 3), (2, 2)) * 2)

    baseline = 1 - X
    x = X - baseline
    lift = functools.partial(attributions.deep_lift, score, baseline=baseline)
    plain = jax.jit(functools.partial(lift, pool=activations.winner_take_all))(X)
    np.testing.assert_allclose(plain, x * jax.jit(jax.grad(score))(X), rtol=1e-6)
    wanted = score(X) - score(baseline)
    np.testing.assert_allclose(jnp.sum(jax.jit(lift)(X)), wanted, atol=1e-4)


def test_lrp_gamma_favors_a_bias_of_the_outputs_sign_as_well():
    """Montavon et al. 2019: the sum in the denominator has the bias among its terms."""

    @jax.jit
    def run(x):
        layers = [lambda x, b=b: x @ jnp.array([2.0, -1.0]) + b for b in (3.0, -9.0)]
        rule = activations.gamma(1.0)
        return [activations.relevances(f, x, rule=rule) for f in layers]

    up, down = run(jnp.ones(2))  # of 4 and of -8
    np.testing.assert_allclose(up, 4 * np.array([4, -1]) / (4 - 1 + 6), rtol=1e-6)
    np.testing.assert_allclose(down, -8 * np.array([2, -2]) / (2 - 2 - 18), rtol=1e-6)


def dense(x, weights, biases):
    h = x.ravel()
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        h = nn.relu(w @ h + b)
    return weights[-1][0] @ h + biases[-1][0]


def divide(relevance, z):
    return np.where(relevance == 0, 0, relevance / np.where(relevance == 0, 1, z))


def deep_taylor_by_hand(x, weights, biases, low, high):
    """The loop of the authors' code, for dense layers."""
    values = [x.ravel()]
    for w, b in zip(weights, biases, strict=True):
        values.append(np.maximum(w @ values[-1] + b, 0))
    relevance = np.zeros(len(values[-1]))
    relevance[0] = (weights[-1] @ values[-2] + biases[-1])[0]
    for w, a in zip(weights[:0:-1], values[-2:0:-1], strict=True):
        plus = np.maximum(w, 0)
        relevance = a * (plus.T @ divide(relevance, plus @ a))
    w, a = weights[0], values[0]
    plus, minus = np.maximum(w, 0), np.minimum(w, 0)
    s = divide(relevance, w @ a - plus @ low - minus @ high)
    return a * (w.T @ s) - low * (plus.T @ s) - high * (minus.T @ s)


def without_bias_by_hand(x, weights, biases):
    values, units = [x.ravel()], []
    for w, b in zip(weights, biases, strict=True):
        units.append((w @ values[-1], b))
        values.append(np.maximum(w @ values[-1] + b, 0))
    relevance = np.zeros(len(values[-1]))
    relevance[0] = sum(units[-1])[0]
    for w, a, (z, _) in zip(weights[::-1], values[-2::-1], units[::-1], strict=True):
        relevance = a * (w.T @ divide(relevance, z))
    return relevance


def small_dense():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s).astype("float32") for s in ((8, 12), (6, 8), (2, 6))]
    biases = [rng.uniform(0.1, 0.3, len(w)).astype("float32") for w in weights]
    return rng.uniform(size=(2, 2, 3)).astype("float32"), weights, biases


def test_deep_taylor_is_the_authors_loop():
    x, weights, biases = small_dense()
    low, high = np.zeros(12), np.ones(12)
    wanted = deep_taylor_by_hand(x, weights, biases, low, high)
    found = attributions.deep_taylor(
        lambda x: dense(x, weights, biases), jnp.asarray(x)
    )
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-4, atol=1e-5)


def test_relevance_without_bias_is_the_authors_loop():
    x, weights, biases = small_dense()
    wanted = without_bias_by_hand(x, weights, biases)
    found = attributions.lrp(
        lambda x: dense(x, weights, biases),
        jnp.asarray(x),
        rule=activations.without_bias,
    )
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-4, atol=1e-5)


def test_a_normalization_before_and_after_a_layer_belongs_to_it():
    rng = np.random.default_rng(1)
    w = rng.normal(size=(12, 4)).astype("float32")
    scale = rng.normal(size=4).astype("float32")
    x = rng.uniform(size=(2, 2, 3)).astype("float32")

    def score(x):
        return jnp.sum(((x.ravel() - 0.4) / 0.2) @ w * scale + 0.3)

    a, outputs = x.ravel(), ((x.ravel() - 0.4) / 0.2) @ w * scale + 0.3
    plus = np.maximum(w / 0.2 * scale, 0)
    wanted = a * (plus @ (outputs / (a @ plus)))
    found = activations.relevances(score, jnp.asarray(x), rule=activations.z_plus)
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-4, atol=1e-5)
