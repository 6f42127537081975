"""Entanglement of classes against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from protojax import images
from protojax.methods.generation import entanglement

KERNEL = np.float32(np.random.default_rng(0).normal(size=(48, 3)))
X = np.float32(np.random.default_rng(1).uniform(size=(4, 4, 3)))
GRAY = np.full((4, 4, 3), 0.5, np.float32)


def fn(x):
    return x.ravel() @ KERNEL


def test_what_a_picture_raises_is_measured_from_the_baseline():
    found = entanglement.class_entanglement(fn, X, baseline=GRAY)
    logits = X.ravel() @ KERNEL
    expected = scipy.special.softmax(logits)
    np.testing.assert_allclose(found.probability, expected, rtol=1e-5)
    np.testing.assert_allclose(found.logit, (X - GRAY).ravel() @ KERNEL, rtol=1e-4)


def test_picture_and_baseline_meet_the_same_transforms():
    """So a linear network rises by the mean of what the transforms make of them."""
    blink = lambda x, *, key: x * jax.random.uniform(key)
    key = jax.random.key(0)

    @functools.partial(jax.jit, static_argnums=1)
    def look(x, samples):
        return entanglement.class_entanglement(
            fn, x, baseline=GRAY, transform=blink, key=key, samples=samples
        )

    found = look(X, 5)
    scales = jax.vmap(jax.random.uniform)(jax.random.split(key, 5))
    expected = np.mean(scales) * ((X - GRAY).ravel() @ KERNEL)
    np.testing.assert_allclose(found.logit, expected, rtol=1e-4)
    np.testing.assert_allclose(np.sum(found.probability), 1, rtol=1e-6)
    assert not np.any(look(GRAY, 5).logit)


def test_matrices_are_compared_off_their_diagonals():
    rng = np.random.default_rng(2)
    a, b = np.float32(rng.uniform(size=(2, 5, 5)))
    away = ~np.eye(5, dtype=bool)
    expected = scipy.stats.spearmanr(a[away], b[away]).statistic
    found = entanglement.matrix_correlation(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    other = a + 9 * np.eye(5, dtype=np.float32)
    for matrix in (a, other):
        again = entanglement.matrix_correlation(jnp.asarray(matrix), jnp.asarray(b))
        np.testing.assert_allclose(again, expected, rtol=1e-5)
    assert entanglement.asymmetry(jnp.asarray(a + a.T)) == 0
    assert entanglement.asymmetry(jnp.triu(jnp.asarray(a))) == 1


def test_what_makes_no_matrix_or_has_no_key_is_refused():
    with pytest.raises(ValueError, match=r"`matrix` has shape \(2, 3\)"):
        entanglement.asymmetry(jnp.ones((2, 3)))
    shift = functools.partial(images.jitter, pixels=1)
    with pytest.raises(ValueError, match="`transform` is random: pass `key`"):
        entanglement.class_entanglement(fn, X, baseline=GRAY, transform=shift)
    with pytest.raises(ValueError, match="`samples` is 0"):
        entanglement.class_entanglement(fn, X, baseline=GRAY, samples=0)
