"""Whole methods on small networks, and what they look through."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import interpolate

from protojax import generation, images, objectives

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def test_oracle_7_5_lucids_lists():
    np.testing.assert_allclose(
        generation.LUCID_SCALES, np.linspace(0.9, 1.1, 11), atol=1e-9
    )
    angles = np.array(generation.LUCID_DEGREES)
    assert len(angles) == 26 and np.mean(angles == 0) == pytest.approx(6 / 26)
    assert angles.std() == pytest.approx(5.44, abs=0.01)
    assert tuple(range(-5, 6)) == generation.ARTICLE_DEGREES
    np.testing.assert_allclose(generation.ARTICLE_SCALES, np.linspace(0.95, 1.05, 5))


def test_oracle_7_5_the_articles_transforms_are_one_affine_map():
    x = RNG.uniform(size=(12, 10, 2)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def turned(angle):
        return generation.distill_affine(
            x, key=KEY, jitter=(0, 0), scales=(1.0,), degrees=angle[None]
        )

    still, half = turned(np.float32([0, 180]))
    np.testing.assert_allclose(still, x, atol=1e-6)
    np.testing.assert_allclose(half, x[::-1, ::-1], atol=1e-5)

    @jax.jit
    @jax.vmap
    def moved(key):
        dot = jnp.zeros((21, 21, 1)).at[10, 10].set(1.0)
        out = generation.distill_affine(
            dot, key=key, jitter=(4, 2), scales=(1.0,), degrees=(0.0,), fill=0.0
        )[..., 0]
        grid = jnp.arange(21.0) - 10
        return jnp.stack([out.sum(1) @ grid, out.sum(0) @ grid])

    shifts = np.round(np.asarray(moved(jax.random.split(KEY, 400))), 3)
    assert {*shifts.ravel()} == {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    # sums of uniform draws from five and from three numbers: variance 2 + 2/3
    assert np.var(shifts) == pytest.approx(2 + 2 / 3, rel=0.15)


def test_oracle_7_5_whole_shifts_have_a_gradient_of_one_inside():
    matrix = jnp.array([[1.0, 0, 2], [0, 1, -1]])
    slope = jax.grad(lambda x: images.affine(x, matrix, fill=0.3).sum())(
        jnp.ones((6, 6, 1))
    )[..., 0]
    np.testing.assert_allclose(slope[2:, :-1], 1, atol=1e-6)
    np.testing.assert_allclose(slope[:2], 0, atol=1e-6)


def test_presets_have_the_ranges_that_are_written_down():
    ranges = {
        "s": (5, 0.02, 0.05),
        "m": (10, 0.05, 0.1),
        "l": (15, 0.1, 0.2),
        "xl": (20, 0.2, 0.3),
        "shift_scale": (0, 0.1, 0.2),
    }
    found = {
        name: tuple(preset.keywords[knob] for knob in ("degrees", "shift", "scale"))
        for name, preset in generation.PRESETS.items()
    }
    assert found == ranges
    x = jnp.full((9, 9, 3), 0.25)
    fill = functools.partial(generation.PRESETS["xl"], fill=0.25)
    np.testing.assert_allclose(fill(x, key=KEY), x, atol=1e-6)


def test_windows_agree_with_scipy():
    x = RNG.uniform(size=(9, 7, 2)).astype(np.float32)
    whole = images.window(x, jnp.array([0.5, 0.5]), 1.0, size=(9, 7))
    np.testing.assert_allclose(whole, x, atol=1e-6)
    center, side, size = np.array([0.45, 0.6]), 0.5, (5, 6)
    cut = jax.jit(functools.partial(images.window, size=size))
    rows, columns = (
        (center[axis] + side * np.linspace(-0.5, 0.5, count)) * (x.shape[axis] - 1)
        for axis, count in enumerate(size)
    )
    read = interpolate.RegularGridInterpolator((np.arange(9), np.arange(7)), x)
    expected = read(np.stack(np.meshgrid(rows, columns, indexing="ij"), -1))
    np.testing.assert_allclose(cut(x, center, side), expected, atol=1e-5)
    outside = cut(x, np.array([-1.0, 0.5]), side)
    assert not outside.any()
    mean = jax.grad(lambda z: cut(z, center, side).mean())(x)
    assert float(mean.sum()) == pytest.approx(1, abs=1e-5)


def blobs(x):
    """Two classes: light at the top, or at the bottom; and how red it is."""
    top, bottom = x[:4].mean(), x[4:].mean()
    return 12 * jnp.stack([top - bottom, bottom - top, x[..., 0].mean() - x.mean()])


METHODS = {
    "prototype": generation.prototype,
    "distill": generation.distill,
    "maco": functools.partial(generation.maco, crops=16),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_show_the_class_and_are_called_alike(name):
    x0 = jnp.full((8, 8, 3), 0.5)

    @jax.jit
    @jax.vmap
    def run(y, key):
        out = METHODS[name](objectives.logit(blobs, y), x0, key=key, steps=60)
        return out, images.resize(out.x, (8, 8))

    out, seen = run(jnp.arange(2), jax.random.split(KEY, 2))
    ahead = seen[:, :4].mean((1, 2, 3)) - seen[:, 4:].mean((1, 2, 3))
    assert not out.stalled.any() and jnp.all(jnp.isfinite(out.trace))
    assert jnp.all((out.x >= 0) & (out.x <= 1)) and out.trace.shape == (2, 60)
    assert float(ahead[0]) > 0.1 and float(ahead[1]) < -0.1
    for y in range(2):
        logit = blobs(seen[y])[y]
        np.testing.assert_allclose(out.value[y], logit, rtol=1e-3, atol=1e-3)


def test_maco_looks_through_crops_that_become_smaller():
    ramp = jnp.broadcast_to(jnp.arange(40.0)[:, None, None] / 39, (40, 40, 1))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def ends(key, side):
        crop = generation.noisy_crop(ramp, key=key, size=(5, 5), side=side, noise=0.0)
        inside = jnp.all(crop[1:] > crop[:-1])
        return crop[-1, 2, 0] - crop[0, 2, 0], crop[2, 2, 0], inside

    keys = jax.random.split(KEY, 500)
    for side in (0.4, 0.2):
        lengths, centers, kept = map(np.asarray, ends(keys, side))
        # of those that do not leave the image
        assert np.mean(lengths[kept]) == pytest.approx(side, abs=0.02)
        assert np.std(lengths[kept]) == pytest.approx(0.05, abs=0.01)
        assert np.mean(centers) == pytest.approx(0.5, abs=0.03)
        assert np.std(centers[kept]) == pytest.approx(0.15, abs=0.03)
    crop = functools.partial(generation.noisy_crop, size=(40, 40), side=0.3, noise=0.12)
    noisy = jax.jit(crop)(0 * ramp, key=KEY)
    assert np.std(noisy) == pytest.approx(0.12 * np.sqrt(1 + 1 / 12), rel=0.05)


@pytest.mark.parametrize(("last", "smoother"), [(0.05, True), (0.6, False)])
def test_crops_of_maco_go_from_the_first_side_to_the_last(last, smoother):
    """Of an image that is not moved; what is enlarged more differs less in it."""

    @jax.jit
    def trace():
        rough = lambda x: jax.lax.stop_gradient(generation.high_frequency(x))
        shape = jnp.zeros((16, 16, 1))
        out = generation.maco(
            rough, shape, key=KEY, steps=12, crops=16, noise=0.0, sides=(0.6, last)
        )
        return out.trace, out.stalled

    values, stalled = trace()
    assert bool(stalled) and float(values[0]) > 0
    share = float(values[-3:].mean() / values[:3].mean())
    assert share < 0.5 if smoother else 0.7 < share < 1.4


def test_templates_of_another_size_are_named():
    run = functools.partial(
        generation.maco, lambda x: x.mean(), jnp.zeros((8, 8, 3)), key=KEY, steps=1
    )
    size = r"`template` has shape \(8, 5, 3\), and a canvas of 18 x 18 needs "
    with pytest.raises(ValueError, match=size + r"\(18, 10, 3\)"):
        run(template=jnp.ones((8, 5, 3)))
    with pytest.raises(ValueError, match="a half spectrum of 10 columns"):
        run(template=jnp.ones((18, 5, 3)))
    with pytest.raises(ValueError, match="needs"):
        run(template=jnp.ones((18, 10, 1)))
    with pytest.raises(ValueError, match="`crops` is 0"):
        run(crops=0)


def dataset(cue):
    """Noise in two classes, told apart by a patch in a corner or by how light it is."""
    draw = np.random.default_rng(1)
    y = np.arange(64) % 2
    x = draw.uniform(0.2, 0.6, size=(64, 8, 8, 1))
    x[y == 1, : 3 if cue else 8, : 3 if cue else 8] += 0.4 if cue else 0.1
    return jnp.asarray(x, jnp.float32), jnp.asarray(y)


@jax.jit
def shown(x, y):
    """Train a network, show its class 1, isolate what drives it; blank the corner."""
    draw = np.random.default_rng(2)
    start = {
        "kernel": jnp.asarray(draw.normal(size=(64, 16)) / 8, jnp.float32),
        "head": jnp.asarray(draw.normal(size=(16, 2)) / 4, jnp.float32),
    }
    apply = lambda p, x: jax.nn.relu(x.ravel() @ p["kernel"]) @ p["head"]
    adam = optax.adam(0.01)

    def loss(p):
        logits = jax.vmap(apply, (None, 0))(p, x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        decay = sum(jnp.sum(leaf**2) for leaf in p.values())
        return losses.mean() + 2e-3 * decay

    def train(carry, _):
        p, state = carry
        change, state = adam.update(jax.grad(loss)(p), state)
        return (optax.apply_updates(p, change), state), ()

    (p, _), _ = jax.lax.scan(train, (start, adam.init(start)), length=150)
    fn = functools.partial(apply, p)
    neutral = generation.baseline(fn, jnp.full((8, 8, 1), 0.4)).x
    score = objectives.logit(fn, 1)
    made = generation.prototype(
        score, neutral, steps=100, roughness=0.0, transform=None
    ).x
    ahead = objectives.margin(fn, 1)
    mask = generation.isolate(
        ahead, made, background=neutral, cells=8, roughness=0.0, area=30.0
    ).x
    blank = made.at[:3, :3].set(neutral[:3, :3])
    right = jnp.mean(jax.vmap(fn)(x).argmax(1) == y)
    lost, gained = score(made) - score(blank), score(made) - score(neutral)
    return right, mask[..., 0] > 0.5, lost / gained


def test_oracle_7_4_a_planted_patch_is_in_the_prototype():
    patch = np.zeros((8, 8), bool)
    patch[:3, :3] = True
    found = []
    for cue in (True, False):
        right, kept, share = shown(*dataset(cue))
        assert float(right) > 0.95
        overlap = np.sum(patch & np.asarray(kept)) / np.sum(patch | np.asarray(kept))
        found.append((overlap, float(share)))
    (with_cue, most), (without, little) = found
    assert with_cue > 0.5 > without + 0.1
    assert most > 0.3 > little
