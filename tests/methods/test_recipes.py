"""What the recipes promise: the best of what keeps the label, and noise drawn anew."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.methods import attacks, metrics, objectives
from tests.small import network, saliency

KEY = jax.random.key(3)
SMALL = {"radius": 0.03, "step_size": 0.01, "steps": 4}


@pytest.mark.parametrize("name", ["top_k", "targeted", "mass_center_truncated"])
def test_fragility_9_7_no_iterate_that_keeps_the_label_is_better(name):
    net, x = network()
    # the label is another further away than 0.035 per pixel
    far = lambda z: jnp.mean((z - x) ** 2) - 0.035**2
    fn = lambda z: net(z)[0] + jnp.stack([0.0, far(z)])
    explain, ball = saliency(fn), {"radius": 0.05, "step_size": 0.01, "steps": 9}
    region = jnp.zeros((5, 4)).at[0].set(1)
    center = jnp.trunc(metrics.center_of_mass(explain(x)))
    shift = lambda z: metrics.center_shift(explain(x), explain(z))
    climbed, damage = {
        "top_k": (objectives.top_k(explain, explain(x), k=3),) * 2,
        "targeted": (objectives.linear(explain, region),) * 2,
        "mass_center_truncated": (objectives.center_distance(explain, center), shift),
    }[name]
    low, high = jnp.maximum(x - 0.05, 0), jnp.minimum(x + 0.05, 1)

    def step(z, _):
        return jnp.clip(z + 0.01 * jnp.sign(jax.grad(climbed)(z)), low, high), z

    @jax.jit
    def replayed(x):
        _, iterates = jax.lax.scan(step, x, length=10)
        kept = objectives.label_kept(damage, fn, x)
        return jax.lax.map(lambda z: (kept(z), damage(z)), iterates)

    kept, regardless = replayed(x)
    out = jax.jit(functools.partial(RECIPES[name], fn, explain, **ball))(x)
    assert np.isinf(kept).any() and max(regardless) > max(kept) > kept[0]
    np.testing.assert_allclose(out.value, max(kept), rtol=1e-5)
    assert int(out.step) == int(np.argmax(kept))


def test_a_measure_chooses_the_iterate():
    fn, x = network()
    explain = saliency(fn, y=int(fn(x).argmax()))

    def lost(a, b):
        return 1 - metrics.top_k_intersection(a, b, k=4)

    out = attacks.top_k(fn, explain, x, k=4, measure=lost, **SMALL)
    assert float(out.value) == pytest.approx(float(lost(explain(x), explain(out.x))))
    assert float(out.value) * 4 == round(float(out.value) * 4)


def noisy(fn, sigma=0.05, samples=2):
    """SmoothGrad's map, of a draw that is given at each call."""
    explain = saliency(fn)

    def at(z, *, key):
        draws = sigma * jax.random.normal(key, (samples, *z.shape))
        return jnp.mean(jax.vmap(lambda d: explain(z + d))(draws), 0)

    return at


RECIPES = {
    "top_k": functools.partial(attacks.top_k, k=3),
    "targeted": functools.partial(
        attacks.targeted, target=jnp.zeros((5, 4)).at[0].set(1)
    ),
    "mass_center": attacks.mass_center,
    "mass_center_truncated": attacks.mass_center_truncated,
}


@pytest.mark.parametrize("name", RECIPES)
def test_noise_is_drawn_anew_at_every_step(name):
    fn, x = network()
    random = noisy(fn)
    one = functools.partial(random, key=jax.random.key(7))
    still = SMALL | {"step_size": 1e-9}  # so that nothing but the draw can change
    run = functools.partial(RECIPES[name], fn, one, x, **still)
    fixed, drawn = jax.jit(
        lambda: (run(twin=one).trace, run(twin=random, noise=KEY).trace)
    )()
    np.testing.assert_array_equal(fixed, fixed[0])
    assert len(np.unique(drawn)) == SMALL["steps"]
    with pytest.raises(ValueError, match="`noise` is for a `twin` that takes a `key`"):
        run(noise=KEY)


def test_with_noise_the_best_iterate_is_that_of_the_one_draw_of_explain():
    fn, x = network()
    random = noisy(fn)
    one = functools.partial(random, key=jax.random.key(7))
    out = attacks.top_k(fn, one, x, k=3, twin=random, noise=KEY, **SMALL)
    left = objectives.top_k(one, one(x), k=3)
    assert int(out.step) > 0
    np.testing.assert_allclose(out.value, left(out.x), rtol=1e-5)


def test_a_climb_on_one_draw_of_noise_overfits_it():
    # What leaves the first pixel is a slope that all draws share, under larger noise.
    x = jnp.full((8, 8, 1), 0.5)

    def random(z, *, key):
        slope = 1 + 3 * jax.random.normal(key, x.shape)
        first = 0.5 - 0.01 * jnp.sum(slope * (z - x))
        return jnp.stack([first, 1 - first])[None]

    own, unseen = jax.random.key(7), jax.random.split(jax.random.key(5), 200)
    fixed = functools.partial(random, key=own)
    label = lambda _: jnp.array([1.0, 0.0])
    run = functools.partial(
        attacks.top_k, label, fixed, x, k=1, radius=0.1, step_size=0.01, steps=100
    )
    one, fresh = jax.jit(lambda: (run(), run(twin=random, noise=KEY)))()
    gained = jax.jit(lambda z, key: 0.5 - random(z, key=key)[0, 0])
    other = jax.jit(jax.vmap(gained, (None, 0)))
    # A step along the shared slope gains 0.01 * 64 * 0.1 = 0.064, and along one draw
    # 0.064 E|1 + 3 n| = 0.16 of its own, of which 0.064 (2 F(1/3) - 1) = 0.017 stays.
    # The sum of 100 draws has the sign of the shared slope but for 1 in 2000 pixels.
    assert gained(one.x, own) > 0.12 > 0.08 > gained(fresh.x, own)
    assert (
        jnp.mean(other(one.x, unseen)) < 0.03 < 0.05 < jnp.mean(other(fresh.x, unseen))
    )
