"""Masks that keep what drives a score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import generation

X = jax.random.uniform(jax.random.key(0), (8, 8, 3), minval=0.4)


def corner(x):
    return 20 * x[:4, :4].mean()


def test_the_part_that_drives_the_score_is_kept_and_others_are_covered():
    run = jax.jit(
        jax.vmap(
            lambda area: generation.isolate(
                corner, X, background=0 * X, cells=8, area=area
            )
        )
    )
    found = run(jnp.array([1.0, 4.0, 200.0]))
    m = np.asarray(found.x[..., 0])
    assert m.shape == (3, 8, 8) and m.min() >= 0 and m.max() <= 1
    for mask in m[:2]:
        assert mask[:3, :3].min() > 0.8 and mask[5:, 5:].max() < 0.2
    means = m.mean((1, 2))
    assert means[0] > means[1] > means[2] and means[2] < 0.1
    value = corner(found.x[0] * X)
    np.testing.assert_allclose(found.value[0], value, rtol=1e-5)


def test_bad_masks_are_named():
    with pytest.raises(ValueError, match="`cells` is 1"):
        generation.isolate(corner, X, background=X, cells=1)
    with pytest.raises(ValueError, match="`background` has shape"):
        generation.isolate(corner, X, background=X[:4])
    with pytest.raises(ValueError, match="had no gradient at any step"):
        generation.isolate(corner, X, background=X, steps=2)


def test_what_does_not_matter_is_transparent():
    """And what does is opaque, and of the color that the score asks for."""
    red = lambda x: 6 * (x[:4, :, 0] - x[:4, :, 1]).mean()
    run = lambda area: generation.translucent(
        red, X, key=jax.random.key(0), steps=60, area=area
    )
    found = jax.jit(jax.vmap(run))(jnp.array([1.0, 30.0]))
    color, opacity = found.x[0, ..., :3], found.x[0, ..., 3]
    assert color[:3, 1:-1, 0].mean() > color[:3, 1:-1, 1].mean() + 0.3
    assert opacity[:3].mean() > 0.6 and opacity[5:].mean() < 0.4
    assert found.x[1, ..., 3].mean() < 0.3
    shown = generation.over(found.x[0], jnp.full((8, 8, 3), 0.5))
    np.testing.assert_allclose(found.value[0], red(shown), rtol=1e-5)
