"""What every attack promises: ball, label, budget, errors with names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.methods import attacks, metrics, objectives
from tests.small import network, saliency

KEY = jax.random.key(3)
SMALL = {"radius": 0.03, "step_size": 0.01, "steps": 4}
ATTACKS = {
    "pgd": functools.partial(attacks.pgd, **SMALL),
    "pgd_l2": functools.partial(attacks.pgd, norm="l2", **SMALL),
    "pgd_random": functools.partial(attacks.pgd, key=KEY, **SMALL),
    "random_sign": functools.partial(
        attacks.random_sign, radius=0.03, key=KEY, samples=4
    ),
    "random_walk": functools.partial(attacks.random_walk, key=KEY, **SMALL),
    "eigenvector": functools.partial(
        attacks.eigenvector, radius=0.03, key=KEY, num=2, steps=6
    ),
    "singular_vector": functools.partial(
        attacks.singular_vector, radius=0.03, key=KEY, num=2, steps=6
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_fragility_9_7_ball_box_and_never_worse_than_the_start(name):
    fn, x = network()
    x = x.at[0].set(0.0).at[1].set(1.0)
    explain = saliency(fn)
    objective = jax.jit(objectives.top_k(explain, explain(x), k=4))
    attack = ATTACKS[name]
    if name == "eigenvector":
        attack = functools.partial(attack, score=lambda z: fn(z)[0])
    if name == "singular_vector":
        attack = functools.partial(attack, explain=explain)
    out = jax.jit(lambda x: attack(objective, x))(x)
    offset = np.float64(out.x) - np.float64(x)
    length = np.linalg.norm(offset) if "l2" in name else np.abs(offset).max()
    assert 0 < length <= 0.03 * (1 + 1e-6)
    assert float(out.x.min()) >= 0
    assert float(out.x.max()) <= 1
    assert float(out.value) >= float(objective(x)) - 1e-7
    np.testing.assert_allclose(objective(out.x), out.value, atol=1e-6)
    assert not bool(out.stalled)
    if name == "pgd":
        eager = attack(objective, x)
        np.testing.assert_allclose(eager.value, out.value, atol=1e-5)


def test_fragility_9_7_vmap_equals_the_loop_and_radii_share_a_program():
    fn, x = network()
    explain = saliency(fn)
    images = jnp.stack([x, 1 - x])

    def one(x, radius):
        objective = objectives.top_k(explain, explain(x), k=4)
        return attacks.pgd(objective, x, radius=radius, step_size=0.01, steps=4)

    grid = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    radii = jnp.array([0.0, 0.01, 0.03])
    together = grid(images, radii)
    assert together.x.shape == (2, 3, *x.shape)
    np.testing.assert_array_equal(together.x[:, 0], images)
    alone = jax.jit(one)(images[1], radii[2])
    np.testing.assert_allclose(together.x[1, 2], alone.x, atol=1e-6)
    swapped = grid(images[::-1], radii)
    np.testing.assert_array_equal(swapped.x[::-1], together.x)


def test_fragility_9_7_a_step_beyond_the_ball_is_still_feasible():
    fn, x = network()
    explain = saliency(fn)
    objective = objectives.top_k(explain, explain(x), k=4)
    run = jax.jit(
        lambda x: attacks.pgd(objective, x, radius=0.01, step_size=0.05, steps=3)
    )
    assert float(metrics.linf(run(x).x, x)) <= 0.01 * (1 + 1e-6)


def test_fragility_9_7_scaling_or_shifting_the_logits_changes_nothing():
    fn, x = network()

    def attack(scale, shift):
        changed = lambda z: scale * fn(z) + shift  # noqa: E731
        return attacks.top_k(changed, saliency(changed), x, k=4, **SMALL)

    plain, changed = jax.jit(attack)(1.0, 0.0), jax.jit(attack)(4.0, 7.0)
    np.testing.assert_allclose(plain.x, changed.x, atol=1e-6)


def test_fragility_9_7_the_attack_beats_random_signs_on_average():
    @jax.jit
    def compare(seed):
        fn, x = network(seed)
        y = fn(x).argmax()
        explain = saliency(fn, y)
        damage = objectives.label_kept(
            objectives.top_k(explain, explain(x), k=4), fn, x
        )
        out = attacks.top_k(fn, explain, x, k=4, **SMALL)
        null = attacks.random_sign(damage, x, radius=0.03, key=KEY, samples=4)
        return out.value, null.value, fn(out.x).argmax() == y

    rows = [compare(seed) for seed in range(6)]
    attacked, null, kept = np.array(rows).T
    assert attacked.mean() > null.mean()
    assert kept.all()


def test_the_label_is_kept_even_if_every_iterate_loses_it():
    fn = lambda z: jnp.stack([jnp.sum(z**2), jnp.array(1.0)])  # noqa: E731
    x = jnp.full((2, 2, 1), 0.51)
    explain = lambda z: z[..., 0] ** 2 / jnp.sum(z**2)  # noqa: E731
    x = x.at[0, 0, 0].set(0.5)

    def attack(x, key):
        options = {"k": 1, "radius": 0.1, "step_size": 0.1, "steps": 3}
        return attacks.top_k(fn, explain, x, key=key, **options).x

    for key in (None, KEY):
        assert int(fn(jax.jit(attack)(x, key)).argmax()) == int(fn(x).argmax())


def test_the_label_is_kept_where_the_damage_is_undefined():
    x = jnp.full((3, 3, 1), 0.5).at[0, 0].set(0.55)
    fn = lambda z: jnp.stack([-jnp.sum(z), -4.6])
    twin = lambda z: z[..., 0] ** 2 / jnp.sum(z**2)
    constant = lambda z: jnp.full(z.shape[:2], 1 / 9)
    undefined = metrics.rank_correlation  # of constant maps
    options = {"radius": 0.1, "step_size": 0.05, "steps": 4, "twin": twin}
    options |= {"measure": undefined}

    @jax.jit
    def all_of(x):
        top_k = functools.partial(attacks.top_k, fn, constant, x, k=3, **options)
        damage = lambda z: undefined(constant(x), constant(z))
        kept = objectives.label_kept(damage, fn, x)
        random = functools.partial(attacks.random_sign, kept, x, radius=0.1, key=KEY)
        center = functools.partial(attacks.mass_center, fn, constant, x, **options)
        return [top_k(), top_k(key=KEY), random(samples=20), center(), center(key=KEY)]

    for out in all_of(x):
        assert jnp.isnan(out.value) and out.step == 0
        np.testing.assert_array_equal(out.x, x)


def test_a_direction_without_a_number_is_not_chosen():
    fn, x = network()
    explain = saliency(fn)
    # the damage is undefined but where the center has moved down
    down = lambda a, b: metrics.center_of_mass(b)[0] > metrics.center_of_mass(a)[0]
    shift = lambda a, b: jnp.where(down(a, b), metrics.center_shift(a, b), jnp.nan)
    run = functools.partial(attacks.mass_center, fn, explain, measure=shift, **SMALL)
    assert jax.jit(run)(x).value > 0


def test_the_mask_holds_and_steers_the_l2_step():
    mask = jnp.zeros((2, 2)).at[0, 0].set(1)
    x = jnp.full((2, 2, 3), 0.5)
    slope = jnp.ones((2, 2, 3)).at[1].set(100.0)
    out = attacks.pgd(
        lambda z: jnp.sum(slope * z),
        x,
        radius=0.1,
        step_size=0.05,
        steps=2,
        norm="l2",
        mask=mask,
    )
    moved = np.asarray(out.x - x)
    assert not moved[np.asarray(mask) == 0].any()
    np.testing.assert_allclose(np.linalg.norm(moved), 0.1, rtol=1e-5)


def test_a_transform_is_averaged_over_and_needs_a_key():
    def noise(z, *, key):
        return z + 0.02 * jax.random.normal(key, z.shape)

    x = jnp.full((2, 2, 1), 0.5)
    call = functools.partial(
        attacks.pgd,
        lambda z: -jnp.sum((z - 0.6) ** 2),
        x,
        radius=0.2,
        step_size=0.02,
        steps=20,
        transform=noise,
    )
    out = call(key=KEY, select=lambda z: -jnp.sum((z - 0.6) ** 2))
    np.testing.assert_allclose(out.x, 0.6, atol=0.03)
    with pytest.raises(ValueError, match="`transform` is random: pass `key`"):
        call()


def test_noise_needs_what_iterates_are_compared_by():
    x = jnp.full((2, 2, 1), 0.5)
    with pytest.raises(ValueError, match="`noise` makes the objective random: pass"):
        attacks.pgd(lambda z, key: jnp.sum(z), x, noise=KEY, **SMALL)  # noqa: ARG005
    still = {"noise": KEY, "transform": lambda z, *, key: z, "select": jnp.sum}  # noqa: ARG005
    out = attacks.pgd(lambda z, key: jnp.sum(z), x, **still, **SMALL)  # noqa: ARG005
    np.testing.assert_allclose(out.x, x + 0.03, atol=1e-6)  # from x: without a key


def test_random_starts_are_spread_over_the_ball():
    x = jnp.full((3, 3, 1), 0.5)

    def start(key, norm):
        out = attacks.pgd(
            lambda z: 1e-9 * jnp.sum(z),
            x,
            radius=0.2,
            step_size=1e-9,
            steps=1,
            norm=norm,
            key=key,
            select=lambda z: jnp.sum(jnp.abs(z - x)),
        )
        return out.x - x

    for norm, order in (("linf", jnp.inf), ("l2", 2)):
        draws = jax.jit(jax.vmap(functools.partial(start, norm=norm)))(
            jax.random.split(KEY, 200)
        )
        sizes = jnp.linalg.norm(draws.reshape(200, -1), ord=order, axis=1)
        assert float(sizes.max()) <= 0.2 * (1 + 1e-5)
        expected = 0.2 * 9 / 10  # the mean of a radius that grows as its 8th power
        assert float(sizes.mean()) == pytest.approx(expected, rel=0.03)


def test_random_baselines_have_their_step_and_their_budget():
    x = jnp.full((4, 4, 1), 0.5)
    out = attacks.random_sign(jnp.sum, x, radius=0.25, key=KEY, samples=8)
    assert set(np.unique(out.x)) == {0.25, 0.75}
    assert out.trace.shape == (8,)
    assert float(out.value) == float(out.trace.max())
    walk = attacks.random_walk(
        jnp.sum, x, radius=0.25, step_size=0.125, steps=8, key=KEY
    )
    assert set(np.unique(walk.x)) <= {0.25, 0.375, 0.5, 0.625, 0.75}
    assert float(walk.value) == max(float(walk.trace.max()), 8.0)
    worse = attacks.random_sign(
        lambda z: -jnp.sum(jnp.abs(z - x)), x, radius=0.25, key=KEY, samples=3
    )
    assert int(worse.step) == 0


def test_bad_input_is_named():
    fn, x = network()
    explain = saliency(fn)

    def call(x=x, **kwargs):
        options = {"k": 3} | SMALL | kwargs
        return attacks.top_k(fn, explain, x, **options)

    with pytest.raises(ValueError, match="`k` is 99 but the map has 20 entries"):
        call(k=99)
    with pytest.raises(ValueError, match="`radius` is -0.1"):
        call(radius=-0.1)
    with pytest.raises(ValueError, match="`step_size` is 0"):
        call(step_size=0)
    with pytest.raises(ValueError, match="`steps` is 0"):
        call(steps=0)
    with pytest.raises(ValueError, match="NaN pixels"):
        call(x.at[0, 0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"outside of \[0.0, 1.0\]"):
        call(255 * x)
    batch = r"`x` has shape \(1, 5, 4, 2\): pass one example, \[H, W, C\].*jax.vmap"
    with pytest.raises(ValueError, match=batch):
        attacks.pgd(jnp.sum, x[None], **SMALL)
    with pytest.raises(ValueError, match="`mask` has shape .5, 5.*x., .5, 4, 2"):
        attacks.pgd(jnp.sum, x, mask=jnp.ones((5, 5)), **SMALL)
    with pytest.raises(AssertionError, match="shape"):
        attacks.targeted(fn, explain, x, target=jnp.ones((5, 5)), **SMALL)
    with pytest.raises(ValueError, match="`probe` is 9"):
        attacks.mass_center(fn, explain, x, probe=9, **SMALL)
    with pytest.raises(ValueError, match="`samples` is 0"):
        attacks.random_sign(jnp.sum, x, radius=0.1, key=KEY, samples=0)
    for size in (0.0, jnp.nan):
        with pytest.raises(ValueError, match=f"`step_size` is {size}"):
            attacks.random_walk(jnp.sum, x, key=KEY, **SMALL | {"step_size": size})
    with pytest.raises(ValueError, match="`num` is 0"):
        attacks.eigenvector(
            jnp.sum, x, score=lambda z: fn(z)[0], radius=0.1, key=KEY, num=0
        )


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_of_integers_is_named(name):
    objective, x = lambda z: jnp.sum(z * 1.0), jnp.ones((2, 2, 1), jnp.int32)
    options = {"eigenvector": {"score": objective}}
    options |= {"singular_vector": {"explain": lambda z: z[..., 0] * 1.0}}
    with pytest.raises(ValueError, match="`x` is int32: pass float32 pixels"):
        ATTACKS[name](objective, x, **options.get(name, {}))


def test_an_explanation_that_still_wants_its_network_is_named():
    fn, x = lambda z: z.ravel(), jnp.ones((1, 2, 1))
    with pytest.raises(ValueError, match=r"pass `explain\(fn\)`"):
        attacks.top_k(fn, saliency, x, k=1, **SMALL)


def test_a_climb_that_loses_the_label_finds_more_where_it_turns_back():
    """The first pixel is climbed; the label is lost where both sum to more than 1.1."""
    fn = lambda z: jnp.stack([1.1 - jnp.sum(z), jnp.array(0.0)])  # noqa: E731
    x, first = jnp.full((1, 2, 1), 0.5), lambda z: z[0, 0, 0]
    kept, back = (
        build(first, fn, x)
        for build in (objectives.label_kept, objectives.label_regained)
    )

    @functools.partial(jax.jit, static_argnums=0)
    def found(climbed, radius):
        knobs = {"radius": radius, "step_size": radius / 4, "steps": 40}
        return attacks.pgd(climbed, x, select=kept, **knobs).value

    plain = [float(found(first, radius)) for radius in (0.1, 0.2, 0.48)]
    turned = [float(found(back, radius)) for radius in (0.1, 0.2, 0.48)]
    np.testing.assert_allclose(plain, [0.6, 0.6, 0.5], atol=1e-6)  # less in the largest
    np.testing.assert_allclose(turned, [0.6, 0.7, 0.98], atol=1e-6)  # all that there is
