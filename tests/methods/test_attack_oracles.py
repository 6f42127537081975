"""Attacks against cases whose numbers are known, and theorems on what they do."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.mechanisms import ascent, curvature
from protojax.methods import attacks, metrics, objectives


def saliency(fn, y=0):
    @jax.jit
    def explain(x):
        gradient = jax.grad(lambda z: fn(z)[y])(x)
        size = jnp.sum(gradient * jnp.sign(jax.lax.stop_gradient(gradient)), axis=-1)
        return size / jnp.sum(size)

    return explain


@functools.cache
def end_to_end():
    unit, pixel = np.arange(8.0), np.arange(16.0)
    x = jnp.asarray((0.5 + 0.5 * np.sin(0.3 * pixel)).reshape(4, 4, 1))
    first = np.sin(0.7 * (unit[:, None] + 1) * (pixel + 1))
    bias = 0.1 * np.cos(unit)
    second = np.cos(0.5 * (np.arange(3.0)[:, None] + 1) * (unit + 1))

    def network(act):
        return jax.jit(lambda z: second @ act(first @ z.ravel() + bias))

    fn = network(jax.nn.relu)
    smooth = network(lambda z: jax.nn.softplus(4 * z) / 4)
    explain, twin = saliency(fn), saliency(smooth)
    return types.SimpleNamespace(**locals())


@pytest.fixture
def golden():
    """The end-to-end case of fragility 9.5, in float64."""
    with jax.enable_x64(True):
        yield end_to_end()


KEY = jax.random.key(3)
BALL = {"radius": 0.05, "step_size": 0.01, "steps": 20}


def test_fragility_9_5_top_pixels_and_centers(golden):
    before = golden.explain(golden.x)
    assert np.flatnonzero(metrics.top_k_mask(before, k=4)).tolist() == [0, 7, 9, 15]
    np.testing.assert_allclose(
        metrics.center_of_mass(before), [1.3125664, 1.7169811], atol=1e-7
    )
    np.testing.assert_allclose(
        metrics.center_of_mass(golden.twin(golden.x)), [1.2321133, 1.5458618], atol=1e-6
    )


def test_fragility_9_5_top_k_attack(golden):
    x, before = golden.x, golden.explain(golden.x)

    @jax.jit
    def attack(x):
        return attacks.top_k(
            golden.fn, golden.explain, x, k=4, twin=golden.twin, **BALL
        )

    out = attack(x)
    after = golden.explain(out.x)
    assert float(metrics.top_k_intersection(before, after, k=4)) == 0.25
    assert float(metrics.rank_correlation(before, after)) == pytest.approx(
        0.602941, abs=1e-6
    )
    np.testing.assert_allclose(
        metrics.center_of_mass(after), [1.4013951, 1.6277056], atol=1e-6
    )
    assert float(metrics.center_shift(before, after)) == pytest.approx(
        0.1259391, abs=1e-6
    )
    assert int(golden.fn(out.x).argmax()) == 0


def test_fragility_9_5_selected_by_the_surrogate_itself(golden):
    objective = objectives.top_k(golden.twin, golden.explain(golden.x), k=4)
    out = attacks.pgd(objective, golden.x, **BALL)
    assert float(out.trace[0]) == pytest.approx(-0.637869, abs=1e-6)
    assert float(out.value) == pytest.approx(-0.536981, abs=1e-6)
    assert float(out.trace[5]) == pytest.approx(float(out.value), abs=1e-12)


def test_fragility_9_5_the_exact_center_freezes_the_attack_and_says_so(golden):
    center = metrics.center_of_mass(golden.twin(golden.x))
    objective = objectives.center_distance(golden.twin, center)
    with pytest.raises(ascent.Stalled, match="map's own center"):
        attacks.pgd(objective, golden.x, **BALL)
    frozen = jax.jit(lambda x: attacks.pgd(objective, x, **BALL))(golden.x)
    assert bool(frozen.stalled)
    np.testing.assert_array_equal(frozen.x, golden.x)


def test_fragility_9_5_the_truncated_anchor(golden):
    out = attacks.mass_center_truncated(golden.fn, golden.twin, golden.x, **BALL)
    assert float(out.value) == pytest.approx(0.105110, abs=1e-6)
    sixth = attacks.mass_center_truncated(
        golden.fn, golden.twin, golden.x, **BALL | {"steps": 6}
    )
    assert float(sixth.value) == pytest.approx(float(out.value), abs=1e-12)
    assert int(sixth.step) == 6


def test_fragility_9_5_directional_centers(golden):
    before = golden.twin(golden.x)
    select = objectives.label_kept(
        lambda z: metrics.center_shift(before, golden.twin(z)), golden.fn, golden.x
    )

    def push(direction):
        objective = objectives.mass_center(golden.twin, direction)
        return attacks.pgd(objective, golden.x, select=select, **BALL).value

    four = jnp.array([(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(push))(four),
        [0.098928, 0.073347, 0.104890, 0.146459],
        atol=1e-6,
    )


def test_fragility_9_5_the_compass_finds_the_best_direction(golden):
    out = attacks.mass_center(golden.fn, golden.twin, golden.x, probe=20, **BALL)
    assert float(out.value) == pytest.approx(0.146459, abs=1e-6)
    on_network = attacks.mass_center(
        golden.fn, golden.explain, golden.x, twin=golden.twin, **BALL
    )
    assert float(on_network.value) > 0.1259391
    assert int(golden.fn(on_network.x).argmax()) == 0


def test_fragility_9_5_targeted_attack(golden):
    corner = jnp.zeros((4, 4)).at[2:, 2:].set(1.0)
    assert float(jnp.sum(corner * golden.twin(golden.x))) == pytest.approx(
        0.192308, abs=1e-6
    )
    out = attacks.targeted(golden.fn, golden.twin, golden.x, target=corner, **BALL)
    assert float(out.value) == pytest.approx(0.247008, abs=1e-6)


def test_fragility_9_5_one_sign_of_the_eigenvector_flips_the_label(golden):
    key = jax.random.key(0)
    score = lambda z: golden.smooth(z)[0]  # noqa: E731

    def damage(z):
        return -metrics.rank_correlation(golden.explain(golden.x), golden.explain(z))

    select = objectives.label_kept(damage, golden.fn, golden.x)
    attack = functools.partial(attacks.eigenvector, select, score=score, key=key)
    out = jax.jit(functools.partial(attack, radius=0.05))(golden.x)
    assert np.isinf(out.trace).sum() == 1
    assert int(golden.fn(out.x).argmax()) == 0
    assert float(out.value) == float(out.trace.max())
    assert int(out.step) == int(out.trace.argmax()) + 1


def test_fragility_9_5_l2_eigenvector_step_moves_the_gradient_by_the_eigenvalue(golden):
    score = lambda z: golden.smooth(z)[0]  # noqa: E731
    gradient = jax.jit(jax.grad(score))(golden.x)

    @jax.jit
    def change(z):
        return jnp.linalg.norm((jax.grad(score)(z) - gradient).ravel())

    out = attacks.eigenvector(
        change,
        0.5 * golden.x + 0.25,
        score=score,
        radius=0.01,
        key=jax.random.key(0),
        norm="l2",
    )  # away from the box, to see the ball alone
    assert float(jnp.linalg.norm((out.x - 0.5 * golden.x - 0.25).ravel())) == (
        pytest.approx(0.01, rel=1e-6)
    )
    vector = curvature.top_eigenpairs(
        lambda v: curvature.hvp(score, golden.x, v), golden.x, key=jax.random.key(0)
    )[1][0]
    moved = sorted(float(change(golden.x + s * 0.01 * vector)) for s in (1, -1))
    np.testing.assert_allclose(moved, [0.10320878, 0.10409533], atol=1e-8)


def test_fragility_9_1_a_neuron_cannot_be_attacked_through_normalized_gradients():
    weights = jnp.array([1.0, -2.0, 0.5]).reshape(1, 3, 1)
    fn = lambda z: jax.nn.sigmoid(jnp.sum(weights * z))[None]  # noqa: E731
    x = jnp.array([0.3, 0.1, 0.4]).reshape(1, 3, 1)
    explain = saliency(fn)
    before = explain(x)
    np.testing.assert_allclose(before.ravel(), [2 / 7, 4 / 7, 1 / 7], rtol=1e-6)
    attack = jax.jit(
        lambda x: attacks.top_k(fn, explain, x, k=1, radius=0.3, step_size=0.1, steps=5)
    )
    after = explain(attack(x).x)
    assert float(metrics.top_k_intersection(before, after, k=1)) == 1
    assert float(metrics.rank_correlation(before, after)) == pytest.approx(1, abs=1e-6)
    assert float(metrics.center_shift(before, after)) < 1e-6


def test_peers_b11_a_linear_model_is_stalled_and_keeps_its_map():
    weights = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    fn = functools.partial(jnp.tensordot, weights, axes=3)
    x = jnp.full((4, 4, 2), 0.5)
    explain = saliency(fn)

    def attack(x):
        return attacks.top_k(fn, explain, x, k=3, radius=0.2, step_size=0.1, steps=3)

    with pytest.raises(ascent.Stalled, match="such as a linear one"):
        attack(x)

    @jax.jit
    def all_three(x):
        damage = fn_damage(explain, x)
        random = attacks.random_sign(damage, x, radius=0.2, key=KEY)
        along = attacks.eigenvector(
            damage, x, score=lambda z: fn(z)[0], radius=0.2, key=KEY, steps=4
        )
        out = attack(x)
        return out.stalled, along.stalled, random.value, explain(out.x) - explain(x)

    stalled, no_curvature, damage, change = all_three(x)
    assert bool(stalled)
    assert bool(no_curvature)
    assert abs(float(damage)) < 1e-6
    assert not np.asarray(change).any()
    with pytest.raises(ascent.Stalled, match="the operator is zero"):
        attacks.eigenvector(
            jnp.sum, x, score=lambda z: fn(z)[0], radius=0.2, key=KEY, steps=4
        )


def fn_damage(explain, x):
    return lambda z: 1 - metrics.top_k_intersection(explain(x), explain(z), k=3)


def test_peers_b12_the_best_l2_step_on_a_quadratic_is_the_top_eigenvector():
    root = jax.random.normal(jax.random.key(0), (12, 12))
    matrix = (root + root.T) / 2
    x = jnp.full((2, 3, 2), 0.5)
    score = lambda z: z.ravel() @ matrix @ z.ravel() / 2  # noqa: E731

    def shift(z):
        return jnp.linalg.norm(jax.grad(score)(z).ravel() - matrix @ x.ravel())

    @jax.jit
    def both(x):
        ball = {"radius": 0.1, "norm": "l2"}
        out = attacks.eigenvector(shift, x, score=score, key=jax.random.key(1), **ball)
        climbed = attacks.pgd(
            lambda z: shift(z) ** 2,
            *(x,),
            step_size=0.02,
            steps=100,
            key=jax.random.key(2),
            **ball,
        )
        return out, climbed

    out, climbed = both(x)
    largest = np.abs(np.linalg.eigvalsh(matrix)).max()
    assert float(out.value) == pytest.approx(0.1 * largest, rel=1e-5)
    np.testing.assert_allclose(shift(out.x), out.value, rtol=1e-6)
    assert float(climbed.value) ** 0.5 == pytest.approx(0.1 * largest, rel=1e-2)


def test_peers_b7_the_top_k_direction_is_a_hessian_vector_product():
    weights = jax.random.normal(jax.random.key(0), (5, 9))
    fn = lambda z: jnp.sum(jax.nn.softplus(weights @ z.ravel()))[None]  # noqa: E731
    x = jax.random.uniform(jax.random.key(1), (3, 3, 1))
    explain, score = saliency(fn), lambda z: fn(z)[0]

    @jax.jit
    def both(x):
        mask = metrics.top_k_mask(explain(x), k=3)[..., None]
        gradient = jax.grad(score)(x)
        share = jnp.sum(jnp.where(mask, explain(x)[..., None], 0))
        product = curvature.hvp(score, x, jnp.sign(gradient) * (mask - share))
        direction = jax.grad(objectives.top_k(explain, explain(x), k=3))(x)
        return direction, -product / jnp.sum(jnp.abs(gradient))

    direction, product = both(x)
    np.testing.assert_array_equal(jnp.sign(direction), jnp.sign(product))
    np.testing.assert_allclose(direction, product, rtol=2e-4, atol=1e-6)
