import jax.numpy as jnp
import numpy as np
import pytest

from protojax.models import layers


def test_channels_are_shifted_and_scaled_one_by_one():
    x = np.random.default_rng(0).uniform(size=(4, 5, 3)).astype("float32")
    out = layers.normalize(jnp.asarray(x), layers.IMAGENET_MEAN, layers.IMAGENET_STD)
    for channel in range(3):
        mean, std = layers.IMAGENET_MEAN[channel], layers.IMAGENET_STD[channel]
        np.testing.assert_allclose(
            out[..., channel], (x[..., channel] - mean) / std, rtol=1e-5, atol=1e-6
        )


def test_a_single_number_serves_any_channels():
    assert (
        layers.normalize(jnp.ones((2, 2, 1)), 0.5, 0.25).tolist() == [[[2.0]] * 2] * 2
    )


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2, 3), (2, 2, 4)])
def test_what_is_no_image_of_these_channels_is_refused(shape):
    with pytest.raises((AssertionError, ValueError)):
        layers.normalize(jnp.zeros(shape), (0.5,) * 3, (0.5,) * 3)
