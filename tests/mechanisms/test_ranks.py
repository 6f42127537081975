import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from protojax.mechanisms import ranks

centered, pairs = jax.jit(ranks.centered), jax.jit(ranks.pairs)


@pytest.mark.parametrize("levels", [1, 2, 7, 10_000])
@pytest.mark.parametrize("size", [2, 3, 64, 129])
def test_ranks_and_pairs_agree_with_counting(levels, size):
    rng = np.random.default_rng(size + levels)
    a, b = rng.integers(0, levels, (2, size)).astype(np.float32)
    expected = scipy.stats.rankdata(a) - (size + 1) / 2
    np.testing.assert_allclose(centered(a), expected)
    da = np.sign(a[:, None] - a)[np.triu_indices(size, 1)]
    db = np.sign(b[:, None] - b)[np.triu_indices(size, 1)]
    got = pairs(a, b)
    assert float(got.all) == da.size
    assert float(got.tied_a) == (da == 0).sum()
    assert float(got.tied_b) == (db == 0).sum()
    assert float(got.tied_both) == ((da == 0) & (db == 0)).sum()
    assert float(got.discordant) == (da * db < 0).sum()


def test_what_is_no_vector_is_refused():
    for run in (lambda a: ranks.centered(a), lambda a: ranks.pairs(a, a)):
        with pytest.raises(AssertionError, match="rank"):
            run(jnp.ones((2, 3)))
    with pytest.raises(AssertionError, match="shape"):
        ranks.pairs(jnp.ones(3), jnp.ones(2))


def test_both_zeros_are_equal():
    assert ranks.centered(jnp.array([0.0, -0.0, 1.0])).tolist() == [-0.5, -0.5, 1.0]
