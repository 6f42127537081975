"""Attacks on prototypes: closed forms on linear backbones, and what they promise."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from protojax import attacks, images, objectives, prototypes
from protojax.models import layers

EPS, STEP = 8 / 255, 2 / 255
GRID, BLOCK = 7, 2
SIZE = GRID * BLOCK
X = jax.random.uniform(jax.random.key(0), (SIZE, SIZE, 3), minval=0.1, maxval=0.9)
PGD = {"radius": EPS, "step_size": STEP, "steps": 40}


def means(x):
    """How much each place has of each of three colors: a linear backbone."""
    return x.reshape(GRID, BLOCK, GRID, BLOCK, 3).mean((1, 3))


def rectangle(*ends):
    return jnp.asarray(prototypes.cell_region(ends, (GRID, GRID)))


def pixels(cells):
    return prototypes.cell_pixels(cells, (SIZE, SIZE))


def moved(similarity, j, target, source, x, key=None, **knobs):
    objective = objectives.prototype_moved(
        similarity, prototype=j, target=target, source=source
    )
    out = attacks.pgd(objective, x, mask=pixels(target), key=key, **PGD | knobs)
    return objective, out


def test_dossier_8_pgd_reaches_the_optimum_of_a_linear_model():
    # all channels have the same weight: every pixel of the target ends at x + eps
    gray = lambda x: means(x).mean(-1, keepdims=True)
    target, source = rectangle(3, 5, 3, 5), rectangle(0, 2, 0, 3)
    objective, out = moved(gray, 0, target, source, X, jax.random.key(1))
    mask = np.asarray(pixels(target))
    np.testing.assert_allclose(out.x[mask], X[mask] + EPS, atol=1e-6)
    np.testing.assert_array_equal(out.x[~mask], X[~mask])
    rise = objective(out.x) - objective(X)
    assert float(rise) == pytest.approx(0.0313725, abs=1e-6)


def test_dossier_8_without_a_step_a_climb_stays_where_it_began():
    gray = lambda x: means(x).mean(-1, keepdims=True)
    target, source = rectangle(3, 5, 3, 5), rectangle(0, 2, 0, 3)
    still = {"step_size": 1e-12, "steps": 3}  # less than float32 sees of a pixel
    _, out = moved(gray, 0, target, source, X, jax.random.key(6), **still)
    mask = np.asarray(pixels(target))
    np.testing.assert_array_equal(out.x[~mask], X[~mask])
    assert np.abs(out.x - X).max() <= EPS + 1e-6
    assert len({*out.trace.tolist()}) == 1
    with pytest.raises(ValueError, match="`step_size` is 0"):
        moved(gray, 0, target, source, X, step_size=0.0)


def test_dossier_8_ball_step_and_range_are_those_of_the_code_after_normalization():
    z = lambda level: np.asarray(
        layers.normalize(
            jnp.full((1, 1, 3), level), layers.IMAGENET_MEAN, layers.IMAGENET_STD
        )
    ).ravel()
    known = {
        8 / 255: (0.136998, 0.140056, 0.139434),  # the ball
        10 / 255: (0.171248, 0.175070, 0.174292),  # the step of adversarial training
        2 / 255: (0.034250, 0.035014, 0.034858),  # that of an attack
    }
    for length, there in known.items():
        np.testing.assert_allclose(z(length) - z(0.0), there, atol=1e-5)
    np.testing.assert_allclose(z(1.0), (2.248908, 2.428571, 2.64), atol=1e-5)
    np.testing.assert_allclose(z(0.0), (-2.117904, -2.035714, -1.804444), atol=1e-5)


def test_dossier_8_the_literal_complement_raises_the_whole_image():
    gray = lambda x: means(x).mean(-1, keepdims=True)
    source = rectangle(2, 5, 2, 4)
    target = prototypes.closed(~source)
    assert target.all()
    objective, out = moved(gray, 0, target, source, X)
    np.testing.assert_allclose(out.x, X + EPS, atol=1e-6)
    assert float(objective(X)) == pytest.approx(float(jnp.mean(gray(X))), abs=1e-6)


def test_dossier_8_the_complement_of_all_but_24_rectangles_closes_to_the_whole_map():
    ends = list(itertools.combinations(range(GRID + 1), 2))
    boxes = np.array([(*r, *c) for r in ends for c in ends])
    place = np.arange(GRID)
    inside = [
        (place >= low[:, None]) & (place < high[:, None])
        for low, high in ((boxes[:, 0], boxes[:, 1]), (boxes[:, 2], boxes[:, 3]))
    ]
    cells = inside[0][:, :, None] & inside[1][:, None]
    cells = cells[~cells.all((1, 2))]
    whole = jax.jit(jax.vmap(lambda a: prototypes.closed(~a).all()))(cells)
    assert (len(cells), int(whole.sum())) == (783, 759)


def test_peers_e6_head_on_stomach_on_a_linear_backbone_is_a_linear_program():
    # s = W means(x): the gradient is the same everywhere, and one signed step of the
    # radius is the closed form; the simplex method says that nothing is better.
    weights = jax.random.normal(jax.random.key(2), (3, 4))
    similarity = lambda x: means(x) @ weights
    target, source, j = rectangle(3, 5, 2, 5), rectangle(4, 7, 3, 6), 2
    x = X.at[6:9].set(0.99)  # where the bound of the pixels comes before the ball's
    objective, out = moved(similarity, j, target, source, x, steps=1, step_size=EPS)
    slope = np.float64(jax.grad(objective)(x)).ravel()
    mask = np.broadcast_to(pixels(target)[..., None], x.shape).ravel()
    start = np.float64(x).ravel()
    low, high = (np.where(mask, end, start) for end in (start - EPS, start + EPS))
    ends = np.stack([np.clip(low, 0, 1), np.clip(high, 0, 1)], 1)
    best = scipy.optimize.linprog(-slope, bounds=ends)
    rise = float(objective(out.x) - objective(x))
    assert rise == pytest.approx(-best.fun - slope @ start, abs=1e-6)
    # in the target the color's own weights, in the source alone minus them: no pixel of
    # it may be touched, so that closed form is the sign of the weights
    free = np.asarray(pixels(target)) & (x < 0.9).all(-1)
    wanted = EPS * np.sign(weights[:, j])
    found = np.asarray(out.x - x)[free]
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), atol=1e-6)


def test_in_an_l2_ball_the_optimum_is_along_the_weights():
    weights = jax.random.normal(jax.random.key(2), (3, 4))
    similarity = lambda x: means(x) @ weights
    target, source = rectangle(3, 5, 2, 5), rectangle(0, 2, 0, 2)
    l2 = {"norm": "l2", "radius": 0.2, "step_size": 0.1, "steps": 10}
    objective, out = moved(similarity, 1, target, source, X, **l2)
    slope = jnp.where(pixels(target)[..., None], jax.grad(objective)(X), 0)
    best = X + 0.2 * slope / jnp.linalg.norm(slope)
    np.testing.assert_allclose(out.x, best, atol=1e-5)


def test_peers_e5_an_attack_without_pixels_changes_nothing_and_is_no_robustness():
    similarity = lambda x: prototypes.similarity(
        prototypes.squared_distances(means(x), jnp.eye(3))
    )
    x = X.at[:BLOCK, :BLOCK].set(jnp.array([1.0, 0, 0]))  # an exact patch
    absent = objectives.prototype_absent(similarity, prototype=0)
    assert float(absent(x)) == pytest.approx(-9.210340, abs=1e-4)
    with pytest.raises(ValueError, match="nothing was tried"):
        attacks.pgd(absent, x, mask=jnp.zeros((SIZE, SIZE)), **PGD)
    out = jax.jit(
        lambda x: attacks.pgd(absent, x, mask=jnp.zeros((SIZE, SIZE)), **PGD)
    )(x)
    np.testing.assert_array_equal(out.x, x)
    assert bool(out.stalled)


def network():
    """A backbone with curvature, and log similarities to random prototypes."""
    keys = jax.random.split(jax.random.key(3), 3)
    kernel = jax.random.normal(keys[0], (BLOCK, BLOCK, 3, 8)) / 2
    first = jax.nn.initializers.orthogonal()(keys[1], (8, 8))
    vectors = jax.random.uniform(keys[2], (5, 8))

    def similarity(x):
        cells = x.reshape(GRID, BLOCK, GRID, BLOCK, 3)
        h = jnp.einsum("iajbc,abcd->ijd", cells, kernel)
        h = jax.nn.sigmoid(4 * jnp.tanh(h) @ first)
        return prototypes.similarity(prototypes.squared_distances(h, vectors))

    return similarity


SIMILARITY = network()
TRIPLES = {
    "image": jnp.stack([X, 1 - X, X[::-1]]),
    "prototype": jnp.array([0, 3, 4]),
    "target": jnp.stack(
        [rectangle(3, 5, 3, 5), rectangle(0, 2, 4, 7), rectangle(5, 7, 0, 1)]
    ),
    "source": jnp.stack(
        [rectangle(0, 2, 0, 2), rectangle(3, 6, 0, 3), rectangle(5, 7, 0, 3)]
    ),
    "key": jax.random.split(jax.random.key(4), 3),
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_dossier_8_triples_in_one_program_are_each_attacked_as_alone(norm):
    traces = []

    def one(triple, radius):
        traces.append(1)
        knobs = {"radius": radius, "step_size": radius / 4, "norm": norm, "steps": 40}
        objective, out = moved(
            SIMILARITY,
            triple["prototype"],
            triple["target"],
            triple["source"],
            triple["image"],
            triple["key"],
            **knobs,
        )
        return out, objective(triple["image"]), objective(out.x)

    program = jax.jit(jax.vmap(one, (0, None)))
    radius = {"linf": EPS, "l2": 0.3}[norm]
    program(TRIPLES, radius / 2)
    out, before, after = program(TRIPLES, radius)
    assert len(traces) == 1
    alone = jax.jit(one)
    # signs swallow rounding errors; unit vectors hand them on, forty times
    tolerance = {"linf": 1e-6, "l2": 1e-4}[norm]
    for i in range(3):
        triple = jax.tree.map(lambda leaf, i=i: leaf[i], TRIPLES)
        np.testing.assert_allclose(out.x[i], alone(triple, radius)[0].x, atol=tolerance)
    change = np.asarray(out.x - TRIPLES["image"])
    size = {
        "linf": np.abs(change).max((1, 2, 3)),
        "l2": np.sqrt((change**2).sum((1, 2, 3))),
    }[norm]
    assert (size <= radius + 1e-6).all()
    outside = ~np.asarray(jax.vmap(pixels)(TRIPLES["target"]))
    assert not change[outside].any()
    assert (out.x >= 0).all() and (out.x <= 1).all()
    assert (after > before).all()


def test_a_prototype_disappears_where_it_was_found():
    similarity = SIMILARITY

    @jax.jit
    def run(x):
        maps = similarity(x)
        j = jnp.argmax(maps.max((0, 1)))
        source = maps[..., j] >= jnp.sort(maps[..., j].ravel())[-9]
        objective = objectives.prototype_absent(similarity, prototype=j)
        out = attacks.pgd(objective, x, mask=pixels(source), **PGD)
        after = similarity(out.x)
        ranks = [prototypes.rank(m.max((0, 1)), j) for m in (maps, after)]
        return maps[..., j].max(), after[..., j].max(), ranks, out.x, pixels(source)

    before, after, ranks, x, mask = run(X)
    assert after < before
    assert int(ranks[0]) == 1 <= int(ranks[1])
    np.testing.assert_array_equal(x[~mask], X[~mask])


def test_an_attack_through_compression_holds_under_qualities_it_has_not_seen():
    similarity, target = SIMILARITY, rectangle(3, 5, 2, 6)
    source = rectangle(0, 2, 0, 2)

    @jax.jit
    def run(x):
        found = {
            "plain": moved(similarity, 1, target, source, x)[1],
            "expected": moved(
                *(similarity, 1, target, source, x, jax.random.key(5)),
                transform=functools.partial(images.random_jpeg, low=30, high=90),
            )[1],
        }
        judge = objectives.prototype_moved(
            similarity, prototype=1, target=target, source=source
        )
        back = lambda z, q: judge(images.jpeg(z, quality=q))
        qualities = jnp.array([35.0, 50.0, 65.0, 80.0])
        each = {
            name: jnp.mean(jax.vmap(back, (None, 0))(out.x, qualities))
            for name, out in found.items()
        }
        return each, jnp.mean(jax.vmap(back, (None, 0))(x, qualities)), judge(x)

    each, before, _ = run(X)
    assert each["expected"] > each["plain"] > before


def test_success_as_published_and_as_it_ought_to_be_asked():
    before = jnp.array([[5.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    source, target = before > 4, jnp.array([[False] * 3, [False, False, True]])
    outcomes = {
        "untouched": (before, (False, False, True)),
        "elsewhere, weaker": (before.at[0, 0].set(0.5), (True, False, False)),
        "there, weaker": (
            before.at[0, 0].set(0.5).at[1, 2].set(3),
            (True, True, False),
        ),
        "there": (before.at[1, 2].set(6.0), (True, True, True)),
        "a tie": (before.at[1, 2].set(5.0), (False, True, True)),
    }
    for name, (after, wanted) in outcomes.items():
        found = prototypes.moved(before, after, source=source, target=target)
        assert (bool(found.left), bool(found.arrived), bool(found.kept)) == wanted, name
        assert float(found.before) == 5 and float(found.target_before) == 0
        assert float(found.after) == after.max()
        assert float(found.target_after) == after[1, 2]


def test_ranks_begin_with_one_and_ties_share_theirs():
    similar = jnp.array([0.5, 0.9, 0.5, 0.1])
    assert [int(prototypes.rank(similar, j)) for j in range(4)] == [2, 1, 2, 4]
    broken = similar.at[1].set(jnp.nan)  # is never the first
    assert [int(prototypes.rank(broken, j)) for j in range(4)] == [2, 5, 2, 4]


def test_cells_that_a_mask_covers_are_counted_by_pixels():
    rng = np.random.default_rng(0)
    mask = rng.uniform(size=(30, 23)) < 0.5
    for share in (0.0, 0.4, 0.5):
        found = prototypes.covered_cells(mask, (4, 5), share=share)
        for i, j in np.ndindex(4, 5):
            rows = np.arange(30) * 4 // 30 == i
            columns = np.arange(23) * 5 // 23 == j
            assert bool(found[i, j]) == (mask[rows][:, columns].mean() > share)
    half = prototypes.cell_region((0, 8, 4, 16), (16, 16))
    assert np.argwhere(prototypes.covered_cells(half, (2, 2))).tolist() == [[0, 1]]
    cells = prototypes.covered_cells(half, (2, 2), share=0.4)
    assert np.argwhere(cells).tolist() == [[0, 0], [0, 1]]


def test_regions_that_are_none_are_named():
    with pytest.raises(
        ValueError, match="`mask` covers at most 0.25 .* nothing is left"
    ):
        prototypes.covered_cells(prototypes.cell_region((0, 4, 0, 4), (16, 16)), (2, 2))
    with pytest.raises(ValueError, match="covers at most 0.00"):
        prototypes.covered_cells(np.zeros((8, 8)), (2, 2), share=0.0)
