"""Excitation backprop and I-GOS against their oracles and brute force."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attributions, models

X, W, P = (
    np.array([1.0, 2, 3]),
    np.array([[1, -1, 0.5], [-2, 1, 0]]),
    np.array([0.6, 0.4]),
)
KEY = jax.random.key(0)


def rounded(values):
    return [round(float(value), 6) for value in values]


def test_F10_excitation_of_one_layer():
    fn = lambda x: jnp.asarray(W, jnp.float32) @ x + 7  # a bias gets nothing
    x, start = jnp.float32(X), jnp.float32(P)
    down = activations.excitation(fn, x, start=start)
    assert rounded(down) == [0.24, 0.4, 0.36] and down.sum() == pytest.approx(1)
    opposite = activations.excitation(lambda x: -fn(x), x, start=start)
    assert rounded(opposite) == [0.4, 0.6, 0.0]
    contrast = activations.contrastive(fn, x, start=start)
    assert rounded(contrast) == [-0.16, -0.2, 0.36]


def test_excitation_of_a_stack_is_the_product_of_its_layers_probabilities():
    rng = np.random.default_rng(0)
    sizes = [6, 5, 4, 1]
    kernels = [rng.normal(size=pair) for pair in zip(sizes[1:], sizes, strict=False)]

    def fn(x):
        for kernel in kernels:
            x = jax.nn.relu(jnp.float32(kernel) @ x + 0.5)
        return x[0]

    x = rng.uniform(size=6)
    values = [x]
    for kernel in kernels:
        values.append(np.maximum(kernel @ values[-1] + 0.5, 0))
    message = np.ones(1)
    for kernel, value in zip(kernels[::-1], values[-2::-1], strict=True):
        added = np.maximum(kernel, 0) * value
        totals = added.sum(1, keepdims=True)
        message = (message[:, None] * added / np.where(totals > 0, totals, 1)).sum(0)
    found = jax.jit(lambda x: activations.excitation(fn, x))(jnp.float32(x))
    np.testing.assert_allclose(found, message, atol=1e-6)
    assert found.sum() == pytest.approx(message.sum(), rel=1e-5)


class Residual(nn.Module):
    """Normalization, a skip connection, pooling of both kinds."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Conv(4, (3, 3))(x))
        inner = nn.relu(nn.Conv(4, (3, 3))(h))
        inner = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(inner))
        h = nn.max_pool(nn.relu(h + inner), (2, 2), (2, 2))
        return nn.relu(nn.Dense(3)(jnp.mean(h, (0, 1))))[0]


def test_mass_is_kept_down_to_the_image_through_skips_norms_and_pools():
    x = jax.random.uniform(KEY, (8, 8, 3))
    model = Residual()

    @jax.jit
    def read(params, x):
        return activations.excitation(lambda x: model.apply(params, x), x)

    signed = jax.jit(model.init)(KEY, x)
    positive = jax.tree.map(lambda leaf: np.abs(leaf) + np.float32(0.01), signed)
    found, lost = read(positive, x), read(signed, x)
    # Weights above zero: every unit is excited, and nothing is lost.
    assert found.sum() == pytest.approx(1, rel=1e-4) and found.min() >= 0
    assert lost.min() >= 0 and lost.sum() <= 1 + 1e-5


def test_a_skip_connection_gives_each_branch_what_it_adds():
    fn = lambda x: jnp.sum(jax.nn.relu(3 * x[:1] + x[1:]))
    found = activations.excitation(fn, jnp.array([1.0, 1.0]))
    assert rounded(found) == [0.75, 0.25]
    away = lambda x: x[0] - x[1]
    assert rounded(activations.excitation(away, jnp.array([1.0, 2.0]))) == [1, 0]
    assert rounded(activations.excitation(away, jnp.array([1.0, -3.0]))) == [0.25, 0.75]


@pytest.mark.slow
def test_the_map_can_be_read_at_a_layer_of_a_real_network():
    x = jax.random.uniform(KEY, (16, 16, 3))
    model = models.CifarResNet(8)
    variables = model.init(KEY, x)
    fn = lambda x: model.apply(variables, x)[1]

    @jax.jit
    def read(x):
        value = activations.record(fn, ["layer2.0"])(x)[1]["layer2.0"]
        upper = activations.intervene(fn, "layer2.0")
        return activations.excitation(lambda h: upper(x, h), value)

    found = read(x)
    assert found.shape == (8, 8, 32) and found.min() >= 0
    assert 0 < found.sum() <= 1 + 1e-5


def test_igos_hides_what_the_score_needs_and_nothing_else():
    x = jnp.full((16, 16, 3), 0.2).at[4:8, 8:12].set(0.9)
    score = lambda z: jnp.tanh(4 * jnp.mean(z[4:8, 8:12] - 0.2)) / jnp.tanh(2.8)

    def masked(x):
        return attributions.igos(
            score, x, key=KEY, baseline=0 * x + 0.2, size=8, smooth=0.5, points=5
        )

    a = jax.jit(masked)(x)
    assert a.shape == x.shape and a.min() >= 0
    hidden = a.sum(-1)
    assert hidden.max() <= 1 + 1e-6
    assert hidden[4:8, 8:12].mean() > 0.8
    far = hidden.at[2:10, 6:14].set(0.0)
    assert far.max() < 0.35
    left = x * (1 - hidden[..., None]) + 0.2 * hidden[..., None]
    assert score(left) < 0.3


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"size": 1}, "`size` is 1"),
        ({"steps": 0}, "`steps`"),
        ({"points": 0}, "`points`"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        attributions.igos(jnp.sum, jnp.ones((8, 8, 3)), key=KEY, **knobs)
