import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


BALL = {"radius": 0.05, "step_size": 0.01, "steps": 20}


def test_fragility_9_5_maps_and_logits(golden):
    np.testing.assert_allclose(
        golden.fn(golden.x), [0.70160706, 0.18602592, -0.21831679], atol=1e-8
    )
    np.testing.assert_allclose(
        golden.smooth(golden.x), [0.32251585, 0.18850303, -0.30035607], atol=1e-8
    )
    before = golden.explain(golden.x)
    assert np.flatnonzero(metrics.top_k_mask(before, k=4)).tolist() == [0, 7, 9, 15]
    np.testing.assert_allclose(
        metrics.center_of_mass(before), [1.3125664, 1.7169811], atol=1e-7
    )
    np.testing.assert_allclose(
        metrics.center_of_mass(golden.twin(golden.x)), [1.2321133, 1.5458618], atol=1e-6
    )


def test_fragility_9_5_gradient_of_the_top_k_objective(golden):
    objective = objectives.top_k(golden.twin, golden.explain(golden.x), k=4)
    expected = """.237120 -.088115 -.015313 -.380765 .319516 .035153 .135510 -.223327
      -.039697 .246888 -.039488 .009973 -.436103 .253184 .049366 .181060"""
    np.testing.assert_allclose(
        jax.jit(jax.grad(objective))(golden.x).ravel(),
        [float(number) for number in expected.split()],
        atol=1e-6,
    )


def test_fragility_9_5_top_k_attack(golden):
    x, before = golden.x, golden.explain(golden.x)

    @functools.partial(jax.jit, static_argnums=0)
    def attack(steps):
        options = BALL | {"steps": steps}
        return attacks.top_k(
            golden.fn, golden.explain, x, k=4, twin=golden.twin, **options
        )

    assert float(attack(1).value) == pytest.approx(-0.515390, abs=1e-6)
    assert float(attack(2).value) == pytest.approx(-0.433999, abs=1e-6)
    out = attack(20)
    after = golden.explain(out.x)
    assert float(out.value) == pytest.approx(-0.433999, abs=1e-6)
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


# The inputs of these are not images: they are moved into [0, 1], and the radius with
# them, which changes neither signs nor balls.
LOW, SPAN = -10.0, 20.0


def outside(x):
    return LOW + SPAN * x


def in_box(values):
    return (np.float32(values).reshape(1, -1, 1) - LOW) / SPAN


def neuron_loss(target, sign):
    """Captum's BasicModel, 1 - relu(1 - x), under the loss -log: its sign counts."""

    def loss(x):
        f = 1 - jax.nn.relu(1 - outside(x).ravel()[target])
        return -sign * jnp.log(jnp.abs(f))

    return loss


PEER_CASES = {
    "b1": ((2, -9, 9, 1, -3), 4, 1, 0.25, 2, "linf", (2, -9, 9, 1, -2.8)),
    "b2": ((9, 10, -6, -1), 3, -1, 0.2, 3, "linf", (9, 10, -6, -1.2)),
    "b3": ((9, 10, -6, -1), 2, -1, 0.2, 3, "l2", (9, 10, -6.2, -1)),
    "b5_3d": (
        (4, 2, -1, -2, 3, -4, 10, 5),
        5,
        1,
        0.25,
        3,
        "linf",
        (4, 2, -1, -2, 3, -3.75, 10, 5),
    ),
}


@pytest.mark.parametrize("name", PEER_CASES)
def test_peers_b1_b2_b3_b5_projected_gradients(name):
    x, target, sign, radius, steps, norm, expected = PEER_CASES[name]
    attack = functools.partial(
        attacks.pgd,
        neuron_loss(target, sign),
        radius=radius / SPAN,
        step_size=0.1 / SPAN,
        steps=steps,
        norm=norm,
        select=lambda z: jnp.sum(jnp.abs(z - in_box(x))),
    )
    out = jax.jit(attack)(in_box(x))
    np.testing.assert_allclose(outside(out.x).ravel(), expected, atol=0.01)


def test_peers_b4_two_inputs_in_a_ball_each():
    a = jnp.array([[4.0, -1.0], [3.0, 10.0]])
    b = jnp.array([[2.0, -5.0], [-2.0, 1.0]])

    def loss(pair):
        f = jax.nn.relu(jax.nn.relu(pair[0]) - 1 - jax.nn.relu(pair[1]))
        return -jnp.log(f[0])

    def attack(a, b):
        wide = functools.partial(ascent.within, norm="l2", bounds=(-50.0, 50.0))
        balls = wide(a, 0.25), wide(b, 0.25)
        return ascent.ascend(
            loss,
            (a, b),
            optimizer=optax.sign_sgd(0.1),
            steps=3,
            project=lambda z: (balls[0](z[0]), balls[1](z[1])),
        ).x

    moved_a, moved_b = jax.jit(jax.vmap(attack))(a, b)
    np.testing.assert_allclose(moved_a, [[3.75, -1], [2.75, 10]], atol=0.01)
    np.testing.assert_allclose(moved_b, [[2.25, -5], [-2, 1]], atol=0.01)


def multi_layer(x):
    hidden = jnp.sum(x) + jnp.array([-10.0, 1.0, 1.0, 1.0])
    return jnp.sum(jax.nn.relu(hidden)) + jnp.array([-1.0, 1.0])


def test_peers_b5_one_step_attacks():
    def step(loss, x, radius):
        attack = functools.partial(
            attacks.pgd,
            loss,
            radius=radius / SPAN,
            step_size=radius / SPAN,
            steps=1,
            select=lambda z: jnp.sum(jnp.abs(z - in_box(x))),
        )
        return jax.jit(attack)(in_box(x))

    out = step(neuron_loss(1, 1), (2, -9, 9, 1, -3), 0.1)
    np.testing.assert_allclose(outside(out.x).ravel(), [2, -8.9, 9, 1, -3], atol=0.01)
    shift = jnp.array([-1.0, 2.0, 2.0])

    def loss(x):
        return -jnp.log(multi_layer(outside(x).ravel() + shift)[0])

    # The peer's loss falls along every pixel; its answer is x - radius for all three.
    out = step(loss, (1, 6, -3), 0.2)
    np.testing.assert_allclose(outside(out.x).ravel(), [0.8, 5.8, -3.2], atol=0.01)


@pytest.mark.parametrize("steps", [1, 2])
def test_peers_b5_a_mask_that_hides_the_gradient_is_stalled(steps):
    x = in_box((2, -9, 9, 1, -3))
    mask = jnp.array([[1, 1, 0, 0, 0]])
    with pytest.raises(ascent.Stalled, match="a mask that hides"):
        attacks.pgd(
            neuron_loss(4, 1), x, radius=0.01, step_size=0.01, steps=steps, mask=mask
        )


def network(key=0, shape=(5, 4, 2)):
    """A small smooth network with an image that it does not saturate on."""
    size = int(np.prod(shape))
    keys = jax.random.split(jax.random.key(key), 3)
    first = jax.random.normal(keys[0], (12, size)) / 2
    second = jax.random.normal(keys[1], (3, 12))
    x = jax.random.uniform(keys[2], shape)
    return lambda z: second @ jax.nn.softplus(3 * (first @ z.ravel())), x


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


def test_a_measure_chooses_the_iterate():
    fn, x = network()
    explain = saliency(fn, y=int(fn(x).argmax()))

    def lost(a, b):
        return 1 - metrics.top_k_intersection(a, b, k=4)

    out = attacks.top_k(fn, explain, x, k=4, measure=lost, **SMALL)
    assert float(out.value) == pytest.approx(float(lost(explain(x), explain(out.x))))
    assert float(out.value) * 4 == round(float(out.value) * 4)


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


def test_noise_needs_what_iterates_are_compared_by():
    x = jnp.full((2, 2, 1), 0.5)
    with pytest.raises(ValueError, match="`noise` makes the objective random: pass"):
        attacks.pgd(lambda z, key: jnp.sum(z), x, noise=KEY, **SMALL)  # noqa: ARG005


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
