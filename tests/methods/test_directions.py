"""Attacks along leading eigenvectors and singular vectors, against dense algebra."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from protojax.mechanisms import ascent
from protojax.methods import attacks, attributions, objectives

KEY = jax.random.key(3)
BOTH = {"eigenvector": attacks.eigenvector, "singular_vector": attacks.singular_vector}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def run(name, objective, x, radius=0.1, **options):
    """One of the attacks as one program."""
    attack = functools.partial(BOTH[name], objective, key=KEY, **options)
    return jax.jit(lambda x, radius: attack(x, radius=radius))(x, radius)


def quadratic(size=8, rank=None, seed=0):
    """A quadratic score with a known Hessian, and an image in the middle of the box."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(size, rank or size))
    signs = np.where(np.arange(rank or size) % 2, -1.0, 1.0)
    matrix = jnp.asarray((factor * signs) @ factor.T)
    center = jnp.full((1, size, 1), 0.5)
    return lambda z: (z - center).ravel() @ matrix @ (z - center).ravel() / 2, matrix


def small(seed=0, shape=(3, 4, 2), classes=3):
    """A smooth network whose label is not sure, and an image."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    first = rng.normal(size=(9, size)) / 2
    second = rng.normal(size=(classes, 9))
    x = rng.uniform(0.2, 0.8, shape)
    fn = lambda z: second @ jax.nn.softplus(3 * (first @ z.ravel()))
    return jax.jit(fn), jnp.asarray(x)


def saliency(fn, y=0):
    gradient = functools.partial(attributions.gradient, lambda z: fn(z)[y])
    return jax.jit(lambda x: attributions.heatmap(gradient(x)))


def moved_by(matrix, x):
    return jax.jit(lambda z: jnp.linalg.norm(matrix @ (z - x).ravel()))


def of(name, fn, y=0):
    """What each attack looks at."""
    if name == "eigenvector":
        return {"score": lambda z: fn(z)[y]}
    return {"explain": saliency(fn, y)}


def operator(name, fn, x, y=0):
    """The dense operator that each attack follows."""
    size = x.size
    if name == "eigenvector":
        dense = jax.hessian(lambda z: fn(z)[y])
    else:
        dense = jax.jacobian(saliency(fn, y))
    return jax.jit(dense)(x).reshape(-1, size)


def test_peers_b12_signs_are_the_best_of_a_box_for_a_hessian_of_rank_one():
    score, matrix = quadratic(rank=1)
    x = jnp.full((1, 8, 1), 0.5)
    out = run("eigenvector", moved_by(matrix, x), x, score=score, rounds=0)
    vector = np.sqrt(np.diag(matrix))  # up to signs
    closed = 0.1 * np.sum(vector) * np.linalg.norm(vector)
    assert float(out.value) == pytest.approx(closed, rel=1e-9)


def test_the_best_of_the_box_is_found_among_all_its_corners():
    matrices = jnp.stack([quadratic(size=6, seed=seed)[1] for seed in range(5)])
    x = jnp.full((1, 6, 1), 0.5)

    def attack(matrix, rounds):
        return attacks.eigenvector(
            *(moved_by(matrix, x), x),
            score=lambda z: z.ravel() @ matrix @ z.ravel() / 2,
            radius=0.1,
            key=KEY,
            num=6,
            rounds=rounds,
        )

    plain, refined = (
        jax.jit(jax.vmap(functools.partial(attack, rounds=rounds)))(matrices)
        for rounds in (0, 6)
    )
    corners = 0.1 * np.array(list(itertools.product((-1, 1), repeat=6)))
    best = np.linalg.norm(corners @ np.asarray(matrices), axis=2).max(axis=1)
    # A corner can be a fixed point and not the best of all; of these matrices, the best
    # of those that the six eigenvectors lead to is.
    np.testing.assert_allclose(refined.value, best, rtol=1e-9)
    assert np.any(plain.value < best * 0.99)
    # Fragility 5.9: the bound that holds for the signs of the first alone.
    for matrix, trace in zip(matrices, plain.trace, strict=True):
        value, vectors = np.linalg.eigh(matrix)
        first = np.argmax(np.abs(value))
        bound = 0.1 * np.abs(value[first]) * np.abs(vectors[:, first]).sum()
        assert bound <= float(trace[0]) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("name", "norm"), [("eigenvector", "linf"), ("singular_vector", "l2")]
)
def test_fragility_5_9_every_round_raises_the_change_of_every_candidate(name, norm):
    fn, x = small()
    x = x.at[0].set(0.001).at[1, :2].set(0.999)  # so that the box is no ball
    mask = jnp.ones((3, 4)).at[2, 1].set(0)
    dense = operator(name, fn, x)
    options = {"norm": norm, "mask": mask, "num": 3, **of(name, fn)}
    keep = objectives.margin(fn, 0)
    traces = np.stack(
        [
            run(name, moved_by(dense, x), x, keep=keep, rounds=rounds, **options).trace
            for rounds in (0, 1, 3)
        ]
    )
    # 1e-6: the bisection of `keep` ends at 1e-9 of the multiplier.
    assert np.all(np.diff(traces, axis=0) >= -1e-6 * traces[0])
    assert np.max(traces[-1] / traces[0]) > 1.01


@pytest.mark.parametrize("name", BOTH)
def test_fragility_5_3_an_l2_step_moves_as_far_as_the_largest_singular_value(name):
    fn, x = small()
    dense = operator(name, fn, x)
    out = run(name, moved_by(dense, x), x, 0.05, norm="l2", **of(name, fn))
    largest = np.linalg.norm(dense, 2)
    assert float(out.value) == pytest.approx(0.05 * largest, rel=1e-6)
    assert float(jnp.linalg.norm((out.x - x).ravel())) == pytest.approx(0.05, rel=1e-9)


def test_the_jacobian_of_a_map_need_not_be_symmetric():
    fn, x = small()
    score = lambda z: fn(z)[0]
    heat = jax.jit(lambda z: attributions.heatmap(attributions.deep_lift(score, z)))
    dense = jax.jit(jax.jacobian(heat))(x).reshape(-1, x.size)
    out = run(
        *("singular_vector", moved_by(dense, x), x, 0.05), explain=heat, norm="l2"
    )
    largest = np.linalg.norm(dense, 2)
    assert float(out.value) == pytest.approx(0.05 * largest, rel=1e-6)
    moved = jnp.linalg.norm(heat(x + 1e-3 * (out.x - x)) - heat(x))
    assert float(moved) == pytest.approx(1e-3 * 0.05 * largest, rel=1e-3)


def test_several_vectors_are_tried_and_the_best_by_the_objective_is_taken():
    score, matrix = quadratic()
    x = jnp.full((1, 8, 1), 0.5)
    value, vectors = np.linalg.eigh(matrix)
    third = vectors[:, np.argsort(-np.abs(value))[2]]
    along = lambda z: jnp.dot(jnp.asarray(third), (z - x).ravel())
    few, out = (
        run("eigenvector", along, x, score=score, norm="l2", num=num) for num in (2, 4)
    )
    assert out.trace.shape == (8,)
    assert float(out.value) == pytest.approx(0.1, rel=1e-6)
    assert int(out.step) in (5, 6)  # one of the signs of the third
    np.testing.assert_allclose(out.trace[::2], -out.trace[1::2], atol=1e-9)
    assert float(few.value) < 1e-6


@pytest.mark.parametrize("name", BOTH)
def test_the_label_preserving_step_is_the_best_across_the_gradient_of_the_margin(name):
    fn, x = small()
    margin = objectives.margin(fn, int(fn(x).argmax()))
    normal = np.array(jax.jit(jax.grad(margin))(x)).ravel()
    normal /= np.linalg.norm(normal)
    dense = operator(name, fn, x)
    options = {"norm": "l2", "keep": margin, **of(name, fn)}
    out = run(name, moved_by(dense, x), x, 0.05, **options)
    across = np.eye(x.size) - np.outer(normal, normal)
    best = np.linalg.norm(dense @ across, 2)
    assert float(out.value) == pytest.approx(0.05 * best, rel=1e-6)
    assert best < np.linalg.norm(dense, 2)
    assert abs(np.asarray(out.x - x).ravel() @ normal) < 1e-9


def test_the_label_preserving_step_in_a_box_solves_the_linear_program():
    # For a Hessian of rank one the fixed point is one linear program: as far along w
    # as box, pixel bounds and the plane across the gradient of `keep` allow.
    score, matrix = quadratic(size=10, rank=1)
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.uniform(0, 1, (1, 10, 1)))
    normal = rng.normal(size=10)
    normal[3] = 0
    keep = lambda z: jnp.dot(jnp.asarray(normal), z.ravel())
    out = run("eigenvector", moved_by(matrix, x), x, 0.2, score=score, keep=keep)
    vector = np.linalg.eigh(matrix)[1][:, -1]
    flat = np.asarray(x).ravel()
    bounds = np.stack([np.maximum(flat - 0.2, 0), np.minimum(flat + 0.2, 1)], 1)
    best = 0.0
    for sign in (-1, 1):
        found = scipy.optimize.linprog(
            sign * vector,
            A_eq=normal[None],
            b_eq=[0],
            bounds=bounds - flat[:, None],
        )
        best = max(best, -found.fun)
    scale = np.linalg.norm(matrix, 2)
    assert float(out.value) == pytest.approx(scale * best, rel=1e-6)
    assert abs(float(keep(out.x) - keep(x))) < 1e-9


@pytest.mark.parametrize(("name", "norm"), [*zip(BOTH, ("l2", "linf"), strict=True)])
def test_what_is_kept_changes_to_second_order_only(name, norm):
    fn, x = small()
    y = int(fn(x).argmax())
    margin = objectives.margin(fn, y)
    margins = jax.jit(jax.vmap(margin))
    furthest = lambda z: jnp.sum((z - x) ** 2)

    def changes(keep):
        options = {"norm": norm, "keep": keep, **of(name, fn, y)}
        attack = functools.partial(BOTH[name], furthest, x, key=KEY, **options)
        images = jax.jit(lambda radius: attack(radius=radius).x)
        for radius in (1e-3, 2e-3):
            change = images(radius) - x
            both = margins(jnp.stack([x + change, x - change]))
            yield float(jnp.max(jnp.abs(both - margins(x[None]))))

    kept, free = list(changes(margin)), list(changes(None))
    assert kept[1] / kept[0] == pytest.approx(4, rel=0.2)
    assert free[1] / free[0] == pytest.approx(2, rel=0.2)


def neuron(size=30, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=size) / np.sqrt(size), dtype)
    x = jnp.asarray(rng.uniform(size=(1, size, 1)), dtype)
    return weights, lambda z: jax.nn.sigmoid(jnp.dot(weights, z.ravel()) + 1)[None], x


def test_fragility_5_3_a_neuron_turns_its_gradient_and_not_its_map():
    weights, fn, x = neuron()
    score = lambda z: fn(z)[0]
    slope = jax.jit(jax.grad(score))
    gradient_moved = lambda z: jnp.linalg.norm(slope(z) - slope(x))
    out = run("eigenvector", gradient_moved, x, 1e-4, score=score)
    z = float(jnp.dot(weights, x.ravel())) + 1
    s = 1 / (1 + np.exp(-z))
    relative = 1e-4 * np.abs(weights).sum() * abs(1 - 2 * s)  # eps |w|_1 |g''/g'|
    length = jnp.linalg.norm(slope(x))
    assert float(out.value / length) == pytest.approx(relative, rel=1e-3)
    explain = saliency(fn)
    np.testing.assert_allclose(explain(out.x), explain(x), rtol=1e-12)
    with pytest.raises(ascent.Stalled, match="does not move.*single neuron"):
        attacks.singular_vector(jnp.sum, x, explain=explain, radius=0.1, key=KEY)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_map_that_does_not_move_is_marked_where_it_is_traced(dtype):
    weights, fn, x = neuron(dtype=dtype)
    constant = lambda z: jnp.full(z.shape[:2], 1 / 30, z.dtype)
    linear = lambda z: jnp.dot(weights, z.ravel())[None]
    for explain in (saliency(fn), saliency(linear), constant):
        traced = run("singular_vector", jnp.sum, x, explain=explain, steps=8)
        assert bool(traced.stalled)


def test_a_relu_network_is_stalled_by_name():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 12)), rng.normal(size=(2, 6))
    fn = lambda z: second @ jax.nn.relu(first @ z.ravel())
    x = jnp.asarray(rng.uniform(size=(2, 3, 2)))
    with pytest.raises(ascent.Stalled, match="piecewise linear.*smooth twin"):
        attacks.eigenvector(jnp.sum, x, radius=0.1, key=KEY, **of("eigenvector", fn))
    with pytest.raises(ascent.Stalled, match="zero"):
        attacks.singular_vector(
            jnp.sum, x, radius=0.1, key=KEY, **of("singular_vector", fn)
        )
    smooth, x = small()
    with pytest.raises(ascent.Stalled, match="zero"):
        attacks.eigenvector(
            *(jnp.sum, x),
            radius=0.1,
            key=KEY,
            mask=jnp.zeros((3, 4)),
            **of("eigenvector", smooth),
        )


@pytest.mark.parametrize("name", BOTH)
def test_products_that_are_not_finite_are_no_robustness(name):
    x = jnp.full((1, 4, 1), 0.5)
    root = lambda z: jnp.sqrt(z - 0.5)
    at = {
        "eigenvector": {"score": lambda z: jnp.sum(root(z))},
        "singular_vector": {"explain": lambda z: root(z)[..., 0]},
    }
    traced = run(name, jnp.sum, x, **at[name])
    assert bool(traced.stalled) and int(traced.step) == 0
    with pytest.raises(FloatingPointError, match="product with the operator is not"):
        BOTH[name](jnp.sum, x, radius=0.1, key=KEY, **at[name])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", BOTH)
def test_fragility_9_7_ball_bounds_mask_and_label(name, norm):
    fn, x = small()
    x = x.at[0].set(0.0).at[1].set(1.0)
    y = int(fn(x).argmax())
    explain = saliency(fn, y)
    mask = jnp.ones((3, 4)).at[:, 0].set(0)
    lost = objectives.top_k(explain, explain(x), k=4)
    damage = jax.jit(objectives.label_kept(lost, fn, x))
    options = {"norm": norm, "mask": mask, "num": 2, "steps": 8, **of(name, fn, y)}
    attack = functools.partial(BOTH[name], damage, key=KEY, **options)
    grid = jax.jit(jax.vmap(lambda x, radius: attack(x, radius=radius), (None, 0)))
    out = grid(x, jnp.array([0.0, 0.05, 0.2]))
    for radius, found, value in zip((0.0, 0.05, 0.2), out.x, out.value, strict=True):
        change = np.asarray(found - x)
        length = np.linalg.norm(change) if norm == "l2" else np.abs(change).max()
        assert length <= radius * (1 + 1e-9)
        assert found.min() >= 0
        assert found.max() <= 1
        assert not change[:, 0].any()
        assert int(fn(found).argmax()) == y
        assert float(value) >= float(damage(x)) - 1e-12
        assert float(damage(found)) == pytest.approx(float(value), abs=1e-9)
    assert np.any(out.x[2] != x)
    if (name, norm) == ("singular_vector", "linf"):
        eager = attack(x, radius=0.05)
        np.testing.assert_allclose(eager.x, out.x[1], atol=1e-9)


def test_bad_numbers_of_rounds_and_vectors_are_named():
    fn, x = small()
    for name in BOTH:
        call = functools.partial(
            BOTH[name], jnp.sum, x, radius=0.1, key=KEY, **of(name, fn)
        )
        with pytest.raises(ValueError, match="`rounds` is -1: pass zero or more"):
            call(rounds=-1)
        with pytest.raises(ValueError, match="`num` is 0"):
            call(num=0)
        with pytest.raises(ValueError, match="`norm` is 'l1'"):
            call(norm="l1")
        with pytest.raises(ValueError, match="`radius` is -0.1"):
            call(radius=-0.1)
        with pytest.raises(ValueError, match="`x` has shape .*jax.vmap"):
            BOTH[name](jnp.sum, x[None], radius=0.1, key=KEY, **of(name, fn))
