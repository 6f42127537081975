import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from protojax.mechanisms import ascent


def climb(objective, x, **kwargs):
    kwargs = {"optimizer": optax.sgd(0.1), "steps": 5} | kwargs
    return ascent.ascend(objective, x, **kwargs)


def test_the_loop_is_plain_gradient_ascent():
    out = climb(lambda x: -jnp.sum((x - 1) ** 2), jnp.zeros(3), steps=7)
    np.testing.assert_allclose(out.x, 1 - 0.8**7 * np.ones(3), rtol=1e-6)
    np.testing.assert_allclose(out.trace, -3 * 0.64 ** np.arange(7), rtol=1e-5)
    assert int(out.step) == 7
    assert not bool(out.stalled)


def test_the_best_iterate_is_kept_and_not_the_last():
    out = climb(lambda x: x, jnp.array(0.0), select=lambda x: -((x - 0.2) ** 2))
    np.testing.assert_allclose(out.x, 0.2, rtol=1e-6)
    assert int(out.step) == 2


def test_the_start_counts_and_the_earliest_of_equals_wins():
    start = climb(lambda x: x, jnp.array(1.0), select=lambda x: -x)
    assert (float(start.x), int(start.step)) == (1.0, 0)
    equal = climb(lambda x: x, jnp.array(0.05), select=lambda x: jnp.sign(x - 0.1))
    assert int(equal.step) == 1


def test_the_objective_is_the_default_select():
    out = climb(lambda x: -((x - 0.25) ** 2), jnp.array(0.0), optimizer=optax.sgd(0.9))
    values = np.append(out.trace, -((np.asarray(out.x) - 0.25) ** 2))
    assert float(out.value) == pytest.approx(values.max(), abs=1e-7)


def test_a_select_of_another_type_is_compared_as_a_number():
    out = climb(lambda x: x, jnp.array(0.0), select=lambda x: x > 0.15)
    assert (float(out.value), int(out.step)) == (1.0, 2)


def test_nan_never_wins():
    def select(x):
        return jnp.where(x > 0.25, jnp.nan, x)

    out = climb(lambda x: x, jnp.array(0.0), select=select)
    assert int(out.step) == 2
    late = climb(lambda x: x, jnp.array(0.0), select=lambda x: jnp.log(x - 0.15))
    assert int(late.step) == 5
    never = climb(lambda x: x, jnp.array(0.0), select=lambda x: x * jnp.nan)
    assert bool(jnp.isnan(never.value))


def test_any_tree_is_climbed_with_any_optimizer():
    start = {"a": jnp.zeros(2), "b": (jnp.array(3.0),)}
    out = climb(
        lambda t: -jnp.sum((t["a"] - 1) ** 2) - t["b"][0] ** 2,
        start,
        optimizer=optax.adam(0.3),
        steps=60,
    )
    np.testing.assert_allclose(out.x["a"], [1, 1], atol=0.05)
    np.testing.assert_allclose(out.x["b"][0], 0, atol=0.1)


def test_a_random_transform_averages_and_is_reproducible():
    def shift(x, *, key):
        return x + jax.random.normal(key)

    def run(seed):
        return climb(
            lambda x: -(x**2),
            jnp.array(1.0),
            steps=300,
            optimizer=optax.sgd(0.01),
            transform=shift,
            key=jax.random.key(seed),
            select=lambda x: -(x**2),
        )

    first, again, other = run(0), run(0), run(1)
    assert float(first.x) == float(again.x)
    assert float(first.trace[0]) != float(other.trace[0])
    assert abs(float(first.x)) < 0.1


def test_zero_gradient_is_stalled_and_raises_eagerly_by_name():
    out = climb(lambda x: jnp.sum(jnp.floor(x)), jnp.full(3, 0.5))
    assert bool(out.stalled)
    with pytest.raises(ascent.Stalled, match="not robustness.*smooth twin"):
        ascent.raise_if_stalled(out)
    nan = climb(lambda x: jnp.sum(x) * jnp.nan, jnp.zeros(3))
    assert bool(nan.stalled)


def test_one_gradient_that_is_not_zero_is_enough():
    assert not bool(climb(lambda x: x[1], jnp.zeros(3)).stalled)


def test_an_objective_that_becomes_nan_raises_eagerly():
    out = climb(lambda x: jnp.sqrt(0.15 - x), jnp.array(0.1), optimizer=optax.sgd(-0.1))
    with pytest.raises(FloatingPointError, match="NaN before step 2"):
        ascent.raise_if_stalled(out)


def test_traced_results_carry_the_flag_instead():
    def one(x):
        return ascent.raise_if_stalled(climb(lambda z: z**2, x)).stalled

    starts = jnp.array([0.0, 1.0])
    batch = jax.vmap(lambda x: climb(lambda z: z**2, x))(starts)
    with pytest.raises(ascent.Stalled, match=r"climbs \[0\] of 2: "):
        ascent.raise_if_stalled(batch)
    flags = jax.jit(jax.vmap(one))(starts)
    assert flags.tolist() == [True, False]


def test_jit_and_vmap_equal_the_eager_loop():
    def one(x, size):
        return climb(lambda z: jnp.sum(jnp.sin(3 * z)), x, optimizer=optax.sgd(size))

    x = jax.random.uniform(jax.random.key(0), (3, 4))
    sizes = jnp.array([0.05, 0.1, 0.2])
    together = jax.jit(jax.vmap(one))(x, sizes)
    for i in range(3):
        alone = one(x[i], sizes[i])
        np.testing.assert_allclose(together.x[i], alone.x, rtol=1e-6)
        np.testing.assert_allclose(together.trace[i], alone.trace, rtol=1e-6)


def test_bad_counts_and_a_missing_key_are_named():
    with pytest.raises(ValueError, match="`steps` is 0"):
        climb(lambda x: x, jnp.array(0.0), steps=0)
    with pytest.raises(ValueError, match="`steps` is 2.5: pass a whole number"):
        climb(lambda x: x, jnp.array(0.0), steps=2.5)
    with pytest.raises(ValueError, match="`transform` is random: pass `key`"):
        climb(lambda x: x, jnp.array(0.0), transform=lambda x, *, key: x)  # noqa: ARG005
    with pytest.raises(AssertionError, match="rank"):
        climb(jnp.sum, jnp.zeros(3), select=lambda x: x)


def image(seed=0, shape=(6, 5, 3)):
    return jax.random.uniform(jax.random.key(seed), shape)


@functools.partial(jax.jit, static_argnames="norm")
def projected(z, x, radius, norm, mask=1.0):
    return ascent.within(x, radius, norm=norm, mask=mask)(z)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("radius", [0.0, 0.004, 0.3, 100.0])
def test_the_projection_lands_in_ball_bounds_and_mask(norm, radius):
    x, z = image(), 4 * image(1) - 2
    mask = (image(2, (6, 5, 1)) > 0.4).astype(jnp.float32)
    y = np.asarray(projected(z, x, radius, norm, mask), np.float64)
    eager = ascent.within(x, radius, norm=norm, mask=mask)(z)
    np.testing.assert_allclose(y, eager, atol=1e-6)
    offset = y - np.asarray(x, np.float64)
    length = np.abs(offset).max() if norm == "linf" else np.linalg.norm(offset)
    assert length <= radius * (1 + 1e-6)
    assert y.min() >= 0
    assert y.max() <= 1
    assert not offset[np.broadcast_to(mask, y.shape) == 0].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_inside_stay_where_they_are(norm):
    x = image()
    inside = jnp.clip(x + 1e-3 * (2 * image(1) - 1), 0, 1)
    y = projected(inside, x, 0.5, norm)
    np.testing.assert_allclose(y, inside, atol=0 if norm == "linf" else 1e-7)


@pytest.mark.parametrize("radius", [0.1, 0.6, 1.3])
def test_the_l2_projection_is_the_nearest_point_of_ball_and_box(radius):
    x, z = image(3, (8,)), 4 * image(4, (8,)) - 1.5
    ours = np.asarray(projected(z, x, radius, "l2"), np.float64)
    peer = scipy.optimize.minimize(
        lambda y: np.sum((y - z) ** 2),
        np.asarray(x, np.float64),
        jac=lambda y: 2 * (y - np.asarray(z)),
        bounds=[(0, 1)] * 8,
        constraints={
            "type": "ineq",
            "fun": lambda y: radius**2 - np.sum((y - np.asarray(x)) ** 2),
        },
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(ours, peer.x, atol=1e-4)


def test_the_linf_budget_holds_in_floating_point():
    x = jax.random.uniform(jax.random.key(5), (10_000,))
    for radius in (1 / 255, 8 / 255):
        up = projected(x + 1, x, radius, "linf")
        down = ascent.within(x, radius)(x - 1)
        worst = max(float(jnp.max(up - x)), float(jnp.max(x - down)))
        assert worst <= float(jnp.float32(radius))


@pytest.mark.parametrize("radius", [0.001, 0.01, 0.5])
def test_the_l2_budget_holds_in_floating_point(radius):
    # in a small ball the rounding of pixels near one is large beside the steps
    x = jax.random.uniform(jax.random.key(6), (64,), minval=0.5)
    ends = x[None] + jax.random.normal(jax.random.key(7), (200, 64))
    project = lambda z: ascent.within(x, radius, norm="l2")(z)
    inside = np.asarray(jax.jit(jax.vmap(project))(ends), np.float64)
    lengths = np.linalg.norm(inside - np.asarray(x, np.float64), axis=1)
    assert lengths.max() <= float(jnp.float32(radius))
    # rounded inward: a float below one is 2**-24 from the next
    assert lengths.min() >= radius * (1 - 1e-6) - 64**0.5 * 2**-24


def test_the_l2_projection_knows_the_longest_steps_and_has_a_slope_at_its_center():
    x = image()
    ends = jnp.stack([x + 1e3, x + 1e20, x + 1e30])  # squares are beyond all floats
    project = lambda z: ascent.within(x, 0.1, norm="l2")(z)
    near, *far = jax.jit(jax.vmap(project))(ends)
    for there in far:
        np.testing.assert_allclose(there, near, atol=1e-6)
    slope = jax.jit(jax.grad(lambda z: jnp.sum(project(z))))(x)
    np.testing.assert_array_equal(slope, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_ball_holds_for_a_traced_image_out_of_bounds(norm):
    x = jnp.array([-3.0, 0.5, 0.9, 200.0])
    project = jax.jit(lambda x, z: ascent.within(x, 0.25, norm=norm)(z))
    there = project(x, jnp.array([-9.0, 0.5, 3.0, 209.0]))
    np.testing.assert_allclose(there, [-3.0, 0.5, 1.0, 200.0])
    back = project(x, jnp.array([0.0, 0.5, 0.9, 1.0]))
    length = jnp.linalg.norm(back - x, ord=jnp.inf if norm == "linf" else 2)
    np.testing.assert_allclose(
        length, 0.25, rtol=1e-4
    )  # floats at 200 are 1.5e-5 apart


def test_a_traced_radius_is_one_program():
    x = image()
    out = jax.vmap(lambda r: ascent.within(x, r)(x + 1))(jnp.array([0.0, 0.1, 0.2]))
    assert out.shape == (3, 6, 5, 3)
    np.testing.assert_array_equal(out[0], x)


def test_bad_balls_are_named():
    x = image()
    with pytest.raises(ValueError, match="`radius` is -0.1"):
        ascent.within(x, -0.1)
    with pytest.raises(ValueError, match="`radius` is '4/255': pass a number"):
        ascent.within(x, "4/255")
    with pytest.raises(ValueError, match="`radius` is nan"):
        ascent.within(x, float("nan"))
    with pytest.raises(ValueError, match=r"`radius` has shape \(3,\): .*jax.vmap"):
        ascent.within(x, jnp.full(3, 0.1))  # one for each channel, it would be
    with pytest.raises(ValueError, match="`x` has NaN pixels"):
        ascent.within(x.at[0, 0, 0].set(jnp.nan), 0.1)
    with pytest.raises(ValueError, match="from 0 to 255, outside of .*divide by 255"):
        ascent.within(jnp.array([0.0, 255.0]), 0.1)
    with pytest.raises(ValueError, match="`x` is int32: pass floating-point pixels"):
        ascent.within(jnp.array([0, 1]), 0.1)  # whose radius would be none
    with pytest.raises(ValueError, match="`norm` is 'l1'"):
        ascent.within(x, 0.1, norm="l1")


def test_bad_masks_are_named():
    x = image()
    for shape in ((5, 5), (6,), (2, 6, 5, 3)):
        with pytest.raises(ValueError, match=rf"`mask` has shape \({shape[0]}.*H, W"):
            ascent.within(x, 0.1, mask=jnp.ones(shape))
    for value in (0.01, jnp.full((6, 5), 2), jnp.full((6, 5), jnp.nan)):
        with pytest.raises(ValueError, match="`mask` has values other than 0 and 1"):
            ascent.within(x, 0.1, mask=value)
